"""How often served answers are wrong, on average: the bound behind ``MAXERROR``.

Whoever serves every near hit from some score on up is wrong as often as the average of all those,
not as the worst of them. So what is bounded is this average, as selective classification has it
(Geifman and El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017), with the
error of each score estimated apart from how often the score comes up:

    R(t) = sum_{i >= t} T_i r_i / sum_{i >= t} T_i

- ``i`` are bins of scores, which are log-odds of being right.
- ``T_i`` is the traffic: how many candidates had that score, labelled or not, so that it does not
  matter which of them anybody labels.
- ``r_i`` is the error: what the score itself says, ``p_i = 1 / (1 + exp(z_i))``, as a beta prior,
  and labels that came for the bin: ``(m_i p_i + wrong_i) / (m_i + n_i)``. The prior is worth as
  many labels as it was fitted to in that bin, up to `_MOST_PRIOR_LABELS`.

Its variance has two parts: that of each bin's beta posterior, ``r_i (1 - r_i) / (m_i + n_i + 1)``,
and that of the model behind all scores together, whose intercept and slope are known up to a
covariance ``C``: ``g' C g``, where ``g`` is the gradient of R. With so much variance R is known as
well as from ``n = R (1 - R) / variance`` labels, and the bound is the upper one of the score
interval (Wilson, Journal of the American Statistical Association 22, 1927) of that many,

    U(t) = (R + k / 2 + q sqrt(R (1 - R) / n + k / (4 n))) / (1 + k),    k = q^2 / n,    q = 1.28,

one-sided 90 %. ``R + q sqrt(variance)``, which it comes to where n is large, is too low for rare
errors that few labels tell of. Serving from ``t`` on is within ``e`` if ``U(t) <= e``; a
score has the bound of the best such ``t`` below it.

An average can hide single answers that are likely to be wrong: a flood of trivial hits would pay
for them. So a score whose own ``r_i`` exceeds `WORST_TIMES` times what was asked is not served,
whatever the average.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Float64Vector = NDArray[np.float64]
Float64Matrix = NDArray[np.float64]

BINS: Final = 192
LEAST: Final = -6.0
WIDTH: Final = 0.0625
WORST_TIMES: Final = 2.5

_MOST_PRIOR_LABELS: Final = 200.0
_LEAST_PRIOR_LABELS: Final = 5.0
_QUANTILE: Final = 1.2816
# What a prior's traffic weighs, in candidates: forgotten soon, but not at once.
_PRIOR_TRAFFIC: Final = 500.0
_MOST_TRAFFIC: Final = 1e5
_MOST_LABELS: Final = 2e4
# A table is made anew after so many candidates, or a share of all.
_STALE: Final = 64

MIDDLES: Final = LEAST + WIDTH * (np.arange(BINS) + 0.5)


def bin_of(score: float) -> int:
    """0 to ``BINS - 1``."""
    return min(BINS - 1, max(0, int((score - LEAST) / WIDTH)))


class TailRisk:
    """Traffic and labels by score. Each call takes a few us; memory does not grow.

    Args:
        traffic: shares by bin, from a prior; shape (BINS,).
        pairs: how many labelled pairs the prior was fitted to.
        covariance: of the model's intercept and slope, shape (2, 2).
    """

    def __init__(self, traffic: Float64Vector, pairs: int, covariance: Float64Matrix) -> None:
        self._prior_labels = np.clip(
            traffic / traffic.sum() * pairs, _LEAST_PRIOR_LABELS, _MOST_PRIOR_LABELS
        )
        self.traffic = traffic * (_PRIOR_TRAFFIC / traffic.sum())
        self.labels = np.zeros(BINS)
        self.wrong = np.zeros(BINS)
        self._covariance = covariance
        self._stale = 0
        self._bounds: list[float] | None = None
        self._errors: list[float] = []

    def observe(self, score: float) -> None:
        """A candidate came with that score, served or not."""
        self.traffic[bin_of(score)] += 1.0
        self._stale += 1
        if self._stale >= _STALE:
            self._bounds = None
            if self.traffic.sum() > _MOST_TRAFFIC:
                self.traffic *= 0.5

    def label(self, score: float, weight: float, wrong: float) -> None:
        """A candidate of that score was found wrong or right.

        Args:
            weight: what the label tells, 1 for a certain one.
            wrong: an unbiased estimate of ``weight`` if it was wrong and 0 if it was right; from an
                uncertain source it may lie outside of that.
        """
        place = bin_of(score)
        self.labels[place] += weight
        self.wrong[place] += wrong
        self._bounds = None
        if self.labels.sum() > _MOST_LABELS:
            self.labels *= 0.5
            self.wrong *= 0.5

    def believe(self, covariance: Float64Matrix) -> None:
        """The model behind the scores has learned."""
        self._covariance = covariance
        self._bounds = None

    def restore(self, traffic: Float64Vector, labels: Float64Vector, wrong: Float64Vector) -> None:
        self.traffic, self.labels, self.wrong = traffic, labels, wrong
        self._bounds = None

    def bound(self, score: float) -> float:
        """With 90 % confidence, the average error of serving this score and all better ones."""
        if self._bounds is None:
            self._make()
        assert self._bounds is not None  # noqa: S101  just made
        return self._bounds[bin_of(score)]

    def error(self, score: float) -> float:
        """The estimated probability that a candidate of this score is wrong."""
        if self._bounds is None:
            self._make()
        return self._errors[bin_of(score)]

    def _make(self) -> None:
        own = 1.0 / (1.0 + np.exp(MIDDLES))
        strength = self._prior_labels + self.labels
        errors = np.clip((self._prior_labels * own + self.wrong) / strength, 1e-4, 1.0)
        traffic = self.traffic + 1e-9
        total = _from_the_top(traffic)
        risk = _from_the_top(traffic * errors) / total
        sampling = _from_the_top(traffic**2 * errors * (1 - errors) / (strength + 1)) / total**2
        moved = traffic * errors * (1 - errors)
        intercept = _from_the_top(moved) / total
        slope = _from_the_top(moved * MIDDLES) / total
        c = self._covariance
        model = intercept**2 * c[0, 0] + 2 * intercept * slope * c[0, 1] + slope**2 * c[1, 1]
        self._bounds = np.minimum.accumulate(_upper(risk, sampling + model)).tolist()
        self._errors = errors.tolist()
        self._stale = 0


def _upper(rates: Float64Vector, variances: Float64Vector) -> Float64Vector:
    """The upper end of Wilson's interval for rates, of as many trials as have that variance."""
    spread = rates * (1 - rates)
    # One in n, which is how Wilson has it; no rate is 0, but it may be 1.
    of_one = variances / np.maximum(spread, 1e-9)
    k = _QUANTILE**2 * of_one
    reach = _QUANTILE * np.sqrt(variances + k * of_one / 4)
    return np.minimum((rates + k / 2 + reach) / (1 + k), 1.0)


def _from_the_top(values: Float64Vector) -> Float64Vector:
    return np.cumsum(values[::-1])[::-1]
