"""HNSW indexes for tests, built by two threads at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from engine_oracle import Rows, clustered
from pyrope.engine import init_worker_thread
from pyrope.engine.hnsw import HnswIndex
from pyrope.types import Float32Matrix, Metric

COUNT, DIM = 12_000, 24


def filled(
    vectors: Float32Matrix,
    metric: Metric = Metric.COSINE,
    *,
    m: int = 12,
    ef_construction: int = 80,
) -> tuple[HnswIndex, Rows]:
    """An index over rows, slot = row number, built by two threads at a time."""
    rows = Rows(vectors.shape[1])
    slots = np.arange(len(vectors))
    rows.write(slots, vectors)
    index = HnswIndex(metric, vectors.shape[1], rows, m=m, ef_construction=ef_construction, ef=64)
    with ThreadPoolExecutor(2, initializer=init_worker_thread) as pool:
        for some in np.array_split(slots, max(1, len(slots) // 2000)):
            list(pool.map(index.insert, index.prepare_upsert(some, vectors[some]).split(2)))
    return index, rows


def small(metric: Metric = Metric.COSINE, count: int = 300) -> tuple[HnswIndex, Rows]:
    return filled(clustered(count, 8, 3), metric)


def labels_of(index: HnswIndex) -> list[int]:
    """The nodes of its graph."""
    labels: list[int] = np.flatnonzero(index._nodes.known).tolist()
    return labels
