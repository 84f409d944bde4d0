"""How much has been written to each cluster of late: a window that slides with the clock.

The window is a ring of tenths. A write is counted in the tenth that it falls into, and a tenth
leaves as a whole, so that what is counted was written within the window, and all that was written
within nine tenths of it is counted. Nothing needs a timer: whoever counts or asks takes out first
what has left meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pyrope.semantic.centroids import Clusters

PARTS = 10
"""Parts of a window."""


class WriteHeat:
    """Writes in the window, by cluster.

    Args:
        clusters: how many.
        window_s: length of the window in seconds.
        monotonic: tells the time in seconds.
    """

    def __init__(self, clusters: int, window_s: float, monotonic: Callable[[], float]) -> None:
        self._part_s = window_s / PARTS
        self._monotonic = monotonic
        # Row p % PARTS is of part p; kept whole by float64 up to 2^53.
        self._parts: NDArray[np.float64] = np.zeros((PARTS, clusters))
        self._sums: NDArray[np.float64] = np.zeros(clusters)
        self._total = 0.0
        self._part = self._now()

    def __len__(self) -> int:
        return len(self._sums)

    @property
    def nbytes(self) -> int:
        return self._parts.nbytes + self._sums.nbytes

    def add(self, cluster: int, writes: float = 1.0) -> None:
        """Count writes to one cluster."""
        self._advance()
        self._parts[self._part % PARTS, cluster] += writes
        self._sums[cluster] += writes
        self._total += writes

    def add_many(self, clusters: Clusters, each: float = 1.0) -> None:
        """Count a write to each of the clusters, which may repeat, as so many."""
        self._advance()
        counts = np.bincount(clusters, minlength=len(self._sums)) * each
        self._parts[self._part % PARTS] += counts
        self._sums += counts
        self._total += each * len(clusters)

    def of(self, cluster: int) -> float:
        """Writes to a cluster in the window."""
        self._advance()
        return float(self._sums[cluster])

    @property
    def total(self) -> float:
        """Writes to all clusters in the window."""
        self._advance()
        return self._total

    def move(self, targets: Clusters, clusters: int) -> None:
        """Count the same writes by other clusters.

        Args:
            targets: for each cluster there was, the one that takes its writes.
            clusters: how many there are now.
        """
        self._advance()
        rows = [np.bincount(targets, weights=row, minlength=clusters) for row in self._parts]
        self._parts = np.array(rows)
        self._add_up()

    def spread(self, shares: NDArray[np.float64]) -> None:
        """Count the same writes by other clusters, a share of them by each.

        Args:
            shares: shape (clusters,), adding up to 1.
        """
        self._advance()
        self._parts = self._parts.sum(axis=1)[:, None] * shares
        self._add_up()

    def _now(self) -> int:
        return int(self._monotonic() / self._part_s)

    def _advance(self) -> None:
        """Take out the parts that have left the window."""
        now = self._now()
        if now == self._part:
            return
        first = max(self._part + 1, now - PARTS + 1)
        for part in range(first, now + 1):
            self._parts[part % PARTS] = 0.0
        self._part = now
        self._add_up()

    def _add_up(self) -> None:
        self._sums = self._parts.sum(axis=0)
        self._total = float(self._sums.sum())
