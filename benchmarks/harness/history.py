"""What an index held after each write of a trace, and whether answers were true of it then.

This is the harness' own model: it knows the trace and nothing of the server. Every vector that ever
is stored is an *edition* of its id, with the number of writes after which it came and went. The
nearest editions of a query, dead or alive, are found once by a full scan; those alive at some
moment are the exact answer at that moment.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.servers import K
from benchmarks.harness.traces import Kind, Trace
from benchmarks.harness.truth import TIE

_SPARE = 54
"""Editions kept of each query beyond the K nearest. Where more of the nearest are dead, everything
is scanned."""

_FOREVER = 2**62


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of one answer.

    Attributes:
        exact: it is the exact answer, in order: at each rank the score of the exact one, up to
            ties, and each score is its own vector's.
        reordered: it is exact only if some of the writes that were under way have been seen before
            others that were sent before them.
        honest: no more than K, no id twice, all of them stored, and each score its own vector's.
        right: how many of its ids are among the K nearest, up to ties.
    """

    exact: bool
    honest: bool
    right: int
    reordered: bool = False


class History:
    """The exact answers to a trace's searches, whatever has been written by then."""

    def __init__(self, trace: Trace) -> None:
        count = len(trace.base)
        total = count + len(trace.written)
        self._queries = trace.queries
        self._vectors = np.vstack([trace.base, trace.written])
        self._born = np.zeros(total, np.int64)
        self._died = np.full(total, _FOREVER, np.int64)
        # Of each write its id; of each edition likewise.
        self._written: list[int] = []
        self._owners = np.arange(total)
        # Ids that were written, with their editions in order.
        self._editions: dict[int, list[int]] = {}
        self._count = count
        self._follow(trace)
        depth = min(K + _SPARE, total)
        self._scores, self._nearest = faiss.knn(
            trace.queries, self._vectors, depth, metric=faiss.METRIC_INNER_PRODUCT
        )

    def judge(
        self, query: int, first: int, last: int, ids: list[int], scores: list[float]
    ) -> Verdict:
        """Compare an answer with the exact one.

        The server may have answered before or after any write that was under way, so the answer is
        held against each moment that it can be of, and the best verdict counts.

        Args:
            query: row of the query.
            first: writes that had been acknowledged when the query was sent.
            last: writes that had been sent when the answer came.
        """
        best = Verdict(exact=False, honest=False, right=-1)
        for moment in range(first, last + 1):
            found = self._judge_at(query, moment, ids, scores)
            if found.exact:
                return found
            best = max(best, found, key=lambda one: (one.honest, one.right))
        if last > first and self._is_mixture(query, first, last, ids, scores):
            return Verdict(exact=True, honest=True, right=K, reordered=True)
        return best

    def exact(self, query: int, moment: int) -> NDArray[np.float32]:
        """Scores of the K nearest after so many writes, best first."""
        nearest = self._nearest[query]
        alive = (self._born[nearest] <= moment) & (moment < self._died[nearest])
        scores: NDArray[np.float32] = self._scores[query][alive][:K]
        if len(scores) == K or len(nearest) == len(self._vectors):
            return scores
        everything = self._vectors @ self._queries[query]
        held = (self._born <= moment) & (moment < self._died)
        return np.sort(everything[held])[::-1][:K].astype(np.float32)

    def _judge_at(self, query: int, moment: int, ids: list[int], said: list[float]) -> Verdict:
        truth = self.exact(query, moment)
        editions = [self._edition(one, moment) for one in ids]
        stored = [one for one in editions if one is not None]
        own = self._vectors[stored] @ self._queries[query]
        honest = (
            len(stored) == len(ids) == len(set(ids))
            and len(ids) <= K
            and bool((np.abs(own - said) <= TIE).all())
        )
        exact = honest and len(ids) == len(truth) and bool((np.abs(truth - said) <= TIE).all())
        near = own >= truth[-1] - TIE if len(truth) else np.zeros(0, np.bool_)
        right = len({one for one, good in zip(stored, near, strict=True) if good})
        return Verdict(exact, honest, min(right, K))

    def _is_mixture(
        self, query: int, first: int, last: int, ids: list[int], said: list[float]
    ) -> bool:
        """Whether it is exact if each id may be as it was at a moment of its own."""
        if len(ids) != K or len(set(ids)) != K or min(np.diff(said) * -1) < -TIE:
            return False
        touched = {
            id_: {self._edition(id_, moment) for moment in range(first, last + 1)}
            for id_ in self._written[first:last]
        }
        for id_, score in zip(ids, said, strict=True):
            editions = touched.get(id_) or {self._edition(id_, first)}
            if not any(abs(self._score(query, one) - score) <= TIE for one in editions):
                return False
        worst = said[-1] + TIE
        nearer = self._nearest[query][self._scores[query] > worst]
        if len(nearer) == len(self._nearest[query]):
            return False
        alive = nearer[(self._born[nearer] <= first) & (last < self._died[nearer])]
        if not set(self._owners[alive].tolist()) <= set(ids):
            return False
        missing = (editions for id_, editions in touched.items() if id_ not in ids)
        return all(
            any(self._score(query, one) <= worst for one in editions) for editions in missing
        )

    def _score(self, query: int, edition: int | None) -> float:
        """Minus infinity for what is not stored."""
        if edition is None:
            return float("-inf")
        return float(self._vectors[edition] @ self._queries[query])

    def _edition(self, id_: int, moment: int) -> int | None:
        """The one that was stored under an id after so many writes."""
        editions = self._editions.get(id_)
        if editions is None:
            return id_ if 0 <= id_ < self._count else None
        place = bisect_right(editions, moment, key=lambda one: int(self._born[one]))
        if not place or self._died[editions[place - 1]] <= moment:
            return None
        return editions[place - 1]

    def _follow(self, trace: Trace) -> None:
        fresh = self._count
        is_write = trace.kinds != Kind.SEARCH
        writes = zip(trace.kinds[is_write].tolist(), trace.what[is_write].tolist(), strict=True)
        for moment, (kind, id_) in enumerate(writes, 1):
            self._written.append(id_)
            editions = self._editions.setdefault(id_, [id_] if id_ < self._count else [])
            if kind != Kind.ADD:
                self._died[editions[-1]] = moment
            if kind != Kind.DELETE:
                self._born[fresh] = moment
                self._owners[fresh] = id_
                editions.append(fresh)
                fresh += 1
