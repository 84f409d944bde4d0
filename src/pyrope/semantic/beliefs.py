"""Corrections to a prior, learned under two beliefs: that it holds here, and that it may not.

A prior that was fitted to one kind of prompts is close to the truth for others of that kind, and
may be far from it elsewhere. Whoever allows for the second from the beginning serves nothing until
there are labels; whoever does not, learns too slowly that he should have. So both are believed, the
first with odds of a hundred to one, and what labels turn out to be changes the odds: by the
likelihood that either gave to each before it came (Bayesian model averaging: Hoeting, Madigan,
Raftery and Volinsky, Statistical Science 14, 1999).

Under either belief the correction is a normal distribution, updated by one Newton step for each
label. What is used is the mean and the covariance of the mixture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, pi, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

Float64Vector = NDArray[np.float64]
Float64Matrix = NDArray[np.float64]

_ELSEWHERE: Final = 0.01
"""How likely it is at first that the prior does not hold."""

_ELSEWHERE_DEVIATIONS: Final = (0.6, 0.2)
# Evidence that would take thousands of labels to turn round is not kept: domains change.
_MOST_LOG_ODDS: Final = 12.0
_MODERATION: Final = pi / 8
# With each label this share of what was learned is forgotten: what was true 10,000 labels ago may
# not be any more.
_FORGETTING: Final = 1e-4


@dataclass(slots=True, eq=False)
class _Belief:
    """A normal distribution: shape (n,) and (n, n); `at_first` is its covariance without labels."""

    mean: Float64Vector
    covariance: Float64Matrix
    at_first: Float64Matrix


class Beliefs:
    """What is thought of the correction.

    Args:
        deviations: of its components at first, if the prior holds; intercept and slope come first.
    """

    def __init__(self, deviations: Sequence[float]) -> None:
        holds = np.array(deviations)
        elsewhere = holds.copy()
        elsewhere[:2] = np.maximum(holds[:2], _ELSEWHERE_DEVIATIONS)
        self._both = [
            _Belief(np.zeros(len(of)), np.diag(of**2), np.diag(of**2)) for of in (holds, elsewhere)
        ]
        self._log_odds = log(_ELSEWHERE / (1 - _ELSEWHERE))
        self._mix()

    @property
    def elsewhere(self) -> float:
        """The probability that the prior does not hold here."""
        return 1 / (1 + exp(-self._log_odds))

    def _mix(self) -> None:
        holds, other = self._both
        w = self.elsewhere
        between = other.mean - holds.mean
        self.mean = holds.mean + w * between
        self.covariance = (
            (1 - w) * holds.covariance[:2, :2]
            + w * other.covariance[:2, :2]
            + w * (1 - w) * np.outer(between[:2], between[:2])
        )
        """Of intercept and slope, shape (2, 2)."""

    def learn(
        self,
        phi: Float64Vector,
        rest: float,
        accuracies: tuple[float, float],
        *,
        right: bool,
        other_variance: float,
    ) -> None:
        """Take in a label.

        Args:
            phi: what the correction is multiplied with.
            rest: the log-odds without it.
            accuracies: of the source, as thought of under the one belief and the other.
            other_variance: of the part of the log-odds that is learned elsewhere.
        """
        likelihoods = []
        for belief, accuracy in zip(self._both, accuracies, strict=True):
            z = rest + float(belief.mean @ phi)
            of = weigh(z, accuracy, right=right)
            likelihoods.append(of.likelihood)
            spread = belief.covariance @ phi
            variance = float(phi @ spread) + other_variance
            shrink = 1.0 / (1.0 + of.information * variance)
            belief.mean = belief.mean + spread * (of.gradient * shrink)
            belief.covariance = (
                belief.covariance
                - np.outer(spread, spread) * (of.information * shrink)
                + (belief.at_first - belief.covariance) * _FORGETTING
            )
        moved = self._log_odds + log(likelihoods[1] / likelihoods[0])
        self._log_odds = max(-_MOST_LOG_ODDS, min(_MOST_LOG_ODDS, moved))
        self._mix()

    def moderated(self, phi: Float64Vector, rest: float) -> float:
        """Log-odds if the prior does not hold, drawn towards 0 by how uncertain they are.

        MacKay, The evidence framework applied to classification networks, Neural Computation 4,
        1992, equation 10.
        """
        other = self._both[1]
        variance = float(phi @ other.covariance @ phi)
        return (rest + float(other.mean @ phi)) / sqrt(1.0 + _MODERATION * variance)

    def numbers(self) -> Float64Vector:
        """All of it as one vector, to be stored."""
        parts = [np.array([self._log_odds])]
        for belief in self._both:
            parts += [belief.mean, belief.covariance.ravel()]
        return np.concatenate(parts)

    def restore(self, numbers: Float64Vector) -> None:
        """Take over what `numbers` gave, of beliefs with as many components."""
        n = len(self.mean)
        self._log_odds = float(numbers[0])
        for place, belief in enumerate(self._both):
            part = numbers[1 + place * (n + n * n) :]
            belief.mean = part[:n].copy()
            belief.covariance = part[n : n + n * n].reshape(n, n).copy()
        self._mix()


@dataclass(frozen=True, slots=True)
class Weighed:
    """A label's worth at some log-odds.

    Attributes:
        likelihood: that the source says what it said.
        gradient: of its logarithm, by the log-odds.
        information: the expected square of that.
        certainty: the information as a share of what a source that never errs would give.
    """

    likelihood: float
    gradient: float
    information: float
    certainty: float


def weigh(log_odds: float, accuracy: float, *, right: bool) -> Weighed:
    """What a verdict of a source tells about a pair whose answer is right with these log-odds.

    With ``p`` the probability of right and ``a`` the accuracy, the source says "right" with
    probability ``q = a p + (1 - a)(1 - p)``.
    """
    p = 1 / (1 + exp(-log_odds))
    q = accuracy * p + (1 - accuracy) * (1 - p)
    slope = (2 * accuracy - 1) * p * (1 - p)
    information = slope * slope / (q * (1 - q))
    return Weighed(
        likelihood=q if right else 1 - q,
        gradient=slope / q if right else -slope / (1 - q),
        information=information,
        certainty=information / (p * (1 - p)),
    )
