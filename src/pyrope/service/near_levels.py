"""Hits for queries that are near, or another name of, one whose answer is kept.

What is kept around the other query is scored again for this one, so that ids and scores are its
own. How much of the true answer that has is proven by geometry (`pyrope.cache.certificate`), as far
as the kept answer was a full scan, and estimated from audits (`pyrope.cache.audited_recall`): some
of the hits are searched for in full afterwards, within a share of the time. What was found and not
served is compared with the search that follows, at no cost.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pyrope.cache.audited_recall import AuditedRecall
from pyrope.cache.certificate import distances_of, proven_count, strain_of
from pyrope.cache.near_tables import NearTable, upper_distance
from pyrope.cache.neighbourhood import Neighbourhood
from pyrope.cache.simhash import SimHash
from pyrope.clock import Clock
from pyrope.errors import BusyError
from pyrope.service.answers import Key, Near
from pyrope.service.clusters import IndexClusters
from pyrope.service.search import Hits, Search, SearchRequest
from pyrope.types import CacheLevel, Metric, Slots

# Chords between queries beyond which little of an answer is left; L2 has no such scale.
_REACH = 0.7
# Kept answers that are scored again for one query.
_TRIED = 4
# Queries assigned to new clusters in one step.
_ASSIGNED = 512
_AUDITOR = "audit"
# Of answers of graphs and lists: what their levels are called in audits, and the least strain.
_APPROXIMATE = " of approximate"
_LEAST_STRAIN = 1.05


class Kept:
    """An answer that is kept.

    Attributes:
        replies: made of it, by form.
        group: near hits are only served from answers of the same one.
        number: in the table of its group; -1: it is in none.
        words: commands that it answers without their being read.
        names: texts that it answers.
    """

    __slots__ = ("group", "key", "names", "neighbourhood", "number", "replies", "words")

    def __init__(self, key: Key, neighbourhood: Neighbourhood) -> None:
        self.key = key
        self.neighbourhood = neighbourhood
        self.replies: dict[Any, bytes] = {}
        self.group: Key = key[1:]
        self.number = -1
        self.words: list[tuple[Hashable, ...]] = []
        self.names: list[tuple[bytes, Key]] = []


class Shadow(NamedTuple):
    """A near hit that was not good enough to be served, or that is to be audited.

    Attributes:
        scores: of its hits, nearest first, shape (k,).
    """

    level: str
    strain: float
    scores: NDArray[np.float32]


class Guess(NamedTuple):
    """The hits of a query by what is kept around another one."""

    slots: Slots
    scores: NDArray[np.float32]
    certified: float
    estimated: float
    shadow: Shadow
    repaired: bool


@dataclass(slots=True)
class NearStatistics:
    """Counters since the index was opened.

    Attributes:
        audits, audits_skipped: searches made to check near hits, and those not made for want of
            time.
        refused: queries with something near that was not good enough.
    """

    audits: int = 0
    audits_skipped: int = 0
    refused: int = 0


class Searchable(Protocol):
    """The index."""

    @property
    def metric(self) -> Metric: ...

    @property
    def dim(self) -> int: ...

    @property
    def clusters(self) -> IndexClusters: ...

    def search(self, client: str, queries: bytes, asked: Search) -> SearchRequest: ...

    def scores(
        self, query: bytes, slots: Slots, nearest: int, *, exact: bool
    ) -> NDArray[np.float32]: ...


class NearLevels:
    """All methods are for the event loop.

    Args:
        catch_up: brings what is kept up to date for a search: whether it could be, and whether
            there was anything to do.
        is_kept: whether an answer is kept still.
        position: of the index's log of writes.
        audit_share: of the time of one thread that audits may take.
        spawn: runs a coroutine as a task that the server waits for when it stops.
    """

    def __init__(  # noqa: PLR0913 - each is another matter
        self,
        index: Searchable,
        *,
        catch_up: Callable[[Kept, Search], tuple[bool, bool]],
        is_kept: Callable[[Kept], bool],
        position: Callable[[], int],
        clock: Clock,
        seed: int,
        audit_share: float,
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
        assign_many: Callable[[Any, Any], Any],
    ) -> None:
        self.statistics = NearStatistics()
        self.audited = AuditedRecall(clock, Random(seed))  # noqa: S311 - no secret
        self._index = index
        self._catch_up = catch_up
        self._is_kept = is_kept
        self._position = position
        self._clock = clock
        self._seed = seed
        self._audit_share = audit_share
        self._spawn = spawn
        self._assign_many = assign_many
        self._simhash: SimHash | None = None
        self._tables: dict[Key, NearTable] = {}
        self._numbered: dict[int, Kept] = {}
        self._next = 0
        self._epoch = 0
        self._assigning = False
        self._auditing = False
        self._audit_from = float("-inf")

    @property
    def nbytes(self) -> int:
        tables = sum([table.nbytes for table in self._tables.values()])
        return tables + (0 if self._simhash is None else self._simhash.nbytes)

    # -- what is kept -----------------------------------------------------------------------------

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
        kept.number, self._next = self._next, self._next + 1
        table.add(kept.number, query, self._index.clusters.assign(query))
        self._numbered[kept.number] = kept

    def forget(self, kept: Kept) -> None:
        """An answer is kept no more."""
        if self._numbered.pop(kept.number, None) is None:
            return
        table = self._tables[kept.group]
        table.remove(kept.number)
        if not len(table):
            del self._tables[kept.group]
        kept.number = -1

    def clear(self) -> None:
        """No answer is kept any more."""
        self._tables.clear()
        self._numbered.clear()

    # -- finding ----------------------------------------------------------------------------------

    def find(
        self, query: bytes, group: Key, asked: Search, near: Near, levels: frozenset[CacheLevel]
    ) -> tuple[str, Guess] | Shadow | None:
        """The level and the hits that are good enough; or else what was best of the others.

        Args:
            group: of the answers that may be used.
        """
        table = self._tables.get(group)
        if table is None:
            return None
        best: Guess | None = None
        for level, numbers, distances in self._candidates(query, table, levels):
            for number, distance in zip(numbers.tolist(), distances.tolist(), strict=True):
                kept = self._numbered.get(number)
                if kept is None or not self._is_kept(kept):
                    continue
                guess = self.guess(kept, query, asked, distance, level)
                if guess is None:
                    continue
                trusted = self.audited.level_is_trusted(guess.shadow.level, near.min_recall)
                recall = guess.certified if near.certified else guess.estimated
                proven = guess.certified >= near.min_recall
                if proven or (trusted and recall >= near.min_recall):
                    self._consider(query, asked, guess.shadow, served=True)
                    return level, guess
                if best is None or guess.shadow.strain < best.shadow.strain:
                    best = guess
        if best is None:
            return None
        self.statistics.refused += 1
        return best.shadow

    def _candidates(
        self, query: bytes, table: NearTable, levels: frozenset[CacheLevel]
    ) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.float32]]]:
        """By level: answers that are near, and how near."""
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

    def guess(
        self, kept: Kept, query: bytes, asked: Search, distance: float | None, level: str
    ) -> Guess | None:
        """What the neighbourhood of one query says about another; None where it says too little.

        Args:
            distance: between the queries; None: it is computed.
        """
        current, repaired = self._catch_up(kept, asked)
        if not current:
            return None
        index, around = self._index, kept.neighbourhood
        metric, dim = index.metric, index.dim
        count = min(asked.count, len(around.slots))
        scores = index.scores(query, around.slots, count, exact=around.exact)
        order = np.lexsort((around.slots, -scores if metric.higher_is_nearer else scores))[:count]
        scores = scores[order]
        if distance is None:
            distance = _distance(metric, query, around.query)
        certified, strain = 1.0, 0.0
        if metric is Metric.IP:
            # Without a bound on norms, one query says nothing about another.
            certified, strain = 0.0, float("inf")
        elif count:
            radius = float("inf")
            if not around.exhaustive:
                radius = float(distances_of(metric, around.scores[-1:])[0])
            distances = distances_of(metric, scores)
            upper = upper_distance(metric, dim, distance)
            certified = float(proven_count(metric, radius, upper, distances, count)) / count
            strain = float(strain_of(metric, radius, distance, distances[-1]))
        if not around.exact:
            # The last that is kept is no radius: others may be nearer. It has audits of its own.
            level += _APPROXIMATE
            certified, strain = 0.0, max(strain, _LEAST_STRAIN)
        estimated = certified
        if certified < 1.0 and (around.exact or asked.options.max_scans is None):
            bound = self.audited.lower_bound(level, strain, max(count, 1))
            estimated = max(certified, bound)
        shadow = Shadow(level, strain, scores)
        return Guess(around.slots[order], scores, certified, estimated, shadow, repaired)

    # -- audits -----------------------------------------------------------------------------------

    def compare(self, shadow: Shadow, hits: Hits, *, served: bool) -> None:
        """Learn from a full search how good a near hit was."""
        count = min(len(shadow.scores), len(hits.scores))
        if not count:
            return
        last = np.float32(hits.scores[count - 1])
        near = (
            shadow.scores >= last
            if self._index.metric.higher_is_nearer
            else (shadow.scores <= last)
        )
        found = int(np.count_nonzero(near[:count]))
        self.audited.record(shadow.level, shadow.strain, found, count, served=served)

    def consider(self, query: bytes, asked: Search, shadow: Shadow) -> None:
        """Audit something that was not served, if that is wanted and there is time for it."""
        self._consider(query, asked, shadow, served=False)

    def _consider(self, query: bytes, asked: Search, shadow: Shadow, *, served: bool) -> None:
        count = len(shadow.scores)
        if not count or not self.audited.should_audit(shadow.level, shadow.strain, count):
            return
        if self._auditing or self._clock.monotonic() < self._audit_from:
            self.statistics.audits_skipped += 1
            return
        full = Search(count, exact=True, filter=asked.filter)
        position = self._position()
        try:
            request = self._index.search(_AUDITOR, query, full)
        except BusyError:
            self.statistics.audits_skipped += 1
            return
        self._auditing = True
        request.add_done_callback(partial(self._audited, shadow, position, served))

    def _audited(
        self,
        shadow: Shadow,
        position: int,
        served: bool,  # noqa: FBT001 - bound by position, like the rest
        request: SearchRequest,
    ) -> None:
        self._auditing = False
        if request.exception() is not None:
            return
        (hits,) = request.result()
        now = self._clock.monotonic()
        self._audit_from = max(now, self._audit_from) + hits.search_seconds / self._audit_share
        self.statistics.audits += 1
        # What has been written meanwhile is in one of the two.
        if position == self._position():
            self.compare(shadow, hits, served=served)

    # -- clusters ---------------------------------------------------------------------------------

    def _follow_clusters(self) -> None:
        """See that the tables go by the clusters that are in force."""
        if self._epoch != self._index.clusters.epoch and not self._assigning:
            self._assigning = True
            self._spawn(self._assign_all())

    async def _assign_all(self) -> None:
        clusters = self._index.clusters
        epoch, centroids = clusters.epoch, clusters.registry.centroids
        try:
            if centroids is None:
                return
            for table in list(self._tables.values()):
                parts = []
                for start in range(0, len(table), _ASSIGNED):
                    numbers, vectors = table.part(start, start + _ASSIGNED)
                    parts.append((numbers, await self._assign_many(centroids, vectors)))
                if parts:
                    numbers, assigned = map(np.concatenate, zip(*parts, strict=True))
                    table.rebuild(numbers, assigned.astype(np.int32))
        finally:
            self._epoch, self._assigning = epoch, False


def _distance(metric: Metric, one: bytes, other: bytes) -> float:
    """Euclidean, of unit vectors where the metric is not L2."""
    a, b = np.frombuffer(one, "<f4").astype(np.float64), np.frombuffer(other, "<f4")
    b = b.astype(np.float64)
    if metric is not Metric.L2:
        a_norm, b_norm = np.sqrt(np.dot(a, a)), np.sqrt(np.dot(b, b))
        if not a_norm or not b_norm:
            return 2.0
        a, b = a / a_norm, b / b_norm
    difference = a - b
    return float(np.sqrt(np.dot(difference, difference)))
