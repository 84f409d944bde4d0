"""The full scan that every engine falls back on, exact and in bounded memory.

Two passes. The first scores blocks of rows in float32 and keeps every row that may be among the
k best: a float32 dot product of d terms, summed in whatever order, is off by at most
``gamma * |q| |x|`` with ``gamma = d u / (1 - d u)``, ``u = 2^-24`` (Higham, Accuracy and Stability
of Numerical Algorithms, 2nd ed., section 3.1), so a row whose upper bound lies below the k-th best
lower bound is out for certain. The second pass scores the few that are left in float64, from the
raw rows, and orders them by (float32 score, slot). What comes back is therefore what a scan in
float64 would give: a vector is at distance 0 from itself, whatever the kernel made of it.

Where more rows are within the bounds of the k-th place than is worth keeping (thousands of equal
vectors), the queries concerned are scanned again one at a time, with a kernel that gives equal
rows equal scores, and equal scores go by slot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrope.engine.base import Neighbours, VectorSource
from pyrope.engine.kernels import kernel_for, pair_scores
from pyrope.engine.shortlist import Shortlist
from pyrope.engine.slot_table import SlotTable
from pyrope.types import Float32Matrix, Mask, Metric, Slots

# Queries scored at a time. The matrix product gains little beyond this, and scores take memory.
_QUERIES = 64
# Slots whose mask is turned into row numbers at a time.
_SEGMENT = 65536
# Rows scored at a time where they lie side by side, and bytes of them where they are gathered
# (which must stay in the second-level cache between gathering and scoring).
_BLOCK_ROWS = 4096
_GATHER_BYTES = 2**20
# Of the rows of a block, the part from which scoring them all beats gathering those that count.
_DENSE = 0.5
# Rows scored in float64 at a time.
_RESCORE_ROWS = 1024


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows to scan.

    Attributes:
        view: every slot's row, shape (capacity, dim).
        dim: as of the index.
        part: True for those that count, shape (<= capacity,).
        dense: of the rows of a block, the part from which all are scored, and what does not count
            is passed over afterwards.
    """

    view: Float32Matrix
    dim: int
    part: Mask
    dense: float

    def blocks(self) -> Iterator[tuple[Float32Matrix, slice | Slots]]:
        """Rows to score and their slots, ascending. A block may be overwritten by the next one."""
        view, part, dim = self.view, self.part, self.dim
        gathered = max(_GATHER_BYTES // (4 * dim), 64)
        scratch: Float32Matrix | None = None
        for first in range(0, len(part), _SEGMENT):
            segment = part[first : first + _SEGMENT]
            count = int(np.count_nonzero(segment))
            stop = min(first + len(segment), len(view))
            if count >= self.dense * len(segment):
                for start in range(first, stop, _BLOCK_ROWS):
                    block = slice(start, min(start + _BLOCK_ROWS, stop))
                    yield view[block], block
            elif count:
                if scratch is None:
                    scratch = np.empty((gathered, dim), dtype=np.float32)
                slots = np.flatnonzero(segment) + first
                for start in range(0, count, gathered):
                    some = slots[start : start + gathered]
                    # "clip" writes into `out` directly; "raise" would make a copy first.
                    yield view.take(some, axis=0, out=scratch[: len(some)], mode="clip"), some


class ExactScan:
    """Scans the live rows of a source. A reader: any number of calls at a time."""

    def __init__(self, metric: Metric, dim: int, source: VectorSource, table: SlotTable) -> None:
        self._metric = metric
        self._dim = dim
        self._source = source
        self._table = table

    def search(
        self,
        queries: Float32Matrix,
        k: int,
        allowed: Mask | None = None,
        *,
        limit: int | None = None,
    ) -> Neighbours:
        """As `VectorIndex.search_exact`, or of a part of the rows.

        Args:
            queries: shape (n, dim).
            k: at least 1.
            allowed: as there.
            limit: where given, at least 0: each query is compared with at most so many rows, the
                first by ascending slot of those that take part. No other row is read. (A row
                counts once, though the best are scored by both passes.) The result is as wide as
                without a limit, and -1 where it has nothing to say.
        """
        part = self._table.taking_part(allowed)
        if part is self._table.live:
            part = part.copy()  # vectors may come while this runs, beyond the end of the view
        matches = int(np.count_nonzero(part))
        found = Neighbours.nothing(len(queries), min(k, matches))
        dense = _DENSE
        if limit is not None and limit < matches:
            # All before the first that is one too many; and of them, none that takes no part.
            part, dense = part[: np.flatnonzero(part)[limit]], 1.0
            matches = limit
        if found.slots.size and matches:
            rows = _Rows(self._source.view(), self._dim, part, dense)
            width = min(k, matches)
            for start in range(0, len(queries), _QUERIES):
                chunk = slice(start, start + _QUERIES)
                self._search_chunk(
                    queries[chunk], rows, found.slots[chunk, :width], found.scores[chunk, :width]
                )
        return found

    def rescore(
        self, queries: Float32Matrix, rows: NDArray[np.intp], slots: Slots
    ) -> NDArray[np.float32]:
        """Scores of pairs, computed in float64: of `queries[rows[i]]` with the row of `slots[i]`.

        Args:
            queries: shape (n, dim), raw.
            rows: shape (m,).
            slots: shape (m,).
        """
        view = self._source.view()
        scores = np.empty(len(slots), dtype=np.float32)
        for start in range(0, len(slots), _RESCORE_ROWS):
            some = slice(start, start + _RESCORE_ROWS)
            scores[some] = pair_scores(self._metric, queries[rows[some]], view[slots[some]])
        return scores

    def _search_chunk(
        self,
        queries: Float32Matrix,
        rows: _Rows,
        slots: NDArray[np.int64],
        scores: NDArray[np.float32],
    ) -> None:
        """Answer one chunk into `slots` and `scores`."""
        shortlist = self._shortlist(queries, rows, slots.shape[1])
        self._rank(queries, shortlist, slots, scores)
        for row in shortlist.crowded:
            alone = slice(row, row + 1)
            shortlist = self._shortlist(queries[alone], rows, slots.shape[1])
            self._rank(queries[alone], shortlist, slots[alone], scores[alone])

    def _shortlist(self, queries: Float32Matrix, all_rows: _Rows, k: int) -> Shortlist:
        """The first pass: rows that may be among the k best of each query."""
        kernel = kernel_for(self._metric, queries)
        shortlist = Shortlist(len(queries), k, truncates=len(queries) == 1)
        for rows, where in all_rows.blocks():
            norms = self._table.norms[where].astype(np.float64)
            # Rows that hold no vector may hold anything.
            with np.errstate(invalid="ignore", over="ignore"):
                scores = kernel.scores(rows, norms)
            if isinstance(where, slice):
                slots = np.arange(where.start, where.stop)
                scores[~all_rows.part[where]] = -np.inf
            else:
                slots = where
            largest = float(norms.max())
            if len(slots) > k and shortlist.threshold.min() == -np.inf:
                kth = np.partition(scores, len(slots) - k, axis=0)[len(slots) - k]
                shortlist.raise_threshold(kernel.reach(kth.astype(np.float64), largest))
            cut = np.nextafter(
                kernel.reach(shortlist.threshold, largest).astype(np.float32), np.float32(-np.inf)
            )
            shortlist.offer(scores, slots, cut, lambda s, q, p: kernel.errors(s, q, norms[p]))  # noqa: B023
            if len(shortlist.crowded) == len(queries):
                break
        return shortlist

    def _rank(
        self,
        queries: Float32Matrix,
        shortlist: Shortlist,
        slots: NDArray[np.int64],
        scores: NDArray[np.float32],
    ) -> None:
        """The second pass: the k best of the candidates, by exact score and then by slot."""
        rows, candidates = shortlist.candidates()
        exact = self.rescore(queries, rows, candidates)
        order = np.lexsort((candidates, -exact if self._metric.higher_is_nearer else exact, rows))
        rows, candidates, exact = rows[order], candidates[order], exact[order]
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)
        best = place < slots.shape[1]
        slots[rows[best], place[best]] = candidates[best]
        scores[rows[best], place[best]] = exact[best]
