"""Opposites: *enable* and *disable*, *before* and *after*, *cheapest* and *most expensive*.

Each of two opposites must be missing in the other text: who asks about pros and cons is not refused
by one who asks about cons and pros.
"""

from __future__ import annotations

from typing import Final

from pyrope.semantic.guards.comparison import Comparison
from pyrope.semantic.vocabulary.opposites import OPPOSITES

NAME: Final = "opposites"


def differ(pair: Comparison) -> bool:
    a, b = pair.a, pair.b
    if not pair.close(2):
        return False
    words_a, words_b = set(a.words), set(b.words)
    only_b = words_b - words_a
    if not only_b:
        return False
    for word in words_a - words_b:
        others = OPPOSITES.get(word)
        if others is not None and not others.isdisjoint(only_b):
            return True
    return False
