"""The entries of one index: by number, by scope and prompt, by expiry, and by what they are worth.

The worth of an entry is its uses x what each saves / its bytes, with uses that count for half after
each epoch: as of cached answers (`pyrope.cache.eviction` has the comparison that speaks for it and
its sources). What goes is the least valuable of some that are drawn at random, so that no order is
kept up at every hit.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from random import Random

from pyrope.semantic.remembered.entry import Entry, Stage

# Entries that are compared to find one that goes.
_SAMPLE = 16
# Lookups, as often as there are entries, after which an epoch ends; and the least.
_EPOCH_TIMES, _EPOCH_LEAST = 10, 1000
# What a hit saves by tokens of the response, where nobody has said what it costs. In cost units (a
# microsecond of a core): a guess between small models and large ones.
_UNITS_A_TOKEN = 100.0
# Entries of the heap that nothing stands behind any more, before it is made anew.
_STALE_EXPIRIES = 1024


class Partition:
    """What is remembered in one scope.

    Attributes:
        newest: by the key of its prompt, the entry that came last, durable or not.
    """

    __slots__ = ("newest", "scope")

    def __init__(self, scope: bytes) -> None:
        self.scope = scope
        self.newest: dict[bytes, Entry] = {}

    def find(self, key: bytes, now_ms: int) -> Entry | None:
        """The entry that may answer this very prompt."""
        entry = self.newest.get(key)
        while entry is not None:
            if entry.stage is not Stage.PENDING:
                return entry if entry.may_serve(now_ms) else None
            entry = entry.older
        return None


class EntryTable:
    """For the event loop; every call is short.

    Args:
        random: draws the entries that are compared.

    Attributes:
        nbytes: of the entries, as of `Entry.nbytes`.
    """

    def __init__(self, random: Random) -> None:
        self._random = random.random
        self._by_id: dict[int, Entry] = {}
        self._all: list[Entry] = []
        self._partitions: dict[bytes, Partition] = {}
        self._expiries: list[tuple[int, int]] = []
        self._epoch = 0
        self._lookups = 0
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Entry]:
        """All entries, PENDING ones and those that cannot serve included, in no order."""
        return iter(list(self._all))

    def get(self, number: int) -> Entry | None:
        return self._by_id.get(number)

    def partition(self, scope: bytes) -> Partition | None:
        return self._partitions.get(scope)

    def partitions(self) -> list[Partition]:
        return list(self._partitions.values())

    @property
    def partition_count(self) -> int:
        return len(self._partitions)

    # -- changing ---------------------------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """Take an entry in, as the newest of its prompt; the one before stays behind it."""
        partition = self._partitions.get(entry.scope)
        if partition is None:
            partition = self._partitions[entry.scope] = Partition(entry.scope)
        entry.older = partition.newest.get(entry.key)
        partition.newest[entry.key] = entry
        self._by_id[entry.id] = entry
        entry.number = len(self._all)
        self._all.append(entry)
        entry.epoch = self._epoch
        self.nbytes += entry.nbytes
        self.watch_expiry(entry)

    def remove(self, entry: Entry) -> bool:
        """Take an entry out, if it is there: it is GONE. Returns whether it was there."""
        if self._by_id.pop(entry.id, None) is None:
            return False
        entry.stage = Stage.GONE
        self.nbytes -= entry.nbytes
        last = self._all.pop()
        if last is not entry:
            last.number = entry.number
            self._all[entry.number] = last
        partition = self._partitions[entry.scope]
        newer = partition.newest[entry.key]
        if newer is entry:
            if entry.older is None:
                del partition.newest[entry.key]
                if not partition.newest:
                    del self._partitions[entry.scope]
            else:
                partition.newest[entry.key] = entry.older
        else:
            while newer.older is not entry:
                assert newer.older is not None  # noqa: S101 - it is in the line
                newer = newer.older
            newer.older = entry.older
        entry.older = None
        return True

    def watch_expiry(self, entry: Entry) -> None:
        """Its expiry has been set."""
        if entry.expires_ms:
            heapq.heappush(self._expiries, (entry.expires_ms, entry.id))
            if len(self._expiries) > 2 * len(self._all) + _STALE_EXPIRIES:
                self._expiries = [(one.expires_ms, one.id) for one in self._all if one.expires_ms]
                heapq.heapify(self._expiries)

    def expired(self, now_ms: int, limit: int) -> list[Entry]:
        """Entries that have expired, `limit` at the most; each is told once."""
        found: list[Entry] = []
        heap = self._expiries
        while heap and heap[0][0] <= now_ms and len(found) < limit:
            at, number = heapq.heappop(heap)
            entry = self._by_id.get(number)
            if entry is None:
                continue
            if entry.is_over(now_ms) and entry.stage is Stage.LIVE:
                found.append(entry)
            elif at >= entry.expires_ms:
                # A commit decides about it first.
                heapq.heappush(heap, (at, number))
                break
            else:
                heapq.heappush(heap, (entry.expires_ms, number))
        return found

    # -- worth ------------------------------------------------------------------------------------

    def looked_up(self) -> None:
        """Somebody has asked for a response."""
        self._lookups += 1
        if self._lookups >= max(_EPOCH_TIMES * len(self._all), _EPOCH_LEAST):
            self._lookups = 0
            self._epoch += 1

    def used(self, entry: Entry) -> None:
        """An entry has answered."""
        if entry.epoch != self._epoch:
            entry.age_to(self._epoch)
        entry.count += 1
        entry.hits += 1

    def worth(self, entry: Entry) -> float:
        """What an entry is worth: cost units per byte."""
        if entry.epoch != self._epoch:
            entry.age_to(self._epoch)
        saved = entry.cost or _UNITS_A_TOKEN * (1 + entry.tokens_out)
        return entry.count * saved / entry.nbytes

    def least(self, spared: Entry | None = None) -> Entry | None:
        """The entry to go when room is needed; None: there is none.

        Args:
            spared: that is not to go: it has just come.
        """
        count = len(self._all)
        if count <= _SAMPLE:
            drawn = self._all
        else:
            random = self._random
            drawn = [self._all[int(random() * count)] for _ in range(_SAMPLE)]
        found, lowest = None, float("inf")
        for entry in drawn:
            if entry is spared or entry.stage is not Stage.LIVE:
                continue
            # What cannot serve is worth nothing.
            worth = 0.0 if entry.leaving or entry.is_quarantined else self.worth(entry)
            if worth < lowest:
                found, lowest = entry, worth
        return found
