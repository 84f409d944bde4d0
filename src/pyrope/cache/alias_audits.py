"""What audits say about hits by aliases: how much of the true answer they have.

An alias says that two queries mean the same, not that they are near each other. So there is nothing
to tell its hits apart by: they are one sample, drawn with the same chance at a time, whatever they
look like, and the bound on their mean recall is that of all of them (see
`pyrope.cache.audited_recall` for why it holds for answers that are right in part).
"""

from __future__ import annotations

import random

from pyrope.cache.binomial import lower_bound
from pyrope.cache.generations import ROUNDING, Generations
from pyrope.clock import Clock

# Audits from which on the share of hits that are audited falls, with the square of their number.
_KNOWN = 128


class AliasAudits:
    """For the event loop.

    Args:
        clock: by which audits age.
        rng: draws which hits are audited.
        confidence: that the lower bound is none too high, between 0 and 1.
        max_age: seconds after which an audit counts no more; from half of that on it may not.
        least_share: of the hits, the part that is audited however many were.
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
        self._clock = clock
        self._rng = rng
        self._risk = (1.0 - confidence) / 2
        self._max_age = max_age
        self._least_share = least_share
        self._seen = Generations()

    def record(self, recall: float) -> None:
        """Take in an audit that `should_audit` has drawn."""
        now = self._clock.monotonic()
        self._seen.expire(now, self._max_age)
        self._seen.add(recall, now)

    def should_audit(self) -> bool:
        """Whether a hit is drawn: every one until there are 128 audits, later fewer of them."""
        answers, _ = self._sums()
        if answers < _KNOWN:
            return True
        return self._rng.random() < max(self._least_share, (_KNOWN / answers) ** 2)

    @property
    def answers(self) -> int:
        """Audits that are remembered."""
        return self._sums()[0]

    @property
    def recall(self) -> float:
        """Their mean; 0 if there are none."""
        answers, total = self._sums()
        return total / answers if answers else 0.0

    @property
    def lower_bound(self) -> float:
        """A lower confidence bound on the expected recall of a hit; 0 if nothing is known."""
        answers, total = self._sums()
        return lower_bound(int(total + ROUNDING), answers, self._risk)

    def _sums(self) -> tuple[int, float]:
        self._seen.expire(self._clock.monotonic(), self._max_age)
        return self._seen.sums()
