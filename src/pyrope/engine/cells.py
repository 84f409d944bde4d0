"""The cells of one field by slot, in two forms with the same verbs: `SparseCells`, `DenseCells`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MISSING: Final = 0
NUMBER: Final = 1
STRING: Final = 2
NULL: Final = 3
LIST: Final = 4
"""Kinds of cells. Booleans are the numbers 1 and 0, as in Redis."""

_SPARSE_CELL_BYTES: Final = 200
"""Two dictionary entries with an int and a float of their own (CPython 3.11)."""


@dataclass(frozen=True, slots=True)
class CellsView:
    """Cells over slots, arrays of shape (slots,).

    Attributes:
        kinds: uint8, one of MISSING, NUMBER, STRING, NULL, LIST.
        numbers: float64, meaningful where the kind is NUMBER; None if no cell is.
        codes: int32, meaningful where the kind is STRING (its code in the string table) or LIST
            (where its items start); None if no cell is either.
    """

    kinds: NDArray[np.uint8]
    numbers: NDArray[np.float64] | None
    codes: NDArray[np.int32] | None


class SparseCells:
    """Dictionaries from slot to what `CellsView` has in arrays."""

    __slots__ = ("_codes", "_kinds", "_numbers")

    def __init__(self) -> None:
        self._kinds: dict[int, int] = {}
        self._numbers: dict[int, float] = {}
        self._codes: dict[int, int] = {}

    @classmethod
    def gathered(cls, view: CellsView) -> SparseCells:
        cells = cls()
        cells._kinds = _gathered(view.kinds, view.kinds != MISSING)
        if view.numbers is not None:
            cells._numbers = _gathered(view.numbers, view.kinds == NUMBER)
        if view.codes is not None:
            has_code = (view.kinds == STRING) | (view.kinds == LIST)
            cells._codes = _gathered(view.codes, has_code)
        return cells

    @property
    def nbytes(self) -> int:
        """Estimate of the memory held, in bytes."""
        return len(self._kinds) * _SPARSE_CELL_BYTES

    def kind(self, slot: int) -> int:
        return self._kinds.get(slot, MISSING)

    def code(self, slot: int) -> int:
        return self._codes[slot]

    def put(self, slot: int, kind: int) -> None:
        self._kinds[slot] = kind

    def put_number(self, slot: int, number: float) -> None:
        self._kinds[slot] = NUMBER
        self._numbers[slot] = number

    def put_code(self, slot: int, kind: int, code: int) -> None:
        self._kinds[slot] = kind
        self._codes[slot] = code

    def put_codes(self, slots: NDArray[np.int32], codes: NDArray[np.int64]) -> None:
        self._codes.update(zip(slots.tolist(), codes.tolist(), strict=True))

    def drop(self, slot: int) -> None:
        del self._kinds[slot]
        self._numbers.pop(slot, None)
        self._codes.pop(slot, None)

    def view(self, slots: int) -> CellsView:
        """Slots 0 to `slots` - 1, in new arrays."""
        return CellsView(
            _scattered(self._kinds, slots, np.uint8),
            _scattered(self._numbers, slots, np.float64) if self._numbers else None,
            _scattered(self._codes, slots, np.int32) if self._codes else None,
        )


class DenseCells:
    """Arrays over the slots below `length`; numbers and codes from the first cell that has one."""

    __slots__ = ("_codes", "_kinds", "_numbers")

    def __init__(self, view: CellsView) -> None:
        self._kinds = view.kinds
        self._numbers = view.numbers
        self._codes = view.codes

    @property
    def length(self) -> int:
        return len(self._kinds)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, in bytes."""
        numbers, codes = self._numbers, self._codes
        return self.length * (1 + 8 * (numbers is not None) + 4 * (codes is not None))

    def kind(self, slot: int) -> int:
        return int(self._kinds[slot]) if slot < len(self._kinds) else MISSING

    def code(self, slot: int) -> int:
        return int(self._code_lane()[slot])

    def put(self, slot: int, kind: int) -> None:
        self._kinds[slot] = kind

    def put_number(self, slot: int, number: float) -> None:
        self._kinds[slot] = NUMBER
        if self._numbers is None:
            self._numbers = np.zeros(self.length)
        self._numbers[slot] = number

    def put_code(self, slot: int, kind: int, code: int) -> None:
        self._kinds[slot] = kind
        self._code_lane()[slot] = code

    def put_codes(self, slots: NDArray[np.int32], codes: NDArray[np.int64]) -> None:
        self._code_lane()[slots] = codes

    def drop(self, slot: int) -> None:
        self._kinds[slot] = MISSING

    def view(self, slots: int) -> CellsView:
        """Slots 0 to `slots` - 1, without a copy where that is not more than there are."""
        return CellsView(
            _prefix(self._kinds, slots),
            None if self._numbers is None else _prefix(self._numbers, slots),
            None if self._codes is None else _prefix(self._codes, slots),
        )

    def _code_lane(self) -> NDArray[np.int32]:
        if self._codes is None:
            self._codes = np.zeros(self.length, np.int32)
        return self._codes


def _prefix(lane: NDArray[Any], length: int) -> NDArray[Any]:
    """The first `length` elements, with zeros after the end where the lane is shorter."""
    if length <= len(lane):
        return lane[:length]
    longer = np.zeros(length, lane.dtype)
    longer[: len(lane)] = lane
    return longer


def _scattered(lane: dict[int, Any], slots: int, dtype: type[np.generic]) -> NDArray[Any]:
    dense = np.zeros(slots, dtype)
    where = np.fromiter(lane.keys(), np.int64, len(lane))
    values = np.fromiter(lane.values(), dtype, len(lane))
    inside = where < slots
    dense[where[inside]] = values[inside]
    return dense


def _gathered(lane: NDArray[Any], chosen: NDArray[np.bool_]) -> dict[int, Any]:
    return dict(zip(np.flatnonzero(chosen).tolist(), lane[chosen].tolist(), strict=True))
