"""Direction: *from euros to dollars* is not *from dollars to euros*.

Two tests:

- Something that stands before a word of direction (*to*, *than*, *by*, ...) in one text stands
  after it in the other, and the other way round.
- The words of content are the same, but two of them, or two groups of up to three, have changed
  places with something between them that stays.

Where two things are on a par (*A and B*, *A vs. B*), their order does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pyrope.semantic.guards.comparison import Comparison
from pyrope.semantic.prompt_facts import PromptFacts
from pyrope.semantic.vocabulary.stems import stem
from pyrope.semantic.vocabulary.words import FUNCTION_WORDS

NAME: Final = "direction"

# By the word: what kind of direction it tells. What it tells backwards is apart.
_ONWARD: Final = {
    **dict.fromkeys(("to", "into", "onto", "towards"), "route"),
    **{word: word for word in ("than", "over", "by", "before", "after", "against", "nach")},
}
_BACKWARD: Final = {"from": "route"}
_PIVOTS: Final = _ONWARD | _BACKWARD
_REPLACING: Final = frozenset(("replac", "replace", "substitut", "substitute"))
_ON_A_PAR: Final = frozenset(
    {"and", "or", "vs", "versus", "between", "with", "both", "together", "related", "similar"}
    | {"und", "oder", "et", "ou", "y", "o", "e"}
)
_WINDOW: Final = 4
_GROUP: Final = 3

_Side = tuple[set[str], set[str]]
Sides = dict[str, _Side]


def differ(pair: Comparison) -> bool:
    a, b = pair.a, pair.b
    if not pair.close(2):
        return False
    shared = a.content_set & b.content_set
    if len(shared) < 2:
        return False
    sides_a, sides_b = _sides(a), _sides(b)
    if _turned(sides_a, sides_b, shared):
        return True
    return _exchanged(a, b) and not _settled(sides_a.get("route"), sides_b.get("route"))


def _settled(a: _Side | None, b: _Side | None) -> bool:
    """Whether both say from where and to where, and the same: *to Rome from Oslo*."""
    if a is None or b is None:
        return False
    (before_a, after_a), (before_b, after_b) = a, b
    return not before_a.isdisjoint(before_b - after_b) and not after_a.isdisjoint(
        after_b - before_b
    )


def _turned(sides_a: Sides, sides_b: Sides, shared: frozenset[str]) -> bool:
    for pivot, (before_a, after_a) in sides_a.items():
        if pivot not in sides_b:
            continue
        before_b, after_b = sides_b[pivot]
        onward = (before_a - after_a) & (after_b - before_b) & shared
        back = (after_a - before_a) & (before_b - after_b) & shared
        if onward and back:
            return True
    return False


def _sides(facts: PromptFacts) -> Sides:
    """By pivot: the words of content before it, and those after it."""
    words = facts.words
    found: Sides = {}
    replacing = not _REPLACING.isdisjoint(facts.stem_set)
    for place, word in enumerate(words):
        pivot = _PIVOTS.get(word)
        if pivot is None:
            if not replacing or word != "with":
                continue
            pivot = "with"
        before, after = found.setdefault(pivot, (set(), set()))
        if word in _BACKWARD:
            before, after = after, before
        before.update(_content(reversed(words[:place])))
        after.update(_content(words[place + 1 :]))
    return found


def _content(words: Iterable[str]) -> list[str]:
    """Stems of the first words of content, up to the next pivot."""
    found: list[str] = []
    for word in words:
        if word in _PIVOTS:
            break
        if word not in FUNCTION_WORDS:
            found.append(stem(word))
            if len(found) == _WINDOW:
                break
    return found


def _exchanged(a: PromptFacts, b: PromptFacts) -> bool:
    """Whether the content of `b` is that of `a` with two groups in each other's place."""
    one, other = a.content, b.content
    if len(one) != len(other) or one == other or a.content_set != b.content_set:
        return False
    if not _ON_A_PAR.isdisjoint(a.words) or not _ON_A_PAR.isdisjoint(b.words):
        return False
    first, last = 0, len(one)
    while one[first] == other[first]:
        first += 1
    while one[last - 1] == other[last - 1]:
        last -= 1
    one, other = one[first:last], other[first:last]
    for left in range(1, _GROUP + 1):
        if one[:left] != other[len(other) - left :]:
            continue
        for right in range(1, _GROUP + 1):
            middle = len(one) - left - right
            if middle < 0 or (middle == 0 and not _apart(a, one)):
                break
            if (
                one[len(one) - right :] == other[:right]
                and one[left : left + middle] == other[right : right + middle]
            ):
                return True
    return False


def _apart(a: PromptFacts, group: tuple[str, ...]) -> bool:
    """Whether a group of content is names, with words between them: *de Lima a Quito*."""
    names = {stem(name) for name in a.names}
    return names.issuperset(group) and all(
        not names.issuperset(pair) for pair in zip(a.stems, a.stems[1:], strict=False)
    )
