"""Time, passed in. Nothing else in Pyrope asks the system what time it is."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks in one: the wall, which people read and may step, and one that never goes back."""

    def wall(self) -> float:
        """Unix time in seconds; may step backwards when the host's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back. For durations and deadlines."""
        ...


class SystemClock:
    """The host's clocks."""

    __slots__ = ()

    # Builtins are kept as they are: a Python frame around each would double their cost, and the
    # hot path reads the clock once a command.
    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
