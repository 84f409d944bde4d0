"""Hits for queries that are near, or another name of, one whose answer is kept.

What is kept around the other query is scored again for this one, so that ids and scores are its
own. How much of the true answer that has is proven by geometry (`pyrope.cache.certificate`), as far
as the kept answer was a full scan, and estimated from audits (`pyrope.service.near_audits`).

Inner products are bounded by the norm of the longest vector there is now, which the index knows
(`pyrope.engine.norm_bound`). A hit is proven with the bound of its own moment, so that a longer
vector that comes later makes no answer wrong that was right. By another bound hits look easier or
harder than they did when they were audited: where it has changed, audits are forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from math import sqrt
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pyrope.cache.certificate import distances_of, proven_count, strain_of
from pyrope.cache.near_tables import upper_distance
from pyrope.cache.neighbourhood import Neighbourhood
from pyrope.cache.query_key import QueryKey
from pyrope.clock import Clock
from pyrope.service.answers import Key, Near
from pyrope.service.kept import Kept
from pyrope.service.near_audits import Auditable, NearAudits, NearStatistics, Shadow
from pyrope.service.near_finding import Findable, NearFinder
from pyrope.service.search import Hits, Search
from pyrope.types import CacheLevel, Metric, Slots

# Of answers of graphs and lists: what their levels are called in audits, and the least strain.
_APPROXIMATE = " of approximate"
_LEAST_STRAIN = 1.05
_ALIAS = "alias"
# A bound on norms that has changed by more is another one: a bin of strains is 6 % wide.
_ANOTHER_BOUND = 1.05


class Guess(NamedTuple):
    """The hits of a query by what is kept around another one, `kept`."""

    slots: Slots
    scores: NDArray[np.float32]
    certified: float
    estimated: float
    shadow: Shadow
    repaired: bool
    kept: Kept


class Searchable(Findable, Auditable, Protocol):
    """The index."""

    @property
    def norm_bound(self) -> float:
        """What no vector's norm exceeds, but for a rounding; only of an index of METRIC IP."""
        ...

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

    Attributes:
        audits: of what was found.
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
        self.audits = NearAudits(
            index, position=position, clock=clock, share=audit_share, seed=seed
        )
        self._finder = NearFinder(index, seed=seed, spawn=spawn, assign_many=assign_many)
        self._index = index
        self._catch_up = catch_up
        self._is_kept = is_kept
        # The bound on norms by which audits have strains.
        self._bound = 0.0

    @property
    def statistics(self) -> NearStatistics:
        return self.audits.statistics

    @property
    def nbytes(self) -> int:
        """Bytes of tables; `bytes_of` all that are in them is at least as much."""
        return self._finder.nbytes

    @property
    def shared_bytes(self) -> int:
        """Bytes that are no answer's."""
        return self._finder.shared_bytes

    # -- what is kept -----------------------------------------------------------------------------

    def add(self, kept: Kept) -> None:
        """Let near queries find an answer."""
        self._finder.add(kept)

    def forget(self, kept: Kept) -> None:
        """An answer is kept no more."""
        self._finder.forget(kept)

    def clear(self) -> None:
        """No answer is kept any more."""
        self._finder.clear()

    def bytes_of(self, kept: Kept) -> int:
        """What an answer takes here."""
        return self._finder.bytes_of(kept)

    # -- finding ----------------------------------------------------------------------------------

    def find(
        self, query: bytes, group: Key, asked: Search, near: Near, levels: frozenset[CacheLevel]
    ) -> tuple[str, Guess] | Shadow | None:
        """The level and the hits that are good enough; or else what was best of the others.

        Args:
            group: of the answers that may be used.
        """
        best: Shadow | None = None
        audited = self.audits.recall
        # What came of a graph proves nothing.
        for level, kept, distance in self._finder.find(query, group, levels, exact=near.certified):
            guess = self._guess(kept, query, asked, distance, level)
            if guess is None:
                continue
            shadow = guess.shadow
            proven = guess.certified >= near.min_recall
            if not (proven or near.certified) and guess.estimated >= near.min_recall:
                # A level that is off is audited as if it were not, so that it can come back.
                shadow = shadow._replace(promised=near.min_recall)
            trusted = audited.level_is_trusted(shadow.level, near.min_recall)
            if proven or (trusted and shadow.promised is not None):
                self.audits.consider(query, asked, shadow)
                return level, guess
            if best is None or shadow.strain < best.strain:
                best = shadow
        if best is not None:
            self.statistics.refused += 1
        return best

    def guess_by_alias(
        self, kept: Kept, query: bytes, asked: Search, alias: QueryKey, canonical: QueryKey
    ) -> Guess | None:
        """What the answer to a canonical says about an alias; None where it says too little."""
        guess = self._guess(kept, query, asked, None, _ALIAS)
        if guess is not None:
            self.audits.consider_alias(query, asked, guess.shadow, alias, canonical)
        return guess

    def compare(self, shadow: Shadow, hits: Hits) -> None:
        """Learn from a full search how good something was that was not served."""
        self.audits.compare(shadow, hits)

    def consider(self, query: bytes, asked: Search, shadow: Shadow) -> None:
        """Audit something that was not served, if that is wanted and there is time for it."""
        self.audits.consider(query, asked, shadow)

    def _guess(
        self, kept: Kept, query: bytes, asked: Search, distance: float | None, level: str
    ) -> Guess | None:
        """What the neighbourhood of one query says about another; None where it says too little.

        Args:
            distance: between the queries; None: it is computed.
        """
        if not self._is_kept(kept):
            return None
        current, repaired = self._catch_up(kept, asked)
        if not current:
            return None
        index, around = self._index, kept.neighbourhood
        metric = index.metric
        count = min(asked.count, len(around.slots))
        scores = index.scores(query, around.slots, count, exact=around.exact)
        order = np.lexsort((around.slots, -scores if metric.higher_is_nearer else scores))[:count]
        scores = scores[order]
        certified, strain = 1.0, 0.0
        if count:
            if distance is None:
                distance = _distance(metric, query, around.query)
            certified, strain = self._judge(query, around, scores, distance)
        by_alias = level == _ALIAS
        if not around.exact:
            # The last that is kept is no radius: others may be nearer. It has audits of its own.
            certified, strain = 0.0, max(strain, _LEAST_STRAIN)
            level += "" if by_alias else _APPROXIMATE
        estimated = certified
        if certified < 1.0 and (around.exact or asked.options.max_scans is None):
            audits = self.audits
            bound = (
                audits.aliases.lower_bound
                if by_alias
                else audits.recall.lower_bound(level, strain, max(count, 1))
            )
            estimated = max(certified, bound)
        shadow = Shadow(level, strain, scores)
        return Guess(around.slots[order], scores, certified, estimated, shadow, repaired, kept)

    def _judge(
        self, query: bytes, around: Neighbourhood, scores: NDArray[np.float32], distance: float
    ) -> tuple[float, float]:
        """What part of the best of a neighbourhood is proven, and their strain.

        Args:
            scores: of the best, nearest first, at least one.
            distance: between the queries.
        """
        metric, dim = self._index.metric, self._index.dim
        norms, longest = (1.0, 1.0), 1.0
        if metric is Metric.IP:
            norms, longest = (_norm(around.query), _norm(query)), self._norm_bound()
            if not around.exact:
                # Products that were summed in float32 may exceed what norms allow.
                longest *= 1.0 + (dim + 16) * 2.0**-22
        radius = float("inf")
        if not around.exhaustive:
            last = around.scores[-1:]
            radius = float(distances_of(metric, last, query_norm=norms[0], max_norm=longest)[0])
        distances = distances_of(metric, scores, query_norm=norms[1], max_norm=longest)
        upper, count = upper_distance(metric, dim, distance), len(scores)
        certified = float(proven_count(metric, radius, upper, distances, count)) / count
        return certified, float(strain_of(metric, radius, distance, distances[-1]))

    def _norm_bound(self) -> float:
        """What no vector's norm exceeds now."""
        bound = self._index.norm_bound
        if not self._bound / _ANOTHER_BOUND <= bound <= self._bound * _ANOTHER_BOUND:
            self._bound = bound
            self.audits.recall.forget()
        return bound


def _norm(query: bytes) -> float:
    vector = np.frombuffer(query, "<f4").astype(np.float64)
    return sqrt(float(np.einsum("i,i->", vector, vector)))


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
