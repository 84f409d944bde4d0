"""Traces: whether they reach their collector."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from pyrope.http.metrics.metric import counter
from pyrope.http.metrics.snapshot import Snapshot

SPANS = counter(
    "pyrope_tracing_spans_total",
    "Spans of traces that were sent (exported), and that could not be (dropped).",
    "outcome",
)

METRICS = (SPANS,)


def collect(snapshot: Snapshot) -> Iterator[Metric]:
    sent = snapshot.server.tracing
    exported, dropped = (0, 0) if sent is None else (sent.exported_total, sent.dropped_total)
    yield SPANS.are({"exported": exported, "dropped": dropped})
