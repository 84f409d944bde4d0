"""Cached queries that are near a new one: found by codes or by clusters, then measured.

Both levels are ways to name a few candidates of one table; what they return is decided by true
distances alone. So a level may miss a cached query, but never says that one is nearer than it is.

Quantized level: the Hamming distances of the 64-bit codes (`pyrope.cache.simhash`) of *all* cached
queries. The textbook way is buckets: tables by parts of the code, and probes of those whose keys
differ in few bits (Lv et al., Multi-Probe LSH, VLDB 2007). NumPy compares 10,000 codes in 5 us,
while Python looks into a bucket or two. So a scan beats buckets that find as much, four times over
at 10,000 cached queries and at 50,000; buckets that are as fast miss 7 % of what the scan finds
(benchmarks/micro_near.py).

Cluster level: the members of the clusters that the caller names, nearest first. Members are found
by a scan too, of one column of cluster numbers. Where there are more than may be measured, codes
choose among them.
"""

from __future__ import annotations

from math import asin, pi, sqrt
from sys import getsizeof

import numpy as np
from numpy.typing import NDArray

from pyrope.cache.simhash import SimHash
from pyrope.types import Float32Matrix, Metric

NO_CLUSTER = -1
"""The cluster of a cached query that has not been assigned to one."""

Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Numbers of cached queries and their distances, nearest first, both of shape (n,)."""

# A table grows by one row in so many, and by so many at most, so that no growth takes long: beyond
# 32 MB glibc moves pages instead of copying them, and new rows are cleared by the step. It shrinks
# where more than half as many rows are in reserve as are in use.
_GROWTH = 4
_LARGEST_STEP = 1024
_RESERVE = 2
_LARGEST_DISTANCE = float(np.finfo(np.float32).max)
# A number and a row as Python integers, and their place in a dict that has just grown.
_BYTES_PER_ROW_NUMBER = 2 * 32
_BYTES_PER_PLACE = 80
# Number, code and cluster.
_BYTES_PER_ROW = 8 + 8 + 4

TABLE_BYTES = 1_000
"""What a table takes beside its rows: objects, and headers of arrays (CPython 3.11, NumPy 2)."""


def row_bytes(dim: int) -> int:
    """What a cached query takes in a table at most, with its part of the rows in reserve."""
    rows = 4 * dim + _BYTES_PER_ROW
    return rows + rows // _RESERVE + _BYTES_PER_ROW_NUMBER + _BYTES_PER_PLACE


_UNIT_ROUNDOFF = 2.0**-24
# Squares of differences below this may vanish where denormals are flushed to zero.
_LEAST_DIFFERENCE = 2.0**-62


def direction_of(vector: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """A vector of unit length, rounded to float32, and the length it had; a zero vector as it is.

    Args:
        vector: raw, finite, shape (dim,).
    """
    wide = vector.astype(np.float64)
    norm = sqrt(np.einsum("i,i->", wide, wide))
    return (wide / norm).astype(np.float32) if norm else vector, norm


def upper_distance(metric: Metric, dim: int, distance: float) -> float:
    """What the true distance does not exceed, if a table says that it is `distance`.

    The sum of `dim` squared differences in float32, in any order, is off by a part of itself of at
    most ``(dim + 2) u`` to first order, with ``u = 2^-24`` (Higham, Accuracy and Stability of
    Numerical Algorithms, 2nd ed., section 3.1), and its root by half of that and another `u`. Unit
    vectors were rounded themselves: each is off by `u` at most. Second-order terms are covered by
    two more `u`, and by 1 % for the largest dimensions.
    """
    bound = distance * (1.0 + 1.01 * (dim / 2 + 4) * _UNIT_ROUNDOFF)
    bound += sqrt(dim) * _LEAST_DIFFERENCE
    return bound if metric is Metric.L2 else bound + 2.02 * _UNIT_ROUNDOFF


class NearTable:
    """Cached queries of one index and group, for the event loop.

    Distances are Euclidean. L2: between the vectors as they are. COSINE and IP: between unit
    vectors (chords), since neither metric's order of results depends on a query's length; a zero
    query has no direction, and is not to be added.

    Args:
        metric: as of the index.
        simhash: of the index; tables may share it.
        examined: true distances that a call computes at most, at least 1.
    """

    def __init__(self, metric: Metric, dim: int, simhash: SimHash, examined: int = 64) -> None:
        if examined < 1:
            raise ValueError(f"at least 1 distance must be computed, not {examined}")
        self._spherical = metric is not Metric.L2
        self._simhash = simhash
        self._examined = examined
        self._row_of: dict[int, int] = {}
        self._vectors = np.empty((0, dim), dtype=np.float32)
        self._numbers = np.empty(0, dtype=np.int64)
        self._codes = np.empty(0, dtype=np.uint64)
        self._clusters = np.empty(0, dtype=np.int32)

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, number: int) -> bool:
        return number in self._row_of

    @property
    def nbytes(self) -> int:
        """Bytes it occupies, without the shared `SimHash`; rows in reserve count.

        At most `TABLE_BYTES`, and `row_bytes` for each cached query.
        """
        numbers = getsizeof(self._row_of) + _BYTES_PER_ROW_NUMBER * len(self)
        return numbers + sum([getsizeof(column) for column in self._columns()])

    def add(self, number: int, query: NDArray[np.float32], cluster: int = NO_CLUSTER) -> None:
        """Take in a cached query.

        Args:
            number: names it; not in the table.
            query: raw, finite, shape (dim,). It is copied.
            cluster: number of the nearest centroid.

        Raises:
            ValueError: the number is in the table, or the query is zero and has no direction.
        """
        if number in self._row_of:
            raise ValueError(f"cached query {number} is in the table")
        direction, norm = direction_of(query)
        if self._spherical and not norm:
            raise ValueError("a zero query has no direction")
        row = len(self._row_of)
        if row == len(self._numbers):
            self._resize(row + min(max(row // _GROWTH, 1), _LARGEST_STEP))
        self._vectors[row] = direction if self._spherical else query
        self._numbers[row] = number
        self._codes[row] = self._simhash.code(direction)
        self._clusters[row] = cluster
        self._row_of[number] = row

    def remove(self, number: int) -> bool:
        """Let go of a cached query; False if it is not in the table."""
        row = self._row_of.pop(number, None)
        if row is None:
            return False
        last = len(self._row_of)
        if row != last:
            for column in self._columns():
                column[row] = column[last]
            self._row_of[int(self._numbers[row])] = row
        if len(self._numbers) - last > last // _RESERVE:
            self._resize(last + last // (2 * _RESERVE))
            # A dict keeps the places of what has gone.
            self._row_of = dict(self._row_of)
        return True

    def _resize(self, rows: int) -> None:
        for column in self._columns():
            # Nothing refers to the memory of a column between calls.
            column.resize((rows, *column.shape[1:]), refcheck=False)

    def find_by_code(self, query: NDArray[np.float32], limit: int, reach: float) -> Found:
        """Cached queries within a distance, by the Hamming distance of their codes.

        One at that distance is overlooked with a probability of 1 in 740, nearer ones with less;
        more where so many codes are near that not all can be measured.

        Args:
            query: raw, finite, shape (dim,).
            limit: how many are wanted at most, at least 1.
            reach: distance that they may have.
        """
        direction, norm = direction_of(query)
        count = len(self._row_of)
        if not count or (self._spherical and not norm):
            return _nothing()
        code = self._simhash.code(direction)
        gaps = np.bitwise_count(self._codes[:count] ^ code)
        rows = (gaps <= self._simhash.radius(self._angle(norm, reach))).nonzero()[0]
        if len(rows) > self._examined:
            rows = self._likeliest(rows, gaps[rows])
        return self._measured(direction if self._spherical else query, rows, limit, reach)

    def find_by_cluster(
        self, query: NDArray[np.float32], clusters: NDArray[np.int32], limit: int, reach: float
    ) -> Found:
        """Cached queries within a distance, among the members of clusters.

        Args:
            query: raw, finite, shape (dim,).
            clusters: numbers of those to look at, shape (n,), nearest first. The later ones are
                left out once there are as many members as may be measured.
            limit: how many are wanted at most, at least 1.
            reach: distance that they may have.
        """
        direction, norm = direction_of(query)
        count = len(self._row_of)
        if not count or not len(clusters) or (self._spherical and not norm):
            return _nothing()
        members = self._clusters[:count]
        parts: list[NDArray[np.intp]] = []
        known = 0
        for cluster in clusters:
            parts.append((members == cluster).nonzero()[0])
            known += len(parts[-1])
            if known >= self._examined:
                break
        rows = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if len(rows) > self._examined:
            code = self._simhash.code(direction)
            rows = self._likeliest(rows, np.bitwise_count(self._codes[rows] ^ code))
        return self._measured(direction if self._spherical else query, rows, limit, reach)

    def numbers(self) -> NDArray[np.int64]:
        """A copy of the numbers of all cached queries, in no particular order, shape (n,)."""
        return self._numbers[: len(self._row_of)].copy()

    def vectors(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], Float32Matrix]:
        """Copies of the vectors (COSINE, IP: of unit length) of those that are here still.

        For an assignment to new centroids, which may be computed elsewhere, in parts.

        Returns:
            Their numbers, shape (n,), and vectors, shape (n, dim).
        """
        there, rows = self._found(numbers)
        return numbers[there], self._vectors[rows]

    def assign(self, numbers: NDArray[np.int64], clusters: NDArray[np.int32]) -> None:
        """Say in which clusters some cached queries are; the others stay where they are.

        Args:
            numbers: shape (n,); those that are gone meanwhile are passed over.
            clusters: for each its cluster, shape (n,).
        """
        there, rows = self._found(numbers)
        self._clusters[rows] = clusters[there]

    def _found(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        """Which of the numbers are here, shape (n,), and the rows of those."""
        places = (self._row_of.get(number, -1) for number in numbers.tolist())
        rows = np.fromiter(places, dtype=np.intp, count=len(numbers))
        there = rows >= 0
        return there, rows[there]

    def _columns(self) -> tuple[NDArray[np.generic], ...]:
        return self._vectors, self._numbers, self._codes, self._clusters

    def _angle(self, norm: float, reach: float) -> float:
        """The largest angle between a query of this length and a vector within `reach` of it."""
        if self._spherical:
            return 2.0 * asin(min(reach / 2.0, 1.0))
        # The tangent from the origin to the sphere around the query.
        return asin(reach / norm) if reach < norm else pi

    def _likeliest(self, rows: NDArray[np.intp], gaps: NDArray[np.uint8]) -> NDArray[np.intp]:
        """Of too many rows, those whose codes differ least."""
        chosen: NDArray[np.intp] = rows[gaps.argpartition(self._examined - 1)[: self._examined]]
        return chosen

    def _measured(
        self, query: NDArray[np.float32], rows: NDArray[np.intp], limit: int, reach: float
    ) -> Found:
        """Those of the rows that are within reach, nearest first."""
        differences = self._vectors.take(rows, axis=0)
        with np.errstate(over="ignore"):
            differences -= query
            # What overflows is out of reach.
            distances = np.sqrt(np.einsum("ij,ij->i", differences, differences))
        near = (distances <= min(reach, _LARGEST_DISTANCE)).nonzero()[0]
        near = near[distances[near].argsort(kind="stable")[:limit]]
        return self._numbers[rows[near]], distances[near]


def _nothing() -> Found:
    return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
