"""Whether centroids still fit what is written and asked.

They are measured by three figures, each against what it was when they were made:

- how far vectors written of late are from their centroids, on average;
- how far queries of late are, on average, which may lie elsewhere than vectors;
- how uneven the clusters of the index are: ``k sum(p_i^2)`` of shares ``p_i`` (1: all equal), which
  is by how much more a look through the cluster of a vector takes than through one of equal ones.

One that has grown beyond its factor is drift if the next look finds so too: a burst is none. Each
look is at what was written and asked since the one before, so that old and new do not blur. After a
rebuild what there is then is the measure of what comes, even where it did not help, so that the
same stream does not have them rebuilt again and again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyrope.semantic.centroids import Centroids, Clusters
from pyrope.types import Float32Matrix

LEAST_ROWS = 64
"""Fewer rows tell nothing."""

_UNEVEN = 2.0
_LOOKS = 2


def mean_distance(centroids: Centroids, rows: Float32Matrix) -> float | None:
    """Of rows to their centroids; None where there are too few."""
    if len(rows) < LEAST_ROWS:
        return None
    return float(centroids.distances(rows, centroids.assign_many(rows)).mean())


def unevenness(clusters: Clusters, count: int) -> float | None:
    """``k sum(p_i^2)``, estimated without bias from a sample; None where it is too small.

    The share of pairs in a sample that are of one cluster estimates ``sum(p_i^2)`` (Simpson,
    Nature 163, 1949).

    Args:
        clusters: of the vectors of the sample.
        count: of clusters, k.
    """
    n = len(clusters)
    if n < LEAST_ROWS:
        return None
    sizes = np.bincount(clusters, minlength=count).astype(np.float64)
    return float(count * (sizes * (sizes - 1)).sum() / (n * (n - 1)))


@dataclass(frozen=True, slots=True)
class Fit:
    """The three figures. None: too little was there to tell.

    Attributes:
        written, queried: mean distances.
        uneven: of the index.
    """

    written: float | None
    queried: float | None
    uneven: float | None


class Drift:
    """Judges one set of centroids.

    Args:
        at_first: how they fitted when they were made.
    """

    def __init__(self, at_first: Fit) -> None:
        self._written = at_first.written
        self._queried = at_first.queried
        self._uneven = at_first.uneven
        self._seen = 0

    def has_come(self, fit: Fit, factor: float) -> bool:
        """Whether they have drifted, by this look and those before.

        Args:
            fit: what was found now.
            factor: by which a mean distance must have grown.
        """
        moved = (
            _grown(fit.written, self._written, factor)
            or _grown(fit.queried, self._queried, factor)
            or _grown(fit.uneven, None if self._uneven is None else max(self._uneven, 1.0), _UNEVEN)
        )
        # What could not be told when they were made is measured by what it was first.
        self._written = fit.written if self._written is None else self._written
        self._queried = fit.queried if self._queried is None else self._queried
        self._uneven = fit.uneven if self._uneven is None else self._uneven
        self._seen = self._seen + 1 if moved else 0
        return self._seen >= _LOOKS


def _grown(now: float | None, then: float | None, factor: float) -> bool:
    return now is not None and then is not None and now > factor * then
