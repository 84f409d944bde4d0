"""Caches: what they held, what they answered, and how right that was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric

from pyrope.cache.stored import Gone, Refused
from pyrope.http.metrics.metric import counter, gauge
from pyrope.http.metrics.snapshot import Snapshot
from pyrope.service.totals import IndexTotals
from pyrope.tenants.usage import HIT_LEVELS

HITS = counter(
    "pyrope_cache_hits_total", "Queries that a cache answered, by level.", "level",
    info="cache_hits_{level}",
)  # fmt: skip
MISSES = counter(
    "pyrope_cache_misses_total", "Queries that were looked up and not found.", info="cache_misses"
)
UNCACHED = counter(
    "pyrope_cache_uncached_total", "Queries that did not want the caches.", info="cache_uncached"
)
REPAIRS = counter(
    "pyrope_cache_repairs_total", "Hits that had to catch up with writes.", info="cache_repairs"
)
STALE = counter(
    "pyrope_cache_stale_total", "Answers that could not catch up, and were searched for again.",
    info="cache_stale",
)  # fmt: skip
SHARED = counter(
    "pyrope_cache_shared_total", "Queries that waited for a search that was under way.",
    info="cache_shared",
)  # fmt: skip
SAVED = counter(
    "pyrope_cache_saved_units_total", "Cost units of the searches that hits have spared.",
    info="cache_cost_saved",
)  # fmt: skip
ENTRIES = gauge("pyrope_cache_entries", "Answers that are kept.", info="cache_entries")
BYTES = gauge("pyrope_cache_bytes", "Memory that they take.", info="cache_bytes")
BYTES_MAX = gauge(
    "pyrope_cache_limit_bytes", "Memory that they may take (cache.max_bytes).",
    info="cache_max_bytes",
)  # fmt: skip
ADMITTED = counter("pyrope_cache_admissions_total", "Answers that were kept.")
NOT_KEPT = counter(
    "pyrope_cache_refusals_total",
    "Answers that were not kept: worth too little (cheap), worth less than what would have to go "
    "(value), too large (room).",
    "reason",
)
EVICTED = counter(
    "pyrope_cache_evictions_total",
    "Answers that have gone: for others (size, tenant, index: whose bytes were used up), by time "
    "(ttl), because of what happened (invalidated, stale, replaced, cleared).",
    "reason",
    info="cache_evicted_{reason}",
)
NEAR_REFUSED = counter(
    "pyrope_cache_near_refused_total", "Queries with something near that was not good enough.",
    info="cache_near_refused",
)  # fmt: skip
CERTIFIED = counter(
    "pyrope_cache_certified_recall_total",
    "Recall proven of near hits and of hits by aliases, added up: by the hits it is their mean.",
    "level",
)
ESTIMATED = counter(
    "pyrope_cache_estimated_recall_total",
    "Lower bound on the recall of the same hits, added up: by the hits it is their mean.",
    "level",
)
AUDITS = counter(
    "pyrope_cache_audits_total", "Full searches that checked hits.", info="cache_audits"
)
AUDITS_SKIPPED = counter(
    "pyrope_cache_audits_skipped_total", "Audits not made for want of time.",
    info="cache_audits_skipped",
)  # fmt: skip
AUDITED = counter(
    "pyrope_cache_audited_hits_total",
    "Hits audited that were served by an estimate (or would have been, of a level that is off), "
    "and those by aliases. Answers of graphs and lists, which prove nothing, are levels of their "
    "own.",
    "level",
)
AUDITED_RECALL = counter(
    "pyrope_cache_audited_recall_total",
    "What those hits had of the true results, added up: by the hits audited it is their mean.",
    "level",
)
PROMISED_RECALL = counter(
    "pyrope_cache_promised_recall_total",
    "What had been asked for of those hits (MINRECALL), added up; of aliases nothing is.",
    "level",
)
LEVELS_OFF = gauge(
    "pyrope_cache_levels_off",
    "Indexes where this level is not served for some MINRECALL, as audits found it to fall short.",
    "level",
)
PREFETCHES = counter(
    "pyrope_prefetches_total",
    "Searches made before they were asked for (issued), and what became of them.",
    "fate",
    info="cache_prefetch_{fate}",
)
ALIASES = counter(
    "pyrope_aliases_total", "Aliases that were followed (resolved), and that have gone.", "event"
)

METRICS = (
    HITS, MISSES, UNCACHED, REPAIRS, STALE, SHARED, SAVED, ENTRIES, BYTES, BYTES_MAX, ADMITTED,
    NOT_KEPT, EVICTED, NEAR_REFUSED, CERTIFIED, ESTIMATED, AUDITS, AUDITS_SKIPPED, AUDITED,
    AUDITED_RECALL, PROMISED_RECALL, LEVELS_OFF, PREFETCHES, ALIASES,
)  # fmt: skip

# Levels whose hits are not proven by being what was asked for.
_NEAR = ("alias", "quantized", "cluster")
_APPROXIMATE = " of approximate"


def _by_level(values: Mapping[str, float]) -> dict[str, float]:
    found = dict.fromkeys(_NEAR, 0.0)
    for level, value in values.items():
        found[level.replace(_APPROXIMATE, "_approximate")] = value
    return found


def collect(snapshot: Snapshot) -> Iterator[Metric]:
    totals, held = snapshot.totals, snapshot.service.cache.statistics
    yield HITS.are({level: totals.hits.get(level, 0) for level in HIT_LEVELS})
    yield MISSES.is_(totals.misses)
    yield UNCACHED.is_(totals.uncached)
    yield REPAIRS.is_(totals.repairs)
    yield STALE.is_(totals.stale)
    yield SHARED.is_(totals.shared)
    yield SAVED.is_(totals.saved)
    yield ENTRIES.is_(held.entries)
    yield BYTES.is_(held.nbytes)
    yield BYTES_MAX.is_(held.max_bytes)
    yield ADMITTED.is_(totals.admitted)
    yield NOT_KEPT.are({reason.value: totals.refused.get(reason, 0) for reason in Refused})
    yield EVICTED.are({reason.value: totals.evicted.get(reason, 0) for reason in Gone})
    yield PREFETCHES.are(totals.prefetches)
    yield ALIASES.are(
        {
            "resolved": totals.aliases_resolved,
            "evicted": totals.aliases_evicted,
            "expired": totals.aliases_expired,
        }
    )
    yield from _rightness(totals)
    yield LEVELS_OFF.are(_by_level(snapshot.levels_off))


def _rightness(totals: IndexTotals) -> Iterator[Metric]:
    yield NEAR_REFUSED.is_(totals.near_refused)
    yield CERTIFIED.are(_by_level(totals.certified))
    yield ESTIMATED.are(_by_level(totals.estimated))
    yield AUDITS.is_(totals.audits)
    yield AUDITS_SKIPPED.is_(totals.audits_skipped)
    yield AUDITED.are(_by_level(totals.judged))
    yield AUDITED_RECALL.are(_by_level(totals.recall))
    yield PROMISED_RECALL.are(_by_level(totals.promised))
