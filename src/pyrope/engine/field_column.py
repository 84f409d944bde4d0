"""One field of the attributes, as a column over slots.

A column starts sparse (dictionaries from slot to cell) and becomes dense (arrays over slots) once
enough of the slots up to the highest have the field. A client that invents a field name per
vector therefore pays for the cells it fills, not for every slot under every name.

The two thresholds lie apart so that a column at the border does not go to and fro: between two
changes of form the number of cells or the span of slots must have changed by half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from pyrope.engine.cells import LIST, MISSING, NULL, STRING, CellsView, DenseCells, SparseCells
from pyrope.engine.interner import StringTable
from pyrope.engine.list_items import ItemsView, ListCell, ListItems

Cell: TypeAlias = "float | str | ListCell | None"

_DENSE_FROM: Final = 32
"""Dense when at least one slot in so many has the field. At 13 bytes a slot against 200 a cell the
two forms would cost the same at 1 in 16, but a dense one is read faster."""
_SPARSE_FROM: Final = 64
"""Sparse again when fewer than one slot in so many has it."""
_SMALLEST_DENSE: Final = 32
_COLUMN_BYTES: Final = 900
"""A column with its dictionaries and its name, before the first cell (CPython 3.11)."""


@dataclass(frozen=True, slots=True)
class FieldView:
    """A field as filters read it: its cells over slots, and its lists' items if it has any."""

    cells: CellsView
    items: ItemsView | None


class FieldColumn:
    """Cells of one field by slot. Strings are held in the table that all columns share."""

    __slots__ = ("_cells", "_items", "_span", "_strings", "count")

    def __init__(self, strings: StringTable) -> None:
        self._strings = strings
        self._cells: SparseCells | DenseCells = SparseCells()
        self._items: ListItems | None = None
        self._span = 0
        self.count = 0
        """Slots that have the field."""

    @property
    def is_dense(self) -> bool:
        return isinstance(self._cells, DenseCells)

    @property
    def nbytes(self) -> int:
        """Estimate of the memory held, in bytes, without the strings."""
        items = 0 if self._items is None else self._items.nbytes
        return _COLUMN_BYTES + self._cells.nbytes + items

    def set(self, slot: int, cell: Cell) -> None:
        """Put a cell, in place of the slot's former one if it has one."""
        if self._cells.kind(slot) == MISSING:
            self.count += 1
            self._fit(slot)
        else:
            self._let_go(slot)
        if isinstance(cell, float):
            self._cells.put_number(slot, cell)
        elif isinstance(cell, str):
            self._cells.put_code(slot, STRING, self._strings.acquire(cell))
        elif cell is None:
            self._cells.put(slot, NULL)
        else:
            if self._items is None:
                self._items = ListItems(self._strings)
            self._cells.put_code(slot, LIST, self._items.append(slot, cell))

    def remove(self, slot: int) -> None:
        """Take the slot's cell away; it must have one."""
        self._let_go(slot)
        self._cells.drop(slot)
        self.count -= 1
        if isinstance(self._cells, DenseCells) and self._is_sparse_at(self._cells.length):
            self._become_sparse(self._cells)

    def view(self, slots: int) -> FieldView:
        """The column over slots 0 to `slots` - 1; its arrays change with the column.

        The items are those of all lists, also of slots beyond.
        """
        items = None if self._items is None else self._items.view()
        return FieldView(self._cells.view(slots), items)

    def _let_go(self, slot: int) -> None:
        """Give back what the slot's cell holds elsewhere: its string, the items of its list."""
        kind = self._cells.kind(slot)
        if kind == STRING:
            self._strings.release(self._cells.code(slot))
        elif kind == LIST and self._items is not None:
            self._items.remove(slot, self._cells.code(slot))
            if self._items.wants_compaction:
                self._cells.put_codes(*self._items.compact())

    def _fit(self, slot: int) -> None:
        """Make room for a slot that gets its first cell, in the form that now suits."""
        self._span = max(self._span, slot + 1)
        cells = self._cells
        if isinstance(cells, SparseCells):
            if self.count >= max(_SMALLEST_DENSE, self._span // _DENSE_FROM):
                self._cells = DenseCells(cells.view(self._span))
        elif slot >= cells.length:
            length = max(slot + 1, cells.length + cells.length // 2)
            if self._is_sparse_at(length):
                self._become_sparse(cells)
            else:
                self._cells = DenseCells(cells.view(length))

    def _is_sparse_at(self, length: int) -> bool:
        return self.count * _SPARSE_FROM < length

    def _become_sparse(self, cells: DenseCells) -> None:
        self._cells = SparseCells.gathered(cells.view(cells.length))
