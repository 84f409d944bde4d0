"""Whether prefetching is worth its while: it is turned off where it is not, and tried again later.

States, and what leads from one to the next:

    ON        -> PAUSED     of the last `judged` outcomes, less than `least_used` were used
    PAUSED    -> PROBATION  the pause is over
    PROBATION -> ON         the share of used is reached
    PROBATION -> PAUSED     it cannot be any more; the next pause is twice as long

While fewer outcomes are known than `judged`, those to come get the benefit of the doubt in ON and
in PROBATION: a pause begins as soon as the share cannot be reached even if all of them were used,
and probation is over as soon as it cannot be missed even if none of them were.

A pause ends a *term*, and with it counts for nothing what was issued in it: outcomes come late, and
those of the time before would condemn, or acquit, what is on probation.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from math import ceil

from pyrope.clock import Clock

# Pauses that follow one another double up to so many times the first one. With 1024 of them of a
# minute each, a hopeless stream is tried about once in 17 hours.
_LONGEST_PAUSES = 1024
# What a share of a whole number may be above a whole number by rounding: 0.07 · 100 is 7.
_ROUNDING = 1e-9


class PrefetchState(StrEnum):
    """Whether prefetching is on, off for a while, or on at a smaller rate to see how it does."""

    ON = "on"
    PAUSED = "paused"
    PROBATION = "probation"


class PrefetchJudge:
    """For the event loop; each call is O(1).

    Attributes:
        term: number of the time between pauses that it is now.
        pauses_total: how often prefetching was turned off.

    Args:
        clock: its monotonic side is what pauses last by.
        judged: outcomes that are judged, at least 1.
        least_used: share of them that must have been used, 0 to 1.
        pause_s: seconds of the first pause, above 0.
    """

    def __init__(self, clock: Clock, *, judged: int, least_used: float, pause_s: float) -> None:
        self.term = 0
        self.pauses_total = 0
        self._monotonic = clock.monotonic
        self._outcomes: deque[bool] = deque(maxlen=judged)
        self._used = 0
        self._judged = judged
        self._needed = ceil(least_used * judged - _ROUNDING)
        self._first_pause_s = pause_s
        self._pause_s = pause_s
        self._resumes_at = 0.0
        self._state = PrefetchState.ON

    @property
    def state(self) -> PrefetchState:
        if self._state is PrefetchState.PAUSED and self._monotonic() >= self._resumes_at:
            self._state = PrefetchState.PROBATION
        return self._state

    @property
    def resumes_in_s(self) -> float:
        """Seconds of the pause that are left; 0 where there is none."""
        if self.state is not PrefetchState.PAUSED:
            return 0.0
        return self._resumes_at - self._monotonic()

    @property
    def outcomes(self) -> tuple[int, int]:
        """Those that are judged at present, and the used ones among them."""
        return len(self._outcomes), self._used

    def record(self, term: int, *, used: bool) -> None:
        """Take in what came of a prefetch.

        Args:
            term: in which it was issued.
            used: it was hit.
        """
        if term != self.term:
            return
        if len(self._outcomes) == self._judged:
            self._used -= self._outcomes[0]
        self._outcomes.append(used)
        self._used += used
        unknown = self._judged - len(self._outcomes)
        if self._used + unknown < self._needed:
            self._pause()
        elif self._state is PrefetchState.PROBATION and self._used >= self._needed:
            self._state = PrefetchState.ON
            self._pause_s = self._first_pause_s

    def _pause(self) -> None:
        self._resumes_at = self._monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSES * self._first_pause_s)
        self._state = PrefetchState.PAUSED
        self._outcomes.clear()
        self._used = 0
        self.term += 1
        self.pauses_total += 1
