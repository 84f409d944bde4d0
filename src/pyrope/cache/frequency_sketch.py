"""How often something was asked for lately, in a few bytes each, whether it is kept or not.

A count-min sketch with conservative update and ageing by halving, as in TinyLFU (Einziger, Friedman
and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM Transactions on Storage 13(4),
2017, sections 3.3 and 3.4). Where this one differs from the paper's:

- A counter has a byte and stops at 255, where the paper packs two to a byte and stops at 15. The
  paper compares frequencies alone; here they are multiplied by the cost saved, so that 15 and 200
  must not look the same. A byte is also quicker to reach from Python than half of one.
- There is no doorkeeper: what is counted is a search that was made, and a Bloom filter in front of
  the counters would cost a search's caller more time than it saves memory.
- What a cache holds may be counted by the cache, exactly and more cheaply, and handed back with
  `raise_to` when it is let go; `recorded` and `epoch` are public for that.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

import numpy as np

COUNTER_LIMIT: Final = 255
"""Where a counter stops."""

WINDOW_FACTOR: Final = 10
"""Counts are halved after this many lookups for each item of the capacity; Caffeine's ratio."""

_COUNTERS_FACTOR: Final = 16
_COUNTER_BITS: Final = 8


class FrequencySketch:
    """Estimated numbers of recent occurrences; never below the true one while none is at the limit.

    Each item has four counters out of 16 to 32 for each item of the capacity. They are chosen by
    double hashing (Kirsch and Mitzenmacher, "Less Hashing, Same Performance", ESA 2006) from
    Python's own hash of the pair of the seed and the item: of bytes and strings that is SipHash
    under the process' secret, so that nobody can choose queries that collide.

    Args:
        capacity: items to be told apart: those that the cache can hold at once.
        seed: makes the choice of counters differ from one sketch to the next.

    Attributes:
        recorded: lookups since the last halving. Whoever counts the uses of an item itself adds
            them here, one for one.
        epoch: halvings so far.
    """

    __slots__ = ("_counters", "_mask", "_seed", "_table", "capacity", "epoch", "recorded", "window")

    def __init__(self, capacity: int, seed: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        size = 1 << (_COUNTERS_FACTOR * capacity - 1).bit_length()
        self._seed = seed
        self.recorded = 0
        self.epoch = 0
        self._use(bytearray(size))

    def _use(self, table: bytearray) -> None:
        self._table = table
        self._counters = np.frombuffer(table, dtype=np.uint8)
        self._mask = len(table) - 1
        self.capacity = len(table) // _COUNTERS_FACTOR
        self.window = WINDOW_FACTOR * self.capacity

    @property
    def nbytes(self) -> int:
        """Bytes of the counters."""
        return len(self._table)

    def add(self, item: Hashable) -> None:
        """Count one lookup of the item; halves all counts when it is time."""
        spread = hash((self._seed, item))
        mask = self._mask
        step = (spread >> 32) | 1
        i, j, k, m = (
            spread & mask,
            (spread + step) & mask,
            (spread + 2 * step) & mask,
            (spread + 3 * step) & mask,
        )
        table = self._table
        a, b, c, d = table[i], table[j], table[k], table[m]
        # Conservative update: only the counters that are the estimate grow.
        least = min(a, b, c, d)
        if least < COUNTER_LIMIT:
            more = least + 1
            if a == least:
                table[i] = more
            if b == least:
                table[j] = more
            if c == least:
                table[k] = more
            if d == least:
                table[m] = more
        self.recorded += 1
        if self.recorded >= self.window:
            self._halve()

    def estimate(self, item: Hashable) -> int:
        """Lookups of the item, halved at every epoch since; 0 to 255."""
        table = self._table
        i, j, k, m = self._places(item)
        return min(table[i], table[j], table[k], table[m])

    def raise_to(self, item: Hashable, count: int) -> None:
        """See to it that the item's estimate is at least `count` (or at the limit)."""
        table = self._table
        count = min(count, COUNTER_LIMIT)
        for place in self._places(item):
            table[place] = max(table[place], count)

    def grow(self, capacity: int) -> None:
        """Make room for this many items, by doublings; estimates stay as they are.

        An item's counters are where its hash says, modulo the size. So two copies of the table one
        after the other hold, at the places modulo twice the size, what the one held.
        """
        table = self._table
        while len(table) < _COUNTERS_FACTOR * capacity:
            table = table + table
        if table is not self._table:
            self._use(table)

    def _places(self, item: Hashable) -> tuple[int, int, int, int]:
        spread = hash((self._seed, item))
        mask = self._mask
        step = (spread >> 32) | 1
        return (
            spread & mask,
            (spread + step) & mask,
            (spread + 2 * step) & mask,
            (spread + 3 * step) & mask,
        )

    def _halve(self) -> None:
        # More than once where many lookups were recorded from outside since the last `add`.
        times = self.recorded // self.window
        self.recorded -= times * self.window
        self.epoch += times
        np.right_shift(self._counters, min(times, _COUNTER_BITS - 1), out=self._counters)
        if times >= _COUNTER_BITS:
            self._counters[:] = 0
