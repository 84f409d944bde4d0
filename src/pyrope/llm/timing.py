"""Waiting for so long at the most, by whatever clock there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pyrope.timers import Schedule


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
