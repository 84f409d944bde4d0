"""How late the event loop runs what is due: everything that it serves waits for as long."""

from __future__ import annotations

import asyncio

from pyrope.clock import Clock
from pyrope.metrics import Durations

_INTERVAL_S = 0.1


class LoopLag:
    """Looks ten times a second. `stop` leaves nothing behind.

    Args:
        durations: where it is recorded by how much each look came too late.
    """

    def __init__(self, clock: Clock, durations: Durations) -> None:
        self._monotonic = clock.monotonic
        self._durations = durations
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, inside the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._look(), name="loop-lag")

    async def stop(self) -> None:
        """End. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            began = self._monotonic()
            await asyncio.sleep(_INTERVAL_S)
            self._durations.record(max(0.0, self._monotonic() - began - _INTERVAL_S))
