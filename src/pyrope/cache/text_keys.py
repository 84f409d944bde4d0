"""When two texts are the same query: how texts are normalised before they are compared."""

from __future__ import annotations

from unicodedata import combining, normalize

# A run of so many marks is longer than any language needs (Unicode Standard Annex 15, section 13).
_MARKS_MAX = 30
_GRAPHEME_JOINER = "\u034f"
# Below this a run of marks costs nothing: putting it in order takes time by the square of its
# length, 0.01 ms for as many and 3 ms for 2,000 (CPython 3.11).
_SHORT = 256
# Longer texts are compared as they are: a character may become 18 in form KC, which takes 30 ms for
# 64 KiB of such. No two wordings of so long a text differ in form and case alone.
_LONG = 2048


def normalised(text: str) -> str:
    """The form of a text in which it is compared.

    Unicode normalisation form KC, case folding (which may undo the form, so that it is applied once
    more), white space collapsed and stripped. What is canonically equivalent has one form (Unicode
    Standard, section 3.13: caseless matching). A text may grow: by 11 times its bytes at the most.
    Of texts of more than 2,048 characters that are not ASCII, only white space is collapsed.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    if len(text) > _LONG and len(text := " ".join(text.split())) > _LONG:
        return text
    if len(text) > _SHORT:
        text = _stream_safe(text)
    folded = normalize("NFKC", text).casefold()
    return " ".join(normalize("NFKC", folded).split())


def _stream_safe(text: str) -> str:
    """The text with its runs of marks broken up (Unicode Standard Annex 15, UAX15-D4)."""
    parts: list[str] = []
    run = 0
    for character in text:
        run = run + 1 if combining(character) else 0
        if run > _MARKS_MAX:
            parts.append(_GRAPHEME_JOINER)
            run = 1
        parts.append(character)
    return "".join(parts)
