"""Which rows may still be among the k best of each query, given scores with error bounds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyrope.types import Slots

# Candidates that a query may have beyond 2 k before it counts as crowded.
_SPARE = 1024


class Shortlist:
    """Candidates of n queries, fed block by block in ascending order of slots.

    A candidate's true score lies between `low` and `high`. The k-th best `low` of a query is its
    threshold: what has its `high` below that is not among the k best.

    Args:
        queries: how many.
        k: how many are wanted, at most the number of rows that will be offered.
        truncates: what to do with a query that has too many candidates. True: keep those with the
            best scores, equal scores by ascending slot. False: give up on it and list it in
            `crowded`.

    Attributes:
        crowded: queries that were given up; they have no candidates.
    """

    def __init__(self, queries: int, k: int, *, truncates: bool) -> None:
        self.crowded: list[int] = []
        self._k = k
        self._limit = 2 * k + _SPARE
        self._truncates = truncates
        self._threshold = np.full(queries, -np.inf)
        self._blocks: list[tuple[NDArray[np.intp], Slots, NDArray[np.float64], Slots]] = []
        self._rows = np.empty(0, dtype=np.intp)
        self._slots = np.empty(0, dtype=np.int64)
        self._scores = np.empty(0, dtype=np.float64)
        self._errors = np.empty(0, dtype=np.float64)
        self._pending = 0
