"""Negation: *with sugar* is not *without sugar*, nor *can I* the same as *can't I*.

Whether the two have an even number of negations between them; which ones they are does not matter.
Words that are another with a prefix (*safe*, *unsafe*) or a suffix (*careful*, *careless*) are here
too: each must be missing in the
other text.
"""

from __future__ import annotations

from typing import Final

from pyrope.semantic.guards.comparison import Comparison
from pyrope.semantic.prompt_facts import PromptFacts
from pyrope.semantic.vocabulary.words import NEGATING_PREFIXES

NAME: Final = "negation"

# In texts that share most of their words, so many of content may differ besides.
_REWORDED: Final = 2


def differ(pair: Comparison) -> bool:
    a, b = pair.a, pair.b
    if pair.rest > (_REWORDED if pair.alike else 1):
        return False
    if (a.negations ^ b.negations) & 1:
        return True
    return _prefixed(a, b) or _prefixed(b, a)


def _prefixed(a: PromptFacts, b: PromptFacts) -> bool:
    """Whether `b` has a word with a negating prefix or suffix whose other form only `a` has."""
    only_b = b.stem_set - a.stem_set
    if not only_b:
        return False
    for word in a.stem_set - b.stem_set:
        if len(word) > 2:
            for prefix in NEGATING_PREFIXES:
                if prefix + word in only_b:
                    return True
            if word.endswith("ful") and word[:-3] + "less" in only_b:
                return True
    return False
