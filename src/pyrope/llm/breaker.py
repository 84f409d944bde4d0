"""When to leave a provider alone that does not work.

Closed, calls are made. After enough failures in a row it opens, and none are. When the pause is
over, one call may be made: the probe (half-open). If that succeeds the breaker closes; if it fails
the next pause is twice as long, up to a limit. (Nygard, "Release It!", 2007, chapter 5, "Circuit
Breaker"; pauses that grow are an addition.)

A call that was begun before the last change says nothing about the state after it, and is not
listened to.
"""

from __future__ import annotations

import math
from enum import StrEnum

from pyrope.clock import Clock

# 2**32 times any pause is above any maximum.
_MAX_EXPONENT = 32


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """For the event loop; O(1).

    Args:
        clock: its monotonic side is what pauses go by.
        failures: in a row, after which it opens; at least 1.
        probe_s: how long the first pause is, above 0.
        max_probe_s: how long one is at most, at least `probe_s`.

    Raises:
        ValueError: an argument is not as it says here.
    """

    def __init__(self, clock: Clock, *, failures: int, probe_s: float, max_probe_s: float) -> None:
        if failures < 1 or not 0.0 < probe_s <= max_probe_s < math.inf:
            raise ValueError(
                f"no breaker opens after {failures} failures for {probe_s} to {max_probe_s} s"
            )
        self._monotonic = clock.monotonic
        self._most = failures
        self._probe_s = probe_s
        self._max_probe_s = max_probe_s
        self._state = BreakerState.CLOSED
        self._failures = 0
        # How often it has opened since it was closed.
        self._opened = 0
        self._open_until = 0.0
        self._era = 0

    @property
    def state(self) -> BreakerState:
        return self._state

    def wait_s(self) -> float:
        """Seconds until a call may begin; 0: now; infinity: when the probe has ended."""
        match self._state:
            case BreakerState.CLOSED:
                return 0.0
            case BreakerState.OPEN:
                return max(0.0, self._open_until - self._monotonic())
            case BreakerState.HALF_OPEN:
                return math.inf

    def begin(self) -> int:
        """A call begins that `wait_s` had nothing against.

        Returns:
            What tells the other methods which call they are told of.
        """
        if self._state is BreakerState.OPEN:
            self._turn(BreakerState.HALF_OPEN)
        return self._era

    def succeed(self, call: int) -> None:
        """It was answered."""
        if call == self._era:
            self._failures = self._opened = 0
            if self._state is not BreakerState.CLOSED:
                self._turn(BreakerState.CLOSED)

    def fail(self, call: int, *, for_good: bool = False) -> None:
        """It was not; `for_good`: nor will any other be, and no more failures are waited for."""
        if call != self._era:
            return
        self._failures += 1
        if for_good or self._state is BreakerState.HALF_OPEN or self._failures >= self._most:
            pause = self._probe_s * 2.0 ** min(self._opened, _MAX_EXPONENT)
            self._open_until = self._monotonic() + min(pause, self._max_probe_s)
            self._opened += 1
            self._turn(BreakerState.OPEN)

    def give_up(self, call: int) -> None:
        """It was neither; if it was the probe, another may be made at once."""
        if call == self._era and self._state is BreakerState.HALF_OPEN:
            self._turn(BreakerState.OPEN)

    def probe_now(self) -> None:
        """End a pause: somebody has reason to think that it works again."""
        if self._state is BreakerState.OPEN:
            self._open_until = self._monotonic()

    def _turn(self, state: BreakerState) -> None:
        self._state = state
        self._failures = 0
        self._era += 1
