"""The language model that advises the caches, and embedders."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from pyrope.commands import llm
from pyrope.http.metrics.metric import counter, gauge
from pyrope.http.metrics.snapshot import Snapshot

ENABLED = gauge("pyrope_llm_enabled", "1 if a language model is asked.", info="enabled")
STATE = gauge(
    "pyrope_llm_state",
    "1 for the state that the worker is in: see VECTOR.LLM STATUS; open: the provider does not "
    "work.",
    "state",
)
QUEUED = gauge("pyrope_llm_jobs_queued", "Jobs that wait.", info="queued")
RUNNING = gauge("pyrope_llm_calls_running", "Calls under way.", info="running")
JOBS = counter("pyrope_llm_jobs_total", "Jobs by what became of them.", "outcome", info="{outcome}")
RETRIED = counter(
    "pyrope_llm_retries_total", "Failures after which a job was to be tried again.", info="retried"
)
BUDGET = counter(
    "pyrope_llm_budget_dropped_total", "Jobs dropped because a budget had not enough left.",
    info="budget_dropped",
)  # fmt: skip
CALLS = counter("pyrope_llm_calls_total", "Prompts sent to the provider.", info="calls")
LIMITED = counter(
    "pyrope_llm_rate_limited_total", "Calls that the provider has found too many.",
    info="rate_limited",
)  # fmt: skip
TOKENS = counter(
    "pyrope_llm_tokens_total", "Tokens, as the provider counts them.", "direction",
    info="tokens_{direction}",
)  # fmt: skip
COST = counter("pyrope_llm_cost_units_total", "Cost units that they cost.", info="cost")

_EMBEDDER = "embedder"
TEXTS = counter("pyrope_embedder_texts_total", "Texts embedded.", _EMBEDDER)
TEXT_TOKENS = counter("pyrope_embedder_tokens_total", "Their tokens.", _EMBEDDER)
EMBED_CALLS = counter("pyrope_embedder_calls_total", "Attempts at calls.", _EMBEDDER)
EMBED_RETRIES = counter(
    "pyrope_embedder_retries_total", "Those that were not the first.", _EMBEDDER
)
EMBED_FAILED = counter("pyrope_embedder_failed_total", "Texts that were given up.", _EMBEDDER)
EMBED_SHED = counter(
    "pyrope_embedder_shed_total", "Texts refused because too many waited.", _EMBEDDER
)
EMBED_QUEUED = gauge("pyrope_embedder_queued", "Texts that wait for a call.", _EMBEDDER)
TEXT_CACHE = counter(
    "pyrope_embedder_cache_lookups_total", "Texts looked up among those embedded before.", "outcome"
)

METRICS = (
    ENABLED, STATE, QUEUED, RUNNING, JOBS, RETRIED, BUDGET, CALLS, LIMITED, TOKENS, COST, TEXTS,
    TEXT_TOKENS, EMBED_CALLS, EMBED_RETRIES, EMBED_FAILED, EMBED_SHED, EMBED_QUEUED, TEXT_CACHE,
)  # fmt: skip

_STATES = ("off", "stopped", "paused", "open", "running", "throttled", "idle")


def collect(snapshot: Snapshot) -> Iterator[Metric]:
    told = llm.describe(snapshot.server)
    yield ENABLED.is_(told["enabled"])
    yield STATE.are({state: float(state == told["state"]) for state in _STATES})
    yield QUEUED.is_(told["queued"])
    yield RUNNING.is_(told["running"])
    yield JOBS.are({outcome: told[outcome] for outcome in ("succeeded", "failed", "dropped")})
    yield RETRIED.is_(told["retried"])
    yield BUDGET.is_(told["budget_dropped"])
    yield CALLS.is_(told["calls"])
    yield LIMITED.is_(told["rate_limited"])
    yield TOKENS.are({"in": told["tokens_in"], "out": told["tokens_out"]})
    yield COST.is_(told["cost"])
    yield from _embedders(snapshot)


def _embedders(snapshot: Snapshot) -> Iterator[Metric]:
    embedders = snapshot.service.embedders
    by_name = embedders.statistics()
    yield TEXTS.are({name: one.texts_total for name, one in by_name.items()})
    yield TEXT_TOKENS.are({name: one.tokens_total for name, one in by_name.items()})
    yield EMBED_CALLS.are({name: one.calls_total for name, one in by_name.items()})
    yield EMBED_RETRIES.are({name: one.retries_total for name, one in by_name.items()})
    yield EMBED_FAILED.are({name: one.failed_total for name, one in by_name.items()})
    yield EMBED_SHED.are({name: one.shed_total for name, one in by_name.items()})
    yield EMBED_QUEUED.are({name: one.queued_current for name, one in by_name.items()})
    cache = embedders.cache_statistics()
    yield TEXT_CACHE.are({"hit": cache.hits_total, "miss": cache.misses_total})
