"""Scores of candidates from the raw rows, and the best of them."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from pyrope.engine.base import Neighbours, VectorSource
from pyrope.engine.exact import ExactScan
from pyrope.engine.slot_table import SlotTable
from pyrope.types import Float32Matrix, Metric, Slots

_faiss: Any = faiss

# Norms between which no product, square or quotient of theirs leaves float32, or loses precision.
_SMALLEST_NORM, _LARGEST_NORM = np.float32(1e-15), np.float32(1e15)
# Rows that lie together, on average, for it to be worth while to look for them.
_RUN_ROWS = 32
# Candidates of all queries that are scored at a time, at some 40 bytes each.
_SCORED_AT_ONCE = 2**18


class Reranker:
    """Puts candidates that were found by other means in their true order.

    One native call reads the rows where they lie, and computes in float32: a vector is at distance
    0 from itself, because differences are taken before they are squared. Norms that are far from
    ordinary go through float64.

    Args:
        metric: as of the index.
        source: the raw rows.
        table: norms of the rows.
        scan: of the same index.
    """

    def __init__(
        self, metric: Metric, source: VectorSource, table: SlotTable, scan: ExactScan
    ) -> None:
        self._metric = metric
        self._source = source
        self._table = table
        self._scan = scan

    def best(self, queries: Float32Matrix, candidates: Slots, width: int) -> Neighbours:
        """The `width` best candidates of each query, equal scores by ascending slot.

        Args:
            queries: raw, shape (n, dim).
            candidates: shape (n, w), C-contiguous, without duplicates in a row; -1 is none.

        Returns:
            Rows of the width `width` or w, whichever is less.
        """
        rows = max(1, _SCORED_AT_ONCE // max(1, candidates.shape[1]))
        if len(queries) <= rows:
            return self._best(queries, candidates, width)
        pieces = [
            self._best(queries[start : start + rows], candidates[start : start + rows], width)
            for start in range(0, len(queries), rows)
        ]
        return Neighbours(
            np.concatenate([piece.slots for piece in pieces]),
            np.concatenate([piece.scores for piece in pieces]),
        )

    def _best(self, queries: Float32Matrix, candidates: Slots, width: int) -> Neighbours:
        scores = self.scores(queries, candidates)
        # NaN is sorted to the end.
        keys = -scores if self._metric.higher_is_nearer else scores
        order = np.lexsort((candidates, keys), axis=1)[:, :width]
        return Neighbours(
            np.take_along_axis(candidates, order, axis=1),
            np.take_along_axis(scores, order, axis=1),
        )

    def scores_nearby(self, query: Float32Matrix, slots: Slots) -> NDArray[np.float32]:
        """Scores of one query with slots, as `scores` gives them but for rounding, shape (w,).

        What was written together lies together, and is read in one go: in half the time that rows
        take one by one.

        Args:
            query: raw, shape (1, dim).
            slots: of vectors, shape (w,).
        """
        starts = np.flatnonzero(np.diff(slots, prepend=-2) != 1)
        if len(starts) * _RUN_ROWS > len(slots):
            return self.scores(query, slots[None]).reshape(-1)
        norms = self._table.norms[slots]
        square = float(np.dot(query[0], query[0]))
        if (
            not _SMALLEST_NORM**2 <= square <= _LARGEST_NORM**2
            or norms.min() < _SMALLEST_NORM
            or norms.max() > _LARGEST_NORM
        ):
            return self.scores(query, slots[None]).reshape(-1)
        scores = np.empty(len(slots), dtype=np.float32)
        distance = self._metric is Metric.L2
        native = _faiss.fvec_L2sqr_ny if distance else _faiss.fvec_inner_products_ny
        view = self._source.view()
        for start, stop in zip(starts, [*starts[1:], len(slots)], strict=True):
            rows = view[slots[start] : slots[stop - 1] + 1]
            native(
                *map(_faiss.swig_ptr, (scores[start:stop], query, rows)), len(query[0]), len(rows)
            )
        return self._finished(scores, norms, square)

    def _finished(
        self, scores: NDArray[np.float32], norms: NDArray[np.float32], square: Any
    ) -> NDArray[np.float32]:
        """Squared distances or inner products, in the metric's own unit; changed in place."""
        if self._metric is Metric.L2:
            np.sqrt(scores, out=scores)
        elif self._metric is Metric.COSINE:
            scores /= norms * np.sqrt(square)
            np.clip(scores, -1, 1, out=scores)
        return scores

    def scores(self, queries: Float32Matrix, candidates: Slots) -> NDArray[np.float32]:
        """Scores in the metric's own unit, float32, shape (n, w); NaN where there is no candidate.

        Args:
            queries, candidates: as in `best`.
        """
        count, dim = queries.shape
        norms = self._table.norms[candidates]
        missing = candidates < 0
        if any_missing := bool(missing.any()):
            norms[missing] = 1
        squares = np.einsum("ij,ij->i", queries, queries)
        if (
            norms.min(initial=1) < _SMALLEST_NORM
            or norms.max(initial=1) > _LARGEST_NORM
            or squares.min(initial=1) < _SMALLEST_NORM**2
            or squares.max(initial=1) > _LARGEST_NORM**2
        ):
            scores = np.full(candidates.shape, np.nan, dtype=np.float32)
            rows, columns = np.nonzero(~missing)
            scores[rows, columns] = self._scan.rescore(queries, rows, candidates[rows, columns])
            return scores
        scores = np.empty(candidates.shape, dtype=np.float32)
        distance = self._metric is Metric.L2
        native = _faiss.fvec_L2sqr_by_idx if distance else _faiss.fvec_inner_products_by_idx
        arrays = (scores, queries, self._source.view(), candidates)
        native(*map(_faiss.swig_ptr, arrays), dim, count, candidates.shape[1])
        self._finished(scores, norms, squares[:, None])
        if any_missing:
            scores[missing] = np.nan
        return scores
