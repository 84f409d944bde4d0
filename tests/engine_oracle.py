"""What the engines are held against: rows in memory, and a search in float64 over a dict."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pyrope.engine.base import Neighbours, TailIndex, VectorIndex
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.engine.hnsw import HnswIndex
from pyrope.engine.hnsw_sq8 import HnswSq8Index
from pyrope.engine.ivf import IvfIndex
from pyrope.types import Float32Matrix, Mask, Metric, Slots

_TAILS = ("HNSW", "HNSW_SQ8", "IVF_FLAT", "IVF_PQ")
_BEHIND_A_HEAD = " behind a head"
ENGINES = ("FLAT", *_TAILS, *(tail + _BEHIND_A_HEAD for tail in _TAILS))
"""FLAT: all head. A tail's name: that tail, in front of it a head that is merged after each upsert.
Behind a head: the same, but only half of the head is merged each time."""


class Rows:
    """A `VectorSource` in memory. Rows without a vector hold NaN, which must not matter."""

    def __init__(self, dim: int) -> None:
        self._rows = np.full((8, dim), np.nan, dtype=np.float32)

    def view(self) -> Float32Matrix:
        view = self._rows[:]
        view.flags.writeable = False
        return view

    def write(self, slots: Slots, vectors: Float32Matrix) -> None:
        if len(slots) and (missing := int(slots.max()) + 1 - len(self._rows)) > 0:
            more = np.full((2 * missing, self._rows.shape[1]), np.nan, np.float32)
            self._rows = np.concatenate([self._rows, more])
        self._rows[slots] = vectors

    def wipe(self, slots: Slots) -> None:
        self._rows[slots] = np.nan


class Harness:
    """An engine, its source, and a model of what they should hold.

    Args:
        engine: one of `ENGINES`.
        metric: as of the index.
        dim: as of the index.
        ef: of an HNSW index.
    """

    def __init__(self, engine: str, metric: Metric, dim: int, ef: int = 64) -> None:
        self.metric = metric
        self.dim = dim
        self.rows = Rows(dim)
        self.model: dict[int, NDArray[np.float32]] = {}
        self._tail = engine.removesuffix(_BEHIND_A_HEAD)
        self._part = 2 if engine.endswith(_BEHIND_A_HEAD) else 1
        self._ef = ef
        self._pair = HeadTailIndex(metric, dim, self.rows)
        self.index: VectorIndex = self._pair if engine != "HNSW" else self._new_tail()

    def upsert(self, slots: list[int] | Slots, vectors: object) -> None:
        numbers = np.asarray(slots, dtype=np.int64)
        matrix = np.ascontiguousarray(vectors, dtype=np.float32).reshape(len(numbers), self.dim)
        self.rows.write(numbers, matrix)
        self.index.upsert(numbers, matrix)
        if self.index is self._pair and self._tail != "FLAT" and len(numbers):
            self._merge(matrix)
        self.model.update(zip(numbers.tolist(), matrix.copy(), strict=True))

    def _merge(self, sample: Float32Matrix) -> None:
        index = self._pair
        if index.tail is None:
            tail = self._new_tail()
            tail.train(sample)
            index.install(tail, np.empty(0, np.int64))
        assert index.tail is not None
        slots, prepared = index.prepare_merge(-(-index.head_count // self._part))
        index.tail.insert(prepared)
        index.finish_merge(slots)

    def _new_tail(self) -> TailIndex:
        """A tail that is exact in all but name, so that it can be held against a scan."""
        metric, dim, rows = self.metric, self.dim, self.rows
        graph = {"m": 16, "ef_construction": 100, "ef": self._ef}
        if self._tail == "HNSW":
            return HnswIndex(metric, dim, rows, **graph)
        if self._tail == "HNSW_SQ8":
            return HnswSq8Index(metric, dim, rows, rerank_factor=50, **graph)
        return IvfIndex(
            metric,
            dim,
            rows,
            compressed=self._tail == "IVF_PQ",
            nlist=8,
            nprobe=8,
            pqm=0,
            rerank_factor=50,
            expected=1000,
        )

    def delete(self, slots: list[int] | Slots) -> None:
        numbers = np.asarray(slots, dtype=np.int64)
        self.index.delete(numbers)
        for slot in numbers.tolist():
            if self.model.pop(slot, None) is not None:
                self.rows.wipe(np.array([slot]))

    def oracle(self, query: NDArray[np.float32], allowed: Mask | None = None) -> dict[int, float]:
        """The score of every slot that takes part, in float64."""
        slots = [s for s in self.model if allowed is None or (s < len(allowed) and allowed[s])]
        if not slots:
            return {}
        rows = np.array([self.model[slot] for slot in slots], np.float64)
        return dict(zip(slots, oracle_scores(self.metric, query, rows).tolist(), strict=True))

    def check_exact(
        self,
        found: Neighbours,
        queries: Float32Matrix,
        k: int,
        allowed: Mask | None = None,
        *,
        tolerance: float = 1e-6,
        slot_order: bool = False,
    ) -> None:
        """Assert that `found` is what the oracle would have answered.

        Args:
            tolerance: of scores, relative to the largest of the query's own or 1.
            slot_order: equal scores must come by ascending slot, and none may be exchanged.
        """
        for query, slots, scores in zip(queries, found.slots, found.scores, strict=True):
            expected = self.oracle(query, allowed)
            sign = -1 if self.metric.higher_is_nearer else 1
            best = sorted((sign * np.float32(score), slot) for slot, score in expected.items())[:k]
            assert slots.shape == (min(k, len(expected)),)
            got = slots.tolist()
            assert len(set(got)) == len(got), "a slot came twice"
            assert set(got) <= set(expected), "a slot came that takes no part"
            if slot_order:
                assert got == [slot for _, slot in best]
            scale = tolerance * max([1.0, *map(abs, expected.values())])
            own = np.array([expected[slot] for slot in got])
            np.testing.assert_allclose(scores, own, rtol=0, atol=scale)
            np.testing.assert_allclose(
                scores, [sign * nearness for nearness, _ in best], rtol=0, atol=scale
            )
            assert all(a * sign <= b * sign + scale for a, b in pairwise(scores.tolist()))


def oracle_scores(
    metric: Metric, query: NDArray[np.float32], rows: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Scores by the definition of the metric."""
    q = query.astype(np.float64)
    scores: NDArray[np.float64]
    if metric is Metric.L2:
        scores = np.sqrt(np.square(rows - q).sum(axis=1))
        return scores
    scores = (rows * q).sum(axis=1)
    if metric is Metric.COSINE:
        norms = np.sqrt((q * q).sum()) * np.sqrt(np.square(rows).sum(axis=1))
        scores = np.divide(scores, norms, out=np.zeros_like(scores), where=norms > 0)
    return scores


def recall(found: Neighbours, expected: Neighbours) -> float:
    """The share of expected slots that were found."""
    hits = [
        np.intersect1d(got[got >= 0], want[want >= 0]).size
        for got, want in zip(found.slots, expected.slots, strict=True)
    ]
    return sum(hits) / max(1, int((expected.slots >= 0).sum()))


def clustered(count: int, dim: int, seed: int, clusters: int = 50) -> Float32Matrix:
    """Points around centres, as embeddings lie; float32, shape (count, dim)."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dim))
    points = centres[rng.integers(clusters, size=count)] + 0.6 * rng.standard_normal((count, dim))
    return points.astype(np.float32)
