"""The items of one field's lists, end to end, each with the slot that owns it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyrope.engine.cells import LIST, NULL, NUMBER, STRING
from pyrope.engine.interner import StringTable

Item: TypeAlias = "float | str | tuple[()] | None"
"""An item of a list. A list inside a list is known to be there, not what it holds: `()`."""

ListCell: TypeAlias = tuple[Item, ...]

_DEAD: Final = -1
_SMALLEST: Final = 8
_COMPACT_FROM: Final = 64


@dataclass(frozen=True, slots=True)
class ItemsView:
    """Items of all lists of a field, shape (n,) each, in no particular order.

    Attributes:
        owners: int32, the slot whose list an item is in; -1 for items that are gone.
        kinds: uint8, one of NUMBER, STRING, NULL, LIST.
        numbers: float64, where the kind is NUMBER.
        codes: int32 of the string table, where the kind is STRING.
    """

    owners: NDArray[np.int32]
    kinds: NDArray[np.uint8]
    numbers: NDArray[np.float64]
    codes: NDArray[np.int32]


class ListItems:
    """Growing parallel arrays. A list's items lie side by side; whoever adds them keeps the start.

    Items of lists that are gone are marked dead, and squeezed out once they are the larger half.
    """

    __slots__ = ("_codes", "_dead", "_kinds", "_numbers", "_owners", "_strings", "_used")

    def __init__(self, strings: StringTable) -> None:
        self._strings = strings
        self._owners = np.empty(_SMALLEST, np.int32)
        self._kinds = np.empty(_SMALLEST, np.uint8)
        self._numbers = np.empty(_SMALLEST, np.float64)
        self._codes = np.empty(_SMALLEST, np.int32)
        self._used = 0
        self._dead = 0

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, in bytes."""
        return self._owners.nbytes + self._kinds.nbytes + self._numbers.nbytes + self._codes.nbytes

    @property
    def wants_compaction(self) -> bool:
        return self._dead > max(_COMPACT_FROM, self._used - self._dead)

    def view(self) -> ItemsView:
        used = self._used
        return ItemsView(
            self._owners[:used], self._kinds[:used], self._numbers[:used], self._codes[:used]
        )

    def append(self, slot: int, items: ListCell) -> int:
        """Add the items of a slot's list and return where they start."""
        start = self._used
        self._reserve(start + len(items))
        for position, item in enumerate(items, start):
            self._owners[position] = slot
            if isinstance(item, float):
                self._kinds[position] = NUMBER
                self._numbers[position] = item
            elif isinstance(item, str):
                self._kinds[position] = STRING
                self._codes[position] = self._strings.acquire(item)
            else:
                self._kinds[position] = NULL if item is None else LIST
        self._used = start + len(items)
        return start

    def remove(self, slot: int, start: int) -> None:
        """Mark the items of a slot's list dead, and let go of its strings."""
        position = start
        while position < self._used and self._owners[position] == slot:
            if self._kinds[position] == STRING:
                self._strings.release(int(self._codes[position]))
            self._owners[position] = _DEAD
            position += 1
        self._dead += position - start

    def compact(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Squeeze out the dead. Returns the slots that own items, and where each one's now start.

        A slot with an empty list owns none and is not among them.
        """
        alive = self._owners[: self._used] != _DEAD
        for name in ("_owners", "_kinds", "_numbers", "_codes"):
            setattr(self, name, getattr(self, name)[: self._used][alive])
        self._used = len(self._owners)
        self._dead = 0
        if not self._used:
            self._reserve(_SMALLEST)
            return np.empty(0, np.int32), np.empty(0, np.int64)
        first = np.ones(self._used, np.bool_)
        first[1:] = self._owners[1:] != self._owners[:-1]
        starts = np.flatnonzero(first)
        return self._owners[starts], starts

    def _reserve(self, count: int) -> None:
        room = len(self._owners)
        if count <= room:
            return
        room = max(count, room + room // 2, _SMALLEST)
        for name in ("_owners", "_kinds", "_numbers", "_codes"):
            old = getattr(self, name)
            new = np.empty(room, old.dtype)
            new[: self._used] = old[: self._used]
            setattr(self, name, new)
