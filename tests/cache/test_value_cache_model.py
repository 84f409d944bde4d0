"""The store against a plain model: what may be found, what is counted, what budgets allow."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pyrope.cache.bounded_store import ENTRY_OVERHEAD
from pyrope.cache.stored import Gone
from pyrope.cache.value_cache import TTL_JITTER, Owner, ValueCache
from pyrope.testing.clock import ManualClock

TENANTS = ("red", "red", "blue", "green")
"""Tenants of the owners."""

owners = st.integers(0, len(TENANTS) - 1)
keys = st.integers(0, 9)
budgets = st.none() | st.integers(0, 12).map(lambda entries: entries * (ENTRY_OVERHEAD + 400))
sizes = st.integers(0, 2500)


@dataclass
class Known:
    """A value that was admitted and has not been said to have gone."""

    owner: int
    key: int
    nbytes: int
    surely_until: float
    over_at: float
    live: bool = True


class AgainstAModel(RuleBasedStateMachine):
    @initialize(guaranteed=st.sampled_from([0.0, 0.5, 1.0]), seed=st.integers(0, 1000))
    def make(self, guaranteed: float, seed: int) -> None:
        self.clock = ManualClock()
        self.cache: ValueCache[int] = ValueCache(
            20 * (ENTRY_OVERHEAD + 400),
            clock=self.clock,
            random=Random(seed),
            cheapest_saved=1.0,
            guaranteed=guaranteed,
        )
        self.known: dict[int, Known] = {}
        self.told: Counter[int] = Counter()
        self.values = 0
        self.lookups = [0] * len(TENANTS)
        self.owners = [self.open(number) for number in range(len(TENANTS))]
        self.ceilings: dict[object, float] = {}

    def open(self, number: int) -> Owner[int]:
        self.lookups[number] = 0
        return self.cache.owner(TENANTS[number], number, self.forget)

    def forget(self, value: int, reason: Gone) -> None:
        self.told[value] += 1
        known = self.known.pop(value)
        assert known.live or reason is Gone.CLEARED
        if reason is Gone.TTL:
            assert self.clock.monotonic() >= known.surely_until

    def current(self, owner: int, key: int) -> tuple[int, Known] | None:
        found = [
            (value, known)
            for value, known in self.known.items()
            if (known.owner, known.key, known.live) == (owner, key, True)
        ]
        assert len(found) <= 1
        return found[0] if found else None

    @rule(
        owner=owners,
        key=keys,
        nbytes=sizes,
        saved=st.sampled_from([0.0, 1.0, 10.0, 1000.0]),
        ttl=st.none() | st.floats(0.5, 20),
    )
    def put(self, owner: int, key: int, nbytes: int, saved: float, ttl: float | None) -> None:
        self.values += 1
        value = self.values
        kept = self.owners[owner].put(key, value, nbytes, saved, ttl)
        assert self.current(owner, key) is None, "what was there has gone in any case"
        assert not (kept and saved < 1)
        if kept:
            now = self.clock.monotonic()
            surely, over = math.inf, math.inf
            if ttl is not None:
                surely, over = now + ttl * (1 - TTL_JITTER), now + ttl * (1 + TTL_JITTER)
            self.known[value] = Known(owner, key, nbytes, surely, over)
            assert self.owners[owner].peek(key) == value

    @rule(owner=owners, key=keys, counted=st.booleans())
    def look_up(self, owner: int, key: int, counted: bool) -> None:  # noqa: FBT001  # hypothesis
        before = self.current(owner, key)
        handle = self.owners[owner]
        found = handle.get(key) if counted else handle.peek(key)
        self.lookups[owner] += counted
        now = self.clock.monotonic()
        if found is None:
            assert before is None or now >= before[1].surely_until
        else:
            assert before is not None
            assert found == before[0]
            assert now < before[1].over_at

    @rule(owner=owners, key=keys, nbytes=sizes)
    def resize(self, owner: int, key: int, nbytes: int) -> None:
        before = self.current(owner, key)
        if before is not None:
            before[1].nbytes = nbytes
        left = self.owners[owner].resize(key, nbytes)
        assert left == (self.current(owner, key) is not None)

    @rule(owner=owners, key=keys, reason=st.sampled_from([Gone.INVALIDATED, Gone.STALE]))
    def discard(self, owner: int, key: int, reason: Gone) -> None:
        before = self.current(owner, key)
        assert self.owners[owner].discard(key, reason) == (before is not None)
        assert self.current(owner, key) is None

    @rule(owner=owners, close=st.booleans())
    def clear(self, owner: int, close: bool) -> None:  # noqa: FBT001  # hypothesis
        for known in self.known.values():
            if known.owner == owner:
                known.live = False
        if close:
            self.owners[owner].close()
            self.owners[owner] = self.open(owner)
            self.ceilings.pop(owner, None)
        else:
            self.owners[owner].clear()

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(limit=st.integers(1, 40))
    def sweep(self, limit: int) -> None:
        before = len(self.known)
        swept = self.cache.sweep(limit)
        assert before - len(self.known) == swept <= limit

    @rule()
    def sweep_all(self) -> None:
        self.cache.sweep(10_000)
        now = self.clock.monotonic()
        assert all(known.live and known.over_at > now for known in self.known.values())
        self.ceilings.clear()

    @rule(owner=owners, max_bytes=budgets)
    def give_an_owner(self, owner: int, max_bytes: int | None) -> None:
        self.owners[owner].max_bytes = max_bytes
        self.ceilings[owner] = self.owners[owner].nbytes

    @rule(tenant=st.sampled_from(sorted(set(TENANTS))), max_bytes=budgets)
    def give_a_tenant(self, tenant: str, max_bytes: int | None) -> None:
        self.cache.set_tenant_max_bytes(tenant, max_bytes)
        self.ceilings[tenant] = self.cache.tenant_bytes(tenant)

    @rule(max_bytes=budgets)
    def give_all(self, max_bytes: int | None) -> None:
        self.cache.max_bytes = 20 * (ENTRY_OVERHEAD + 400) if max_bytes is None else max_bytes
        self.ceilings[None] = self.cache.nbytes

    @invariant()
    def no_budget_is_exceeded_nor_moved_away_from(self) -> None:
        held: list[tuple[object, int, int | None]] = [
            (None, self.cache.nbytes, self.cache.max_bytes)
        ]
        held += [
            (tenant, self.cache.tenant_bytes(tenant), self.cache.tenant_max_bytes(tenant))
            for tenant in set(TENANTS)
        ]
        held += [
            (number, owner.nbytes, owner.max_bytes) for number, owner in enumerate(self.owners)
        ]
        for pool, nbytes, budget in held:
            allowed = math.inf if budget is None else max(budget, self.ceilings.get(pool, 0))
            assert nbytes <= allowed
            if pool in self.ceilings:
                self.ceilings[pool] = nbytes

    @invariant()
    def everything_adds_up(self) -> None:
        held = Counter[str]()
        for known in self.known.values():
            held[TENANTS[known.owner]] += known.nbytes + ENTRY_OVERHEAD
        assert self.cache.nbytes == sum(held.values())
        for tenant in set(TENANTS):
            assert self.cache.tenant_bytes(tenant) == held[tenant]
        total = self.cache.statistics
        assert total.entries == len(self.known)
        assert total.tenants == len(held)
        for number, owner in enumerate(self.owners):
            says = owner.statistics
            assert says.admitted == says.entries + sum(says.gone.values())
            assert says.hits + says.misses == self.lookups[number]
            live = [one for one in self.known.values() if one.owner == number and one.live]
            assert says.entries == len(live) == len(owner) == len(list(owner))

    @invariant()
    def each_value_that_left_was_told_of_once(self) -> None:
        assert set(self.told.values()) <= {1}
        assert not self.told.keys() & self.known.keys()

    def teardown(self) -> None:
        for owner in self.owners:
            owner.close()
        for known in self.known.values():
            known.live = False
        self.cache.sweep(10_000)
        assert self.known == {}
        assert self.cache.nbytes == 0


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
