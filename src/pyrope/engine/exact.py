"""The full scan that every engine falls back on, exact and in bounded memory.

Two passes. The first scores blocks of rows in float32 and keeps every row that may be among the
k best: a float32 dot product of d terms, summed in whatever order, is off by at most
``gamma * |q| |x|`` with ``gamma = d u / (1 - d u)``, ``u = 2^-24`` (Higham, Accuracy and Stability
of Numerical Algorithms, 2nd ed., section 3.1), so a row whose upper bound lies below the k-th best
lower bound is out for certain. The second pass scores the few that are left in float64, from the
raw rows, and orders them by (float32 score, slot). What comes back is therefore what a scan in
float64 would give: a vector is at distance 0 from itself, whatever the kernel made of it.

Two kernels give the first scores. Up to two queries: FAISS' one-query kernels, bound by memory.
More: one matrix product (FAISS' `LinearTransform`, which is an sgemm), for L2 with
``|x-q|^2 = |x|^2 - 2xq + |q|^2``, whose cancellation the bounds allow for. Measured by
benchmarks/micro_engine.py at 100,000 x 384 on one core: 12 ms for one query, 42 ms for 32, where
`faiss.knn` takes 11 and 190 ms, and COSINE needs no normalised copy of the rows.

Where more rows are within the bounds of the k-th place than is worth keeping (thousands of equal
vectors), the queries concerned are scanned again one at a time with the first kernel, which gives
equal rows equal scores, and equal scores go by slot.

NumPy's own matrix product is not used: its OpenBLAS runs threads of its own, and a fork while
they work leaves them waiting for ever (`pyrope.engine.forked`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from pyrope.engine.base import Neighbours, VectorSource
from pyrope.engine.normalise import row_norms, unit_rows
from pyrope.engine.shortlist import Shortlist
from pyrope.engine.slot_table import SlotTable
from pyrope.types import Float32Matrix, Mask, Metric, Slots

# Queries scored at a time. The matrix product gains little beyond this, and scores take memory.
_QUERIES = 64
# Up to here one pass per query is as fast as a matrix product (measured: 12 ms each, 24 for any).
_SINGLE_QUERIES = 2
# Slots whose mask is turned into row numbers at a time.
_SEGMENT = 65536
# Rows scored at a time where they lie side by side, and bytes of them where they are gathered
# (which must stay in the second-level cache between gathering and scoring).
_BLOCK_ROWS = 4096
_GATHER_BYTES = 2**20
# Of the rows of a block, the part from which scoring them all beats gathering those that count.
_DENSE = 0.5
# Rows scored in float64 at a time.
_RESCORE_ROWS = 1024
_UNIT_ROUNDOFF = 2.0**-24
_SMALLEST_NORMAL = 2.0**-126
# Norms between which neither a product with a unit vector nor an inverse leaves float32.
_ORDINARY_NORMS = (1e-18, 1e18)

FloatMatrix = NDArray[np.float32]


def init_worker_thread() -> None:
    """Call once in each thread that searches: its OpenMP regions then stay in that thread.

    OpenMP's threads spin while they wait, and the number of threads belongs to the calling thread.
    """
    faiss.omp_set_num_threads(1)


class ExactScan:
    """Scans the live rows of a source. A reader: any number of calls at a time."""

    def __init__(self, metric: Metric, dim: int, source: VectorSource, table: SlotTable) -> None:
        self._metric = metric
        self._dim = dim
        self._source = source
        self._table = table
        terms = dim + 8  # the few roundings beside the sum: of the query, the scale, the offset
        self._gamma = terms * _UNIT_ROUNDOFF / (1 - terms * _UNIT_ROUNDOFF)

    def search(self, queries: Float32Matrix, k: int, allowed: Mask | None = None) -> Neighbours:
        """As `VectorIndex.search_exact`."""
        part = self._table.taking_part(allowed)
        k = min(k, int(np.count_nonzero(part)))
        found = Neighbours.nothing(len(queries), k)
        if k == 0:
            return found
        view = self._source.view()
        for start in range(0, len(queries), _QUERIES):
            chunk = np.ascontiguousarray(queries[start : start + _QUERIES])
            self._search_chunk(
                view,
                chunk,
                part,
                found.slots[start : start + _QUERIES],
                found.scores[start : start + _QUERIES],
            )
        return found

    def rescore(
        self, queries: Float32Matrix, rows: NDArray[np.intp], slots: Slots
    ) -> NDArray[np.float32]:
        """Scores of pairs, computed in float64: of `queries[rows[i]]` with the row of `slots[i]`.

        Args:
            queries: shape (n, dim), raw.
            rows: shape (m,).
            slots: shape (m,).
        """
        view = self._source.view()
        scores = np.empty(len(slots), dtype=np.float32)
        for start in range(0, len(slots), _RESCORE_ROWS):
            some = slice(start, start + _RESCORE_ROWS)
            x = view[slots[some]].astype(np.float64)
            q = queries[rows[some]].astype(np.float64)
            with np.errstate(over="ignore"):
                scores[some] = _scores(self._metric, q, x)
        return scores

    def _search_chunk(
        self,
        view: Float32Matrix,
        queries: Float32Matrix,
        part: Mask,
        slots: NDArray[np.int64],
        scores: NDArray[np.float32],
    ) -> None:
        """Answer one chunk into rows of `slots` and `scores`."""
        k = slots.shape[1]
        single = len(queries) <= _SINGLE_QUERIES
        shortlist = self._shortlist(view, queries, part, k, single=single)
        self._rank(queries, np.arange(len(queries)), shortlist, slots, scores)
        for row in shortlist.crowded:
            query = queries[row : row + 1]
            again = self._shortlist(view, query, part, k, single=True)
            self._rank(query, np.array([row]), again, slots, scores)

    def _rank(
        self,
        queries: Float32Matrix,
        targets: NDArray[np.intp],
        shortlist: Shortlist,
        slots: NDArray[np.int64],
        scores: NDArray[np.float32],
    ) -> None:
        rows, candidates = shortlist.candidates()
        exact = self.rescore(queries, rows, candidates)
        nearness = exact if self._metric.higher_is_nearer else -exact
        order = np.lexsort((candidates, -nearness, rows))
        rows, candidates, exact = rows[order], candidates[order], exact[order]
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)
        kept = place < slots.shape[1]
        slots[targets[rows[kept]], place[kept]] = candidates[kept]
        scores[targets[rows[kept]], place[kept]] = exact[kept]

    def _shortlist(
        self, view: Float32Matrix, queries: Float32Matrix, part: Mask, k: int, *, single: bool
    ) -> Shortlist:
        """The first pass: rows that may be among the k best of each query."""
        kernel: _Kernel = (
            _SingleQueryKernel(self._metric, queries)
            if single
            else _MatrixKernel(self._metric, queries)
        )
        shortlist = Shortlist(len(queries), k, truncates=single)
        query_norms = row_norms(queries)[:, None] if self._metric is not Metric.COSINE else 1.0
        for rows, slots in self._blocks(view, part):
            norms = self._table.norms[slots].astype(np.float64)
            with np.errstate(invalid="ignore", over="ignore"):
                scores = kernel.scores(rows, norms)
            bounds = self._bounds(query_norms, norms)
            if isinstance(slots, slice):
                numbers = np.arange(slots.start, slots.stop)
                if not (taking := part[slots]).all():
                    scores[:, ~taking] = -np.inf
                    bounds = np.where(taking, bounds, 0.0)
            else:
                numbers = slots
            shortlist.offer(scores, bounds, numbers)
        return shortlist

    def _bounds(
        self, query_norms: NDArray[np.float64] | float, norms: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """How far the kernel's scores may be off, shape (1 or queries, rows); inf: no idea."""
        # Doubled, so that the float32 arithmetic on scores and bounds is covered too.
        if self._metric is Metric.COSINE:
            ordinary = (norms >= _ORDINARY_NORMS[0]) & (norms <= _ORDINARY_NORMS[1])
            return np.where(ordinary | (norms == 0), 2 * self._gamma, np.inf)[None, :]
        bounds = query_norms * norms
        if self._metric is Metric.L2:
            bounds = bounds + norms * norms + np.square(query_norms)
        return 2 * self._gamma * bounds + self._dim * _SMALLEST_NORMAL

    def _blocks(
        self, view: Float32Matrix, part: Mask
    ) -> Iterator[tuple[Float32Matrix, slice | Slots]]:
        """Rows to score and their slots, ascending. A block may be overwritten by the next one."""
        gathered = max(_GATHER_BYTES // (4 * self._dim), 64)
        scratch: Float32Matrix | None = None
        for first in range(0, min(len(part), len(view)), _SEGMENT):
            segment = part[first : first + _SEGMENT]
            count = int(np.count_nonzero(segment))
            if count == 0:
                continue
            if count >= _DENSE * len(segment):
                for start in range(first, first + len(segment), _BLOCK_ROWS):
                    slots = slice(start, min(start + _BLOCK_ROWS, first + len(segment)))
                    yield view[slots], slots
                continue
            if scratch is None:
                scratch = np.empty((gathered, self._dim), dtype=np.float32)
            numbers = np.flatnonzero(segment) + first
            for start in range(0, count, gathered):
                some = numbers[start : start + gathered]
                # "clip" writes into `out` directly, where "raise" would make a copy first.
                yield view.take(some, axis=0, out=scratch[: len(some)], mode="clip"), some


class _Kernel:
    """Float32 scores of all rows of a block for all queries, higher is nearer.

    COSINE: the cosine. IP: the inner product. L2: the inner product less half the squared norm of
    the row, or half the negative squared distance; either orders the rows of one query.
    """

    def __init__(self, metric: Metric, queries: Float32Matrix) -> None:
        self._metric = metric
        self._queries = unit_rows(queries) if metric is Metric.COSINE else queries

    def scores(self, rows: Float32Matrix, norms: NDArray[np.float64]) -> FloatMatrix:
        """Shape (queries, rows)."""
        raise NotImplementedError

    def _finished(self, products: FloatMatrix, norms: NDArray[np.float64]) -> FloatMatrix:
        if self._metric is Metric.COSINE:
            products *= np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        return products


class _SingleQueryKernel(_Kernel):
    """One pass over the block for each query; equal rows get equal scores, wherever they are."""

    def scores(self, rows: Float32Matrix, norms: NDArray[np.float64]) -> FloatMatrix:
        count, dim = rows.shape
        products = np.empty((len(self._queries), count), dtype=np.float32)
        distance = self._metric is Metric.L2
        native = faiss.fvec_L2sqr_ny if distance else faiss.fvec_inner_products_ny
        for query, line in zip(self._queries, products, strict=True):
            native(_pointer(line), _pointer(query), _pointer(rows), dim, count)
        if distance:
            products *= -0.5
        return self._finished(products, norms)


class _MatrixKernel(_Kernel):
    """One matrix product for all queries."""

    def __init__(self, metric: Metric, queries: Float32Matrix) -> None:
        super().__init__(metric, queries)
        count, dim = queries.shape
        self._transform = faiss.LinearTransform(dim, count, False)
        faiss.copy_array_to_vector(self._queries.ravel(), self._transform.A)
        self._transform.is_trained = True
        self._products = np.empty((_BLOCK_ROWS, count), dtype=np.float32)

    def scores(self, rows: Float32Matrix, norms: NDArray[np.float64]) -> FloatMatrix:
        if len(rows) > len(self._products):
            self._products = np.empty((len(rows), len(self._queries)), dtype=np.float32)
        products = self._products[: len(rows)]
        self._transform.apply_noalloc(len(rows), _pointer(rows), _pointer(products))
        if self._metric is Metric.L2:
            products -= (0.5 * norms * norms)[:, None]
        return self._finished(products.T, norms)


def _pointer(array: NDArray[np.float32]) -> Any:
    return faiss.swig_ptr(array)


def _scores(
    metric: Metric, q: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Scores of pairs of rows, shape (n,). einsum sums each row alike and starts no threads."""
    if metric is Metric.L2:
        difference = q - x
        distances: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
        return distances
    products: NDArray[np.float64] = np.einsum("ij,ij->i", q, x)
    if metric is Metric.IP:
        return products
    norms = np.sqrt(np.einsum("ij,ij->i", q, q)) * np.sqrt(np.einsum("ij,ij->i", x, x))
    cosines = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return np.clip(cosines, -1.0, 1.0)
