"""Searches: where their answers came from, how long that took, and what held them up."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from pyrope.http.metrics.metric import counter, gauge, histogram
from pyrope.http.metrics.snapshot import Snapshot

ANSWERED = histogram(
    "pyrope_search_duration_seconds",
    "From when a search was read until a query of it was answered, by where the answer came from: "
    "miss and off (the caches were not asked) were searched for, all others are levels of the "
    "cache.",
    "cache",
)
QUEUED = histogram(
    "pyrope_search_queue_seconds", "From when a query was queued until its batch began."
)
ENGINE = histogram(
    "pyrope_engine_call_seconds", "Native calls of an engine; each answers the like of a batch."
)
BATCHES = histogram(
    "pyrope_search_batch_queries", "Queries of a batch, which share a thread and native calls."
)
SEARCHES = counter(
    "pyrope_engine_searches_total", "Queries handed to engines, of audits and prefetches too.",
    info="searches",
)  # fmt: skip
WAYS = counter(
    "pyrope_engine_queries_total",
    "Queries by how an engine has answered them: graph (or lists), scan; and among these widened "
    "(a filter left the first beam too little) and fallback (scanned, as the graph gave too few).",
    "way",
)
SHORTCUTS = counter(
    "pyrope_search_shortcuts_total",
    "Searches answered by the bytes of their packet, without reading it; they are exact hits.",
    info="search_shortcuts",
)
WAITING = gauge(
    "pyrope_queued_requests", "Searches and writes that wait for their turn, in all indexes."
)
ADJUSTED = counter(
    "pyrope_search_adjustments_total",
    "Searches whose effort was lowered: ceiling (of the tenant), pressure (it spends faster than "
    "the month goes), spent (its budget is), latency (the server misses its target).",
    "reason",
)
GUARD_P99 = gauge(
    "pyrope_guardrail_p99_seconds",
    "Percentile 99 of the latency of searches in the guardrail's window; 0 while it is off.",
)
GUARD_TARGET = gauge(
    "pyrope_guardrail_target_seconds", "What it is to be (guardrail.target_p99_ms); 0: off."
)
GUARD_EFFORT = gauge(
    "pyrope_guardrail_effort_ratio",
    "Share of its effort that a search may make now; 0: only the caches answer, or nobody does.",
    "priority",
)
GUARD_STEPS = counter("pyrope_guardrail_steps_total", "Steps it has taken.", "direction")
GUARD_REFUSED = counter(
    "pyrope_guardrail_refused_total",
    "Searches that were refused to keep the target; not those that the caches were to answer and "
    "could not.",
)

METRICS = (
    ANSWERED, QUEUED, ENGINE, BATCHES, SEARCHES, WAYS, SHORTCUTS, WAITING, ADJUSTED, GUARD_P99,
    GUARD_TARGET, GUARD_EFFORT, GUARD_STEPS, GUARD_REFUSED,
)  # fmt: skip


def collect(snapshot: Snapshot) -> Iterator[Metric]:
    server = snapshot.server
    counters = server.counters
    # Replies that are sent again for the very same bytes are timed with their command.
    again = server.commands[b"VECTOR.SEARCH"].stats.alike
    yield ANSWERED.took_each(
        {
            level: (durations, again) if level == "exact" else (durations,)
            for level, durations in counters.answered.items()
        }
    )
    yield QUEUED.took(counters.queued)
    yield ENGINE.took(counters.searched)
    yield BATCHES.had(counters.batch_sizes)
    yield SEARCHES.is_(counters.searches_total)
    yield WAYS.are(snapshot.totals.engine)
    yield SHORTCUTS.is_(counters.shortcuts_total)
    yield WAITING.is_(snapshot.queued)
    yield ADJUSTED.are(
        dict.fromkeys(("ceiling", "pressure", "spent", "latency"), 0) | counters.adjustments
    )
    guard = snapshot.service.guard
    state = guard.statistics()
    yield GUARD_P99.is_(guard.p99_ms / 1000 if guard.is_on else 0.0)
    yield GUARD_TARGET.is_(server.settings.guardrail.target_p99_ms / 1000)
    yield GUARD_EFFORT.are(
        {
            priority.value.lower(): 0.0 if one.cache_only or one.shed else one.effort_share
            for priority, one in state.decisions.items()
        }
    )
    yield GUARD_STEPS.are({"up": state.rungs_up_total, "down": state.rungs_down_total})
    yield GUARD_REFUSED.is_(guard.refused_total)
