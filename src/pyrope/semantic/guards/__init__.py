"""Guards: what refuses a near hit because the two prompts plainly do not mean the same.

A guard looks at what is written, not at vectors. It can only refuse: that none does says nothing
for the two being the same. Each takes a few microseconds, the facts of both texts given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pyrope.semantic.guards import (
    dates,
    direction,
    identifiers,
    names,
    negation,
    numbers,
    opposites,
    question,
    quotes,
    units,
    unread,
)
from pyrope.semantic.guards.comparison import Comparison
from pyrope.semantic.prompt_facts import PromptFacts

GUARDS: Final[dict[str, Callable[[Comparison], bool]]] = {
    guard.NAME: guard.differ
    for guard in (
        numbers,
        negation,
        opposites,
        units,
        dates,
        identifiers,
        quotes,
        names,
        question,
        direction,
        unread,
    )
}
"""By name, in the order in which they are asked. It is true where it refuses."""

NONE_OFF: Final[frozenset[str]] = frozenset()


def check(a: PromptFacts, b: PromptFacts, off: frozenset[str] = NONE_OFF) -> str | None:
    """The name of the first guard that refuses to answer one with what answered the other.

    Args:
        off: names of guards that are switched off.
    """
    pair = Comparison(a, b)
    for name, differ in GUARDS.items():
        if name not in off and differ(pair):
            return name
    return None
