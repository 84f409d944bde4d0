"""The filter language: Redis 8's `FILTER` expressions over attribute columns (docs/filters.md)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from pyrope.engine.columns import AttributeColumns
from pyrope.engine.filter.ast import Program, Selector
from pyrope.engine.filter.cache import MaskCache
from pyrope.engine.filter.evaluate import evaluate
from pyrope.engine.filter.parser import parse
from pyrope.errors import CommandError
from pyrope.types import Mask

__all__ = ["Filter", "MaskCache", "compile_filter"]

MAX_BYTES: Final = 8 * 1024
MAX_TERMS: Final = 512
"""Operands and operators. An operator over 100,000 slots takes 0.01 ms (a comparison) to 4 ms (a
field in lists of three)."""
MAX_NESTING: Final = 64
"""Levels of nesting, and so arrays of 8 bytes a slot that an evaluation holds at once, less one."""
_COMPILED: Final = 512
"""Filters kept compiled; with texts of `MAX_BYTES` a few tens of megabytes at the very worst."""


class Filter:
    """A compiled expression. Immutable; equal to another one with the same text."""

    __slots__ = ("_fields", "_program", "_text")

    def __init__(self, text: str, program: Program) -> None:
        self._text = text
        self._program = program
        self._fields = frozenset(part.name for part in program if isinstance(part, Selector))

    @property
    def text(self) -> str:
        """The expression as the client wrote it."""
        return self._text

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields that the expression selects."""
        return self._fields

    def mask(self, columns: AttributeColumns, slots: int) -> Mask:
        """Which of the slots 0 to `slots` - 1 match: a new array of bool, shape (slots,).

        Any number of threads may do this at once, while nothing changes the columns.
        """
        return evaluate(self._program, columns, slots)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"Filter({self._text!r})"


def compile_filter(
    text: str | bytes,
    max_bytes: int = MAX_BYTES,
    max_terms: int = MAX_TERMS,
    max_nesting: int = MAX_NESTING,
) -> Filter:
    """Parse a filter expression; the last few hundred are remembered.

    Args:
        max_bytes: length of the expression in UTF-8.
        max_terms: operands and operators together; a tuple is one operand.
        max_nesting: open parentheses and operators that wait for their right-hand side.

    Raises:
        CommandError: a syntax error, text that is not valid UTF-8, or a limit.
    """
    try:
        raw = text.encode("utf-8") if isinstance(text, str) else text
        if len(raw) > max_bytes:
            raise CommandError(f"FILTER expression has {len(raw)} bytes, the limit is {max_bytes}")
        expression = raw.decode("utf-8")
    except UnicodeError:
        raise CommandError("FILTER expression is not valid UTF-8") from None
    return _compiled(expression, max_terms, max_nesting)


@lru_cache(_COMPILED)
def _compiled(text: str, max_terms: int, max_nesting: int) -> Filter:
    return Filter(text, parse(text, max_terms, max_nesting))
