"""Who takes most room, kept up to date in constant time."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

H = TypeVar("H", bound=Hashable)


class Fullest(Generic[H]):
    """Room in whole units, by holder.

    Holders are kept in a bucket for each amount (as pages by their frequency in Shah, Mitra and
    Matani, "An O(1) algorithm for implementing the LFU cache eviction scheme", 2010). The fullest
    bucket is found again from where it was: after a change of d units it is at most d further down.
    """

    __slots__ = ("_buckets", "_most", "_rooms")

    def __init__(self) -> None:
        self._rooms: dict[H, int] = {}
        self._buckets: dict[int, dict[H, None]] = {}
        self._most = 0

    def add(self, holder: H, units: int) -> None:
        """Room taken, or given back where it is negative; what is left is at least 0."""
        room = self._rooms.pop(holder, 0)
        if room:
            bucket = self._buckets[room]
            del bucket[holder]
            if not bucket:
                del self._buckets[room]
        room += units
        if room:
            self._rooms[holder] = room
            self._buckets.setdefault(room, {})[holder] = None
        self._most = max(self._most, room)
        while self._most and self._most not in self._buckets:
            self._most -= 1

    def first(self) -> H:
        """One of those with most room. Raises LookupError where nobody has any."""
        return next(iter(self._buckets[self._most]))
