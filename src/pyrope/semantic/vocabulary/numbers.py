"""Numbers and ordinals as English words."""

from __future__ import annotations

from typing import Final

_ONES: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_TENS: Final = "twenty thirty forty fifty sixty seventy eighty ninety"
_PLACES: Final = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"

NUMBERS: Final[dict[str, str]] = {
    **{word: f"{value}th" for value, word in enumerate(_PLACES.split(), 1)},
    **{word: str(value) for value, word in enumerate(_ONES.split()) if word != "one"},
    **{word: str(10 * value) for value, word in enumerate(_TENS.split(), 2)},
    "hundred": "100",
    "thousand": "1000",
    "million": "1000000",
    "billion": "1000000000",
    "twice": "2",
    "thrice": "3",
    "double": "2",
    "triple": "3",
    "half": "0.5",
    "quarter": "0.25",
    "dozen": "12",
}
"""Numbers and ordinals as words; *one* is more often a pronoun."""

ROMAN: Final = {
    numeral: str(value)
    for value, numeral in enumerate(
        ("ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii", "xiv", "xv"),
        2,
    )
    if len(numeral) > 1
}
"""Roman numerals of two letters and more, in lower case."""
