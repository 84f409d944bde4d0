"""Float32 scores of many rows at once, with bounds on their rounding errors.

Two kernels. For one query, FAISS' one-query functions, bound by memory. For several, one matrix
product (FAISS' `LinearTransform`, which is an sgemm), for L2 with
``-|x-q|^2 / 2 + |q|^2 / 2 = xq - |x|^2 / 2``, whose cancellation the bounds allow for. COSINE
scales the products and needs no copy of the rows. Measured by benchmarks/micro_engine.py at
100,000 x 384 on one core: the whole scan takes 14 ms for one query and 44 ms for 32, where
`faiss.knn` 1.15 takes 10 and 288 ms over rows that are unit vectors already.

NumPy's own matrix product is not used: its OpenBLAS runs threads of its own, and a fork while
they work leaves its callers waiting for ever (see `pyrope.engine.forked`).

All bounds derive from that on a sum of d products in any order, ``gamma |q| |x|`` with
``gamma = d u / (1 - d u)`` and ``u = 2^-24`` (Higham, Accuracy and Stability of Numerical
Algorithms, 2nd ed., section 3.1). They are doubled to cover the float32 arithmetic done on them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from pyrope.engine.normalise import row_norms, unit_rows
from pyrope.types import Float32Matrix, Metric

# FAISS' own annotations leave out the functions that take pointers.
_faiss: Any = faiss

_UNIT_ROUNDOFF = 2.0**-24
_SMALLEST_NORMAL = 2.0**-126
# Roundings beside those of the sum: of a unit query, a scale, an offset.
_EXTRA_TERMS = 8
# Norms between which neither a product with a unit vector nor an inverse leaves float32.
_SMALLEST_NORM, _LARGEST_NORM = 1e-18, 1e18

FloatMatrix = NDArray[np.float32]
FloatVector = NDArray[np.float64]


def init_worker_thread() -> None:
    """Call once in each thread that searches: its OpenMP regions then stay in that thread.

    OpenMP's threads spin while they wait, and the number of threads belongs to the calling thread.
    """
    faiss.omp_set_num_threads(1)


class Kernel(ABC):
    """Scores of rows for the queries it was made for; higher is nearer.

    COSINE: the cosine. IP: the inner product. L2: something that orders rows as half the negative
    squared distance does.
    """

    def __init__(self, metric: Metric, queries: Float32Matrix) -> None:
        self._metric = metric
        cosine = metric is Metric.COSINE
        self._queries = unit_rows(queries) if cosine else np.ascontiguousarray(queries)
        self._query_norms = np.ones(len(queries)) if cosine else row_norms(queries)
        terms = (queries.shape[1] + _EXTRA_TERMS) * _UNIT_ROUNDOFF
        self._gamma = 2 * terms / (1 - terms)
        # Products that vanish below float32's range.
        self._least = queries.shape[1] * _SMALLEST_NORMAL

    def scores(self, rows: Float32Matrix, norms: FloatVector) -> FloatMatrix:
        """Shape (rows, queries), C-contiguous; overwritten by the next call.

        Args:
            rows: raw, shape (rows, dim), C-contiguous.
            norms: theirs, shape (rows,).
        """
        products = self._products(rows, norms)
        if self._metric is not Metric.COSINE:
            return products
        products *= np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)[:, None]
        odd = np.flatnonzero(((norms < _SMALLEST_NORM) & (norms > 0)) | (norms > _LARGEST_NORM))
        if len(odd):
            products = products.copy()  # the buffer is needed for the odd rows
            units = unit_rows(rows[odd])
            products[odd] = self._products(units, np.ones(len(odd)))
        return products

    def errors(
        self, scores: FloatVector, queries: NDArray[np.intp], norms: FloatVector
    ) -> FloatVector:
        """How far scores may be off: of the queries with these numbers, and rows of these norms."""
        if self._metric is Metric.COSINE:
            return np.full(len(scores), self._gamma)
        return self._bound(scores, self._query_norms[queries], norms)

    def reach(self, scores: FloatVector, largest: float) -> FloatVector:
        """The least that a score may turn out as if its true value is at least `scores`.

        Args:
            scores: shape (queries,).
            largest: norm that no row exceeds.
        """
        if self._metric is Metric.COSINE:
            return scores - np.float64(self._gamma)
        least: FloatVector = scores - self._bound(scores, self._query_norms, largest)
        return least

    def from_metric(self, scores: NDArray[np.float32]) -> FloatVector:
        """Scores in the metric's own unit as this kernel would give them, shape (queries,)."""
        own = scores.astype(np.float64)
        return own if self._metric is not Metric.L2 else -0.5 * own * own

    def _bound(
        self, scores: FloatVector, query_norms: FloatVector, norms: FloatVector | float
    ) -> FloatVector:
        bound: FloatVector = self._gamma * query_norms * norms + self._least
        return bound

    @abstractmethod
    def _products(self, rows: Float32Matrix, norms: FloatVector) -> FloatMatrix: ...


class SingleQueryKernel(Kernel):
    """For one query. Equal rows get equal scores, wherever they are."""

    def _products(self, rows: Float32Matrix, norms: FloatVector) -> FloatMatrix:
        count, dim = rows.shape
        out = np.empty((count, 1), dtype=np.float32)
        distance = self._metric is Metric.L2
        native = _faiss.fvec_L2sqr_ny if distance else _faiss.fvec_inner_products_ny
        native(*map(faiss.swig_ptr, (out, self._queries, rows)), dim, count)
        if distance:
            out *= -0.5
        return out

    def _bound(
        self, scores: FloatVector, query_norms: FloatVector, norms: FloatVector | float
    ) -> FloatVector:
        if self._metric is not Metric.L2:
            return super()._bound(scores, query_norms, norms)
        # A sum of squares is off by a part of itself: nothing cancels.
        bound: FloatVector = 2 * self._gamma * np.abs(scores) + self._least
        return bound


class MatrixKernel(Kernel):
    """For several queries."""

    def __init__(self, metric: Metric, queries: Float32Matrix) -> None:
        super().__init__(metric, queries)
        count, dim = queries.shape
        has_bias = False
        self._transform = _faiss.LinearTransform(dim, count, has_bias)
        faiss.copy_array_to_vector(self._queries.ravel(), self._transform.A)
        self._transform.is_trained = True
        self._buffer = np.empty((0, count), dtype=np.float32)

    def _products(self, rows: Float32Matrix, norms: FloatVector) -> FloatMatrix:
        if len(rows) > len(self._buffer):
            self._buffer = np.empty((len(rows), len(self._queries)), dtype=np.float32)
        out = self._buffer[: len(rows)]
        self._transform.apply_noalloc(len(rows), *map(faiss.swig_ptr, (rows, out)))
        if self._metric is Metric.L2:
            out -= (0.5 * norms * norms)[:, None]
        return out

    def from_metric(self, scores: NDArray[np.float32]) -> FloatVector:
        own = super().from_metric(scores)
        if self._metric is Metric.L2:
            own += 0.5 * self._query_norms * self._query_norms
        return own

    def _bound(
        self, scores: FloatVector, query_norms: FloatVector, norms: FloatVector | float
    ) -> FloatVector:
        bound = super()._bound(scores, query_norms, norms)
        if self._metric is Metric.L2:
            bound = bound + self._gamma * norms * norms
        return bound


def kernel_for(metric: Metric, queries: Float32Matrix) -> Kernel:
    """The cheaper kernel for this many queries."""
    return (SingleQueryKernel if len(queries) == 1 else MatrixKernel)(metric, queries)


def pair_scores(metric: Metric, queries: Float32Matrix, rows: Float32Matrix) -> NDArray[np.float64]:
    """Scores of `queries[i]` with `rows[i]` in the metric's own unit, computed in float64.

    Args:
        queries: raw, shape (n, dim).
        rows: raw, shape (n, dim).
    """
    # einsum sums every row in the same order, and starts no threads.
    q, x = queries.astype(np.float64), rows.astype(np.float64)
    if metric is Metric.L2:
        difference = q - x
        distances: FloatVector = np.sqrt(np.einsum("ij,ij->i", difference, difference))
        return distances
    products: FloatVector = np.einsum("ij,ij->i", q, x)
    if metric is Metric.IP:
        return products
    norms = np.sqrt(np.einsum("ij,ij->i", q, q)) * np.sqrt(np.einsum("ij,ij->i", x, x))
    cosines = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    clipped: FloatVector = np.clip(cosines, -1.0, 1.0)
    return clipped
