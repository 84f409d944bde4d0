"""Glob patterns as Redis has them: stars, question marks, classes, and a backslash before each."""

from __future__ import annotations

import re

from pyrope.errors import CommandError

# Longer than any name that it could match.
_PATTERN_BYTES_MAX = 128


def matches(pattern: bytes, name: str) -> bool:
    """Whether `name` matches all of `pattern`. Raises CommandError for one that is too long."""
    if len(pattern) > _PATTERN_BYTES_MAX:
        raise CommandError(f"a pattern has at most {_PATTERN_BYTES_MAX} bytes")
    # A run of stars is one star, so that there is nothing to backtrack over in vain.
    text = re.sub(r"\*+", "*", pattern.decode(errors="replace"))
    return _matches(text, name)


def _matches(pattern: str, name: str) -> bool:
    """Greedy with one point to come back to, the last star: linear in pattern times name."""
    at = position = 0
    star = resume = -1
    while position < len(name):
        width, fits = _one(pattern, at, name[position])
        if width and pattern[at] == "*":
            star, resume = at, position
            at += 1
        elif fits:
            at += width
            position += 1
        elif star >= 0:
            resume += 1
            at, position = star + 1, resume
        else:
            return False
    return not pattern[at:].strip("*")


def _one(pattern: str, at: int, letter: str) -> tuple[int, bool]:
    """Length of the element of the pattern at `at` (0 at its end), and whether it fits a letter."""
    if at >= len(pattern):
        return 0, False
    first = pattern[at]
    if first in "*?":
        return 1, True
    if first == "\\" and at + 1 < len(pattern):
        return 2, pattern[at + 1] == letter
    if first == "[":
        end = pattern.find("]", at + 2)
        inside = pattern[at + 1 : end if end > 0 else len(pattern)]
        negated = inside.startswith("^")
        width = (end if end > 0 else len(pattern) - 1) - at + 1
        return width, _in_class(inside[negated:], letter) is not negated
    return 1, first == letter


def _in_class(inside: str, letter: str) -> bool:
    at = 0
    while at < len(inside):
        if inside[at + 1 : at + 2] == "-" and at + 2 < len(inside):
            low, high = sorted((inside[at], inside[at + 2]))
            if low <= letter <= high:
                return True
            at += 3
        else:
            if inside[at] == letter:
                return True
            at += 1
    return False
