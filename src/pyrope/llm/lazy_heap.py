"""A heap whose entries may die where they are."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

Entry = tuple[float, int, Any]
"""Key, number, and what it is about. No two living entries of a heap share both key and number."""

# Fewer dead entries than that are not worth looking for.
_TOLERATED = 16


class LazyHeap:
    """Entries by key, the lowest first; of equal keys, the lowest number.

    Each operation takes O(log n), averaged over many: dead entries are taken out when they come to
    the top, or all together when more than half are dead (10,000 living and as many dead ones:
    3 ms).

    Args:
        is_alive: whether an entry still counts. One that does not never will again. Whoever ends
            the life of one says so with `bury`.
    """

    __slots__ = ("_entries", "_is_alive", "_living")

    def __init__(self, is_alive: Callable[[Entry], bool]) -> None:
        self._entries: list[Entry] = []
        self._is_alive = is_alive
        self._living = 0

    def __len__(self) -> int:
        return self._living

    def push(self, entry: Entry) -> None:
        """Add one that is alive."""
        heappush(self._entries, entry)
        self._living += 1

    def bury(self) -> None:
        """One that was alive is not any more."""
        self._living -= 1
        if len(self._entries) > 2 * self._living + _TOLERATED:
            self._entries = list(filter(self._is_alive, self._entries))
            heapify(self._entries)

    def first(self) -> Entry:
        """The first that is alive; it stays. Raises LookupError where none is."""
        entry = self.peek()
        if entry is None:
            raise LookupError("nothing in this heap is alive")
        return entry

    def peek(self) -> Entry | None:
        """The first that is alive, if one is; it stays."""
        entries = self._entries
        while entries:
            if self._is_alive(entries[0]):
                return entries[0]
            heappop(entries)
        return None
