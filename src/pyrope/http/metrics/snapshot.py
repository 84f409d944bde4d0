"""What families are made of, where that takes a look at every index or every tenant.

A hundred thousand of either are more than the loop may look at in one turn, so that they are looked
at some at a time. Sums of counters never fall for it: see `Service.counted`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from pyrope.commands.context import Server
from pyrope.http.metrics.places import OTHER, Places
from pyrope.service.index import OpenIndex
from pyrope.service.service import Service
from pyrope.service.totals import IndexTotals
from pyrope.tenants.usage import MICRO, Usage

# Some 10 us each, and 1 us.
_INDEXES_AT_ONCE, _TENANTS_AT_ONCE = 100, 1000

Index = tuple[str, str]
"""A tenant and an index of it."""

_OTHERS: Index = (OTHER, OTHER)


class Done(NamedTuple):
    """What one index, or many, have done since the start.

    Attributes:
        hits, misses: of its caches.
        recalled: prompts that were answered by what is remembered.
        saved_tokens, saved_units: by those.
    """

    hits: int = 0
    misses: int = 0
    recalled: int = 0
    saved_tokens: int = 0
    saved_units: float = 0.0


@dataclass(slots=True)
class IndexRow:
    """What one index, or all that have no place of their own, hold and have done."""

    vectors: int = 0
    memory_bytes: int = 0
    cache_entries: int = 0
    cache_bytes: int = 0
    queued: int = 0
    responses: int = 0
    done: Done = field(default_factory=Done)


@dataclass(slots=True)
class BudgetState:
    """How those tenants spend that have a budget.

    Attributes:
        worst_pace: the highest share of a budget used, by the share of the month that is gone.
        tenants: how many there are; `ahead` of the month, and with the budget `spent`.
    """

    worst_pace: float = 0.0
    tenants: int = 0
    ahead: int = 0
    spent: int = 0


@dataclass(slots=True)
class Snapshot:
    """What a scrape is told.

    Attributes:
        totals: of all indexes.
        vectors, head_vectors, deleted_vectors, queued, unsaved_changes: in all indexes now.
        responses, response_bytes: remembered in all indexes now, and their memory.
        types: of indexes, how many there are.
        levels_off: levels of near hits, of some index, that are not served for some recall.
        indexes: by tenant and index, and for the others; empty where no index has a place.
        tenants: likewise, with what they have used this month.
        budget_shares: of those of them that have a budget, what part of it they have used.
        budgets: of the tenants that have one.
    """

    server: Server
    totals: IndexTotals
    vectors: int = 0
    head_vectors: int = 0
    deleted_vectors: int = 0
    queued: int = 0
    unsaved_changes: int = 0
    responses: int = 0
    response_bytes: int = 0
    types: Counter[str] = field(default_factory=Counter)
    levels_off: Counter[str] = field(default_factory=Counter)
    indexes: dict[Index, IndexRow] = field(default_factory=dict)
    tenants: dict[str, Usage] = field(default_factory=dict)
    budget_shares: dict[str, float] = field(default_factory=dict)
    budgets: BudgetState = field(default_factory=BudgetState)

    @property
    def service(self) -> Service:
        return self.server.service


class Observer:
    """Takes snapshots of a server, and remembers who has a place of their own."""

    def __init__(self, server: Server) -> None:
        self._server = server
        settings = server.settings.metrics
        self._tenants: Places[str] = Places(settings.tenant_labels)
        self._indexes: Places[int] = Places(settings.index_labels)
        # Of indexes with places: what they had done when they were last seen.
        self._counted: dict[int, Done] = {}
        self._looking = asyncio.Lock()

    async def look(self) -> Snapshot:
        """What there is now."""
        service = self._server.service
        # One after another: what is remembered of an index must not be younger than the sums.
        async with self._looking:
            totals, indexes = service.counted()
            snapshot = Snapshot(self._server, totals)
            await self._look_at_indexes(snapshot, indexes)
            await self._look_at_budgets(snapshot)
            if self._tenants.most:
                await self._look_at_tenants(snapshot)
        return snapshot

    # -- indexes ----------------------------------------------------------------------------------

    async def _look_at_indexes(self, snapshot: Snapshot, indexes: list[OpenIndex]) -> None:
        rest = IndexRow()
        for number, index in enumerate(indexes):
            if number % _INDEXES_AT_ONCE == _INDEXES_AT_ONCE - 1:
                await asyncio.sleep(0)
            index.count_into(snapshot.totals)
            if index.closed:
                continue
            engine = index.engine
            snapshot.vectors += len(index)
            snapshot.head_vectors += engine.head_count
            snapshot.deleted_vectors += engine.deleted_count
            snapshot.queued += index.queued_requests
            snapshot.unsaved_changes += index.unsaved_changes
            snapshot.types[index.spec.type.value] += 1
            if index.remembered is not None:
                snapshot.responses += len(index.remembered)
                snapshot.response_bytes += index.remembered.nbytes
            recall = index.cache.near.audits.recall
            for level in recall.levels:
                snapshot.levels_off[level] += any(one.is_off for one in recall.promises(level))
            if self._indexes.most:
                self._add_row(snapshot, index, rest)
        if self._indexes.most:
            # What has gone, too; and what those with places had done when they went.
            rest.done = _left(snapshot.totals, self._counted.values())
            snapshot.indexes[_OTHERS] = rest

    def _add_row(self, snapshot: Snapshot, index: OpenIndex, rest: IndexRow) -> None:
        spec = index.spec
        row = rest
        names = spec.tenant, spec.name
        if names != _OTHERS and self._indexes.take(spec.uid):
            row = snapshot.indexes[names] = IndexRow()
            row.done = self._counted[spec.uid] = _done(index)
        row.vectors += len(index)
        row.memory_bytes += index.memory_bytes
        row.cache_entries += len(index.cache)
        row.cache_bytes += index.cache.nbytes
        row.queued += index.queued_requests
        if index.remembered is not None:
            row.responses += len(index.remembered)

    # -- tenants ----------------------------------------------------------------------------------

    async def _look_at_budgets(self, snapshot: Snapshot) -> None:
        tenancy, state = self._server.service.tenancy, snapshot.budgets
        gone = tenancy.share_of_month_gone()
        for number, name in enumerate(tenancy.registry.names()):
            if number % _TENANTS_AT_ONCE == _TENANTS_AT_ONCE - 1:
                await asyncio.sleep(0)
            budget = tenancy.registry.limits(name).budget
            if budget is None:
                continue
            share = 1.0
            used = tenancy.used_micro_now(name) / MICRO
            if budget:
                share = used / budget
            state.tenants += 1
            state.spent += share >= 1.0
            state.ahead += share > gone
            state.worst_pace = max(state.worst_pace, share / gone)
            if name in self._tenants:
                snapshot.budget_shares[name] = share

    async def _look_at_tenants(self, snapshot: Snapshot) -> None:
        service = self._server.service
        tenancy = service.tenancy
        for name in tenancy.registry.names(count=self._tenants.most):
            self._take(name)
        for account in tenancy.enforcer.busy():
            self._take(account.tenant)
        stored = tenancy.used_by_all_now()
        rest = Usage()
        for name in self._tenants:
            usage = snapshot.tenants[name] = tenancy.used_now(name)
            rest.add(usage, -1)
        # Ten microseconds each.
        rest.add(await service.run(_sum_of, stored))
        snapshot.tenants[OTHER] = rest

    def _take(self, tenant: str) -> None:
        if tenant != OTHER:
            self._tenants.take(tenant)


def _sum_of(stored: Iterable[bytes]) -> Usage:
    total = Usage()
    for one in stored:
        total.add(Usage.decode(one))
    return total


def _done(index: OpenIndex) -> Done:
    counted = index.cache.statistics
    hits, misses = sum(counted.hits.values()), counted.misses
    if index.remembered is None:
        return Done(hits, misses)
    told = index.remembered.statistics
    return Done(hits, misses, told.hits_total, told.tokens_saved, told.cost_saved)


def _left(totals: IndexTotals, others: Iterable[Done]) -> Done:
    """What all have done, but for some."""
    told = totals.remembered
    everything = Done(
        totals.hits_total, totals.misses, told.hits_total, told.tokens_saved, told.cost_saved
    )
    rows = list(others)
    hits, misses, recalled, tokens, units = (
        total - sum(row[place] for row in rows) for place, total in enumerate(everything)
    )
    # Sums of fractions depend on the order in which they are made.
    return Done(int(hits), int(misses), int(recalled), int(tokens), round(units, 6))
