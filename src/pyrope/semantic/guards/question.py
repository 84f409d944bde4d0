"""Question type: *when* is not *where*, *who* not *why*, *how many* not *how long*.

What stands for a way of asking (*what*, *which*, a bare *how*) is left alone: *how do I* and
*what is the best way to* ask for the same.
"""

from __future__ import annotations

from typing import Final

from pyrope.semantic.guards.comparison import Comparison

NAME: Final = "question"

_OPEN: Final = frozenset(("", "how"))


def differ(pair: Comparison) -> bool:
    kinds = {pair.a.question, pair.b.question}
    return len(kinds) == 2 and kinds.isdisjoint(_OPEN) and pair.close(2)
