"""What an index holds beside vectors and engine: ids, attributes, expiries."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Container

from pyrope.engine.attributes import parse_attributes
from pyrope.engine.columns import AttributeColumns
from pyrope.service.ids import NUMBER_BYTES, IdMap, allocated_bytes
from pyrope.service.writes import Attributes
from pyrope.storage.store import RecordColumns
from pyrope.types import Slots

# Entries of the heap that nothing stands behind any more, before it is made anew.
_STALE_EXPIRIES = 1024
# A tuple of two, and what the collector of cycles puts before it.
_PAIR_BYTES = 56 + 16


class IndexState:
    """Read on the event loop at any time; changed there only, with the index to itself.

    `columns` is what searches read in other threads, so it changes only while none runs. The rest
    never leaves the loop.

    Attributes:
        attributes: raw JSON by slot, of the slots that have any.
        expires_at_ms: Unix time in milliseconds by id, of the ids that expire.
    """

    def __init__(self, encode_id: Callable[[bytes], bytes], *, reuse_above: float) -> None:
        self.ids = IdMap(encode_id, reuse_above=reuse_above)
        self.columns = AttributeColumns()
        self.attributes: dict[int, bytes] = {}
        self.expires_at_ms: dict[bytes, int] = {}
        self._expiries: list[tuple[int, bytes]] = []
        self._spared: list[tuple[int, bytes]] = []
        self._attribute_bytes = 0

    @property
    def memory_bytes(self) -> int:
        """Of ids, attributes and expiries, in bytes (by CPython's structures)."""
        return (
            self.ids.memory_bytes
            + self.columns.nbytes
            + self._attribute_bytes
            + sys.getsizeof(self.attributes)
            + sys.getsizeof(self.expires_at_ms)
            + sys.getsizeof(self._expiries)
            # Slots and times are objects; the tuples of the heap are known to the collector.
            + NUMBER_BYTES * (len(self.attributes) + len(self.expires_at_ms))
            + _PAIR_BYTES * len(self._expiries)
        )

    def drop_attributes(self, slots: list[int]) -> list[int]:
        """Forget the raw attributes of slots. Returns those that still have columns to clear."""
        held = [slot for slot in slots if slot in self.attributes]
        for slot in held:
            self._attribute_bytes -= allocated_bytes(self.attributes.pop(slot))
        return held

    def clear_columns(self, slots: list[int]) -> None:
        """Second half of `drop_attributes`; in any thread, with the index to itself."""
        for slot in slots:
            self.columns.clear(slot)

    def set_attributes(self, slot: int, attributes: Attributes | None) -> None:
        """Replace a slot's attributes; None or an empty `raw` leaves it without."""
        old = self.attributes.pop(slot, None)
        if old is not None:
            self._attribute_bytes -= allocated_bytes(old)
            self.columns.clear(slot)
        if attributes is not None and attributes.raw:
            self.attributes[slot] = attributes.raw
            self._attribute_bytes += allocated_bytes(attributes.raw)
            self.columns.set(slot, attributes.parsed)

    def bind(self, id_: bytes, slot: int, attributes: Attributes, expires_at_ms: int) -> None:
        """Let an id stand for the vector in a slot, with these attributes and this expiry."""
        left = self.ids.bind(id_, slot)
        if left is not None:
            self.set_attributes(left, None)
        if attributes.raw:
            self.set_attributes(slot, attributes)
        self.set_expiry(id_, expires_at_ms)

    def forget(self, id_: bytes) -> int:
        """Forget an id and all that belongs to it. Returns the slot that it leaves."""
        slot = self.ids.release(id_)
        self.set_attributes(slot, None)
        self.expires_at_ms.pop(id_, None)
        return slot

    # -- expiry -----------------------------------------------------------------------------------

    def set_expiry(self, id_: bytes, expires_at_ms: int) -> None:
        """Have an id expire at a Unix time in milliseconds; 0: never."""
        if expires_at_ms:
            self.expires_at_ms[id_] = expires_at_ms
            heapq.heappush(self._expiries, (expires_at_ms, id_))
        elif self.expires_at_ms:
            self.expires_at_ms.pop(id_, None)
        # Entries of ids that were updated or removed stay until they come up; keep them few.
        if len(self._expiries) > 2 * len(self.expires_at_ms) + _STALE_EXPIRIES:
            self._expiries = [(at, key) for key, at in self.expires_at_ms.items()]
            heapq.heapify(self._expiries)

    def next_expiry_ms(self) -> int | None:
        """No id expires before this; None where none expires."""
        return self._expiries[0][0] if self._expiries else None

    def take_expired(self, now_ms: int, spared: Container[bytes]) -> tuple[list[bytes], list[int]]:
        """Release the ids that have expired, but for those in `spared` (see `spare_no_more`).

        Returns them, and the slots that they leave, whose attributes are still there.
        """
        heap = self._expiries
        ids: list[bytes] = []
        slots: list[int] = []
        while heap and heap[0][0] <= now_ms:
            at, id_ = heapq.heappop(heap)
            if self.expires_at_ms.get(id_) != at:
                continue  # updated or removed since
            if id_ in spared:
                self._spared.append((at, id_))
                continue
            del self.expires_at_ms[id_]
            ids.append(id_)
            slots.append(self.ids.release(id_))
        return ids, slots

    def spare_no_more(self) -> None:
        """Let the ids that were spared expire: call it when what spared them is over."""
        for entry in self._spared:
            heapq.heappush(self._expiries, entry)
        self._spared.clear()

    # -- restoring --------------------------------------------------------------------------------

    def restore(self, columns: RecordColumns, damaged: Slots, now_ms: int) -> list[int]:
        """Fill an empty state with what the store holds; in any thread, before anyone sees it.

        Args:
            damaged: slots whose row is not the one that was written.

        Returns:
            Slots that the store refers to and nothing here does: of what has expired or is
            damaged. They must be deleted from the store before they are used.
        """
        unusable = set(damaged.tolist())
        unclaimed: list[int] = columns.damaged.tolist()
        slots, sequences = columns.slots.tolist(), columns.sequences.tolist()
        expiries = columns.expires_at_ms.tolist()
        newest: dict[bytes, int] = {}
        for row, id_ in enumerate(columns.ids):
            if 0 < expiries[row] <= now_ms or slots[row] in unusable:
                unclaimed.append(slots[row])
                continue
            # An id is there twice if the server stopped between the expiry of the older one and
            # its removal from the disk, and the id had been added again.
            other = newest.setdefault(id_, row)
            if other != row:
                older, newest[id_] = sorted((other, row), key=sequences.__getitem__)
                unclaimed.append(slots[older])
        self.ids.restore(newest, (slots[row] for row in newest.values()), reserved=unclaimed)
        for id_, row in newest.items():
            if raw := columns.attributes[row]:
                self.set_attributes(slots[row], Attributes(raw, parse_attributes(raw)))
            if expiries[row]:
                self.set_expiry(id_, expiries[row])
        return unclaimed
