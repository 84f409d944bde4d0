"""Which vectors stand at which position of a FAISS graph, which can only append.

Vectors with equal codes share a position (why: `pyrope.engine.nodes`), and are its *members*. A
position whose members are all gone keeps its code, a tombstone, and is used again as soon as an
equal code comes.

Members need not be equal: in few dimensions, thousands of vectors may have one code. So whoever
finds a position scores all its members, but of those that are equal (*twins*) only as many as are
asked for: they would get the same score.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pyrope.engine.digests import digests_of
from pyrope.engine.slot_table import grown
from pyrope.types import Float32Matrix, Mask, Slots

_NONE = -1
# Rows of the array of a shared position.
_TWIN, _SLOT = 0, 1
# An array of NumPy's, and its entry in a dict.
_GROUP_BYTES = 128 + 16 + 104


class Positions:
    """Members by position, and positions by slot.

    Attributes:
        member: int32, by position: one of its members; -1 where it has none.
        stands: bool, by position: it has members.
        shared: bool, by position: it has several.
        count: positions there are.
        standing: those that have members.
    """

    def __init__(self) -> None:
        self.member = np.empty(0, dtype=np.int32)
        self.stands: Mask = np.zeros(0, dtype=np.bool_)
        self.shared: Mask = np.zeros(0, dtype=np.bool_)
        self.count = self.standing = 0
        self._position_of = np.empty(0, dtype=np.int32)
        # Of shared positions: digests of raw vectors and slots, shape (2, members), sorted by both.
        self._groups: dict[int, NDArray[np.uint64]] = {}

    @property
    def nbytes(self) -> int:
        arrays = (self.member, self.stands, self.shared, self._position_of)
        # Listed in one step, as another thread may be merging.
        groups = sum(_GROUP_BYTES + group.nbytes for group in list(self._groups.values()))
        return sum(array.nbytes for array in arrays) + groups

    # -- changing ---------------------------------------------------------------------------------

    def append(self, slots: Slots) -> Slots:
        """Give each slot, which has none, a new position; they are consecutive."""
        new = np.arange(self.count, self.count + len(slots))
        self.append_tombstones(len(slots))
        self._settle(slots, new)
        return new

    def append_tombstones(self, count: int) -> None:
        """Add positions without members."""
        self.count += count
        if (more := grown(len(self.member), self.count) - len(self.member)) > 0:
            self.member = np.concatenate([self.member, np.full(more, _NONE, np.int32)])
            self.stands = np.concatenate([self.stands, np.zeros(more, np.bool_)])
            self.shared = np.concatenate([self.shared, np.zeros(more, np.bool_)])

    def join(self, slots: Slots, positions: Slots, view: Float32Matrix) -> None:
        """Make slots, which have no position, members of these.

        Args:
            slots: distinct.
            positions: for each slot one that exists, with members or without.
            view: every slot's raw row.
        """
        _, first = np.unique(positions, return_index=True)
        first = first[self.member[positions[first]] == _NONE]
        self._settle(slots[first], positions[first])
        slots, positions = np.delete(slots, first), np.delete(positions, first)
        self._assign(slots, positions)
        for position, joining in _by_position(positions, slots):
            group = self._groups.get(position)
            if group is None:
                group = _group(self.member[position : position + 1].astype(np.int64), view)
            group = np.concatenate([group, _group(joining, view)], axis=1)
            self._groups[position] = group[:, np.lexsort(group[::-1])]
            self.shared[position] = True

    def _settle(self, slots: Slots, positions: Slots) -> None:
        """Make slots, which have no position, the members of distinct tombstones."""
        self._assign(slots, positions)
        self.member[positions] = slots
        self.stands[positions] = True
        self.standing += len(slots)

    def _assign(self, slots: Slots, positions: Slots) -> None:
        known = len(self._position_of)
        if (more := grown(known, int(slots.max(initial=-1)) + 1) - known) > 0:
            unknown = np.full(more, _NONE, np.int32)
            self._position_of = np.concatenate([self._position_of, unknown])
        self._position_of[slots] = positions

    def remove(self, slots: Slots) -> None:
        """Take distinct slots, which have positions, from them."""
        positions: Slots = self._position_of[slots].astype(np.int64)
        self._position_of[slots] = _NONE
        shared = self.shared[positions]
        for position, leaving in _by_position(positions[shared], slots[shared]):
            group = self._groups[position]
            group = group[:, ~np.isin(group[_SLOT], leaving.astype(np.uint64))]
            left = group.shape[1]
            self.member[position] = group[_SLOT, 0] if left else _NONE
            self.stands[position] = left > 0
            self.standing -= not left
            if left > 1:
                self._groups[position] = group
            else:
                del self._groups[position]
                self.shared[position] = False
        alone = positions[~shared]
        self.member[alone] = _NONE
        self.stands[alone] = False
        self.standing -= len(alone)

    # -- asking -----------------------------------------------------------------------------------

    def matching(self, part: Mask) -> Mask:
        """Bool by position, shape (count,): whether it has a member that takes part.

        Args:
            part: slots that take part, all of which have positions; shape (<= slots,).
        """
        matching = np.zeros(self.count, dtype=np.bool_)
        matching[self._position_of[np.flatnonzero(part)]] = True
        return matching

    def members(self, found: Slots, part: Mask | None, width: int) -> Slots:
        """Slots to score in the place of positions, shape (n, w), w >= r; -1 is none.

        Args:
            found: positions that have members which take part, shape (n, r); -1 is none.
            part: slots that take part; None: all that have positions.
            width: hits that a query can have.
        """
        slots: Slots = self.member[found].astype(np.int64)
        slots[found < 0] = _NONE
        if not self._groups:
            return slots
        rows, columns = np.nonzero(self.shared[found] & (found >= 0))
        if not len(rows):
            return slots
        groups = [self._members_of(p, part, width) for p in found[rows, columns].tolist()]
        slots[rows, columns] = _NONE
        rows = np.repeat(rows, [len(group) for group in groups])
        places = np.arange(len(rows)) - np.searchsorted(rows, rows)
        more = np.full((len(slots), int(places.max(initial=-1)) + 1), _NONE, dtype=np.int64)
        more[rows, places] = np.concatenate(groups)
        return np.concatenate([slots, more], axis=1)

    def _members_of(self, position: int, part: Mask | None, twins: int) -> Slots:
        """Members of a shared position, and of those that are equal only the first `twins` by slot.

        Args:
            position: one that is shared.
            part: where given, only slots that take part there.
            twins: at least 1.
        """
        group = self._groups[position]
        slots: Slots = group[_SLOT].view(np.int64)
        digests = group[_TWIN]
        if part is not None:
            taking_part = slots < len(part)
            taking_part[taking_part] = part[slots[taking_part]]
            slots, digests = slots[taking_part], digests[taking_part]
        if len(slots) > twins:
            slots = slots[np.arange(len(slots)) - np.searchsorted(digests, digests) < twins]
        return slots

    def all_members(self) -> tuple[Slots, Slots]:
        """Every slot that has a position, ascending, and its position."""
        slots = np.flatnonzero(self._position_of != _NONE)
        return slots, self._position_of[slots].astype(np.int64)


def _by_position(positions: Slots, slots: Slots) -> Iterator[tuple[int, Slots]]:
    """Slots of each position."""
    if not len(positions):
        return
    order = np.argsort(positions, kind="stable")
    distinct, starts = np.unique(positions[order], return_index=True)
    yield from zip(distinct.tolist(), np.split(slots[order], starts[1:]), strict=True)


def _group(slots: Slots, view: Float32Matrix) -> NDArray[np.uint64]:
    return np.stack([digests_of(view[slots]), slots.astype(np.uint64)])
