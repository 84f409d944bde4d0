"""Remembered responses: what prompts were answered by them, and what that has saved."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from pyrope.http.metrics.metric import counter, gauge
from pyrope.http.metrics.snapshot import Snapshot
from pyrope.semantic.guards import GUARDS
from pyrope.service.remembered.statistics import REASONS

ENTRIES = gauge(
    "pyrope_remembered_responses", "Responses that are kept.", info="remembered_entries"
)
BYTES = gauge("pyrope_remembered_bytes", "Memory that they take.", info="remembered_bytes")
REMEMBERED = counter("pyrope_remembered_total", "Responses that came to be remembered.")
RECALLS = counter(
    "pyrope_remembered_recalls_total", "Prompts that were looked up.", info="remembered_recalls"
)
HITS = counter(
    "pyrope_remembered_hits_total",
    "Those that were answered: by the same prompt (exact), by an alias of it, by one near it.",
    "way",
)
SHADOW = counter(
    "pyrope_remembered_shadow_hits_total", "Those that would have been, in shadow mode.", "way"
)
NOT_SURE = counter(
    "pyrope_remembered_refused_total",
    "Those with something near that was not good enough: the risk of an error (uncertain), a guard "
    "(guard), feedback that it is wrong (contradicted).",
    "why",
)
GUARD = counter(
    "pyrope_remembered_guards_total",
    "Of near ones that would have been answered, those that a guard has refused.",
    "guard",
    info="remembered_guard_{guard}",
)
GONE = counter("pyrope_remembered_gone_total", "Responses that have ended.", "reason")
FEEDBACK = counter("pyrope_remembered_feedback_total", "What was said of responses.", "verdict")
QUARANTINED = counter(
    "pyrope_remembered_quarantined_total", "Responses that feedback has taken out of service."
)
VERIFICATIONS = counter(
    "pyrope_remembered_verifications_total",
    "Pairs of prompts that a language model was asked about.",
)
VERDICTS = counter(
    "pyrope_remembered_verdicts_total", "What it has said of them: same, or different.", "verdict"
)
AUDITS = counter(
    "pyrope_remembered_audits_total", "Hits by a near prompt that a language model was asked about."
)
AUDITED = counter(
    "pyrope_remembered_audited_total",
    "What it has said of them: same, or different, which is to say that the answer was wrong.",
    "verdict",
)
TOKENS = counter(
    "pyrope_remembered_saved_tokens_total", "Tokens that hits have spared, about.",
    info="remembered_tokens_saved",
)  # fmt: skip
COST = counter(
    "pyrope_remembered_saved_units_total", "Cost units that hits have spared.",
    info="remembered_cost_saved",
)  # fmt: skip

METRICS = (
    ENTRIES, BYTES, REMEMBERED, RECALLS, HITS, SHADOW, NOT_SURE, GUARD, GONE, FEEDBACK, QUARANTINED,
    VERIFICATIONS, VERDICTS, AUDITS, AUDITED, TOKENS, COST,
)  # fmt: skip

_WAYS = ("exact", "alias", "near")


def collect(snapshot: Snapshot) -> Iterator[Metric]:
    done = snapshot.totals.remembered
    yield ENTRIES.is_(snapshot.responses)
    yield BYTES.is_(snapshot.response_bytes)
    yield REMEMBERED.is_(done.remembered)
    yield RECALLS.is_(done.recalls)
    yield HITS.are(dict.fromkeys(_WAYS, 0) | done.hits)
    yield SHADOW.are(dict.fromkeys(_WAYS, 0) | done.shadow_hits)
    yield NOT_SURE.are(
        {
            "uncertain": done.uncertain,
            "guard": sum(done.guards.values()),
            "contradicted": done.contradicted,
        }
    )
    yield GUARD.are(dict.fromkeys(GUARDS, 0) | done.guards)
    yield GONE.are(dict.fromkeys(REASONS, 0) | done.gone)
    yield FEEDBACK.are({"good": done.good, "bad": done.bad})
    yield QUARANTINED.is_(done.quarantined)
    yield VERIFICATIONS.is_(done.verifications)
    yield VERDICTS.are({"same": done.verified_same, "different": done.verified_different})
    yield AUDITS.is_(done.audits)
    yield AUDITED.are({"same": done.audited_same, "different": done.audited_different})
    yield TOKENS.is_(done.tokens_saved)
    yield COST.is_(done.cost_saved)
