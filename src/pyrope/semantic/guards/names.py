"""Named entities, told by their capitals: *flights to Lima* is not *flights to Oslo*.

Refused where each has a name that the other text does not have, in whatever case. Names that begin
alike (*India*, *Indian*) and initials (*United States*, *US*) are taken for the same. A word that
begins a sentence is not known to be a name, and counts only against one that is.
"""

from __future__ import annotations

from typing import Final

from pyrope.semantic.guards.comparison import Comparison
from pyrope.semantic.prompt_facts import PromptFacts
from pyrope.semantic.vocabulary.stems import stem

NAME: Final = "names"

_AMERICA: Final = frozenset(("us", "usa", "america", "american", "americans"))
_AMERICA_SPELT: Final = frozenset(("united", "states"))
# Of a name of two words, both differ.
_OTHERS: Final = 2


def differ(pair: Comparison) -> bool:
    a, b = pair.a, pair.b
    if (not a.names and not b.names) or pair.rest > _OTHERS:
        return False
    names_a, names_b = _only(a.names, a, b), _only(b.names, b, a)
    if not names_a and not names_b:
        return False
    names_a = names_a or _only(a.openers, a, b)
    names_b = names_b or _only(b.openers, b, a)
    if not names_a or not names_b:
        return False
    # Where more than a word besides the names is another, the sentence is.
    others = len(pair.only_a.difference(map(stem, names_a)))
    others += len(pair.only_b.difference(map(stem, names_b)))
    return others <= 1


def _only(names: frozenset[str], a: PromptFacts, b: PromptFacts) -> list[str]:
    """Names of `a` that `b` has in no form."""
    missing = names.difference(b.words)
    if not missing:
        return []
    if not _AMERICA.isdisjoint(b.words):
        missing -= _AMERICA
        if missing >= _AMERICA_SPELT:
            missing -= _AMERICA_SPELT
    elif _AMERICA_SPELT.issubset(b.words):
        missing -= _AMERICA
    if not a.acronyms.isdisjoint(b.words) or not b.acronyms.isdisjoint(a.words):
        return []
    # By stems first: of a long text, hardly any name is left to be compared with every word.
    return [
        name
        for name in missing
        if stem(name) not in b.stem_set and not any(_alike(name, word) for word in b.words)
    ]


def _alike(one: str, other: str) -> bool:
    """Whether all but the last two letters of the longer are the same."""
    shared = max(len(one), len(other), 5) - 2
    return one[:shared] == other[:shared]
