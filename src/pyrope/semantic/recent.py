"""Samples of what an index was asked, and of where it was written to, of late."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyrope.types import Float32Matrix, Slots

_SMALLEST = 16
# Once the sample is full, one query in so many is taken, on average.
_EVERY = 8


class RecentQueries:
    """A sample of queries in which those of late are likelier than older ones.

    Each query that is taken replaces one that is drawn, so that the chance to be there falls
    exponentially with age (Aggarwal, On biased reservoir sampling in the presence of stream
    evolution, VLDB 2006, section 2.1). Most are not even looked at: how many are passed over is
    drawn beforehand.

    Args:
        dim: of the queries.
        capacity: queries that are kept, at least 1.
        random: draws.
    """

    def __init__(self, dim: int, capacity: int, random: np.random.Generator) -> None:
        self._capacity = capacity
        self._random = random
        self._rows: Float32Matrix = np.empty((0, dim), dtype=np.float32)
        self._count = 0
        self._passed = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes

    def offer(self, query: NDArray[np.float32] | bytes, times: int = 1) -> None:
        """One more query: float32, shape (dim,), or its bytes.

        Args:
            times: queries that there were, of which this is one; it may be taken for them all.
        """
        if self._passed >= times:
            self._passed -= times
            return
        row = np.frombuffer(query, "<f4") if isinstance(query, bytes) else query
        if self._count < self._capacity:
            if self._count == len(self._rows):
                size = min(max(_SMALLEST, 2 * self._count), self._capacity)
                rows = np.empty((size, self._rows.shape[1]), dtype=np.float32)
                rows[: self._count] = self._rows
                self._rows = rows
            self._rows[self._count] = row
            self._count += 1
            return
        self._rows[self._random.integers(self._capacity)] = row
        self._passed = int(self._random.integers(2 * _EVERY - 1))

    def clear(self) -> None:
        """Begin anew."""
        self._count = self._passed = 0

    def rows(self) -> Float32Matrix:
        """A copy of the sample, shape (n, dim)."""
        return self._rows[: self._count].copy()


class RecentSlots:
    """The last slots that vectors have come to.

    Args:
        capacity: slots that are kept, at least 1.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._slots: Slots = np.empty(0, dtype=np.int64)
        self._count = 0

    def __len__(self) -> int:
        return min(self._count, self._capacity)

    @property
    def nbytes(self) -> int:
        return self._slots.nbytes

    def add(self, slots: Slots) -> None:
        slots = slots[-self._capacity :]
        if not len(self._slots):
            self._slots = np.empty(self._capacity, dtype=np.int64)
        self._slots[(self._count + np.arange(len(slots))) % self._capacity] = slots
        self._count += len(slots)

    def clear(self) -> None:
        """Begin anew."""
        self._count = 0

    def slots(self) -> Slots:
        """Each once, ascending."""
        return np.unique(self._slots[: self._count])
