"""What has been written to an index lately, by slot: what a cached answer has to catch up with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyrope.types import Slots

_SMALLEST = 256
_ADDED, _GONE, _CHANGED = 0, 1, 2
_KIND_BITS, _KIND = 2, 3


class Writes(NamedTuple):
    """What was written since some position; a slot may be there more than once.

    Attributes:
        added: slots that got a vector.
        gone: slots that lost theirs, to a delete, an update (which is a new slot) or its expiry.
        changed: slots whose attributes changed.
    """

    added: Slots
    gone: Slots
    changed: Slots


class WriteLog:
    """The last writes of an index, in the order in which searches came to see them.

    For the event loop. Positions count writes since the index was opened. Whoever reads the
    position before it searches, and later asks for what came since, misses nothing, whether or not
    the search saw a write that came in between.

    Args:
        capacity: writes that are kept; older ones are forgotten.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a log keeps at least one write, not {capacity}")
        self.position = 0
        self._capacity = capacity
        self._events: NDArray[np.int64] = np.empty(min(_SMALLEST, capacity), dtype=np.int64)
        # Of an array that holds less than the capacity: everything from here on.
        self._oldest = 0

    @property
    def nbytes(self) -> int:
        return self._events.nbytes

    def added(self, slots: Slots) -> None:
        """Vectors have come to these slots."""
        self._append(slots, _ADDED)

    def gone(self, slots: Sequence[int] | Slots) -> None:
        """These slots hold no vector any more, or are about to lose it."""
        self._append(np.asarray(slots, np.int64), _GONE)

    def changed(self, slots: Sequence[int] | Slots) -> None:
        """The vectors in these slots have other attributes."""
        self._append(np.asarray(slots, np.int64), _CHANGED)

    def forget(self) -> None:
        """Nothing from before this can be caught up with: much has changed by other ways."""
        self.position += 1
        self._oldest = self.position

    def since(self, position: int) -> Writes | None:
        """What has been written from `position` on; None where that has been forgotten in part."""
        if position < self._oldest:
            return None
        size = len(self._events)
        start, stop = position % size, self.position % size
        if start < stop or position == self.position:
            events = self._events[start:stop] if position < self.position else self._events[:0]
        else:
            events = np.concatenate([self._events[start:], self._events[:stop]])
        kinds, slots = events & _KIND, events >> _KIND_BITS
        return Writes(slots[kinds == _ADDED], slots[kinds == _GONE], slots[kinds == _CHANGED])

    def _append(self, slots: Slots, kind: int) -> None:
        count = len(slots)
        if count >= self._capacity:
            self.position += count
            self._oldest = self.position
            return
        if self.position + count - self._oldest > len(self._events):
            self._grow(count)
        size = len(self._events)
        events = slots << _KIND_BITS | kind
        start = self.position % size
        first = min(count, size - start)
        self._events[start : start + first] = events[:first]
        self._events[: count - first] = events[first:]
        self.position += count
        self._oldest = max(self._oldest, self.position - size)

    def _grow(self, count: int) -> None:
        """Make room for so many more, or as many as may be."""
        size = len(self._events)
        needed = self.position + count - self._oldest
        larger = min(max(2 * size, needed), self._capacity)
        if larger <= size:
            return
        events = np.empty(larger, dtype=np.int64)
        kept = np.arange(max(self._oldest, self.position - size), self.position)
        events[kept % larger] = self._events[kept % size]
        self._events = events
