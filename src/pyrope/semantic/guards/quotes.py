"""Quoted strings: what somebody put in quotation marks is meant to the letter.

Refused where each has a quoted string that the other text does not have, quoted or not.
"""

from __future__ import annotations

from typing import Final

from pyrope.semantic.guards.comparison import Comparison
from pyrope.semantic.prompt_facts import PromptFacts

NAME: Final = "quotes"


def differ(pair: Comparison) -> bool:
    a, b = pair.a, pair.b
    if a.quotes == b.quotes or not a.quotes or not b.quotes:
        return False
    return _missing(a, b) and _missing(b, a)


def _missing(a: PromptFacts, b: PromptFacts) -> bool:
    """Whether `a` quotes what `b` nowhere has."""
    text = " ".join(b.words)
    return any(quote not in text for quote in a.quotes - b.quotes)
