"""All families of metrics, read out for Prometheus by prometheus-client.

What is counted where it happens is a plain number (`pyrope.metrics`); it becomes a sample only when
somebody scrapes. Nothing is registered with the library's global registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.registry import Collector

from pyrope.commands.context import Server
from pyrope.http.metrics import (
    caches,
    commands,
    indexes,
    models,
    remembered,
    searches,
    server,
    storage,
    tenants,
    tracing,
)
from pyrope.http.metrics.metric import Described
from pyrope.http.metrics.snapshot import Observer, Snapshot

FAMILIES = {
    "Server": server,
    "Commands": commands,
    "Searches": searches,
    "Caches": caches,
    "Remembered responses": remembered,
    "Indexes": indexes,
    "Storage": storage,
    "Tenants and money": tenants,
    "Language models and embedders": models,
    "Tracing": tracing,
}
"""Modules by what their metrics are about. Each has `METRICS`, and `collect`."""

METRICS: tuple[Described, ...] = tuple(
    metric for family in FAMILIES.values() for metric in family.METRICS
)


class Metrics:
    """The metrics of one server."""

    def __init__(self, of: Server) -> None:
        self._observer = Observer(of)
        self._service = of.service
        self._process = ProcessCollector(registry=None)

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """What Prometheus is told, and its content type.

        Args:
            accept: the header Accept: OpenMetrics, or a version of Prometheus' own text.
        """
        snapshot = await self._observer.look()
        # Samples first, in one go, and then what takes long: their text.
        families = list(collect(snapshot))
        return await self._service.run(self._rendered, families, accept)

    def _rendered(self, families: list[Metric], accept: str) -> tuple[bytes, str]:
        """In a thread."""
        encode, content_type = _encoder(accept)
        return encode(_Read([*families, *self._process.collect()])), content_type


def collect(snapshot: Snapshot) -> Iterator[Metric]:
    """Every metric, with its samples."""
    for family in FAMILIES.values():
        yield from family.collect(snapshot)


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        return generate_latest, choose_encoder("")[1]


class _Read(Collector):
    """What has been read, in the place of a registry."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
