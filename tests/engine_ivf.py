"""Inverted lists beside a model of what they should hold."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from engine_oracle import Harness, clustered, recall
from pyrope.engine.base import Neighbours, SearchOptions
from pyrope.engine.ivf import IvfIndex
from pyrope.types import Float32Matrix, Mask, Metric, Slots

ANY = SearchOptions()
EVERYTHING = SearchOptions(nprobe=10**6)
COUNT, DIM = 8000, 24
KINDS = {"IVF_FLAT": False, "IVF_PQ": True}
VECTORS = clustered(COUNT, DIM, 1)
QUERIES = clustered(120, DIM, 1)[40:]

every_kind = pytest.mark.parametrize("kind", KINDS)
every_metric = pytest.mark.parametrize("metric", Metric, ids=lambda metric: metric.value)


class Ivf(Harness):
    """An index, its rows, and a model, trained on a sample."""

    index: IvfIndex

    def __init__(
        self,
        kind: str,
        metric: Metric,
        sample: Float32Matrix,
        *,
        nlist: int = 0,
        nprobe: int = 0,
        pqm: int = 0,
        rerank_factor: float = 0,
        expected: int = 0,
    ) -> None:
        super().__init__("FLAT", metric, sample.shape[1])
        self.index = IvfIndex(
            metric,
            self.dim,
            self.rows,
            compressed=KINDS[kind],
            nlist=nlist,
            nprobe=nprobe,
            pqm=pqm,
            rerank_factor=rerank_factor,
            expected=expected or len(sample),
        )
        if len(sample):
            self.index.train(sample)

    def empty_copy(self) -> IvfIndex:
        """An index of the same definition over the same rows, not trained."""
        old = self.index
        return IvfIndex(
            old.metric,
            old.dim,
            self.rows,
            compressed=old._compressed,
            nlist=old._nlist,
            nprobe=old.nprobe,
            pqm=old._pqm,
            rerank_factor=old._rerank_factor,
            expected=1,
        )

    def live(self) -> Slots:
        return np.array(sorted(self.model), dtype=np.int64)


def filled(kind: str, metric: Metric, vectors: Float32Matrix, **options: Any) -> Ivf:
    """Slot = row number."""
    ivf = Ivf(kind, metric, vectors, **options)
    for slots in np.array_split(np.arange(len(vectors)), max(1, len(vectors) // 1000)):
        ivf.upsert(slots, vectors[slots])
    return ivf


@cache
def large(kind: str) -> Ivf:
    """All of `VECTORS`, COSINE. Not to be written to."""
    return filled(kind, Metric.COSINE, VECTORS)


def in_batches(index: IvfIndex, options: SearchOptions, allowed: Mask | None = None) -> Neighbours:
    """The ten nearest of `QUERIES`, by eight: for many queries at once a scan costs less."""
    found = [
        index.search(QUERIES[start : start + 8], 10, options, allowed)
        for start in range(0, len(QUERIES), 8)
    ]
    return Neighbours(
        np.concatenate([some.slots for some in found]),
        np.concatenate([some.scores for some in found]),
    )


def recall_of(index: IvfIndex, options: SearchOptions, allowed: Mask | None = None) -> float:
    """Of the ten nearest of `QUERIES`."""
    return recall(in_batches(index, options, allowed), index.search_exact(QUERIES, 10, allowed))
