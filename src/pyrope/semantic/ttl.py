"""How long what is cached near a cluster may live, by how much is written there.

With ``r`` the writes of the window over the number from which a cluster counts as hot:

    factor(r) = floor + (1 - floor) / (1 + r^2) + (ceiling - 1) / (1 + (8 r)^2)

Two curves of Hill's form (J. Physiol. 40, 1910): smooth, falling, and without a corner at the
threshold. A cluster that nothing is written to has the ceiling; one at the threshold is half way
from the base to the floor; the floor is where ever more writes lead. The reward for being cold is
half gone at an eighth of the threshold. With the defaults (a threshold of four times the mean,
floor 0.1, ceiling 2) what belongs to a cluster of mean heat lives 1.15 times the base.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_COLD = 8.0


def ttl_factor(ratio: float, floor: float, ceiling: float) -> float:
    """What a base TTL is multiplied by.

    Args:
        ratio: writes in the window over the threshold, at least 0.
        floor: of the factor, from 0 to 1.
        ceiling: of the factor, at least 1.
    """
    cold = _COLD * ratio
    hot_part = (1.0 - floor) / (1.0 + ratio * ratio)
    factor = floor + hot_part + (ceiling - 1.0) / (1.0 + cold * cold)
    # A sum of three may be off by a rounding.
    return min(max(factor, floor), ceiling)


def default_threshold(writes: float, clusters: int, times_mean: float, least: float) -> float:
    """Writes from which a cluster is hot: some times the mean of all clusters, and a minimum.

    Args:
        writes: to the index, in the window.
    """
    return max(times_mean * writes / clusters, least)


class FactorsInForce:
    """The factor of each cluster, which moves only when it is off by more than a share of itself.

    Without that, TTLs would change with every write.

    Args:
        clusters: how many.
    """

    def __init__(self, clusters: int) -> None:
        self._factors: NDArray[np.float64] = np.full(clusters, np.nan)

    @property
    def nbytes(self) -> int:
        return self._factors.nbytes

    def settle(self, cluster: int, factor: float, share: float) -> float:
        """The factor in force, now that `factor` would be right."""
        held = float(self._factors[cluster])
        # Not a number until it is asked for, and then this holds for no share.
        if abs(factor - held) <= share * held:
            return held
        self._factors[cluster] = factor
        return factor
