"""Metrics of servers, as whoever scrapes them has them."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
"""Values by name and labels."""


def families(text: str) -> dict[str, Metric]:
    """By name; a counter's is without ``_total``, as OpenMetrics has it."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families(text).values()
        for sample in family.samples
    }


def scrape(client: httpx2.Client) -> Samples:
    """What is told now."""
    response = client.get("/metrics")
    assert response.status_code == 200, response.text
    return samples(response.text)


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]
