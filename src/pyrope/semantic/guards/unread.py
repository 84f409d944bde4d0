"""Long prompts: what lies beyond the part that guards read must be the same."""

from __future__ import annotations

from typing import Final

from pyrope.semantic.guards.comparison import Comparison

NAME: Final = "unread"


def differ(pair: Comparison) -> bool:
    a, b = pair.a, pair.b
    return a.unread != b.unread
