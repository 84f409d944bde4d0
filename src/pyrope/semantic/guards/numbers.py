"""Numbers: *top 5* is not *top 10*; a year, a dose, a version, an ordinal.

Refused where each has a number that the other has not, or one has all of the other's and more. A
number where the other text has none at all is refused only if there is no other difference of
content, and never if it is a year: people leave out the one they live in.
"""

from __future__ import annotations

import re
from typing import Final

from pyrope.semantic.guards.comparison import Comparison
from pyrope.semantic.prompt_facts import PromptFacts

NAME: Final = "numbers"

_YEAR: Final = re.compile(r"(?:19|20)\d\d")


def differ(pair: Comparison) -> bool:
    a, b = pair.a, pair.b
    if a.numbers == b.numbers or not pair.close(2):
        return False
    numbers_a, numbers_b = _numbers(a), _numbers(b)
    if numbers_a and numbers_b:
        if not a.dates.isdisjoint(b.dates):
            # *June 3rd* is *3 June*.
            return set(map(_cardinal, numbers_a)) != set(map(_cardinal, numbers_b))
        return set(numbers_a) != set(numbers_b)
    more, less = (pair.only_a, pair.only_b) if a.numbers else (pair.only_b, pair.only_a)
    return not less and all(word[0].isdigit() and not _YEAR.fullmatch(word) for word in more)


def _cardinal(number: str) -> str:
    return number.removesuffix("th")


def _numbers(facts: PromptFacts) -> tuple[str, ...]:
    """Where there is no other number, *one* is taken for one."""
    return facts.numbers or (("1",) if "one" in facts.words else ())
