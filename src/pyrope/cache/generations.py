"""Shares that were seen, counted in two generations, so that old ones are forgotten."""

from __future__ import annotations

GENERATION = 512
"""Shares of a generation. Two of them, all complete, give a bound of 0.996."""

ROUNDING = 1e-6
"""Adding up shares in floats must not cost one its last part: 9 tenths and one tenth are 1."""


class Generations:
    """Shares from 0 to 1, and their sum: the younger ones, and those before.

    When the younger generation is full, or has lasted for half of the time that shares are
    remembered for, the older one goes.
    """

    __slots__ = ("_before", "_since", "_younger")

    def __init__(self) -> None:
        self._before = self._younger = (0, 0.0)
        self._since = 0.0

    def add(self, share: float, now: float) -> None:
        count, total = self._younger
        if count == GENERATION:
            self._turn(now)
            count, total = 0, 0.0
        if count == self._before[0] == 0:
            self._since = now
        self._younger = count + 1, total + share

    def expire(self, now: float, max_age: float) -> None:
        """Forget what is older than `max_age`; shares may go from half that age on."""
        while (self._before[0] or self._younger[0]) and now - self._since >= max_age / 2:
            self._turn(self._since + max_age / 2)

    def _turn(self, now: float) -> None:
        self._before, self._younger = self._younger, (0, 0.0)
        self._since = now

    def sums(self) -> tuple[int, float]:
        """How many are remembered, and what they add up to."""
        return self._before[0] + self._younger[0], self._before[1] + self._younger[1]
