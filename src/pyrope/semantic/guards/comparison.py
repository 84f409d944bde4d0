"""Two prompts side by side: what of their content only one of them has.

Guards that look for a single telling difference (a number, a name, a negation) refuse only where
the two are otherwise worded alike. Questions in quite different words may well tell their numbers
and negations differently too and mean the same, and it is not for a guard to say; a model that has
been taught by such pairs judges those.
"""

from __future__ import annotations

from typing import Final

from pyrope.semantic.prompt_facts import PromptFacts
from pyrope.semantic.vocabulary.words import NEGATION_STEMS

_ALIKE: Final = 0.5


class Comparison:
    """Of `a` and `b`.

    Attributes:
        only_a, only_b: stems of content that the other has not.
        rest: the larger number of those, without words of negation.
        alike: whether at least half of all stems of the two are in both.
    """

    __slots__ = ("a", "alike", "b", "only_a", "only_b", "rest")

    def __init__(self, a: PromptFacts, b: PromptFacts) -> None:
        self.a = a
        self.b = b
        self.only_a = a.content_set - b.content_set
        self.only_b = b.content_set - a.content_set
        self.rest = max(len(self.only_a - NEGATION_STEMS), len(self.only_b - NEGATION_STEMS))
        both = len(a.stem_set & b.stem_set)
        self.alike = both >= _ALIKE * (len(a.stem_set) + len(b.stem_set) - both)

    def close(self, most: int) -> bool:
        """Whether they share half of their words, or neither has more than `most` of its own."""
        return self.alike or self.rest <= most
