"""Identifiers: versions, paths, file names, addresses, error codes, and operators (``C#``, ``==``).

Refused where each has one that the other has not; and where one has them and the other has none, if
there is no other difference of content.
"""

from __future__ import annotations

from typing import Final

from pyrope.semantic.guards.comparison import Comparison

NAME: Final = "identifiers"


def differ(pair: Comparison) -> bool:
    a, b = pair.a, pair.b
    return _differ(pair, a.identifiers, b.identifiers) or _differ(pair, a.symbols, b.symbols)


def _differ(pair: Comparison, of_a: frozenset[str], of_b: frozenset[str]) -> bool:
    if of_a == of_b:
        return False
    missing_b = of_a.difference(of_b, pair.b.words)
    missing_a = of_b.difference(of_a, pair.a.words)
    if missing_a and missing_b:
        return True
    if of_a and of_b:
        return False
    return bool(missing_a or missing_b) and pair.only_a <= of_a and pair.only_b <= of_b
