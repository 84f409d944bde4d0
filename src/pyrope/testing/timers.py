"""Timers that fire when a test moves their clock past them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from pyrope.testing.clock import ManualClock

# Turns of the loop in which everything that a timer set off has been done. A guess, far above what
# tasks of ours take.
_TURNS = 50


class ManualTimer:
    """What a `ManualTimers` has set."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualTimers:
    """A `pyrope.timers.Schedule` on a `ManualClock`.

    Attributes:
        set_total: timers that were ever set: something that spins sets many.
    """

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.set_total = 0
        self._order = count()
        self._timers: list[tuple[float, int, ManualTimer]] = []

    def __call__(self, delay_s: float, callback: Callable[[], object]) -> ManualTimer:
        timer = ManualTimer(callback)
        self.set_total += 1
        heappush(self._timers, (self.clock.monotonic() + delay_s, next(self._order), timer))
        return timer

    @property
    def pending(self) -> int:
        """Timers that have neither fired nor been cancelled."""
        return sum(timer.callback is not None for _, _, timer in self._timers)

    async def settle(self) -> None:
        """Let tasks go on until they wait for something."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Let time pass, from one timer to the next."""
        await self.settle()
        until = self.clock.monotonic() + seconds
        while await self._fire_next(until):
            pass
        self.clock.advance(max(0.0, until - self.clock.monotonic()))
        await self.settle()

    async def finish(self, task: asyncio.Task[None]) -> float:
        """Let time pass until a task has ended. Returns the seconds that took.

        Raises:
            RuntimeError: it waits for something that no timer brings about.
        """
        began = self.clock.monotonic()
        await self.settle()
        while not task.done():
            if not await self._fire_next(float("inf")):
                raise RuntimeError("no timer is set, and the task has not ended")
        await task
        return self.clock.monotonic() - began

    async def _fire_next(self, until: float) -> bool:
        """Let time pass until the next timer, if it is not later than that, and fire it."""
        while self._timers and self._timers[0][0] <= until:
            due, _, timer = heappop(self._timers)
            callback = timer.callback
            if callback is not None:
                self.clock.advance(max(0.0, due - self.clock.monotonic()))
                timer.cancel()
                callback()
                await self.settle()
                return True
        return False
