"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pyrope.testing.clock import ManualClock
from servers import RunningServer, running_server


@pytest.fixture
def clock_server() -> Iterator[RunningServer]:
    """A server of its own whose clock stands still until the test moves it."""
    limits = {"idle_timeout_s": 100, "command_timeout_s": 60}
    with running_server(clock=ManualClock(), limits=limits) as server:
        yield server
