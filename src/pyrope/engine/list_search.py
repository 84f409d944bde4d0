"""One search in inverted lists: visits, as many as it takes, within a bound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrope.engine.base import Neighbours
from pyrope.engine.beam import scan_cost
from pyrope.engine.inverted_lists import NONE, InvertedLists
from pyrope.engine.probing import WIDEN, fit_lists, lists_cost, nearest_lists
from pyrope.engine.rerank import Reranker
from pyrope.types import Float32Matrix, Slots

Rows = NDArray[np.intp]
"""Numbers of queries."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What is searched for.

    Attributes:
        width: neighbours of each query, at least 1, at most `matches`.
        matches: vectors that take part.
        candidates: to be scored again for each query and visit, at least `width`.
        selector: lets those through that take part; None: all in the lists do.
        total: slots among which a scan would find those that take part.
        max_scans: upper bound on distance computations for each query, more than there are lists;
            None: there is none.
    """

    width: int
    matches: int
    candidates: int
    selector: Any
    total: int
    max_scans: int | None


class ListSearch:
    """Visits lists, nearest first, until each query has its neighbours.

    Args:
        lists: to be searched.
        reranker: of the same index.
        queries: raw, shape (n, dim), n at least 1.
        plain: the same, as they may be compared with centroids and codes.
        aim: what is searched for.

    Attributes:
        found: the answers so far; fewer where too little was found.
        widened: how many queries have been visited for once more, each time.
    """

    def __init__(
        self,
        lists: InvertedLists,
        reranker: Reranker,
        queries: Float32Matrix,
        plain: Float32Matrix,
        aim: Aim,
    ) -> None:
        self.found = Neighbours.nothing(len(queries), aim.width)
        self.widened = 0
        self._fresh = True
        self._lists = lists
        self._reranker = reranker
        self._queries = queries
        self._plain = plain
        self._aim = aim
        # Distance computations that are left.
        self._budget: NDArray[np.int64] | None = None
        if aim.max_scans is not None:
            self._budget = np.full(len(queries), aim.max_scans - lists.nlist, dtype=np.int64)

    def pays(self, queries: int, probes: int) -> bool:
        """Whether so many visits for so many queries cost less than a scan for them."""
        lists, aim = self._lists, self._aim
        cost = lists_cost(
            queries,
            probes,
            nlist=lists.nlist,
            entries=lists.entries,
            matching=aim.matches,
            reranked=aim.candidates,
            compressed=lists.compressed,
        )
        return cost < scan_cost(aim.matches, aim.total, queries)

    def run(self, probes: int) -> Rows:
        """Search, visiting `probes` lists first.

        Returns:
            The queries for which too few have been found.
        """
        nlist = self._lists.nlist
        affinities = self._lists.affinities(self._plain)
        left: Rows = np.arange(len(self._queries))
        unvisited, visited = affinities, 0
        while True:
            chosen = nearest_lists(unvisited, probes)
            self._visit(left, affinities, chosen)
            visited += probes
            short = self.found.slots[left, -1] < 0
            if not short.any():
                return left[:0]
            left = left[short]
            probes = min((WIDEN - 1) * visited, nlist - visited)
            if probes == 0 or not self._goes_on(left, probes):
                return left
            self.widened += len(left)
            affinities, unvisited = affinities[short], unvisited[short]
            np.put_along_axis(unvisited, chosen[short], -np.inf, axis=1)

    def _goes_on(self, left: Rows, probes: int) -> bool:
        if self._budget is None:
            return self.pays(len(left), probes)
        return bool((self._budget[left] > 1).any())

    def scans(self, missed: Rows) -> Iterator[tuple[Rows, int | None]]:
        """What to scan after `run`, for whom, and how many rows at most."""
        if self._budget is None:
            if len(missed):
                yield missed, None
            return
        budget = self._budget[missed]
        whole = budget >= self._aim.matches
        if whole.any():
            yield missed[whole], None
        # Some answer is better than none; but one that lists gave is better than that of some rows.
        some = ~whole & (budget > 0) & (self.found.slots[missed, 0] < 0)
        if some.any():
            yield missed[some], int(budget[some].min())

    def _visit(
        self, rows: Rows, affinities: NDArray[np.float32], probes: NDArray[np.int64]
    ) -> None:
        """Search these lists, and merge what is found into `found`."""
        queries = self._queries if self._fresh else self._queries[rows]
        plain = self._plain if self._fresh else self._plain[rows]
        count = self._aim.candidates
        if self._budget is None:
            candidates = self._scan(plain, probes, affinities)
        else:
            budget = self._budget[rows]
            reranked = np.minimum(count, budget // 2)
            # What cannot be scored again need not be looked for: the last one is left for a scan.
            most = np.where(reranked > 0, budget - reranked, 0)
            probes, compared = fit_lists(affinities, probes, self._lists.sizes, most)
            candidates = self._scan(plain, probes, affinities)
            candidates[np.arange(count) >= reranked[:, None]] = NONE
            self._budget[rows] -= compared + np.count_nonzero(candidates >= 0, axis=1)
        more = self._reranker.best(queries, candidates, self._aim.width)
        if self._fresh:
            self.found, self._fresh = more, False
        else:
            self._merge(rows, more)

    def _scan(
        self, plain: Float32Matrix, probes: NDArray[np.int64], affinities: NDArray[np.float32]
    ) -> Slots:
        # Of `NONE`, this is the last list's.
        nearness = np.take_along_axis(affinities, probes, axis=1)
        aim = self._aim
        return self._lists.scan(plain, probes, nearness, aim.candidates, aim.selector)

    def _merge(self, rows: Rows, more: Neighbours) -> None:
        """Put the best of what was and what is found into `found`."""
        known = self.found.slots[rows], self.found.scores[rows]
        slots = np.concatenate([known[0], more.slots], axis=1)
        scores = np.concatenate([known[1], more.scores], axis=1)
        keys = -scores if self._lists.metric.higher_is_nearer else scores
        # NaN, where there is none, is sorted to the end.
        order = np.lexsort((slots, keys), axis=1)[:, : self._aim.width]
        self.found.slots[rows] = np.take_along_axis(slots, order, axis=1)
        self.found.scores[rows] = np.take_along_axis(scores, order, axis=1)
