"""Which id sits in which slot."""

from __future__ import annotations

import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from pyrope.types import Mask

NUMBER_BYTES = 32
"""Of an int of one or two digits of 30 bits, as `allocated_bytes` has it."""

# What CPython's allocator rounds sizes up to, as malloc does, which adds 8 bytes to each block.
_GRAIN, _LARGEST_SMALL, _MALLOC_BYTES = 16, 512, 8


def allocated_bytes(object_: bytes | None) -> int:
    """What an object takes, which is more than `sys.getsizeof` says (CPython's obmalloc.c)."""
    size = sys.getsizeof(object_)
    if size > _LARGEST_SMALL:
        size += _MALLOC_BYTES
    return -(-size // _GRAIN) * _GRAIN


class IdMap:
    """Ids of one index and the slots their vectors are in, and which slots are free.

    Each id is kept twice: raw, as the key that look-ups need, and as `encode` makes it for replies,
    so that a reply of k hits is k list look-ups and one join.

    Slots are given out by `allocate` before a write is committed and bound to an id by `bind` after
    it; in between they belong to the writer alone. An update gives an id another slot, because a
    row that committed state refers to is never overwritten (docs/storage.md). What stays with an id
    for its life is its *entry*, which `scan` walks over: what is there throughout is not missed.

    Args:
        encode: makes the form of an id that replies are assembled from.
        reuse_above: free slots are used again once they exceed this share of the bound ones. An
            engine in which taking over a deleted vector's place costs more than a new place sets
            it above zero.
    """

    def __init__(self, encode: Callable[[bytes], bytes], *, reuse_above: float = 0.0) -> None:
        self._encode = encode
        self._reuse_above = reuse_above
        self._entries: dict[bytes, int] = {}
        self._ids: list[bytes | None] = []
        self._slot_of = array("q")
        self._free_entries: list[int] = []
        self._encoded: list[bytes | None] = []
        self._free_slots: deque[int] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, id_: bytes) -> bool:
        return id_ in self._entries

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._entries)

    @property
    def slot_count(self) -> int:
        """One past the highest slot that was ever given out."""
        return len(self._encoded)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the tables and of the ids in them, as CPython allocates them."""
        tables = (self._entries, self._ids, self._slot_of, self._encoded)
        free = (self._free_entries, self._free_slots)
        # Numbers are objects, other than in arrays. Those of entries live on when ids go.
        numbers = NUMBER_BYTES * (len(self._ids) + len(self._free_slots))
        return sum(map(sys.getsizeof, (*tables, *free))) + numbers + self._bytes

    def slot(self, id_: bytes) -> int | None:
        entry = self._entries.get(id_)
        return None if entry is None else self._slot_of[entry]

    def encoded(self, slots: Iterable[int]) -> list[bytes | None]:
        """The encoded ids of slots; None for one that is not bound."""
        return list(map(self._encoded.__getitem__, slots))

    def allocate(self) -> int:
        """A slot that nothing committed refers to."""
        if self._free_slots and len(self._free_slots) > self._reuse_above * len(self._entries):
            return self._free_slots.popleft()
        self._encoded.append(None)
        return len(self._encoded) - 1

    def give_back(self, slots: Iterable[int]) -> None:
        """Return slots that are allocated and not bound: the write was refused, or came after."""
        self._free_slots.extend(slots)

    def bind(self, id_: bytes, slot: int) -> int | None:
        """Put an id into an allocated slot.

        Returns the slot that it leaves, which then belongs to the caller; None if it is new.
        """
        entry = self._entries.get(id_)
        if entry is not None:
            left = self._slot_of[entry]
            self._slot_of[entry] = slot
            self._encoded[slot], self._encoded[left] = self._encoded[left], None
            return left
        encoded = self._encode(id_)
        if self._free_entries:
            entry = self._free_entries.pop()
            self._ids[entry] = id_
            self._slot_of[entry] = slot
        else:
            entry = len(self._ids)
            self._ids.append(id_)
            self._slot_of.append(slot)
        self._entries[id_] = entry
        self._encoded[slot] = encoded
        self._bytes += allocated_bytes(id_) + allocated_bytes(encoded)
        return None

    def release(self, id_: bytes) -> int:
        """Forget an id. Returns the slot it leaves, which then belongs to the caller."""
        entry = self._entries.pop(id_)
        self._ids[entry] = None
        self._free_entries.append(entry)
        slot = self._slot_of[entry]
        encoded, self._encoded[slot] = self._encoded[slot], None
        self._bytes -= allocated_bytes(id_) + allocated_bytes(encoded)
        return slot

    def restore(
        self, ids: Iterable[bytes], slots: Iterable[int], reserved: Iterable[int] = ()
    ) -> None:
        """Fill an empty map with pairs.

        Slots in `reserved` belong to the caller; others that lie between the bound ones are free.
        """
        bound, kept = list(slots), set(reserved)
        self._encoded = [None] * (max((*bound, *kept), default=-1) + 1)
        for id_, slot in zip(ids, bound, strict=True):
            self.bind(id_, slot)
        self._free_slots = deque(
            slot
            for slot, encoded in enumerate(self._encoded)
            if encoded is None and slot not in kept
        )

    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """Walk over `count` entries from `cursor` on.

        Returns the next cursor (0: done) and the ids found. An id that is there from the first
        call to the last is returned exactly once; others at most once each time they are added.
        """
        stop = min(cursor + count, len(self._ids))
        found = [id_ for id_ in self._ids[cursor:stop] if id_ is not None]
        return (0 if stop >= len(self._ids) else stop), found

    def bound_slots(self) -> Mask:
        """Shape (slot_count,): True where an id is bound."""
        return np.fromiter(
            (encoded is not None for encoded in self._encoded), np.bool_, len(self._encoded)
        )
