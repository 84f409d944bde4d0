"""Requests and tokens a minute: when the next call may begin.

Calls of the last minute are remembered, so that no minute, wherever it begins, sees more than the
limits say. A token bucket, which needs two numbers instead, would let twice as much through in the
minute after a rest, or only a part of it at a time; providers refuse the one and we do not want the
other. What is remembered are two numbers a call, of at most as many calls as may be made in a
minute.
"""

from __future__ import annotations

from collections import deque

from pyrope.clock import Clock

WINDOW_S = 60.0

# A timer may fire so much too early for the clock that it was set by.
_SLACK_S = 1e-6


class Reservation:
    """A call in the window.

    Attributes:
        at: when it began, in monotonic seconds.
        tokens: that it is taken to have used.
    """

    __slots__ = ("at", "tokens")

    def __init__(self, at: float, tokens: int) -> None:
        self.at = at
        self.tokens = tokens


class RateLimits:
    """What a provider lets through. For the event loop.

    Args:
        clock: its monotonic side is what minutes go by.
        requests_per_minute, tokens_per_minute: 0: no limit.

    Raises:
        ValueError: a limit is negative.
    """

    def __init__(self, clock: Clock, requests_per_minute: int, tokens_per_minute: int) -> None:
        if requests_per_minute < 0 or tokens_per_minute < 0:
            raise ValueError("a limit per minute cannot be negative")
        self._monotonic = clock.monotonic
        self._requests = requests_per_minute
        self.tokens_per_minute = tokens_per_minute
        self._window: deque[Reservation] = deque()
        self._tokens = 0
        self._held_until = float("-inf")

    def fits(self, tokens: int) -> bool:
        """Whether a call of so many tokens can ever be made."""
        return not self.tokens_per_minute or tokens <= self.tokens_per_minute

    def hold(self, seconds: float) -> None:
        """Let nothing through for so long; a hold that lasts longer stays."""
        self._held_until = max(self._held_until, self._monotonic() + seconds)

    def release(self) -> None:
        """End a hold: somebody has reason to think that it is over."""
        self._held_until = float("-inf")

    def wait_s(self, tokens: int) -> float:
        """Seconds until a call of so many tokens may begin; 0: now.

        Takes as many steps as calls have to leave the window before. What does not `fits` may
        begin when nothing else is in the window.
        """
        now = self._monotonic()
        self._slide(now)
        wait = max(0.0, self._held_until - now)
        window = self._window
        if self._requests and len(window) >= self._requests:
            wait = max(wait, window[len(window) - self._requests].at + WINDOW_S - now)
        if self.tokens_per_minute:
            excess = self._tokens + tokens - self.tokens_per_minute
            for call in window:
                if excess <= 0:
                    break
                excess -= call.tokens
                wait = max(wait, call.at + WINDOW_S - now)
        return wait

    def reserve(self, tokens: int) -> Reservation:
        """A call begins that `wait_s` had nothing against."""
        made = Reservation(self._monotonic(), tokens)
        if self._requests or self.tokens_per_minute:
            self._window.append(made)
            self._tokens += tokens
        return made

    def settle(self, reservation: Reservation, tokens: int) -> None:
        """Say what a call has used, by the provider's count."""
        if self._window and reservation.at >= self._window[0].at:
            self._tokens += tokens - reservation.tokens
            reservation.tokens = tokens

    def _slide(self, now: float) -> None:
        window = self._window
        while window and window[0].at + WINDOW_S <= now + _SLACK_S:
            self._tokens -= window.popleft().tokens
