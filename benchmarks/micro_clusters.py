"""Clusters alone: what finding a vector's cluster costs, and counting a batch of writes.

``python -m benchmarks.micro_clusters [--dim 384] [--centroids 256]`` prints one line a figure: the
median of its runs, in microseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from pyrope.clock import SystemClock
from pyrope.config import ClusterSettings
from pyrope.semantic.centroids import Centroids
from pyrope.semantic.registry import CentroidSource, SemanticClusterRegistry
from pyrope.types import Metric

_RUNS = 200


def measure(what: str, call: Callable[[], object], runs: int = _RUNS) -> None:
    """Time `call`, `runs` times, and print the median in microseconds."""
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    print(f"{what:<58}{1e6 * statistics.median(seconds):10.1f} us", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--centroids", type=int, default=256)
    options = parser.parse_args()
    random = np.random.default_rng(7)
    rows = random.standard_normal((4096, options.dim), dtype=np.float32)
    for metric in (Metric.COSINE, Metric.L2):
        centroids = Centroids(metric, rows[: options.centroids])
        registry = SemanticClusterRegistry(
            metric,
            options.dim,
            ClusterSettings(),
            SystemClock(),
            rows=lambda slots: rows[slots],
            threshold=lambda: None,
            seed=7,
        )
        registry.install(centroids, CentroidSource.PUSHED)
        blob = rows[-1].tobytes()
        name = metric.value
        measure(f"{name}: assign one, from bytes", lambda: registry.assign(blob))  # noqa: B023
        measure(f"{name}: assign 512", lambda: centroids.assign_many(rows[:512]), 10)  # noqa: B023
        for count in (1, 16, 512, 4096):
            slots = np.arange(count)
            measure(f"{name}: wrote {count}", lambda: registry.wrote(slots))  # noqa: B023
        measure(f"{name}: ttl", lambda: registry.ttl(3, 3600.0))  # noqa: B023
        measure(f"{name}: queried", lambda: registry.queried(blob), 5000)  # noqa: B023


if __name__ == "__main__":
    main()
