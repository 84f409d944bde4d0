"""Endings cut off, so that forms of a word compare as one."""

from __future__ import annotations

from typing import Final

# What has none is an abbreviation, whose letters all count: *https*.
_VOWELS: Final = frozenset("aeiouy")


def stem(word: str) -> str:
    """A word without the commonest of English endings; three letters stay."""
    if len(word) < 4 or word[-1] not in "sdgy":
        return word
    for ending in ("ies", "ing", "ied"):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word[: -len(ending)]
    for ending in ("es", "ed", "ly"):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word[: -len(ending)]
    if word[-1] == "s" and word[-2] != "s" and not _VOWELS.isdisjoint(word[:-1]):
        return word[:-1]
    if word[-1] == "y" and len(word) > 4:
        return word[:-1]
    return word
