"""Graphs over codes to test."""

from __future__ import annotations

import numpy as np

from engine_oracle import Rows, clustered
from pyrope.engine.base import Neighbours, SearchOptions
from pyrope.engine.hnsw_sq8 import HnswSq8Index
from pyrope.types import Float32Matrix, Metric

ANY = SearchOptions()


def empty(metric: Metric, dim: int, rows: Rows, **changes: float) -> HnswSq8Index:
    options = {"m": 12, "ef_construction": 80, "ef": 64, "capacity": 0} | changes
    factor = options.pop("rerank_factor", 2.0)
    whole = {name: int(value) for name, value in options.items()}
    return HnswSq8Index(metric, dim, rows, rerank_factor=factor, **whole)


def filled(
    vectors: Float32Matrix, metric: Metric = Metric.COSINE, **changes: float
) -> tuple[HnswSq8Index, Rows]:
    """An index over rows, slot = row number."""
    rows = Rows(vectors.shape[1])
    slots = np.arange(len(vectors))
    rows.write(slots, vectors)
    index = empty(metric, vectors.shape[1], rows, **changes)
    index.train(vectors)
    for some in np.array_split(slots, max(1, len(slots) // 2000)):
        for part in index.prepare_upsert(some, vectors[some]).split(2):
            index.insert(part)
    return index, rows


def in_batches(
    index: HnswSq8Index, queries: Float32Matrix, k: int, options: SearchOptions = ANY
) -> Neighbours:
    """A search in batches so small that the graph costs less than a scan."""
    found = [index.search(queries[i : i + 4], k, options) for i in range(0, len(queries), 4)]
    return Neighbours(
        np.concatenate([one.slots for one in found]), np.concatenate([one.scores for one in found])
    )


def small(metric: Metric = Metric.COSINE, count: int = 300) -> tuple[HnswSq8Index, Rows]:
    return filled(clustered(count, 8, 3), metric)
