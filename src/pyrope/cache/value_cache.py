"""The store of cached results: one for the whole server, with a part for each index of each tenant.

An entry is kept for what it saves: see `eviction` for what goes when room is needed, and which
newcomer is worth it; `bounded_store` for budgets and sweeps; `frequency_sketch` for how the uses of
what is not kept are known.

Bytes are those that the caller names for key and value, and `ENTRY_OVERHEAD` for each entry. The
sum is never above a budget, except while a budget that was lowered is being reached by sweeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final, Generic, TypeVar

from pyrope.cache.bounded_store import ENTRY_OVERHEAD, BoundedStore
from pyrope.cache.stored import Account, Gone, Refused, Stored
from pyrope.clock import Clock

V = TypeVar("V")

TTL_JITTER: Final = 0.1
"""Share by which a time to live is longer or shorter, so that what is put together does not expire
together."""


@dataclass(frozen=True, slots=True)
class OwnerStatistics:
    """What one index holds, and what happened since it was opened.

    Each entry admitted is among `entries`, or is counted once in `gone`.

    Attributes:
        entries: that can be asked for; among them expired ones that nobody met yet.
        nbytes: that count against the budgets; with those of entries cleared but not swept yet.
        hits, misses: lookups.
        admitted: values kept.
        refused: values not kept, by reason.
        gone: entries that left, by reason.
    """

    entries: int
    nbytes: int
    hits: int
    misses: int
    admitted: int
    refused: Mapping[Refused, int]
    gone: Mapping[Gone, int]


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """What the whole store holds.

    Attributes:
        entries: with those cleared or expired but not swept yet.
        nbytes: that count against the budget.
        max_bytes: the budget.
        tenants: that hold anything.
        epoch: how often the counts of uses have been halved.
    """

    entries: int
    nbytes: int
    max_bytes: int
    tenants: int
    epoch: int


class Owner(Account[V]):
    """One index's part of the store. Made by `ValueCache.owner`.

    An entry that leaves is told to `on_gone`, once. That callable must not raise, nor call back
    into the store.
    """

    __slots__ = ("_cache", "_closed", "_monotonic", "_sketch", "_store")

    def __init__(
        self,
        cache: ValueCache[V],
        store: BoundedStore[V],
        tenant: str,
        key: Hashable,
        on_gone: Callable[[V, Gone], None] | None,
    ) -> None:
        super().__init__(hash((tenant, key)), store.whole.tenant(tenant), on_gone)
        self.tenant.accounts += 1
        self._cache = cache
        self._store = store
        self._sketch = store.sketch
        self._monotonic = store.monotonic
        self._closed = False

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Hashable]:
        """Keys, of expired entries too; the store must not be changed meanwhile."""
        return iter(self.entries)

    def get(self, key: Hashable) -> V | None:
        """The value, counted as a lookup and a use; None where there is none, or it has expired."""
        stored = self.entries.get(key)
        if stored is None or stored.expires_at <= self._monotonic():
            if stored is not None:
                self._store.drop(stored, Gone.TTL)
            self.misses += 1
            self._sketch.add((self.identity, key))
            return None
        # A use of what is kept is counted here: exactly, and at a third of what the sketch takes.
        sketch = self._sketch
        if stored.epoch != sketch.epoch:
            stored.age_to(sketch.epoch)
        stored.count += 1
        sketch.recorded += 1
        self.hits += 1
        return stored.value

    def used(self, times: int) -> None:
        """Count lookups that somebody else has found, and added to the counts of their entries."""
        self._sketch.recorded += times
        self.hits += times

    def peek(self, key: Hashable) -> V | None:
        """The value, not counted; None where there is none, or it has expired."""
        stored = self.entries.get(key)
        if stored is None or stored.expires_at <= self._monotonic():
            return None
        return stored.value

    def put(self, key: Hashable, value: V, nbytes: int, saved: float, ttl_s: float | None) -> bool:
        """Keep a value, if it is worth it. What was there under the key goes in any case.

        Args:
            nbytes: what key and value take, at least 0; the store adds its own.
            saved: cost units that each hit saves, at least 0.
            ttl_s: seconds to live, above 0, give or take `TTL_JITTER`; None: for ever.

        Returns:
            Whether it is kept.
        """
        if nbytes < 0 or not 0 <= saved < math.inf or (ttl_s is not None and not ttl_s > 0):
            raise ValueError(f"no entry has {nbytes} bytes, saves {saved}, lives for {ttl_s} s")
        self.discard(key, Gone.REPLACED)
        if self._closed:
            return False
        refused = self._admit(key, value, nbytes, saved, ttl_s)
        if refused is not None:
            self.refused[refused] += 1
            return False
        self.admitted += 1
        return True

    def _admit(
        self, key: Hashable, value: V, nbytes: int, saved: float, ttl_s: float | None
    ) -> Refused | None:
        cache = self._cache
        if saved < cache.cheapest_saved:
            return Refused.CHEAP
        expires_at = math.inf
        if ttl_s is not None:
            expires_at = self._monotonic() + ttl_s * cache.jitter()
        stored = Stored(self, key, value, nbytes + ENTRY_OVERHEAD, saved, expires_at)
        return self._store.admit(stored)

    def resize(self, key: Hashable, nbytes: int) -> bool:
        """Say that an entry's key and value take another number of bytes now.

        Where a budget is exceeded then, entries go, possibly this one. Returns whether it is still
        here.
        """
        if nbytes < 0:
            raise ValueError(f"no entry has {nbytes} bytes")
        stored = self.entries.get(key)
        if stored is None:
            return False
        self._store.resize(stored, nbytes + ENTRY_OVERHEAD)
        return key in self.entries

    def shorten(self, key: Hashable, since: float, share: float) -> bool:
        """Cut an entry's time to live, counted from `since`, to a share of itself.

        Args:
            since: on the monotonic clock, in seconds.
            share: 0 to 1.

        Returns:
            Whether there is an entry that has not expired by that.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"a share of {share}")
        stored = self.entries.get(key)
        if stored is None:
            return False
        if stored.expires_at < math.inf:
            stored.expires_at = since + (stored.expires_at - since) * share
        return stored.expires_at > self._monotonic()

    def discard(self, key: Hashable, reason: str) -> bool:
        """Let an entry go. Returns whether there was one.

        Args:
            reason: one of `Gone`, or its value; a ValueError if it is not.
        """
        stored = self.entries.get(key)
        if stored is None:
            return False
        self._store.drop(stored, Gone(reason))
        return True

    def clear(self) -> None:
        """Let all entries go.

        They cannot be asked for from now on; `ValueCache.sweep` frees the bytes of each, and tells
        `on_gone`.
        """
        self._store.clear(self)

    def close(self) -> None:
        """As `clear`, and nothing is kept any more. The owner is of no use then."""
        if not self._closed:
            self._closed = True
            self._store.clear(self)
            self.tenant.accounts -= 1
            self._store.whole.forget_if_idle(self.tenant)

    @property
    def nbytes(self) -> int:
        """Bytes of the entries, with those cleared but not swept yet."""
        return self.pool.nbytes

    @property
    def max_bytes(self) -> int | None:
        """Budget of this index; None: none but the tenant's and the store's.

        Setting it below what there is frees nothing at once; sweeps do.
        """
        return _budget(self.pool.max_bytes)

    @max_bytes.setter
    def max_bytes(self, max_bytes: int | None) -> None:
        self._store.set_budget(self.pool, math.inf if max_bytes is None else max_bytes)

    @property
    def statistics(self) -> OwnerStatistics:
        return OwnerStatistics(
            entries=len(self.entries),
            nbytes=self.pool.nbytes,
            hits=self.hits,
            misses=self.misses,
            admitted=self.admitted,
            refused=dict(self.refused),
            gone=dict(self.gone),
        )


class ValueCache(Generic[V]):
    """One for the whole server. All methods are for the event loop.

    Args:
        max_bytes: that all entries may take together; 0 keeps nothing.
        clock: for times to live; its monotonic side.
        random: seeded; draws jitter, entries to compare, and the sketch's seed.
        cheapest_saved: cost units; what would save less with each hit is not kept.
        guaranteed: share of `max_bytes`, 0 to 1, that is divided equally between the tenants that
            hold anything; see `Evictor`.
    """

    def __init__(
        self,
        max_bytes: int,
        *,
        clock: Clock,
        random: Random,
        cheapest_saved: float = 0.0,
        guaranteed: float = 0.5,
    ) -> None:
        if max_bytes < 0:
            raise ValueError(f"a budget of {max_bytes} bytes")
        if not 0 <= guaranteed <= 1:
            raise ValueError(f"a share of {guaranteed}")
        self.cheapest_saved = cheapest_saved
        self._random = random
        self._store: BoundedStore[V] = BoundedStore(
            max_bytes, clock=clock, random=random, guaranteed=guaranteed
        )

    def owner(
        self, tenant: str, key: Hashable, on_gone: Callable[[V, Gone], None] | None = None
    ) -> Owner[V]:
        """A part of the store, empty, for one index of a tenant.

        Args:
            key: of the index. What was counted of its lookups under this key is remembered.
            on_gone: called with each value that leaves, and the reason.
        """
        return Owner(self, self._store, tenant, key, on_gone)

    def sweep(self, limit: int) -> int:
        """Free what expired, was cleared, or is above a lowered budget; see `BoundedStore.sweep`.

        Args:
            limit: entries to look at, at least 1; ten thousand take about a millisecond, if few go.

        Returns:
            How many entries went.
        """
        return self._store.sweep(limit)

    def jitter(self) -> float:
        """A factor for a time to live."""
        return 1 + TTL_JITTER * (2 * self._random.random() - 1)

    @property
    def max_bytes(self) -> int:
        """Budget of all entries together. Setting it lower frees nothing at once; sweeps do."""
        return int(self._store.whole.max_bytes)

    @max_bytes.setter
    def max_bytes(self, max_bytes: int) -> None:
        self._store.set_budget(self._store.whole, max_bytes)

    @property
    def nbytes(self) -> int:
        """Bytes of all entries, with those cleared but not swept yet."""
        return self._store.whole.nbytes

    def tenant_bytes(self, tenant: str) -> int:
        """Bytes of a tenant's entries, likewise."""
        pool = self._store.whole.tenants.get(tenant)
        return 0 if pool is None else pool.nbytes

    def tenant_max_bytes(self, tenant: str) -> int | None:
        """Budget of a tenant; None: none but the store's."""
        pool = self._store.whole.tenants.get(tenant)
        return None if pool is None else _budget(pool.max_bytes)

    def set_tenant_max_bytes(self, tenant: str, max_bytes: int | None) -> None:
        """Change a tenant's budget. Setting it lower frees nothing at once; sweeps do."""
        whole = self._store.whole
        pool = whole.tenant(tenant)
        self._store.set_budget(pool, math.inf if max_bytes is None else max_bytes)
        whole.forget_if_idle(pool)

    @property
    def statistics(self) -> CacheStatistics:
        whole = self._store.whole
        return CacheStatistics(
            entries=len(whole.entries),
            nbytes=whole.nbytes,
            max_bytes=self.max_bytes,
            tenants=whole.holding,
            epoch=self._store.sketch.epoch,
        )


def _budget(max_bytes: float) -> int | None:
    return None if max_bytes == math.inf else int(max_bytes)
