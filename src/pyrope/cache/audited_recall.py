"""What audits say about near hits: how much of the true answer they have, and with what certainty.

An audit compares the results of one near hit with those of a full search. Its recall depends above
all on the hit's *strain* (`pyrope.cache.certificate.strain_of`), and falls as the strain grows;
faster for few results than for many. So recall is kept by bins of strain, apart for results from
one power of two to the next, and the bound for a bin rests on two things only, whatever the
embedder and the data:

Monotony. A bin's expected recall is at least that of harder bins. Where a bin holds too few audits
for a bound of use, those of the next harder bins are pooled with it, and the bound on the pool
holds for the bin. How far to pool is decided by counts alone, never by what the audits saw, which
would bias the bound. Then no bin gets a better bound than an easier one has.

Independence of answers, not of results. The k results of an answer are missing together, so the
trial is the answer: n audits are n trials, whatever k. Their recalls X in [0, 1] count as
``floor(sum X)`` successes, in the bound of Clopper and Pearson at *half* the risk. That is
conservative whatever the distribution of X: let each answer turn into a success with probability X.
The number of successes is then binomial with the mean recall as its share, and at least
``floor(sum X)`` with a probability of a half or more, since the median of a sum of independent
trials is no less than its mean rounded down (Jogdeo and Samuels, Monotone convergence of binomial
probabilities and a generalization of Ramanujan's equation, Annals of Mathematical Statistics 1968).
So ``floor(sum X)`` is too high with at most twice the probability that a binomial is.

The confidence is that of one bound at one time. A bound that is looked at again after every audit
is too high somewhere, some time, more often than that.

Old audits count no more: a bin keeps two generations of answers, and when the younger is full or
has lasted, the older goes. Nothing is known without audits: the bound is 0 then, and stays below
0.95 until some 72 answers in a row were complete.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from dataclasses import dataclass

from pyrope.cache.binomial import lower_bound
from pyrope.cache.generations import ROUNDING, Generations
from pyrope.cache.kept_promises import KeptPromises, Promised
from pyrope.clock import Clock

# What is proven whole, of strain 0, has a bin of its own, so that it makes no other look better.
# Finer bins learn slower; with coarser ones it is chance on which side of an edge most hits lie.
_STEP = 1.06
_EDGES = (0.0, *(0.8 * _STEP**step for step in range(16)))
_BINS = len(_EDGES) + 1

# Answers that a bound should rest on: harder bins are pooled until there are as many. With fewer
# than 72 no bound can reach 0.95; with more, too much of what is worse is pooled.
_POOLED = 128


@dataclass(frozen=True, slots=True)
class StrainBin:
    """What is known about near hits of some strain.

    Attributes:
        up_to: the largest strain in the bin; inf for the last one. It begins where the one before
            ends.
        answers: audited ones that are remembered.
        recall: their mean; 0 if there are none.
        lower_bound: what `AuditedRecall.lower_bound` gives for the bin.
    """

    up_to: float
    answers: int
    recall: float
    lower_bound: float


class _Curve:
    """Audits of hits with similar numbers of results, and bounds that follow from them.

    Attributes:
        bins: by strain.
        bounds: by bin.
        pooled: by bin, the answers that its bound rests on.
    """

    def __init__(self, risk: float, max_age: float) -> None:
        self.bins = [Generations() for _ in range(_BINS)]
        self.bounds = [0.0] * _BINS
        self.pooled = [0] * _BINS
        self._risk = risk
        self._max_age = max_age
        # When the bounds were derived; None: there have been audits since.
        self._derived_at: float | None = None

    def add(self, strain: float, recall: float, now: float) -> None:
        some = self.bins[_bin_of(strain)]
        some.expire(now, self._max_age)
        some.add(recall, now)
        self._derived_at = None

    def derive(self, now: float) -> None:
        """Bring the bounds up to date."""
        # Audits age in hours; a minute more or less does not matter.
        if self._derived_at is not None and now - self._derived_at < self._max_age / 1000:
            return
        self._derived_at = now
        for some in self.bins:
            some.expire(now, self._max_age)
        sums = [some.sums() for some in self.bins]
        best = 1.0
        for easiest in range(_BINS):
            answers, total = 0, 0.0
            for more, recall in sums[easiest:]:
                answers, total = answers + more, total + recall
                if answers >= _POOLED:
                    break
            best = min(best, lower_bound(int(total + ROUNDING), answers, self._risk))
            self.bounds[easiest] = best
            self.pooled[easiest] = answers


class _Level:
    """Audits of one level.

    Attributes:
        curves: by the bit length of the number of results.
        promises: what was served by its bounds.
    """

    def __init__(self) -> None:
        self.curves: dict[int, _Curve] = {}
        self.promises = KeptPromises()


class AuditedRecall:
    """Recall of near hits by level, strain and number of results, for the event loop.

    Args:
        clock: by which audits age.
        rng: draws which hits are audited.
        confidence: that a lower bound is none too high, between 0 and 1.
        max_age: seconds after which an audit counts no more; from half of that on it may not.
        least_share: of the hits of a kind that is known well, the part that is audited all the
            same.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        confidence: float = 0.95,
        max_age: float = 86_400.0,
        least_share: float = 0.01,
    ) -> None:
        if not 0.0 < confidence < 1.0:
            raise ValueError(f"a confidence lies between 0 and 1, not at {confidence}")
        if max_age <= 0.0:
            raise ValueError(f"audits must be remembered for some time, not {max_age} s")
        if not 0.0 <= least_share <= 1.0:
            raise ValueError(f"a share lies between 0 and 1, not at {least_share}")
        self._clock = clock
        self._rng = rng
        self._risk = (1.0 - confidence) / 2
        self._max_age = max_age
        self._least_share = least_share
        self._levels: dict[str, _Level] = {}

    def record(
        self, level: str, strain: float, found: int, k: int, *, promised: float | None = None
    ) -> bool:
        """Take in an audit. Returns whether the level went off, or on again, because of it.

        Args:
            level: any name; what has a recall of its own should have a level of its own.
            strain: of the hit.
            found: of the k true results, those that the hit had.
            k: results of the full search, at least 1.
            promised: the recall that was asked for, if the hit was served on the strength of its
                bound, or would have been if the level were trusted. What was proven, and what was
                looked up and not used, counts for bounds only: the latter is a shadow hit, whose
                full search a miss has to make anyway.

        Raises:
            ValueError: `found` is not within 0 and k, or the strain is negative or NaN.
        """
        if not 0 <= found <= k or k < 1:
            raise ValueError(f"{found} of {k} results")
        if not strain >= 0.0:
            raise ValueError(f"a strain is at least 0, not {strain}")
        self._curve(level, k).add(strain, found / k, self._clock.monotonic())
        return promised is not None and self._levels[level].promises.record(promised, found / k)

    def forget(self) -> None:
        """Begin anew: hits are not what they were."""
        self._levels.clear()

    def lower_bound(self, level: str, strain: float, k: int) -> float:
        """A lower confidence bound on the expected recall of hits like this; 0 if unknown.

        Args:
            level: as in `record`.
            strain: as in `record`.
            k: results wanted, at least 1.
        """
        return self._derived(level, k).bounds[_bin_of(strain)]

    def should_audit(self, level: str, strain: float, k: int) -> bool:
        """Whether to search for this hit in full as well: drawn, more often where little is known.

        Every hit as long as its bound rests on fewer than 128 answers; later the share falls with
        the square of that number, down to the least share. What happens to be drawn does not depend
        on anything but the strain, so that audits stay a fair sample of each bin.
        """
        pooled = self._derived(level, k).pooled[_bin_of(strain)]
        if pooled < _POOLED:
            return True
        return self._rng.random() < max(self._least_share, (_POOLED / pooled) ** 2)

    def level_is_trusted(self, level: str, floor: float) -> bool:
        """Whether what the level served to those who ask for so much was as good as that.

        See `pyrope.cache.kept_promises`: what others ask for does not matter.
        """
        state = self._levels.get(level)
        return state is None or state.promises.is_trusted(floor)

    @property
    def levels(self) -> list[str]:
        """Those that audits, or questions, have been about."""
        return sorted(self._levels)

    def promises(self, level: str) -> list[Promised]:
        """What was promised, and whether it was kept, by what was asked for."""
        state = self._levels.get(level)
        return [] if state is None else state.promises.statistics()

    def statistics(self, level: str) -> dict[int, list[StrainBin]]:
        """What is known, bin by bin from the least strain to the largest.

        By the smallest number of results in a power of two: 8 stands for 8 to 15.
        """
        state = self._levels.get(level)
        widths = sorted(state.curves) if state else []
        return {2 ** (width - 1): self._bins(level, 2 ** (width - 1)) for width in widths}

    def _bins(self, level: str, k: int) -> list[StrainBin]:
        curve = self._derived(level, k)
        sums = [some.sums() for some in curve.bins]
        edges = (*_EDGES, float("inf"))
        return [
            StrainBin(edge, answers, total / answers if answers else 0.0, bound)
            for edge, (answers, total), bound in zip(edges, sums, curve.bounds, strict=True)
        ]

    def _curve(self, level: str, k: int) -> _Curve:
        curves = self._levels.setdefault(level, _Level()).curves
        width = k.bit_length()
        if width not in curves:
            curves[width] = _Curve(self._risk, self._max_age)
        return curves[width]

    def _derived(self, level: str, k: int) -> _Curve:
        """Audits whose bounds are up to date."""
        curve = self._curve(level, k)
        curve.derive(self._clock.monotonic())
        return curve


def _bin_of(strain: float) -> int:
    return bisect_left(_EDGES, strain)
