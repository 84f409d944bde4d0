"""FAISS' graph over 8-bit codes: what the rest needs of it, and what its memory is."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from pyrope.types import Float32Matrix, Metric, Slots

# FAISS' own annotations leave out most of its fields, and the functions that take pointers.
_faiss: Any = faiss

# What FAISS adds to a signed code to store it in a byte.
_CODE_ZERO = 128


class CodeGraph:
    """Nodes numbered in the order in which they were added; they stay.

    Searches may run at the same time as one another, `add` only alone.

    Args:
        metric: IP compares codes by inner product, the others by distance.
        dim: components of a code.
        m: links of a node on the upper levels, at least 2; twice that on level 0.
        ef_construction: candidates considered while a node is linked.
        capacity: nodes to take memory for at once.
    """

    def __init__(
        self, metric: Metric, dim: int, m: int, ef_construction: int, capacity: int = 0
    ) -> None:
        measure = faiss.METRIC_INNER_PRODUCT if metric is Metric.IP else faiss.METRIC_L2
        kind = _faiss.ScalarQuantizer.QT_8bit_direct_signed
        self.native: Any = _faiss.IndexHNSWSQ(dim, kind, m, measure)
        self.native.hnsw.efConstruction = ef_construction
        self._m = m
        self._reserved = 0
        self.reserve(capacity)

    def adopt(self, native: faiss.Index | None) -> None:
        """Take the place of an index that was read from a file.

        Raises:
            ValueError: it is no graph over codes of this dimension.
        """
        if not isinstance(native, faiss.IndexHNSWSQ) or native.d != self.native.d:
            raise ValueError(f"not a graph over codes of {self.native.d} components")
        self.native = native

    def __len__(self) -> int:
        return int(self.native.ntotal)

    @property
    def nbytes(self) -> int:
        """By FAISS' own arrays. Of the room they have, only what was ever used is memory."""
        nodes = max(len(self), self._reserved)
        links = max(self.native.hnsw.neighbors.size(), self._links(nodes))
        # A level of 4 bytes, an offset of 8, a byte for each component, 4 for each link.
        return int(nodes * (4 + 8 + self.native.d) + 4 * links)

    def _links(self, nodes: int) -> int:
        """Places for links that so many nodes have: they rise a level with probability 1/m."""
        return nodes * 2 * self._m + ceil(nodes * self._m / (self._m - 1))

    @property
    def codes(self) -> NDArray[np.uint8]:
        """As they are stored, shape (n, dim), without a copy; valid until something is added."""
        count, dim = len(self), self.native.d
        if not count:
            return np.empty((0, dim), dtype=np.uint8)
        data = _faiss.downcast_index(self.native.storage).codes.data()
        codes: NDArray[np.uint8] = _faiss.rev_swig_ptr(data, count * dim).reshape(count, dim)
        return codes

    def search(self, queries: Float32Matrix, count: int, beam: int) -> Slots:
        """The nearest nodes, nearest first, shape (n, count); -1 where no more were reached.

        Args:
            queries: as codes, shape (n, dim).
            count: at most `beam`.
            beam: candidates to keep.
        """
        _, found = self.native.search(queries, count, params=_parameters(beam))
        nodes: Slots = found
        return nodes

    def add(self, codes: Float32Matrix, threads: int) -> None:
        """Add and link nodes, with so many threads of OpenMP's.

        Args:
            codes: integers between -127 and 127, shape (n, dim).
        """
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(threads)
        try:
            self.native.add(codes)
        finally:
            faiss.omp_set_num_threads(before)

    def reserve(self, capacity: int) -> None:
        """Take the memory for so many nodes.

        Otherwise FAISS doubles its arrays whenever they are full, and copies them. They can only
        be told to grow; what they shrink from stays theirs.
        """
        if capacity <= len(self):
            return
        hnsw = self.native.hnsw
        for array, room in (
            (_faiss.downcast_index(self.native.storage).codes, capacity * self.native.d),
            (hnsw.levels, capacity),
            (hnsw.offsets, capacity + 1),
            (hnsw.neighbors, self._links(capacity)),
        ):
            size = array.size()
            if room > size:
                array.resize(room)
                array.resize(size)
        self._reserved = capacity


def stored(codes: Float32Matrix) -> NDArray[np.uint8]:
    """Codes as a graph stores them, shape (n, dim)."""
    return (codes + _CODE_ZERO).astype(np.uint8)


@lru_cache(maxsize=256)
def _parameters(beam: int) -> Any:
    """Searches only read them, so that several may share them."""
    return _faiss.SearchParametersHNSW(efSearch=beam)
