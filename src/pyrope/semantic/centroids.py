"""Points that stand for clusters, and which of them is nearest.

Written with `einsum`, which starts no threads and takes no lock: NumPy's matrix product does, and
the server forks (see `pyrope.engine.forked`). A vector of 384 dimensions is compared with 256
centroids in 10 us, one of a batch in 9 (`python -m benchmarks.micro_clusters`).
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrope.types import Float32Matrix, Metric

Clusters = NDArray[np.int64]
"""Shape (n,): the number of each row's cluster."""

# Rows that are compared with all centroids at a time: their scores are at most 4 MiB.
_SCORES = 2**20


def choose_count(vectors: int, most: int) -> int:
    """Centroids for so many vectors: their square root, from 1 to `most`.

    With n vectors in k clusters, finding the nearest centroid and looking through its cluster takes
    k + n / k comparisons, which is least at the square root.
    """
    return max(1, min(round(sqrt(vectors)), most))


class Centroids:
    """Some points of an index's space. They do not change.

    A vector belongs to the one with which it has the highest cosine (COSINE), or to the one at the
    smallest Euclidean distance (L2, IP); to the first of several.

    Args:
        metric: of the index.
        rows: shape (n, dim), n at least 1, finite; for COSINE none is zero.

    Attributes:
        matrix: float32, shape (n, dim); for COSINE unit vectors.
    """

    def __init__(self, metric: Metric, rows: Float32Matrix) -> None:
        self.metric = metric
        if metric is Metric.COSINE:
            self.matrix = _unit(rows)
            self._points = self.matrix
            return
        self.matrix = np.array(rows, dtype=np.float32, order="C")
        # |x - c|^2 is least where xc - |c|^2 / 2 is largest. Seen from their middle, so that what
        # all have in common does not drown in float32 what sets them apart.
        middle: NDArray[np.float64] = self.matrix.mean(axis=0, dtype=np.float64)
        self._origin: NDArray[np.float32] = middle.astype(np.float32)
        self._points = self.matrix - self._origin
        wide = self._points.astype(np.float64)
        squares: NDArray[np.float64] = np.einsum("ij,ij->i", wide, wide)
        self._halves: NDArray[np.float32] = (0.5 * squares).astype(np.float32)

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def nbytes(self) -> int:
        if self.metric is Metric.COSINE:
            return self.matrix.nbytes
        return 2 * self.matrix.nbytes + self._origin.nbytes + self._halves.nbytes

    def assign(self, vector: NDArray[np.float32]) -> int:
        """The cluster of a vector, shape (dim,), raw and finite."""
        if self.metric is Metric.COSINE:
            cosines: NDArray[np.float32] = np.einsum("ij,j->i", self._points, vector)
            return int(cosines.argmax())
        products: NDArray[np.float32] = np.einsum("ij,j->i", self._points, vector - self._origin)
        # Of the largest vectors there may be, the difference leaves float32: it is the least, then.
        with np.errstate(over="ignore"):
            products -= self._halves
        return int(products.argmax())

    def assign_many(self, rows: Float32Matrix) -> Clusters:
        """The clusters of raw rows, shape (n, dim)."""
        clusters = np.empty(len(rows), dtype=np.int64)
        step = max(1, _SCORES // len(self))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            if self.metric is not Metric.COSINE:
                some = some - self._origin
            products = np.einsum("ij,kj->ik", some, self._points)
            if self.metric is not Metric.COSINE:
                with np.errstate(over="ignore"):
                    products -= self._halves
            clusters[start : start + step] = products.argmax(axis=1)
        return clusters

    def distances(self, rows: Float32Matrix, clusters: Clusters) -> NDArray[np.float64]:
        """Euclidean distance of each row to the centroid of its cluster, shape (n,).

        For COSINE that of unit vectors, which is from 0 to 2.
        """
        own = _unit(rows) if self.metric is Metric.COSINE else rows
        difference = own.astype(np.float64) - self.matrix[clusters]
        found: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
        return found

    def score(self, vector: NDArray[np.float32], cluster: int) -> float:
        """How near a vector is to a centroid: the cosine for COSINE, the distance otherwise."""
        x, c = vector.astype(np.float64), self.matrix[cluster].astype(np.float64)
        if self.metric is not Metric.COSINE:
            return _norm(x - c)
        norms = _norm(x) * _norm(c)
        return float(np.clip(np.einsum("i,i->", x, c) / norms, -1.0, 1.0)) if norms else 0.0


def _norm(x: NDArray[np.float64]) -> float:
    return sqrt(float(np.einsum("i,i->", x, x)))


def _unit(rows: NDArray[Any]) -> Float32Matrix:
    """Rows divided by their norms; a zero row stays zero."""
    wide = rows.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    wide /= np.where(norms > 0, norms, 1.0)[:, None]
    return wide.astype(np.float32)
