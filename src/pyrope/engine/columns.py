"""The attributes of an index's vectors, turned into one column per field for filters to scan."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pyrope.engine.attributes import JsonValue
from pyrope.engine.field_column import Cell, FieldColumn, FieldView
from pyrope.engine.interner import Interner, StringTable
from pyrope.types import Mask

_SELECTABLE: Final = re.compile(r"[A-Za-z0-9_-]+")
_NO_SHAPE: Final = -1


class AttributeColumns:
    """Columns over slots (dense ints from 0, reused).

    Only what a filter can name is kept: fields at the top level whose names are made of letters,
    digits, ``_`` and ``-``, with a number, boolean, string, null, or list of these. An object, or
    a list that holds one at any depth, is as if the field were missing (Redis does the same).

    Which fields a slot has is remembered as its *shape*, the tuple of names, of which vectors
    written by one program share a few.

    Any number of threads may read at the same time; a change needs the columns to itself, and the
    views that were handed out before it must be done with.
    """

    def __init__(self) -> None:
        self._columns: dict[str, FieldColumn] = {}
        self._column_bytes = 0
        self._strings = StringTable()
        self._shapes: Interner[tuple[str, ...]] = Interner()
        self._shape_of: NDArray[np.int32] = np.full(0, _NO_SHAPE, np.int32)
        self._version = 0

    @property
    def version(self) -> int:
        """A number that grows with each change: masks made at one version hold while it stays."""
        return self._version

    @property
    def nbytes(self) -> int:
        """Estimate of the memory held, in bytes."""
        return (
            self._column_bytes + self._strings.nbytes + self._shapes.nbytes + self._shape_of.nbytes
        )

    @property
    def field_count(self) -> int:
        """Distinct fields that some slot has."""
        return len(self._columns)

    @property
    def string_count(self) -> int:
        """Distinct strings held, the empty one always among them."""
        return len(self._strings)

    @property
    def code_limit(self) -> int:
        """Codes of strings are below this."""
        return self._strings.code_limit

    def set(self, slot: int, attributes: Mapping[str, JsonValue]) -> None:
        """Replace all attributes of a slot.

        Raises:
            ValueError: the slot is negative.
            TypeError: a value is not JSON. Nothing has changed then.
        """
        if slot < 0:
            raise ValueError(f"slot {slot} is negative")
        cells: dict[str, Cell] = {}
        for name, value in attributes.items():
            if name in self._columns or _SELECTABLE.fullmatch(name):
                cell = _encoded(value)
                if cell is not _Sentinel.UNREACHABLE:
                    cells[name] = cell
        shape = tuple(cells)
        old_shape = self._shape(slot)
        if old_shape is not None and old_shape != shape:
            for name in old_shape:
                if name not in cells:
                    self._remove(name, slot)
        for name, cell in cells.items():
            self._put(name, slot, cell)
        if old_shape is None or old_shape != shape:
            self._set_shape(slot, shape)
        self._version += 1

    def clear(self, slot: int) -> None:
        """Forget a slot's attributes; a slot without any is passed over."""
        shape = self._shape(slot)
        if shape is None:
            return
        for name in shape:
            self._remove(name, slot)
        self._set_shape(slot, None)
        self._version += 1

    # -- what the evaluator reads -----------------------------------------------------------------

    def presence(self, slots: int) -> Mask:
        """A new mask, shape (slots,): which slots have attributes at all, if only ``{}``."""
        mask = np.zeros(slots, np.bool_)
        known = self._shape_of[:slots]
        np.not_equal(known, _NO_SHAPE, out=mask[: len(known)])
        return mask

    def field(self, name: str, slots: int) -> FieldView | None:
        """A field's column over slots 0 to `slots` - 1, or None where no slot has it."""
        column = self._columns.get(name)
        return None if column is None else column.view(slots)

    def string_code(self, text: str) -> int:
        """The code that stands for a string in every column, or -1 where no attribute is it."""
        return self._strings.find(text)

    # -- change -----------------------------------------------------------------------------------

    def _put(self, name: str, slot: int, cell: Cell) -> None:
        column = self._columns.get(name)
        if column is None:
            column = self._columns[name] = FieldColumn(self._strings)
            before = 0
        else:
            before = column.nbytes
        column.set(slot, cell)
        self._column_bytes += column.nbytes - before

    def _remove(self, name: str, slot: int) -> None:
        column = self._columns[name]
        before = column.nbytes
        column.remove(slot)
        if column.count:
            self._column_bytes += column.nbytes - before
        else:
            del self._columns[name]
            self._column_bytes -= before

    def _shape(self, slot: int) -> tuple[str, ...] | None:
        if slot < 0 or slot >= len(self._shape_of):
            return None
        code = int(self._shape_of[slot])
        return None if code == _NO_SHAPE else self._shapes.key(code)

    def _set_shape(self, slot: int, shape: tuple[str, ...] | None) -> None:
        if slot >= len(self._shape_of):
            known = len(self._shape_of)
            longer = np.full(max(slot + 1, known + known // 2), _NO_SHAPE, np.int32)
            longer[:known] = self._shape_of
            self._shape_of = longer
        old_code = int(self._shape_of[slot])
        self._shape_of[slot] = _NO_SHAPE if shape is None else self._shapes.acquire(shape)
        if old_code != _NO_SHAPE:
            self._shapes.release(old_code)


class _Sentinel(Enum):
    UNREACHABLE = "a value that no filter can reach"


def _encoded(value: JsonValue) -> Cell | _Sentinel:
    if isinstance(value, list):
        if _holds_objects(value):
            return _Sentinel.UNREACHABLE
        return tuple(() if isinstance(item, list) else _encoded_scalar(item) for item in value)
    if isinstance(value, dict):
        return _Sentinel.UNREACHABLE
    return _encoded_scalar(value)


def _encoded_scalar(value: JsonValue) -> float | str | None:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, (int, float)):  # bool is an int
        raise TypeError(f"{type(value).__name__} is not a JSON value")
    try:
        return float(value)
    except OverflowError:  # as a double reads a number out of its range
        return math.inf if value > 0 else -math.inf


def _holds_objects(value: list[JsonValue]) -> bool:
    pending = [value]
    while pending:
        for item in pending.pop():
            if isinstance(item, dict):
                return True
            if isinstance(item, list):
                pending.append(item)
    return False
