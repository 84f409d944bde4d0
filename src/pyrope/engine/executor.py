"""The bounded pool of threads on which everything slow runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Executor:
    """A fixed number of threads beside the event loop, for native work that releases the GIL.

    Args:
        threads: how many, at least 1.
        initializer: called once in each thread before its first job.
        name: prefix of the threads' names.
    """

    def __init__(
        self, threads: int, *, name: str, initializer: Callable[[], None] | None = None
    ) -> None:
        if threads < 1:
            raise ValueError(f"an executor needs at least one thread, not {threads}")
        self.threads = threads
        self._name = name
        self._initializer = initializer
        self._pool: ThreadPoolExecutor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: set[asyncio.Future[Any]] = set()

    def start(self) -> None:
        """Bind to the running loop. Threads begin with the jobs that need them."""
        if self._pool is not None:
            raise RuntimeError("the executor has been started already")
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(
            self.threads, thread_name_prefix=self._name, initializer=self._initializer
        )

    def run(self, function: Callable[..., T], *args: object) -> asyncio.Future[T]:
        """Run `function(*args)` in a thread; the future belongs to the loop of `start`."""
        if self._pool is None or self._loop is None:
            raise RuntimeError("the executor is not running")
        future = self._loop.run_in_executor(self._pool, function, *args)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    async def stop(self) -> None:
        """Wait for the jobs handed over so far, then end the threads."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        if self._running:
            await asyncio.wait(self._running)
        # Every job is done, so the threads are idle and joining them takes microseconds.
        pool.shutdown(wait=True)
