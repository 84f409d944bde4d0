"""Shares with their uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrope.cache.binomial import lower_bound

_RISK = 0.025
_RESAMPLED = 400


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many, and the 95 % interval of the share behind it.

    Attributes:
        low, high: ends of the interval; 0 and 1 where there is nothing to tell from.
    """

    count: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.count / self.of if self.of else 0.0

    def record(self) -> dict[str, float]:
        return {
            "count": self.count,
            "of": self.of,
            "share": round(self.value, 5),
            "low": round(self.low, 5),
            "high": round(self.high, 5),
        }

    def __str__(self) -> str:
        if not self.of:
            return "-"
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


def share(count: int, of: int) -> Share:
    """Of independent trials: the interval of Clopper and Pearson (1934)."""
    if not of:
        return Share(0, 0, 0.0, 1.0)
    return Share(count, of, lower_bound(count, of, _RISK), 1.0 - lower_bound(of - count, of, _RISK))


def grouped_share(
    counted: NDArray[np.bool_], among: NDArray[np.bool_], groups: NDArray[np.int64], seed: int
) -> Share:
    """Of trials that come in groups, whose members are alike: a bootstrap over whole groups.

    Questions that are linked by pairs share their subject and the whims of whoever labelled them,
    so that intervals for independent trials would be too narrow. The wider of the two is given:
    with few groups, or nothing counted, a bootstrap sees too little.

    Args:
        counted: what is counted, shape (n,).
        among: of which; trials outside do not count at all.
        groups: of each trial.
    """
    plain = share(int((counted & among).sum()), int(among.sum()))
    if not plain.of:
        return plain
    distinct, place = np.unique(groups, return_inverse=True)
    hits = np.bincount(place, counted & among, len(distinct))
    trials = np.bincount(place, among, len(distinct))
    generator = np.random.default_rng(seed)
    shares = []
    for _ in range(_RESAMPLED):
        weights = np.bincount(
            generator.integers(len(distinct), size=len(distinct)), minlength=len(distinct)
        )
        drawn = float(weights @ trials)
        if drawn:
            shares.append(float(weights @ hits) / drawn)
    low, high = np.quantile(shares, [_RISK, 1 - _RISK]).tolist()
    return Share(plain.count, plain.of, min(low, plain.low), max(high, plain.high))
