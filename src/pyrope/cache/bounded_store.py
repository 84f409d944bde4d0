"""Entries under three budgets: of their index, of their tenant, of all."""

from __future__ import annotations

from collections.abc import Hashable
from random import Random
from typing import Final, Generic, TypeVar

from pyrope.cache.eviction import MOST_VICTIMS, SAMPLE, Evictor
from pyrope.cache.frequency_sketch import FrequencySketch
from pyrope.cache.stored import REASON_AT, Account, Gone, Pool, Refused, Stored, Whole
from pyrope.clock import Clock

V = TypeVar("V")

ENTRY_OVERHEAD: Final = 400
"""Bytes that an entry takes in the store beside its key and value: the record and its numbers, its
places in a dictionary and in three pools, its counters in the sketch. By `tracemalloc` it is 392 to
412 for 10,000 to 130,000 entries, as `benchmarks/micro_cache.py` measures (CPython 3.11)."""

_FIRST_CAPACITY: Final = 1024


class BoundedStore(Generic[V]):
    """Lets entries in and out, and keeps the sums. All methods are for the event loop.

    Nothing here takes longer with the number of entries: expired and cleared ones are taken away by
    `sweep`, a few at a time, or when they turn up as the first to go. Until then they count.
    """

    def __init__(self, max_bytes: int, *, clock: Clock, random: Random, guaranteed: float) -> None:
        self.sketch = FrequencySketch(_FIRST_CAPACITY, random.getrandbits(64))
        self.whole: Whole[V] = Whole(max_bytes)
        self.monotonic = clock.monotonic
        self._evictor = Evictor(self.whole, self.sketch, random, guaranteed)
        self._cleared: list[dict[Hashable, Stored[V]]] = []
        # Pools whose budget was lowered below what they hold.
        self._over: dict[Pool[V], None] = {}
        self._next = 0

    def admit(self, newcomer: Stored[V]) -> Refused | None:
        """Let an entry in if it is worth what has to go for it. Else why not."""
        account = newcomer.account
        sketch = self.sketch
        # It was missed a moment ago, whether the sketch still knows or has just been halved.
        newcomer.count = max(1, sketch.estimate((account.identity, newcomer.key)))
        newcomer.epoch = sketch.epoch
        victims = self._evictor.victims(newcomer, self.monotonic())
        if isinstance(victims, Refused):
            return victims
        for victim, reason in victims:
            self.drop(victim, reason)
        newcomer.home[newcomer.key] = newcomer
        self.whole.enter(newcomer)
        if len(self.whole.entries) > sketch.capacity:
            sketch.grow(len(self.whole.entries))
        return None

    def drop(self, stored: Stored[V], reason: Gone) -> None:
        """Take an entry away."""
        account = stored.account
        self.whole.leave(stored)
        stored.home.pop(stored.key, None)
        if stored.is_live:
            account.gone[reason] += 1
        else:
            # Counted when all of them were cleared.
            reason = Gone.CLEARED
        stored.age_to(self.sketch.epoch)
        self.sketch.raise_to((account.identity, stored.key), int(stored.count))
        if account.on_gone is not None:
            account.on_gone(stored.value, reason)

    def resize(self, stored: Stored[V], nbytes: int) -> None:
        """Change an entry's bytes; where a budget is exceeded then, others go, or it does."""
        account = stored.account
        change = nbytes - stored.nbytes
        stored.nbytes = nbytes
        for pool in (account.pool, account.tenant, self.whole):
            pool.nbytes += change
        if change <= 0:
            return
        for pool in (account.pool, account.tenant, self.whole):
            for _ in range(MOST_VICTIMS):
                if pool.nbytes <= pool.max_bytes:
                    break
                self._evict(pool)
            else:
                if pool.nbytes > pool.max_bytes and stored.home.get(stored.key) is stored:
                    self.drop(stored, REASON_AT[pool.level])

    def clear(self, account: Account[V]) -> None:
        """Nothing of the account can be asked for any more; `sweep` takes it away."""
        if account.entries:
            account.gone[Gone.CLEARED] += len(account.entries)
            self._cleared.append(account.entries)
            account.entries = {}

    def set_budget(self, pool: Pool[V], max_bytes: float) -> None:
        """Change a budget. What is above it goes with the next sweeps; until then, nothing fits."""
        if max_bytes < 0:
            raise ValueError(f"a budget of {max_bytes} bytes")
        pool.max_bytes = max_bytes
        self._over.pop(pool, None)
        if pool.nbytes > max_bytes:
            self._over[pool] = None

    def sweep(self, limit: int) -> int:
        """Take away what was cleared, is over a lowered budget, or has expired.

        A cursor goes round all entries to find those that expired. An entry that expires is found
        before the cursor has come round once more, which takes as many entries looked at as there
        are.

        Args:
            limit: entries to look at: at least 1; about 0.1 us each, some 2 us for each that goes.

        Returns:
            How many went.
        """
        if limit < 1:
            raise ValueError(f"a sweep of {limit} entries")
        before = len(self.whole.entries)
        left = self._sweep_cleared(limit)
        left = self._sweep_budgets(left)
        self._sweep_expired(left)
        return before - len(self.whole.entries)

    def _sweep_cleared(self, left: int) -> int:
        while left > 0 and self._cleared:
            entries = self._cleared[-1]
            if entries:
                # From its end: a dictionary that is emptied from the front is slow to find it.
                _, stored = entries.popitem()
                self.drop(stored, Gone.CLEARED)
            else:
                self._cleared.pop()
            left -= 1
        return left

    def _sweep_budgets(self, left: int) -> int:
        while left > 0 and self._over:
            pool = next(iter(self._over))
            if pool.nbytes > pool.max_bytes:
                self._evict(pool)
                left -= SAMPLE
            else:
                del self._over[pool]
                left -= 1
        return left

    def _sweep_expired(self, left: int) -> None:
        entries = self.whole.entries
        now = self.monotonic()
        for _ in range(min(left, len(entries))):
            # Downwards: what comes in the place of one that goes is from above, and was looked at.
            place = min(self._next, len(entries)) - 1
            if place < 0:
                place = len(entries) - 1
            self._next = place
            if entries[place].expires_at <= now:
                self.drop(entries[place], Gone.TTL)

    def _evict(self, pool: Pool[V]) -> None:
        self.drop(*self._evictor.victim(pool, self.monotonic()))
