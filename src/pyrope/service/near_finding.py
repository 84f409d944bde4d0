"""Answers whose queries are near another one: tables by group, kept in step with the clusters."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pyrope.cache.near_tables import TABLE_BYTES, NearTable, row_bytes
from pyrope.cache.simhash import SimHash
from pyrope.service.answers import Key
from pyrope.service.clusters import IndexClusters
from pyrope.service.kept import Kept
from pyrope.types import CacheLevel, Metric

# Chords between queries beyond which little of an answer is left; L2 has no such scale.
_REACH = 0.7
# Kept answers that are scored again for one query.
_TRIED = 4
# Queries assigned to new clusters in one step.
_ASSIGNED = 512
# What is known of an answer in a table, by its number.
_NUMBERED_BYTES = 140


class Findable(Protocol):
    """The index."""

    @property
    def metric(self) -> Metric: ...

    @property
    def dim(self) -> int: ...

    @property
    def clusters(self) -> IndexClusters: ...


class NearFinder:
    """All methods are for the event loop.

    Args:
        seed: of the codes.
        spawn: runs a coroutine as a task that the server waits for when it stops.
        assign_many: assigns rows to centroids, off the loop.
    """

    def __init__(
        self,
        index: Findable,
        *,
        seed: int,
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
        assign_many: Callable[[Any, Any], Any],
    ) -> None:
        self._index = index
        self._seed = seed
        self._spawn = spawn
        self._assign_many = assign_many
        self._simhash: SimHash | None = None
        self._tables: dict[Key, NearTable] = {}
        self._numbered: dict[int, Kept] = {}
        # Answers in each table that came of full scans.
        self._exact: dict[Key, int] = {}
        self._next = 0
        self._epoch = 0
        self._assigning = False

    @property
    def nbytes(self) -> int:
        """Bytes of the tables; `bytes_of` all that are in them is at least as much."""
        return sum([table.nbytes for table in self._tables.values()])

    @property
    def shared_bytes(self) -> int:
        """Bytes that are no answer's."""
        return 0 if self._simhash is None else self._simhash.nbytes

    def bytes_of(self, kept: Kept) -> int:
        """What an answer takes here, with its part of what is in reserve; 0: it is not here."""
        if kept.number < 0:
            return 0
        # A filter may have a table for one answer only.
        table = TABLE_BYTES if kept.key[-1] is not None else 0
        return row_bytes(self._index.dim) + _NUMBERED_BYTES + table

    # -- what is here -----------------------------------------------------------------------------

    def add(self, kept: Kept) -> None:
        """Let near queries find an answer."""
        query = np.frombuffer(kept.neighbourhood.query, "<f4")
        if not query.any() and self._index.metric is not Metric.L2:
            return  # it has no direction
        if self._simhash is None:
            self._simhash = SimHash(self._index.dim, self._seed)
        table = self._tables.get(kept.group)
        if table is None:
            table = NearTable(self._index.metric, self._index.dim, self._simhash)
            self._tables[kept.group] = table
            self._exact[kept.group] = 0
        kept.number, self._next = self._next, self._next + 1
        table.add(kept.number, query, self._index.clusters.assign(query))
        self._numbered[kept.number] = kept
        self._exact[kept.group] += kept.neighbourhood.exact

    def forget(self, kept: Kept) -> None:
        """An answer is kept no more."""
        if self._numbered.pop(kept.number, None) is None:
            return
        table = self._tables[kept.group]
        table.remove(kept.number)
        self._exact[kept.group] -= kept.neighbourhood.exact
        if not len(table):
            del self._tables[kept.group], self._exact[kept.group]
        kept.number = -1

    def clear(self) -> None:
        """No answer is kept any more."""
        self._tables.clear()
        self._numbered.clear()
        self._exact.clear()

    # -- finding ----------------------------------------------------------------------------------

    def find(
        self, query: bytes, group: Key, levels: frozenset[CacheLevel], *, exact: bool
    ) -> Iterator[tuple[str, Kept, float]]:
        """Answers whose queries are near, with the level that found each, and how near.

        Args:
            exact: only answers that came of full scans.
        """
        table = self._tables.get(group)
        if table is None or (exact and not self._exact[group]):
            return
        for level, numbers, distances in self._candidates(query, table, levels):
            for number, distance in zip(numbers.tolist(), distances.tolist(), strict=True):
                kept = self._numbered.get(number)
                if kept is not None and (kept.neighbourhood.exact or not exact):
                    yield level, kept, distance

    def _candidates(
        self, query: bytes, table: NearTable, levels: frozenset[CacheLevel]
    ) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.float32]]]:
        vector = np.frombuffer(query, "<f4")
        reach = float("inf") if self._index.metric is Metric.L2 else _REACH
        seen: set[int] = set()
        if CacheLevel.QUANTIZED in levels:
            numbers, distances = table.find_by_code(vector, _TRIED, reach)
            seen.update(numbers.tolist())
            yield "quantized", numbers, distances
        if CacheLevel.CLUSTER in levels:
            self._follow_clusters()
            cluster = np.array([self._index.clusters.assign(vector)], np.int32)
            numbers, distances = table.find_by_cluster(vector, cluster, _TRIED, reach)
            new = np.array([number not in seen for number in numbers.tolist()], np.bool_)
            yield "cluster", numbers[new], distances[new]

    # -- clusters ---------------------------------------------------------------------------------

    def _follow_clusters(self) -> None:
        """See that the tables go by the clusters that are in force."""
        if self._epoch != self._index.clusters.epoch and not self._assigning:
            self._assigning = True
            self._spawn(self._assign_all())

    async def _assign_all(self) -> None:
        """Assign what is in the tables to the clusters in force.

        What comes meanwhile is assigned as it comes. Where clusters change meanwhile, too, the next
        query finds that, and all is assigned again.
        """
        clusters = self._index.clusters
        epoch, centroids = clusters.epoch, clusters.registry.centroids
        try:
            for table in list(self._tables.values()):
                numbers = table.numbers()
                for start in range(0, len(numbers), _ASSIGNED):
                    some, vectors = table.vectors(numbers[start : start + _ASSIGNED])
                    if centroids is None:
                        assigned = np.zeros(len(some), np.int32)
                    else:
                        assigned = await self._assign_many(centroids, vectors)
                    if clusters.epoch != epoch:
                        return
                    table.assign(some, assigned.astype(np.int32))
        finally:
            self._epoch, self._assigning = epoch, False
