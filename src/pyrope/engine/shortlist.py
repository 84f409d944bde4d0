"""Which rows may still be among the k best of each query, given scores with error bounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pyrope.types import Slots

# Candidates that a query may have beyond 2 k before it counts as crowded.
_SPARE = 1024

Errors = Callable[[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]], NDArray[np.float64]]


class Shortlist:
    """Candidates of n queries, fed block by block in ascending order of slots.

    A candidate's true score lies between `score - error` (its low) and `score + error` (its
    high). The k-th best low of a query is its threshold: what has its high below that is not
    among the k best. Memory is proportional to n k, and to one block.

    Args:
        queries: how many.
        k: how many are wanted, at most the number of rows that will be offered.
        truncates: what to do with a query that has too many candidates. True: keep those with the
            best scores, equal scores by ascending slot. False: give up on it.

    Attributes:
        threshold: float64, shape (queries,); -inf until k candidates are known, inf where the
            query was given up.
        crowded: queries that were given up; they have no candidates.
    """

    def __init__(self, queries: int, k: int, *, truncates: bool) -> None:
        self.threshold = np.full(queries, -np.inf)
        self.crowded: list[int] = []
        self._k = k
        self._limit = 2 * k + _SPARE
        self._truncates = truncates
        self._rows = np.empty(0, dtype=np.intp)
        self._slots: Slots = np.empty(0, dtype=np.int64)
        self._scores = np.empty(0, dtype=np.float64)
        self._errors = np.empty(0, dtype=np.float64)
        self._pending: list[
            tuple[NDArray[np.intp], Slots, NDArray[np.float64], NDArray[np.float64]]
        ] = []
        self._pending_count = 0

    def raise_threshold(self, floor: NDArray[np.float64]) -> None:
        """Raise thresholds to a bound known otherwise, shape (queries,)."""
        np.maximum(self.threshold, floor, out=self.threshold)

    def offer(
        self,
        scores: NDArray[np.float32],
        slots: Slots,
        cut: NDArray[np.float32],
        errors: Errors,
    ) -> None:
        """Take in a block.

        Args:
            scores: shape (rows, queries), C-contiguous, higher is nearer; -inf takes no part.
            slots: shape (rows,), ascending.
            cut: shape (queries,). Scores below it have their highs below the threshold.
            errors: called with scores, queries and rows of what is left; gives their errors.
        """
        queries = len(self.threshold)
        survivors = np.flatnonzero(scores >= cut)
        position, row = np.divmod(survivors, queries)
        score = scores.ravel()[survivors].astype(np.float64)
        error = errors(score, row, position)
        kept = (score + error >= self.threshold[row]) & (score > -np.inf)
        self._pending.append((row[kept], slots[position[kept]], score[kept], error[kept]))
        self._pending_count += int(np.count_nonzero(kept))
        if self._pending_count > max(len(self._rows), queries * self._k):
            self._compact()

    def candidates(self) -> tuple[NDArray[np.intp], Slots]:
        """Queries and slots of what is left, by query."""
        self._compact()
        return self._rows, self._slots

    def _compact(self) -> None:
        """Sort in what is pending, raise the thresholds, and drop what falls below them."""
        parts = [(self._rows, self._slots, self._scores, self._errors), *self._pending]
        columns = zip(*parts, strict=True)
        rows, slots, scores, errors = (np.concatenate(column) for column in columns)
        self._pending, self._pending_count = [], 0

        lows = scores - errors
        order = np.lexsort((-lows, rows))
        kth = order[_place(rows[order]) == self._k - 1]
        self.threshold[rows[kth]] = np.maximum(self.threshold[rows[kth]], lows[kth])
        kept = np.flatnonzero(scores + errors >= self.threshold[rows])

        counts = np.bincount(rows[kept], minlength=len(self.threshold))
        if (counts > self._limit).any():
            kept = self._relieve(kept, counts, rows, slots, scores)
        kept = kept[np.argsort(rows[kept], kind="stable")]
        self._rows, self._slots = rows[kept], slots[kept]
        self._scores, self._errors = scores[kept], errors[kept]

    def _relieve(
        self,
        kept: NDArray[np.intp],
        counts: NDArray[np.intp],
        rows: NDArray[np.intp],
        slots: Slots,
        scores: NDArray[np.float64],
    ) -> NDArray[np.intp]:
        """Truncate or give up the queries that have too many candidates."""
        if self._truncates:
            order = kept[np.lexsort((slots[kept], -scores[kept], rows[kept]))]
            return order[_place(rows[order]) < self._limit]
        crowded = np.flatnonzero(counts > self._limit)
        self.crowded.extend(crowded.tolist())
        self.threshold[crowded] = np.inf
        return kept[counts[rows[kept]] <= self._limit]


def _place(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """The position of each element in its run of equal values; `rows` is ascending."""
    return np.arange(len(rows)) - np.searchsorted(rows, rows)
