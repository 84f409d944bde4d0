"""What the indexes of a server have done, added up: also those that have been dropped.

Sums that only ever grow are what rates are made of; so an index that goes leaves what it counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeVar

from pyrope.engine.head_tail import HeadTailIndex
from pyrope.service.aliases import Aliases
from pyrope.service.caching import IndexCache
from pyrope.service.prefetching import Prefetcher
from pyrope.service.remembered.memory import IndexMemory
from pyrope.service.remembered.statistics import RememberStatistics

N = TypeVar("N", int, float)

PREFETCHES = ("issued", "used", "wasted", "withdrawn")
WAYS = ("graph", "scan", "widened", "fallback")
"""As of `EngineStatistics`: the latter two are counted among the first two as well."""


class Counted(Protocol):
    """An index."""

    cache: IndexCache
    aliases: Aliases
    engine: HeadTailIndex
    remembered: IndexMemory | None


@dataclass(slots=True)
class IndexTotals:
    """Counters of indexes.

    Attributes:
        hits, misses, repairs, stale, uncached, saved, certified, estimated: as of
            `pyrope.service.cacheable.CacheStatistics`.
        shared: queries that waited for a search that was under way.
        admitted: answers kept.
        refused, evicted: answers that were not, and that have gone, by reason.
        audits, audits_skipped, alias_audits, near_refused, judged, recall, promised: as of
            `pyrope.service.near_audits.NearStatistics`.
        prefetches: by what became of them.
        aliases_resolved, aliases_evicted, aliases_expired: as of `AliasStatistics`.
        engine: queries by how the engine has answered them.
        remembered: responses.
    """

    hits: dict[str, int] = field(default_factory=dict)
    misses: int = 0
    repairs: int = 0
    stale: int = 0
    shared: int = 0
    uncached: int = 0
    saved: float = 0.0
    certified: dict[str, float] = field(default_factory=dict)
    estimated: dict[str, float] = field(default_factory=dict)
    admitted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    evicted: dict[str, int] = field(default_factory=dict)
    audits: int = 0
    audits_skipped: int = 0
    alias_audits: int = 0
    near_refused: int = 0
    judged: dict[str, int] = field(default_factory=dict)
    recall: dict[str, float] = field(default_factory=dict)
    promised: dict[str, float] = field(default_factory=dict)
    prefetches: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PREFETCHES, 0))
    aliases_resolved: int = 0
    aliases_evicted: int = 0
    aliases_expired: int = 0
    engine: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WAYS, 0))
    remembered: RememberStatistics = field(default_factory=RememberStatistics)

    def count(self, index: Counted) -> None:
        """Add what an index has done until now, which has not been dropped."""
        cache = index.cache
        counted, owner, near = cache.statistics, cache.owner_statistics, cache.near.statistics
        self.misses += counted.misses
        self.repairs += counted.repairs
        self.stale += counted.stale
        self.shared += cache.shared
        self.uncached += counted.uncached
        self.saved += counted.saved
        self.admitted += owner.admitted
        self.audits += near.audits
        self.audits_skipped += near.audits_skipped
        self.alias_audits += near.alias_audits
        self.near_refused += near.refused
        # In most indexes, most of these are empty.
        _add(self.hits, counted.hits)
        _add(self.certified, counted.certified)
        _add(self.estimated, counted.estimated)
        _add(self.refused, owner.refused)
        _add(self.evicted, owner.gone)
        _add(self.judged, near.judged)
        _add(self.recall, near.recall)
        _add(self.promised, near.promised)
        self._count_foreseen(cache.prefetcher)
        if index.remembered is not None:
            self.remembered.add(index.remembered.statistics)
        aliases = index.aliases.statistics()
        self.aliases_resolved += aliases.hits_total
        self.aliases_evicted += aliases.evicted_total
        self.aliases_expired += aliases.expired_total
        engine = index.engine.statistics()
        self.engine["graph"] += engine.graph_queries_total
        self.engine["scan"] += engine.scan_queries_total
        self.engine["widened"] += engine.widened_queries_total
        self.engine["fallback"] += engine.fallback_queries_total

    def _count_foreseen(self, prefetcher: Prefetcher | None) -> None:
        if prefetcher is None:
            return
        foreseen = prefetcher.statistics
        self.prefetches["issued"] += foreseen.issued_total
        self.prefetches["used"] += foreseen.used_total
        self.prefetches["wasted"] += foreseen.wasted_total
        self.prefetches["withdrawn"] += foreseen.withdrawn_total

    def add(self, other: IndexTotals) -> None:
        """Add what others have done."""
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if isinstance(mine, dict):
                _add(mine, theirs)
            elif isinstance(mine, RememberStatistics):
                mine.add(theirs)
            else:
                setattr(self, one.name, mine + theirs)

    @property
    def hits_total(self) -> int:
        return sum(self.hits.values())

    @property
    def hit_ratio(self) -> float:
        """Of the queries that were looked up; 0 without any."""
        looked_up = self.hits_total + self.misses
        return self.hits_total / looked_up if looked_up else 0.0


def _add(mine: dict[str, N], theirs: Mapping[Any, N]) -> None:
    for name, value in theirs.items():
        key = str(name)
        mine[key] = mine[key] + value if key in mine else value
