"""How late the event loop is."""

from __future__ import annotations

import asyncio
import time

from pyrope.clock import SystemClock
from pyrope.metrics import Durations
from pyrope.server.loop_lag import LoopLag
from pyrope.testing.clock import ManualClock


async def test_whatever_holds_the_loop_up_is_seen() -> None:
    durations = Durations()
    lag = LoopLag(SystemClock(), durations)
    lag.start()
    await asyncio.sleep(0)
    time.sleep(0.4)  # noqa: ASYNC251 - the loop is to be held up
    while not durations.histogram.count:
        await asyncio.sleep(0.01)
    await lag.stop()
    # A tenth of a second is what it had wanted to wait.
    assert 0.25 < durations.seconds < 5


async def test_a_clock_that_stands_still_is_no_lag_and_stop_leaves_nothing() -> None:
    durations = Durations()
    lag = LoopLag(ManualClock(), durations)
    lag.start()
    while not durations.histogram.count:
        await asyncio.sleep(0.01)
    await lag.stop()
    await lag.stop()
    assert durations.seconds == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
