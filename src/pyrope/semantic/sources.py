"""Who labels pairs, and how far each can be believed.

A verifier that is right nine times in ten must be weighed, not believed. How often it is right is
not known beforehand. It is learned by comparing what it says with what is believed of the pair
otherwise, from the score and from other sources: where that says "wrong" with 95 %, a verifier that
says "right" is the more likely to have erred (latent class analysis of raters: Dawid and Skene,
Applied Statistics 28, 1979). What is believed depends on whether the prior holds here (`beliefs`):
where it does not, a verifier that disagrees with it is to be believed, not blamed. So two opinions
of each source are kept, one for either case, and mixed by how likely either is.

With ``a`` the accuracy, the same for right and wrong pairs, and ``p`` the belief that the pair is
right, a source says "right" with probability ``q = a p + (1 - a)(1 - p)``. The logarithm of the
odds of ``a`` is tracked by its mean and variance, one Newton step for each verdict (an extended
Kalman filter without motion).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import exp, log
from typing import Final


class Source(StrEnum):
    """Where a label comes from."""

    FEEDBACK = "feedback"
    """A user said so (``VECTOR.FEEDBACK``)."""
    VERIFIER = "verifier"
    """A language model was asked about what was not served."""
    AUDIT = "audit"
    """A language model was asked about what was: it may be right more or less often there."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What is believed of a source's accuracy.

    Attributes:
        log_odds: of being right, mean; `variance` of it.
        verdicts: how many there were.
    """

    log_odds: float
    variance: float
    verdicts: int = 0

    @property
    def accuracy(self) -> float:
        return _sigmoid(self.log_odds)

    @property
    def least_accuracy(self) -> float:
        """One standard deviation below, and never better than a coin's from below."""
        return max(0.5, _sigmoid(self.log_odds - self.variance**0.5))

    @property
    def most_accuracy(self) -> float:
        """As far above as may well be: one-sided 95 %."""
        return _sigmoid(min(_MOST_LOG_ODDS, self.log_odds + 1.645 * self.variance**0.5))

    def after(self, said_right: bool, belief: float) -> Trust:  # noqa: FBT001  a verdict
        """What is believed after one more verdict.

        Args:
            belief: probability that the pair is right, from everything but this source.
        """
        p = min(_MOST_BELIEF, max(1 - _MOST_BELIEF, belief))
        a = self.accuracy
        q = a * p + (1 - a) * (1 - p)
        slope = (2 * p - 1) * a * (1 - a)
        gradient = slope / q if said_right else -slope / (1 - q)
        information = slope * slope / (q * (1 - q))
        variance = 1 / (1 / self.variance + information)
        moved = self.log_odds + max(-0.5, min(0.5, variance * gradient))
        return Trust(max(0.0, min(_MOST_LOG_ODDS, moved)), variance, self.verdicts + 1)


def mixed(one: Trust, other: Trust, share: float) -> Trust:
    """What is believed if the `other` is true with a probability of `share`."""
    between = other.log_odds - one.log_odds
    return Trust(
        one.log_odds + share * between,
        one.variance + share * (other.variance - one.variance) + share * (1 - share) * between**2,
        one.verdicts,
    )


AT_FIRST: Final[dict[Source, Trust]] = {
    Source.FEEDBACK: Trust(log(0.97 / 0.03), 0.3),
    Source.VERIFIER: Trust(log(0.9 / 0.1), 0.5),
    Source.AUDIT: Trust(log(0.9 / 0.1), 0.5),
}
"""Before anything was seen of them. People press the wrong button now and then."""

# A model's own extremes are not to be taken for the truth about somebody else.
_MOST_BELIEF: Final = 0.995
_MOST_LOG_ODDS: Final = 7.0
_REPEATED: Final = 0.5


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What was said of one pair: how often "right" less how often "wrong", and how often at all.

    A source that is asked the same again is likely to say the same again: each verdict of it but
    the first counts `_REPEATED` of one.
    """

    feedback: tuple[int, int] = (0, 0)
    verifier: tuple[int, int] = (0, 0)
    audit: tuple[int, int] = (0, 0)

    def and_one(self, source: Source, *, right: bool) -> Verdicts:
        net, count = getattr(self, source.value)
        changed = {source.value: (net + (1 if right else -1), count + 1)}
        return Verdicts(
            **{name: getattr(self, name) for name in Verdicts.__slots__ if name not in changed},
            **changed,
        )

    def __bool__(self) -> bool:
        return any(count for _, count in (self.feedback, self.verifier, self.audit))

    def weight(
        self, trust: dict[Source, Trust], *, cautious: bool, but: Source | None = None
    ) -> float:
        """What they add to the log-odds of the pair being right.

        Args:
            cautious: take for good news the least accuracy that is likely.
            but: a source to leave out.
        """
        total = 0.0
        for source in Source:
            net, count = getattr(self, source.value)
            if not net or source is but:
                continue
            of = trust[source]
            accuracy = of.least_accuracy if cautious and net > 0 else of.accuracy
            times = (1 + _REPEATED * (count - 1)) * net / count
            total += times * log(accuracy / (1 - accuracy))
        return total


UNSAID: Final = Verdicts()


def _sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))
