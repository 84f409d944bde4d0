"""Which entries go when room is needed, and whether a newcomer is worth it.

What an entry is worth is its uses x what each saves / its bytes, uses halved at every epoch of the
frequency sketch: the frequency term of GreedyDual-Size-Frequency (Cherkasova, "Improving WWW
Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy", HP Laboratories HPL-98-69R1,
1998), aged by halving in the manner of TinyLFU (Einziger, Friedman and Manes, ACM Transactions on
Storage 13(4), 2017) in place of its inflation. The one that goes is the least valuable of a few
drawn at random, as in Redis (its eviction is "approximated" LRU and LFU): no order has to be kept
up, so that a hit costs an addition, and one draw serves three budgets. A newcomer has to be worth
more than those that would go for it, as TinyLFU asks, by what the sketch has counted of it.

Chosen by measurement: share of cost saved on traces of 300,000 lookups of 40,000 keys, with bytes
and costs log-normal (sigma 1), one operation in ten a write that invalidates, 5 % of all bytes
kept; after a warm-up of a fifth. `benchmarks/micro_cache.py` runs the like.

| | Zipf 0.9 | Zipf 0.7 | drifting | 40 % once only | sliding | bursts | mean |
| --- | --- | --- | --- | --- | --- | --- | --- |
| LRU | 48.2 | 24.1 | 45.7 | 29.4 | 86.9 | 57.5 | 48.6 |
| GreedyDual-Size-Frequency, exact, by a heap | 61.5 | 43.5 | 58.3 | 48.8 | 85.1 | 64.6 | 60.3 |
| hyperbolic caching, best of 16 | 58.0 | 37.9 | 55.5 | 43.1 | 86.3 | 62.8 | 57.3 |
| this value, best of 16, all admitted | 63.8 | 47.2 | 58.9 | 51.9 | 80.7 | 63.5 | 61.0 |
| this value, best of 16, newcomer must beat | 64.9 | 49.5 | 59.7 | 54.2 | 76.9 | 58.7 | 60.7 |
| the same, newcomer at twice its value | 64.9 | 49.0 | 59.8 | 53.7 | 79.2 | 61.5 | 61.4 |
| the same, best of 8 | 64.2 | 48.3 | 59.4 | 52.9 | 80.2 | 61.4 | 61.1 |

(Hyperbolic caching: Blankstein, Sen and Freedman, USENIX ATC 2017.)

No library fits. Those for Python bound a number of items, or bytes in one budget, by recency or
frequency alone: none weighs what a hit saves against bytes, none knows budgets within a budget. On
such traces cachetools' LRU with `getsizeof` saved what LRU did, Theine's W-TinyLFU, which counts
items, 54.0, 31.5, 47.4, 35.5, 80.1 and 55.4 %; the store as it is, 64.8, 49.7, 59.3, 51.1, 79.3 and
60.8 %. Where recency is all (sliding), LRU is the better policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from random import Random
from typing import Final, Generic, NamedTuple, TypeVar

from pyrope.cache.frequency_sketch import FrequencySketch
from pyrope.cache.stored import REASON_AT, WHOLE_LEVEL, Gone, Pool, Refused, Stored, Tenant, Whole

V = TypeVar("V")

SAMPLE: Final = 16
"""Entries that are compared to find one that goes; of a pool that has no more, all."""

NEWCOMER_ADVANTAGE: Final = 2.0
"""By how much a newcomer's value is multiplied: it was asked for now, the others some time ago."""

MOST_VICTIMS: Final = 64
"""Entries that may go for one newcomer, at some 10 us each; it is refused where more would have to.
Else one large entry could hold up the loop for as long as it takes to evict thousands."""

_ROUNDS: Final = 4
"""Samples from the whole store to find half a sample of tenants that may lose something."""


class Victim(NamedTuple, Generic[V]):
    """An entry that has to go, and why."""

    stored: Stored[V]
    reason: Gone


class Evictor(Generic[V]):
    """Chooses; it changes nothing but the age of counts.

    Fairness: each tenant that holds anything is guaranteed an equal part of `guaranteed` x the
    whole budget. Where the whole budget is exceeded, only tenants above their part lose entries
    (somebody always is), the least valuable first, whoever's they are. A tenant that stays within
    its part with a newcomer gets room for it whatever the others' entries are worth. What is not
    guaranteed goes to whose entries are worth most. A quiet tenant keeps its part until its entries
    expire.

    Args:
        whole: all entries.
        sketch: whose epochs age the counts.
        guaranteed: share of the whole budget, 0 to 1.
    """

    def __init__(
        self, whole: Whole[V], sketch: FrequencySketch, random: Random, guaranteed: float
    ) -> None:
        self._whole = whole
        self._sketch = sketch
        self._random = random.random
        self._guaranteed = guaranteed

    def victims(self, newcomer: Stored[V], now: float) -> list[Victim[V]] | Refused:
        """What has to go for a newcomer, or why it is not worth it.

        Args:
            newcomer: in no pool yet, with its count.
            now: on the monotonic clock, in seconds.
        """
        account = newcomer.account
        tenant = account.tenant
        pools: tuple[Pool[V], ...] = (account.pool, tenant, self._whole)
        needed = newcomer.nbytes
        if any(needed > pool.max_bytes for pool in pools):
            return Refused.ROOM
        worth = NEWCOMER_ADVANTAGE * newcomer.count * newcomer.saved / needed
        found: list[Victim[V]] = []
        chosen: set[Stored[V]] = set()
        freed = 0
        for pool in pools:
            # What goes for the sake of a smaller pool is in the larger ones too.
            while pool.nbytes + needed - freed > pool.max_bytes:
                if len(found) == MOST_VICTIMS:
                    return Refused.ROOM
                if pool.level == WHOLE_LEVEL and not self._is_alone(tenant):
                    surplus = self._surplus(newcomer, found)
                    if surplus(tenant) <= 0:
                        worth = math.inf
                    victim, value = self._least_of_the_rich(surplus, chosen, now)
                else:
                    victim, value = self._least(self._draw(pool), chosen, now)
                if victim is None:
                    return Refused.ROOM
                if value >= worth:
                    return Refused.VALUE
                found.append(Victim(victim, _reason(victim, pool, now)))
                chosen.add(victim)
                freed += victim.nbytes
        return found

    def victim(self, pool: Pool[V], now: float) -> Victim[V]:
        """What goes first from a pool that is over its budget; ValueError if it is empty."""
        if pool.level == WHOLE_LEVEL and self._whole.holding > 1:
            stored, _ = self._least_of_the_rich(self._surplus(None, ()), (), now)
        else:
            stored, _ = self._least(self._draw(pool), (), now)
        if stored is None:
            raise ValueError("nothing is left to go: the pool is empty")
        return Victim(stored, _reason(stored, pool, now))

    def _is_alone(self, tenant: Tenant[V]) -> bool:
        """Whether nobody else holds anything; it is above its part, then, whenever that matters."""
        return self._whole.holding == (1 if tenant.entries else 0)

    def _surplus(
        self, newcomer: Stored[V] | None, going: Collection[Victim[V]]
    ) -> Callable[[Tenant[V]], float]:
        """Bytes that a tenant has above its part, with a newcomer and without what goes for it."""
        holding = self._whole.holding
        held: dict[Tenant[V], int] = {}
        if newcomer is not None:
            tenant = newcomer.account.tenant
            held[tenant] = newcomer.nbytes
            if not tenant.entries:
                holding += 1
        for victim, _ in going:
            tenant = victim.account.tenant
            held[tenant] = held.get(tenant, 0) - victim.nbytes
        part = self._guaranteed * self._whole.max_bytes / max(1, holding)
        return lambda tenant: tenant.nbytes + held.get(tenant, 0) - part

    def _least_of_the_rich(
        self,
        surplus: Callable[[Tenant[V]], float],
        chosen: Collection[Stored[V]],
        now: float,
    ) -> tuple[Stored[V] | None, float]:
        """The least valuable of some entries of tenants that are above their part."""
        candidates: list[Stored[V]] = []
        for _ in range(_ROUNDS):
            drawn = self._draw(self._whole)
            candidates += [stored for stored in drawn if surplus(stored.account.tenant) > 0]
            if len(candidates) >= SAMPLE // 2:
                break
        found = self._least(candidates, chosen, now)
        if found[0] is not None:
            return found
        # Nearly all entries are of tenants within their parts: small ones, and many.
        richest = max(self._whole.tenants.values(), key=surplus)
        if surplus(richest) <= 0:
            return None, math.inf
        return self._least(self._draw(richest), chosen, now)

    def _draw(self, pool: Pool[V]) -> list[Stored[V]]:
        """A sample of a pool, at random; all of it where there is no more."""
        entries = pool.entries
        count = len(entries)
        if count <= SAMPLE:
            return entries
        random = self._random
        return [entries[int(random() * count)] for _ in range(SAMPLE)]

    def _least(
        self, drawn: list[Stored[V]], chosen: Collection[Stored[V]], now: float
    ) -> tuple[Stored[V] | None, float]:
        """The least valuable that is not chosen yet, and its value; what is over has none."""
        epoch = self._sketch.epoch
        least, lowest = None, math.inf
        for stored in drawn:
            if stored.expires_at <= now or stored.home is not stored.account.entries:
                value = -1.0
            else:
                if stored.epoch != epoch:
                    stored.age_to(epoch)
                value = stored.count * stored.saved / stored.nbytes
            if value < lowest and stored not in chosen:
                least, lowest = stored, value
        return least, lowest


def _reason(stored: Stored[V], pool: Pool[V], now: float) -> Gone:
    """Why it goes, in truth: one that is over has not been driven out."""
    if not stored.is_live:
        return Gone.CLEARED
    if stored.expires_at <= now:
        return Gone.TTL
    return REASON_AT[pool.level]
