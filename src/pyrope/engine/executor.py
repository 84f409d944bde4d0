"""The bounded pool of threads on which everything slow runs.

`concurrent.futures` and `run_in_executor` would do, but each job then costs two futures, a lock
each, and three turns of the loop on the way back. Here a job is a tuple, and what has ended is
collected by the loop in one turn, however many jobs that is.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from pyrope.engine.fair_queue import Job

T = TypeVar("T")
P = TypeVar("P")

Done = Callable[[Any, BaseException | None], None]
"""Called on the loop with what a job returned, or with what it raised."""

Submit = Callable[[Callable[..., Any], tuple[Any, ...], Done], None]
"""Has a function run with arguments in a thread, and then something else on the loop."""


class JobQueue(Protocol):
    """Where jobs wait for a thread. Any thread may call any method."""

    def put(self, job: Job | None) -> None:
        """Have a thread do this; None: have one thread end when nothing waits any more."""
        ...

    def get(self) -> Job | None: ...


class Executor:
    """A fixed number of threads beside the event loop, for native work that releases the GIL.

    Args:
        threads: how many, at least 1.
        initializer: called once in each thread before its first job.
        name: prefix of the threads' names.
        jobs: where jobs wait; None: in one line.
    """

    def __init__(
        self,
        threads: int,
        *,
        name: str,
        initializer: Callable[[], None] | None = None,
        jobs: JobQueue | None = None,
    ) -> None:
        if threads < 1:
            raise ValueError(f"an executor needs at least one thread, not {threads}")
        self.threads = threads
        self._name = name
        self._initializer = initializer
        self._jobs: JobQueue = SimpleQueue() if jobs is None else jobs
        self._ended: deque[tuple[Done, Any, BaseException | None]] = deque()
        # Whether the loop has been told of `_ended` and has not begun to look.
        self._told = False
        self._running = 0
        self._idle: asyncio.Future[None] | None = None
        self._workers: list[threading.Thread] = []
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Bind to the running loop, and start the threads."""
        if self._loop is not None:
            raise RuntimeError("the executor has been started already")
        self._loop = asyncio.get_running_loop()
        for number in range(self.threads):
            worker = threading.Thread(target=self._work, name=f"{self._name}_{number}", daemon=True)
            worker.start()
            self._workers.append(worker)

    def run(self, function: Callable[..., T], *args: object) -> asyncio.Future[T]:
        """Run `function(*args)` in a thread; the future belongs to the running loop.

        Cancelling the future before a thread has begun drops the job.
        """
        return run_by(self.submit, function, args)

    def submit(self, function: Callable[..., Any], args: tuple[Any, ...], done: Done) -> None:
        """Run `function(*args)` in a thread, and then `done` on the loop."""
        self.put(Job(function, args, done))

    def put(self, job: Job) -> None:
        """Hand over a job; one without `done`, which any thread may do, must not raise."""
        if job.done is not None:
            if self._loop is None or self._stopping:
                raise RuntimeError("the executor is not running")
            self._running += 1
        self._jobs.put(job)

    def share(
        self,
        function: Callable[[P], None],
        parts: Sequence[P],
        ask: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """Run `function` on each part, in this thread and in those that are free; for use in a job.

        A part that no thread has begun when this one is through is done here, so that jobs which
        share their work never wait for one another.

        Args:
            ask: has another thread do what it is given, by `put`; None: as nobody's job.

        Raises:
            Exception: the first that a part raised. Every part has ended by then.
        """
        if self._loop is None:
            raise RuntimeError("the executor is not running")
        shared = _Shared(function, parts)
        for _ in range(min(len(parts), self.threads) - 1):
            if ask is None:
                self.put(Job(shared.help, (), None, helps=True))
            else:
                ask(shared.help)
        shared.help()
        shared.wait()

    async def stop(self) -> None:
        """Wait for the jobs handed over so far, then end the threads."""
        if self._loop is None:
            return
        self._stopping = True
        if self._running:
            self._idle = self._loop.create_future()
            await self._idle
        for _ in self._workers:
            self._jobs.put(None)
        # Every job is done, so the threads are idle and joining them takes microseconds.
        for worker in self._workers:
            worker.join()
        self._workers.clear()
        self._loop = None

    def _work(self) -> None:
        if self._initializer is not None:
            self._initializer()
        take, ended = self._jobs.get, self._ended
        while (job := take()) is not None:
            function, args, done, *_ = job
            result, error = None, None
            try:
                result = function(*args)
            except BaseException as raised:  # noqa: BLE001 - it goes to whoever asked
                error = raised
            if done is not None:
                ended.append((done, result, error))
                # `_collect` clears the flag before it looks: what is appended is always seen.
                if not self._told:
                    self._told = True
                    self._loop.call_soon_threadsafe(self._collect)  # type: ignore[union-attr]
            # Nothing is kept alive until the next job.
            del job, function, args, done, result, error

    def _collect(self) -> None:
        self._told = False
        ended = self._ended
        while ended:
            done, result, error = ended.popleft()
            self._running -= 1
            try:
                done(result, error)
            except Exception as failure:  # noqa: BLE001 - the others' jobs have ended too
                self._loop.call_exception_handler(  # type: ignore[union-attr]
                    {"message": "what follows a job failed", "exception": failure}
                )
        if self._idle is not None and not self._running and not self._idle.done():
            self._idle.set_result(None)


def run_by(submit: Submit, function: Callable[..., T], args: tuple[Any, ...]) -> asyncio.Future[T]:
    """Run `function(*args)` in a thread, with a future of the running loop for its outcome."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def job() -> T | None:
        return None if future.cancelled() else function(*args)

    def done(result: T, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    submit(job, (), done)
    return future


class _Shared:
    """Parts of one job that several threads take from."""

    def __init__(self, function: Callable[[Any], None], parts: Sequence[Any]) -> None:
        self._function = function
        self._parts = deque(parts)
        self._left = len(parts)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._failures: list[Exception] = []

    def help(self) -> None:
        """Do parts until none is left that nobody has begun."""
        parts = self._parts
        while True:
            try:
                part = parts.popleft()
            except IndexError:
                return
            try:
                self._function(part)
            except Exception as error:  # noqa: BLE001 - raised by `wait`
                self._failures.append(error)
            with self._lock:
                self._left -= 1
                if not self._left:
                    self._ended.set()

    def wait(self) -> None:
        """Return when every part has ended. Raises the first exception of a part."""
        if self._left:
            self._ended.wait()
        if self._failures:
            raise self._failures[0]
