"""Which keys come most often, in bounded memory: Space-Saving, with counts that fade.

Metwally, Agrawal and El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data
Streams" (ICDT 2005): when all places are taken, a new key gets that of the one with the smallest
count, and takes over this count. Whoever has more than a share of 1/places of the stream always has
a place. What is answered is what a key has for certain, without what it took over.

Counts are halved now and then, as in TinyLFU (Einziger, Friedman and Manes, ACM Transactions on
Storage 13(4), 2017), so that what was asked last month makes room.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

# Keys that come between two halvings, for each place.
_EPOCH = 10


class _Counted:
    """How often a key has come.

    Attributes:
        count: with what was taken over.
        taken_over: of the key that had this place before.
    """

    __slots__ = ("count", "taken_over")

    def __init__(self, taken_over: int) -> None:
        self.count = self.taken_over = taken_over


class HeavyHitters(Generic[K]):
    """For the event loop; a call takes amortized O(log places).

    Args:
        places: keys that are counted, at least 1.
    """

    def __init__(self, places: int) -> None:
        if places < 1:
            raise ValueError(f"no key can be counted in {places} places")
        self._places = places
        self._counted: dict[K, _Counted] = {}
        # Counts as they were when somebody looked; they have only grown since.
        self._least: list[tuple[int, int, K]] = []
        self._pushed = 0
        self._until_halving = _EPOCH * places

    def __len__(self) -> int:
        return len(self._counted)

    def add(self, key: K) -> int:
        """Count a key. Returns how often it has come for certain, of late, this time included."""
        self._until_halving -= 1
        if self._until_halving <= 0:
            self._halve()
        counted = self._counted.get(key)
        if counted is None:
            counted = self._place(key)
        counted.count += 1
        return counted.count - counted.taken_over

    def count(self, key: K) -> int:
        """How often a key has come for certain, of late."""
        counted = self._counted.get(key)
        return 0 if counted is None else counted.count - counted.taken_over

    def clear(self) -> None:
        self._counted.clear()
        self._least.clear()
        self._until_halving = _EPOCH * self._places

    def _place(self, key: K) -> _Counted:
        taken_over = 0
        if len(self._counted) >= self._places:
            taken_over = self._take_least()
        counted = self._counted[key] = _Counted(taken_over)
        self._push(taken_over, key)
        return counted

    def _take_least(self) -> int:
        """Take out the key with the smallest count. Returns that count."""
        while True:
            seen, _, key = heapq.heappop(self._least)
            count = self._counted[key].count
            if count == seen:
                del self._counted[key]
                return count
            self._push(count, key)

    def _push(self, count: int, key: K) -> None:
        # By a number of its own, as keys need not be comparable; of equals the oldest goes.
        self._pushed += 1
        heapq.heappush(self._least, (count, self._pushed, key))

    def _halve(self) -> None:
        """Let counts fade; what has come once only, long ago, goes."""
        self._until_halving = _EPOCH * self._places
        self._least = []
        for key, counted in list(self._counted.items()):
            counted.count //= 2
            counted.taken_over = min(counted.taken_over // 2, counted.count)
            if counted.count:
                self._push(counted.count, key)
            else:
                del self._counted[key]
