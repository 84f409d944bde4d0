"""The figures that a dashboard shows: of the server, or of one tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Any

from pyrope import __version__
from pyrope.commands import llm
from pyrope.commands.context import Server
from pyrope.http.dashboard.recent import Recent, sum_of
from pyrope.http.dashboard.slow import slow_commands
from pyrope.http.dashboard.tenants import TenantFigures
from pyrope.metrics import Durations
from pyrope.service.index import OpenIndex
from pyrope.service.totals import IndexTotals
from pyrope.tenants.usage import HIT_LEVELS, MICRO

# Some 25 us each.
_INDEXES_AT_ONCE = 50
# Indexes that a dashboard shows.
_SHOWN_INDEXES = 50

Figures = dict[str, Any]


@dataclass(slots=True)
class _Row:
    """An index, and how many queries it has had in all, and of late."""

    index: OpenIndex
    queries: int
    grown: float | None

    @property
    def rank(self) -> tuple[float, int]:
        return self.grown or 0.0, self.queries


@dataclass(slots=True)
class _Seen:
    """What one look at the indexes has found.

    Attributes:
        busiest: those with the most queries, the busiest first; of `count` in all.
    """

    totals: IndexTotals = field(default_factory=IndexTotals)
    busiest: list[_Row] = field(default_factory=list)
    count: int = 0
    vectors: int = 0
    memory_bytes: int = 0
    queued: int = 0
    entries: int = 0
    cache_bytes: int = 0


class Observed:
    """A server, or a tenant of it, as it is looked at again and again.

    Args:
        tenant: of which nothing but its own is told; None: everything is.

    Attributes:
        busiest: the indexes that were told of last, those with the most queries first.
    """

    def __init__(self, server: Server, tenant: str | None) -> None:
        self.busiest: list[OpenIndex] = []
        self._server = server
        self._tenant = tenant
        self._recent = Recent(server.clock.monotonic)
        self._tenants = TenantFigures(server.service.tenancy, self._recent)
        # Of a tenant's queries; those of all are timed anyway.
        self._watched = Durations()
        self._untimed: int | None = None
        self._untimed_before = 0

    def watch(self) -> None:
        """Begin to note what is not noted while nobody looks."""
        if self._tenant is not None:
            self._server.watched[self._tenant] = self._watched

    def unwatch(self) -> None:
        """Note it no more."""
        if self._tenant is not None:
            self._server.watched.pop(self._tenant, None)

    async def look(self) -> Figures:
        """What there is now; others get their turn while it is found out."""
        recent, server, tenant = self._recent, self._server, self._tenant
        recent.turn()
        seen = await self._look_at_indexes()
        self.busiest = [row.index for row in seen.busiest]
        figures: Figures = {
            "version": __version__,
            "run_id": server.run_id,
            "at": server.clock.wall(),
            "seconds": recent.seconds,
            "tenant": tenant,
            "uptime": server.clock.monotonic() - server.started_at,
            "vectors": seen.vectors,
            "memory_bytes": seen.memory_bytes,
            "queued": seen.queued,
            "traffic": self._traffic(seen.totals),
            "cache": self._cache(seen),
            "recall": _recall(seen.totals),
            "indexes": {
                "count": seen.count,
                "items": [self._index(row) for row in seen.busiest],
            },
            "tenants": await self._tenants.look(tenant),
            "slow": slow_commands(server.slow_log, tenant),
            "server": None,
            "llm": None,
        }
        if tenant is None:
            figures["server"] = self._of_everybody()
            figures["llm"] = llm.describe(server)
        return figures

    # -- indexes ----------------------------------------------------------------------------------

    async def _look_at_indexes(self) -> _Seen:
        service, seen = self._server.service, _Seen()
        if self._tenant is None:
            seen.totals, indexes = service.counted()
        else:
            indexes = service.indexes_of(self._tenant)
        for number, index in enumerate(indexes):
            if number % _INDEXES_AT_ONCE == _INDEXES_AT_ONCE - 1:
                # To choose among all at the end would take long, where there are many.
                seen.busiest = _most_asked(seen.busiest)
                await asyncio.sleep(0)
            index.count_into(seen.totals)
            if index.closed:
                continue
            counted = index.cache.statistics
            queries = sum(counted.hits.values()) + counted.misses + counted.uncached
            grown = self._recent.grown(index.spec.uid, queries)
            seen.busiest.append(_Row(index, queries, grown))
            seen.count += 1
            seen.vectors += len(index)
            seen.memory_bytes += index.memory_bytes
            seen.queued += index.queued_requests
            seen.entries += len(index.cache)
            seen.cache_bytes += index.cache.nbytes
        seen.busiest = _most_asked(seen.busiest)
        return seen

    def _index(self, row: _Row) -> dict[str, Any]:
        index, seconds = row.index, self._recent.seconds
        spec, counted = index.spec, index.cache.statistics
        hits = sum(counted.hits.values())
        return {
            "tenant": spec.tenant,
            "name": spec.name,
            "type": spec.type.value,
            "metric": spec.metric.value,
            "dim": spec.dim,
            "embedder": spec.embedder,
            "vectors": len(index),
            "memory_bytes": index.memory_bytes,
            "queries": row.queries,
            "queries_per_s": row.grown / seconds if row.grown is not None and seconds else None,
            "hits": hits,
            "hit_ratio": _ratio(hits, hits + counted.misses),
            "cache_entries": len(index.cache),
            "cache_bytes": index.cache.nbytes,
            "clusters": len(index.clusters.registry),
        }

    # -- what is asked, and what answers ----------------------------------------------------------

    def _traffic(self, totals: IndexTotals) -> dict[str, Any]:
        queries = totals.hits_total + totals.misses + totals.uncached
        grown = self._recent.grown("queries", queries)
        p50, p99 = self._recent.percentiles(self._durations(queries), (0.5, 0.99))
        seconds = self._recent.seconds
        return {
            "queries": queries,
            "queries_per_s": grown / seconds if grown is not None and seconds else None,
            "p50_us": None if p50 is None else p50 / 1000,
            "p99_us": None if p99 is None else p99 / 1000,
        }

    def _durations(self, queries: int) -> list[int]:
        """By bucket of a histogram, the queries that there have been."""
        if self._tenant is None:
            # Replies that are sent again for the very same bytes are timed with their command.
            again = self._server.commands[b"VECTOR.SEARCH"].stats.alike
            return sum_of((*self._server.counters.answered.values(), again))
        # Those are not timed by tenant. Nothing is answered faster: they count as the fastest.
        counts = self._watched.histogram.counts()
        untimed = queries - sum(counts)
        if self._untimed is None:
            self._untimed = self._untimed_before = untimed
        # A query is counted some time before it is answered and timed.
        self._untimed = max(self._untimed, untimed)
        counts[0] += self._untimed - self._untimed_before
        return counts

    def _cache(self, seen: _Seen) -> dict[str, Any]:
        totals, recent, tenancy = seen.totals, self._recent, self._server.service.tenancy
        hits = {level: totals.hits.get(level, 0) for level in HIT_LEVELS}
        grown = {level: recent.grown(("hits", level), count) for level, count in hits.items()}
        missed = recent.grown("misses", totals.misses)
        found = sum(one or 0 for one in grown.values())
        looked_up = None if missed is None else found + missed
        max_bytes: int | None
        if self._tenant is None:
            spent = (tenancy.charged.compute_micro + tenancy.charged.llm_micro) / MICRO
            max_bytes = self._server.service.cache.statistics.max_bytes
        else:
            spent = tenancy.used_micro_now(self._tenant) / MICRO
            max_bytes = tenancy.registry.limits(self._tenant).cache_bytes
        return {
            "hits": hits,
            "misses": totals.misses,
            "uncached": totals.uncached,
            "hit_ratio": totals.hit_ratio,
            "hit_ratio_now": None if looked_up is None else _ratio(found, looked_up),
            "hit_ratio_now_by_level": {
                level: None if looked_up is None else _ratio(one or 0, looked_up)
                for level, one in grown.items()
            },
            "repairs": totals.repairs,
            "stale": totals.stale,
            "entries": seen.entries,
            "bytes": seen.cache_bytes,
            "max_bytes": max_bytes,
            "saved": totals.saved,
            "saved_per_s": recent.per_second("saved", totals.saved),
            "spent": spent,
            "spent_per_s": recent.per_second("spent", spent),
        }

    def _of_everybody(self) -> dict[str, Any]:
        """What adds up what all tenants do, and is the administrator's to know."""
        server, recent = self._server, self._recent
        commands = sum(
            one.stats.calls
            for command in server.commands.values()
            for one in (command, *command.subcommands.values())
        )
        commits = server.service.commit_statistics()
        lag = server.loop_lag.histogram.percentile(0.99)
        return {
            "clients": len(server.clients),
            "commands": commands,
            "commands_per_s": recent.per_second("commands", commands),
            "errors": server.counters.errors_total,
            "errors_per_s": recent.per_second("errors", server.counters.errors_total),
            "memory_limit_bytes": server.settings.maxmemory,
            "event_loop_lag_p99_us": lag / 1000,
            "refuses_writes": commits.is_refused,
        }


def _most_asked(rows: list[_Row]) -> list[_Row]:
    return nlargest(_SHOWN_INDEXES, rows, key=lambda row: row.rank)


def _recall(totals: IndexTotals) -> dict[str, Any]:
    """By level, what was proven of its hits, and what audits have found.

    Hits of answers that prove nothing, of graphs and lists, are audited apart.
    """
    levels = dict.fromkeys((*totals.certified, *totals.estimated, *totals.judged))
    return {
        "audits": totals.audits,
        "audits_skipped": totals.audits_skipped,
        "near_refused": totals.near_refused,
        "levels": [_level(totals, level) for level in levels],
    }


def _level(totals: IndexTotals, level: str) -> dict[str, Any]:
    hits, audited = totals.hits.get(level, 0), totals.judged.get(level, 0)
    return {
        "level": level,
        "hits": hits,
        "certified": _mean(totals.certified, level, hits),
        "estimated": _mean(totals.estimated, level, hits),
        "audited": audited,
        "recall": _mean(totals.recall, level, audited),
        "promised": _mean(totals.promised, level, audited),
    }


def _mean(sums: Mapping[str, float], level: str, count: int) -> float | None:
    return sums.get(level, 0.0) / count if count else None


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
