"""A rate, with room for a burst."""

from __future__ import annotations

import math

from pyrope.clock import Clock


class TokenBucket:
    """Lets at most ``burst + rate · T`` through in any T seconds (RFC 2215, TOKEN_BUCKET_TSPEC).

    Tokens come with time, and are counted when somebody asks. For the event loop; O(1).

    Args:
        clock: its monotonic side is what tokens come by.
        rate: tokens a second, at least 0 and finite.
        burst: tokens that the bucket holds, and has at first; at least 1 and finite.

    Raises:
        ValueError: an argument is not as it says here.
    """

    def __init__(self, clock: Clock, rate: float, burst: float) -> None:
        if not 1.0 <= burst < math.inf:
            raise ValueError(f"a bucket cannot hold {burst} tokens")
        self._monotonic = clock.monotonic
        self._burst = burst
        self._tokens = burst
        self._filled_at = self._monotonic()
        self._rate = _checked(rate)

    @property
    def rate(self) -> float:
        """Tokens a second. What came at the rate before stays when it is set."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._fill()
        self._rate = _checked(rate)

    def try_take(self) -> bool:
        """Take a token. Returns whether there was a whole one."""
        self._fill()
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _fill(self) -> None:
        now = self._monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now


def _checked(rate: float) -> float:
    if not 0.0 <= rate < math.inf:
        raise ValueError(f"a rate of {rate} tokens a second")
    return rate
