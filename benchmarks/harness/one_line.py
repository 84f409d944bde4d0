"""Pyrope as it would be without fairness between tenants.

``python -m benchmarks.harness.one_line`` takes the arguments of ``pyrope``. Jobs of all tenants
wait for the engine's threads in one line, batches are as large as they come, and what comes in is
looked at as it comes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from queue import SimpleQueue
from unittest.mock import patch

from pyrope.cli import main
from pyrope.engine.fair_queue import Flow, Job
from pyrope.engine.lanes import Lanes
from pyrope.server import listener
from pyrope.service import service


class OneLine:
    """In the place of a `FairQueue`."""

    def __init__(self, threads: int) -> None:
        del threads
        jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.put = jobs.put
        self.get = jobs.get

    def leave_free(self, threads: int) -> None: ...

    def settle(self, flow: Flow, surplus: float) -> None: ...


class NoTurns:
    """In the place of `Turns`."""

    alone: str | None = None

    def __init__(self, monotonic: Callable[[], float]) -> None: ...

    def may_run(self, tenant: str, now: float) -> bool:
        return True

    def used(self, tenant: str, began: float) -> None: ...

    def wait(self, tenant: str, go_on: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(go_on)


class NobodyInTheWay(Lanes):
    """In the place of `Lanes`."""

    def searches(self, flow: Flow) -> bool:
        super().searches(flow)
        return False


if __name__ == "__main__":
    with (
        patch.object(service, "FairQueue", OneLine),
        patch.object(service, "Lanes", NobodyInTheWay),
        patch.object(listener, "Turns", NoTurns),
    ):
        sys.exit(main())
