"""Waiting for a moment, by whatever clock there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol


class Timer(Protocol):
    """A moment that something waits for."""

    def cancel(self) -> None: ...


class Schedule(Protocol):
    """Sets timers: have `callback` called on the loop after `delay_s` seconds."""

    def __call__(self, delay_s: float, callback: Callable[[], object]) -> Timer: ...


def on_loop(delay_s: float, callback: Callable[[], object]) -> Timer:
    """By the running loop's own clock, which is that of `pyrope.clock.SystemClock`."""
    return asyncio.get_running_loop().call_later(delay_s, callback)


@asynccontextmanager
async def time_limit(seconds: float, schedule: Schedule) -> AsyncIterator[None]:
    """Raises TimeoutError when what is inside has taken so long, and cancels it."""
    async with asyncio.timeout(None) as limit:
        # A moment that has gone by: at once.
        timer = schedule(seconds, lambda: limit.reschedule(0.0))
        try:
            yield
        finally:
            timer.cancel()


async def ended(task: asyncio.Task[None], seconds: float, schedule: Schedule) -> bool:
    """Wait for a task for so long at the most. Returns whether it has ended."""
    if not task.done():
        try:
            async with time_limit(seconds, schedule):
                await asyncio.wait({task})
        except TimeoutError:
            return task.done()
    return True
