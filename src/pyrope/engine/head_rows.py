"""Copies of a short head's rows, in the form in which one native call scores them all.

Beside a busy event loop it is not the arithmetic that costs, but whatever takes long enough for
another thread to get the GIL, and has to wait for it afterwards. So the rows of a short head are
kept together, as unit vectors for COSINE, and what comes out of one matrix product is compared with
the floor as it is. That decides only what is looked at: the cut is generous (its bounds are those
of `kernels`), and whatever passes is scored again like everything else.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from pyrope.engine.normalise import unit_rows
from pyrope.types import Float32Matrix, Metric

_faiss: Any = faiss

# Norms that leave float32 neither squared nor multiplied.
_SMALLEST_NORM, _LARGEST_NORM = 1e-15, 1e15
_UNIT_ROUNDOFF = 2.0**-24
_EXTRA_TERMS = 16


class Near(NamedTuple):
    """Pairs: numbers of queries, and places of rows."""

    queries: NDArray[np.intp]
    places: NDArray[np.int64]


class HeadRows:
    """Rows by place. `put` may run beside searches, which ask for places put before; nothing else.

    Args:
        metric: as of the index.
        dim: as of the index.
    """

    def __init__(self, metric: Metric, dim: int) -> None:
        self._metric = metric
        self._rows: Float32Matrix = np.empty((0, dim), dtype=np.float32)
        # Of each row, half of its square: L2 is ordered by that less the product.
        self._halves: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        self._largest = 0.0
        self._ordinary = True
        terms = (dim + _EXTRA_TERMS) * _UNIT_ROUNDOFF
        self._gamma = 4 * terms / (1 - terms)

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes + self._halves.nbytes

    def put(self, start: int, vectors: Float32Matrix, norms: NDArray[np.float32]) -> None:
        """Keep rows at the places from `start` on.

        Args:
            vectors: raw, shape (n, dim).
            norms: theirs, shape (n,).
        """
        stop = start + len(vectors)
        if stop > len(self._rows):
            room = max(64, 2 * stop)
            rows = np.empty((room, self._rows.shape[1]), dtype=np.float32)
            halves = np.empty(room, dtype=np.float32)
            rows[:start], halves[:start] = self._rows[:start], self._halves[:start]
            self._rows, self._halves = rows, halves
        self._rows[start:stop] = unit_rows(vectors) if self._metric is Metric.COSINE else vectors
        with np.errstate(over="ignore"):
            self._halves[start:stop] = 0.5 * norms * norms
        self._largest = max(self._largest, float(norms.max(initial=0)))
        least = float(norms.min(initial=1))
        if least < _SMALLEST_NORM or self._largest > _LARGEST_NORM:
            self._ordinary = False

    def blank(self, places: NDArray[np.int64]) -> None:
        """Let the rows at these places never be found again."""
        self._rows[places] = np.nan  # which is nearer than nothing

    def nearer(
        self, queries: Float32Matrix, floor: NDArray[np.float32], first: int, stop: int
    ) -> Near | None:
        """The rows at places from `first` to before `stop` that are as near as the floor.

        Perhaps a few more that are not quite. None where norms out of the ordinary would lead the
        product astray.

        Args:
            queries: raw, shape (n, dim), C-contiguous.
            floor: a score of each in the metric's own unit, shape (n,).

        Returns:
            Pairs in the order of the rows.
        """
        if not self._ordinary:
            return None
        squares = np.einsum("ij,ij->i", queries, queries).astype(np.float64)
        if squares.min() < _SMALLEST_NORM**2 or squares.max() > _LARGEST_NORM**2:
            return None
        count, dim = queries.shape
        rows = self._rows[first:stop]
        products = np.empty((len(rows), count), dtype=np.float32)
        has_bias = False
        transform = _faiss.LinearTransform(dim, count, has_bias)
        faiss.copy_array_to_vector(queries.ravel(), transform.A)
        transform.is_trained = True
        transform.apply_noalloc(len(rows), *map(_faiss.swig_ptr, (rows, products)))
        norms = np.sqrt(squares)
        cut = floor.astype(np.float64)
        if self._metric is Metric.COSINE:
            cut = (cut - self._gamma) * norms
        elif self._metric is Metric.IP:
            cut -= self._gamma * norms * self._largest
        else:
            products -= self._halves[first:stop, None]
            cut = 0.5 * (squares - cut * cut - self._gamma * (norms + self._largest) ** 2)
        # Compared in float32, to which a bound of float64 must not be rounded up.
        cut = np.nextafter(cut.astype(np.float32), np.float32(-np.inf))
        taken = np.flatnonzero(products >= cut)
        places, numbers = np.divmod(taken, count)
        return Near(numbers, places + first)
