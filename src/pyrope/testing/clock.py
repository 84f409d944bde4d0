"""A clock that moves only when a test moves it."""

from __future__ import annotations


class ManualClock:
    """A `pyrope.clock.Clock` set by hand.

    Args:
        wall: Unix time in seconds to begin at.
    """

    def __init__(self, wall: float = 1_700_000_000.0) -> None:
        self._wall = wall
        self._monotonic = 0.0

    def wall(self) -> float:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks. Raises ValueError for a negative duration."""
        if seconds < 0:
            raise ValueError("time does not go back; step the wall clock with set_wall")
        self._wall += seconds
        self._monotonic += seconds

    def set_wall(self, wall: float) -> None:
        """Step the wall clock, forwards or backwards, as an operator or NTP would."""
        self._wall = wall
