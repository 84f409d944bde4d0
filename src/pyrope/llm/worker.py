"""The worker that asks a language model what would help the caches.

    worker = LLMWorker(provider, clock, limits, hooks, budgets, random=Random(seed))
    await worker.start()            # in the running loop
    worker.submit_nowait(job)       # from the path of a request: never waits, never fails
    await worker.stop()

One task, in the loop that `start` is called in, with a task for each call under way. Where there is
no provider nothing of this is made.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from heapq import nlargest
from random import Random

from pyrope.clock import Clock
from pyrope.llm.budget import MonthlyBudgets
from pyrope.llm.call import Hooks, Parts
from pyrope.llm.job import Dropped, Job, JobKind
from pyrope.llm.provider import Provider
from pyrope.llm.run import Run
from pyrope.llm.statistics import WorkerCounters, WorkerState, WorkerStatistics
from pyrope.llm.timing import ended
from pyrope.llm.worker_limits import WorkerLimits
from pyrope.log import get_logger
from pyrope.timers import Schedule, on_loop

_log = get_logger(__name__)

# What a stop may take beyond the grace: for cancelled calls to end, for the provider to close, and
# for what does not end before its connections are closed. 0.9 s together.
_CANCEL_S = 0.3


class JobState(StrEnum):
    RUNNING = "running"
    """A call is under way."""
    READY = "ready"
    """It is its turn, and it waits for a limit."""
    WAITING = "waiting"
    DELAYED = "delayed"
    """It has failed, and waits until it is to be tried again."""


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job as operators see it: not what it asks.

    Attributes:
        age_s: seconds since it was submitted.
        attempts: calls made for it.
    """

    kind: JobKind
    tenant: str
    value: float
    age_s: float
    attempts: int
    state: JobState


class LLMWorker:
    """For the event loop. It can be started again after it was stopped, on another loop too.

    Args:
        provider: None: there is none, and every job is turned away.
        clock: for limits, budgets and deadlines.
        hooks: what joins it to the rest.
        budgets: what may be spent.
        random: for backoff.
        schedule: sets timers on the clock; by default on the loop's, which is the system's.
    """

    def __init__(
        self,
        provider: Provider | None,
        clock: Clock,
        limits: WorkerLimits,
        hooks: Hooks,
        budgets: MonthlyBudgets,
        *,
        random: Random,
        schedule: Schedule = on_loop,
    ) -> None:
        self._provider = provider
        self._clock = clock
        self._limits = limits
        self._schedule = schedule
        self._counters = WorkerCounters()
        self._parts = (
            None
            if provider is None
            else Parts(
                provider=provider,
                clock=clock,
                limits=limits,
                hooks=hooks,
                budgets=budgets,
                random=random,
                schedule=schedule,
                counters=self._counters,
            )
        )
        self._paused = False
        self._run: Run | None = None
        self._main: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make the queue, the limiters and the task, in the running loop.

        The provider's client is made by the task: whoever starts the worker does not wait for it,
        and where it cannot be made that is tried again.

        Raises:
            RuntimeError: it has been started, and not been stopped since.
        """
        if self._main is not None:
            raise RuntimeError("the worker has been started already")
        if self._parts is None:
            return
        self._run = Run(self._parts, paused=self._paused)
        self._main = asyncio.get_running_loop().create_task(self._run.main(), name="llm worker")
        self._main.add_done_callback(self._look_at_end)

    async def stop(self) -> None:
        """End it: wait for calls under way within the grace, cancel the rest, leave nothing.

        Takes at most the grace and 0.8 s. What waits is dropped and counted. Idempotent.
        """
        run, main = self._run, self._main
        if run is None or main is None or run.stopping:
            return
        run.stop()
        try:
            if run.running:
                await ended(main, self._limits.grace_s, self._schedule)
        finally:
            try:
                await self._cancel(main)
            finally:
                run.abandon_all()
                self._run = self._main = None

    def submit_nowait(self, job: Job) -> bool:
        """Have a question asked when its turn comes, if ever.

        Returns:
            Whether it waits now. Otherwise it was counted, with the reason; where there is no
            provider nothing is counted.

        Raises:
            ValueError: a job's value is not finite, its deadline is no number, or its bytes are
                negative.
        """
        if self._parts is None:
            return False
        self._counters.submitted[job.kind] += 1
        run = self._run
        if run is None or self._is_over(run):
            self._counters.drop(job, Dropped.STOPPED)
            return False
        return run.submit(job)

    def pause(self) -> None:
        """Begin no calls; jobs can be submitted, and wait."""
        self._paused = True
        if self._run is not None:
            self._run.pause()

    def resume(self) -> None:
        """Begin calls again, at once even if the breaker is open or the provider wants to rest."""
        self._paused = False
        if self._run is not None:
            self._run.resume()

    @property
    def state(self) -> WorkerState:
        if self._parts is None:
            return WorkerState.OFF
        run = self._run
        return WorkerState.STOPPED if run is None or self._is_over(run) else run.state

    def jobs(self, most: int) -> list[JobInfo]:
        """What runs, then what waits, the most valuable first; so many of them at the most."""
        run = self._run
        if run is None:
            return []
        found = [self._info(job, JobState.RUNNING) for job in run.running]
        found += [self._info(job, JobState.READY) for job in run.prepared]
        room = max(0, most - len(found))
        for job in nlargest(room, run.queue.waiting(), key=lambda job: (job.value, -job.number)):
            found.append(self._info(job, JobState.DELAYED if job.due else JobState.WAITING))
        return found[: max(0, most)]

    def statistics(self) -> WorkerStatistics:
        run = self._run
        queued = (0, 0)
        if run is not None:
            queued = (len(run.queue) + len(run.prepared), run.queue.nbytes)
        return self._counters.record(
            provider="" if self._provider is None else self._provider.name,
            model="" if self._provider is None else self._provider.model,
            state=self.state,
            queued=queued,
            running=0 if run is None else len(run.running),
        )

    def _is_over(self, run: Run) -> bool:
        return run.stopping or self._main is None or self._main.done()

    def _info(self, job: Job, state: JobState) -> JobInfo:
        age_s = self._clock.monotonic() - job.submitted_at
        return JobInfo(job.kind, job.tenant, job.value, age_s, job.attempts, state)

    async def _cancel(self, main: asyncio.Task[None]) -> None:
        main.cancel()
        await ended(main, _CANCEL_S, self._schedule)
        await self._close_provider()
        if not await ended(main, _CANCEL_S, self._schedule):
            _log.error("a call of a language model goes on though it was cancelled")

    async def _close_provider(self) -> None:
        if self._provider is None:
            return
        loop = asyncio.get_running_loop()
        closing = loop.create_task(self._provider.close(), name="llm provider closing")
        if not await ended(closing, _CANCEL_S, self._schedule):
            closing.cancel()
            await ended(closing, _CANCEL_S, self._schedule)
            _log.error("the client of a language model does not close")
        elif not closing.cancelled() and (error := closing.exception()) is not None:
            _log.error("the client of a language model did not close", exc_info=error)

    def _look_at_end(self, main: asyncio.Task[None]) -> None:
        if not main.cancelled() and (error := main.exception()) is not None:
            self._counters.note(f"the worker has ended ({type(error).__name__})")
            _log.error("the worker of the language model has ended", exc_info=error)
