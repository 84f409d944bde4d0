"""The bounded pool of threads on which everything slow runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
P = TypeVar("P")


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
        self._stopping = False
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
        if self._pool is None or self._loop is None or self._stopping:
            raise RuntimeError("the executor is not running")
        future = self._loop.run_in_executor(self._pool, function, *args)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def share(self, function: Callable[[P], None], parts: Sequence[P]) -> None:
        """Run `function` on each part, in this thread and in those that are free; for use in a job.

        A part that no thread has begun when this one is through is done here, so that jobs which
        share their work never wait for one another.

        Raises:
            Exception: the first that a part raised. Every part has ended by then.
        """
        if self._pool is None:
            raise RuntimeError("the executor is not running")
        offered = [(part, self._pool.submit(function, part)) for part in parts[1:]]
        failures: list[Exception] = []
        for part, future in [*((part, None) for part in parts[:1]), *offered]:
            try:
                if future is None or future.cancel():
                    function(part)
                else:
                    future.result()
            except Exception as error:  # noqa: BLE001 - raised when every part has ended
                failures.append(error)
        if failures:
            raise failures[0]

    async def stop(self) -> None:
        """Wait for the jobs handed over so far, then end the threads."""
        if self._pool is None:
            return
        self._stopping = True
        if self._running:
            await asyncio.wait(self._running)
        # Every job is done, so the threads are idle and joining them takes microseconds.
        self._pool.shutdown(wait=True)
        self._pool = None
