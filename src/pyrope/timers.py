"""Timers, by whatever clock there is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
