"""The worker from one start to the next stop.

One task looks for a call that may begin, begins it as a task of its group, and rests until
something has changed or something is due. A call is held up, in this order, by a pause, the number
of calls under way, the breaker, a hold or the requests a minute of the provider, and the tokens a
minute. Only the last depends on the job: one that waits for tokens keeps its place in front, with
its prompt, and is the only one of its kind.

Nothing is changed across an await but what is here: whoever submits, pauses, or asks for statistics
sees a state that is whole.
"""

from __future__ import annotations

import asyncio
import math

from pyrope.llm.breaker import BreakerState
from pyrope.llm.budget import Refusal
from pyrope.llm.call import Call, Parts
from pyrope.llm.caller import Caller
from pyrope.llm.job import Dropped, Job
from pyrope.llm.provider import ProviderError
from pyrope.llm.statistics import WorkerState
from pyrope.llm.timing import time_limit
from pyrope.log import get_logger

_log = get_logger(__name__)

# Jobs dropped in one turn of the loop: half a millisecond.
_DROPPED_AT_ONCE = 64

# Characters of prompts made, and tokenised, in one turn of the loop, and what a prompt counts
# beside its own: 0.2 ms for each 1,000. The longest, of hostile texts, takes 4 ms by itself.
_PREPARED_AT_ONCE, _PROMPT_CHARACTERS = 8192, 256

# Those that are late are looked for so often while nothing else happens.
_SWEEP_INTERVAL_S = 1.0

# Timers of some loops go by whole milliseconds.
_LEAST_REST_S = 0.001


class Run:
    """All that belongs to one loop. To be made in it.

    Attributes:
        queue: what waits.
        stopping: nothing begins any more.
    """

    def __init__(self, parts: Parts, *, paused: bool) -> None:
        self._parts = parts
        self._monotonic = parts.clock.monotonic
        self._hooks = parts.hooks
        self._counters = parts.counters
        self._limits = parts.limits
        self._caller = Caller(parts)
        self.queue = self._caller.queue
        self._breaker = self._caller.breaker
        self._wake = asyncio.Event()
        self._provider_started = False
        self._paused = paused
        # Nothing is ready: the next job that comes is news.
        self._hungry = False
        self._throttled = False
        # Characters of prompts made in this turn of the loop.
        self._prepared_at_once = 0
        self.stopping = False

    @property
    def state(self) -> WorkerState:
        if self._paused:
            return WorkerState.PAUSED
        if self._breaker.state is not BreakerState.CLOSED:
            return WorkerState.OPEN
        if self._caller.calls:
            return WorkerState.RUNNING
        return WorkerState.THROTTLED if self._throttled else WorkerState.IDLE

    @property
    def running(self) -> list[Job]:
        """Those that are being asked."""
        return [call.job for call in self._caller.calls]

    @property
    def prepared(self) -> list[Job]:
        """Those whose turn it is, and that wait for a limit."""
        return [call.job for call in self._caller.prepared]

    def submit(self, job: Job) -> bool:
        refusal = self._refusal(job.tenant, 1)
        if refusal is not None:
            self._counters.refuse(job, refusal)
            return False
        if not self.queue.offer(job):
            return False
        if self._hungry:
            self._hungry = False
            self._wake.set()
        return True

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._breaker.probe_now()
        self._caller.rates.release()
        self._wake.set()

    def stop(self) -> None:
        self.stopping = True
        self._wake.set()

    def abandon_all(self) -> None:
        """Count what will never be asked. For the end."""
        self._caller.abandon_all()

    async def main(self) -> None:
        async with asyncio.TaskGroup() as group:
            while not self.stopping:
                self._wake.clear()
                await self._rest(await self._begin_what_may(group))

    async def _rest(self, due: float | None) -> None:
        """Until something has happened, or until a monotonic time at the latest."""
        now = self._monotonic()
        late_at = self.queue.late_at()
        if late_at is not None:
            due = min(math.inf if due is None else due, max(late_at, now + _SWEEP_INTERVAL_S))
        if due is None:
            await self._wake.wait()
            return
        timer = self._parts.schedule(max(due - now, _LEAST_REST_S), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    async def _begin_what_may(self, group: asyncio.TaskGroup) -> float | None:
        """Begin calls until one is held up, or none is left.

        Returns:
            Monotonic time at which to look again; None: when something has happened.
        """
        self._hungry = self._throttled = False
        dropped = 0
        while True:
            if self.queue.sweep(_DROPPED_AT_ONCE) or dropped >= _DROPPED_AT_ONCE:
                dropped = 0
                await asyncio.sleep(0)
                continue
            if self.stopping or self._paused or len(self._caller.calls) >= self._limits.concurrency:
                return None
            wait = self._breaker.wait_s()
            if wait:
                return None if math.isinf(wait) else self._monotonic() + wait
            if not self._provider_started:
                await self._start_provider()
                continue
            if self._prepared_at_once > _PREPARED_AT_ONCE:
                self._prepared_at_once = 0
                await asyncio.sleep(0)
                continue
            found = self._next()
            if isinstance(found, Call):
                self._caller.begin(found)
                group.create_task(self._carry_out(found), name=f"llm {found.job.kind}")
            elif found is None:
                self._hungry = True
                return self.queue.due_at()
            elif found:
                self._throttled = True
                return self._monotonic() + found
            else:
                dropped += 1

    async def _carry_out(self, call: Call) -> None:
        try:
            await self._caller.carry_out(call)
        finally:
            self._wake.set()

    async def _start_provider(self) -> None:
        era = self._breaker.begin()
        provider = self._parts.provider
        try:
            async with time_limit(self._limits.call_s, self._parts.schedule):
                await provider.start()
        except TimeoutError:
            error = f"{provider.name} could not be started within {self._limits.call_s:g} s"
        except ProviderError as failure:
            error = str(failure)
        except Exception as failure:  # noqa: BLE001 - whatever a library raises, it is tried again
            error = f"{provider.name} could not be started ({type(failure).__name__})"
        else:
            self._provider_started = True
            self._breaker.succeed(era)
            return
        self._counters.note(error)
        _log.warning("the language model is not there", reason=error)
        self._breaker.fail(era, for_good=True)

    def _next(self) -> Call | float | None:
        """The call that may begin now, or the seconds until one may.

        0: one was dropped, and there may be another; None: nothing waits that is ready.
        """
        prepared, rates = self._caller.prepared, self._caller.rates
        if not prepared and not len(self.queue):
            return None
        wait = rates.wait_s(0)
        if wait:
            return wait
        if not prepared:
            job = self.queue.take()
            if job is None:
                return None
            first = self._prepare(job)
            if first is None:
                return 0.0
            prepared.append(first)
        call = prepared[0]
        wait = rates.wait_s(call.tokens)
        if wait and call.job.deadline > self._monotonic():
            return wait
        prepared.popleft()
        return call if self._admit(call) else 0.0

    def _prepare(self, job: Job) -> Call | None:
        """The first call for a job; None: it has been dropped."""
        refusal = self._refusal(job.tenant, 1)
        if refusal is not None:
            self._caller.refuse(job, refusal)
            return None
        try:
            prompt = self._hooks.build(job)
            if prompt is None:
                self._caller.drop(job, Dropped.WITHDRAWN)
                return None
            self._prepared_at_once += _PROMPT_CHARACTERS + len(prompt.user)
            call = self._caller.call(job, prompt)
        except Exception as error:  # noqa: BLE001 - a question that nobody can put holds up no other
            _log.error("no prompt could be made", kind=job.kind, exc_info=error)
            self._caller.fail(job, f"no prompt could be made ({type(error).__name__})")
            return None
        if not self._caller.rates.fits(call.tokens):
            self._counters.note(
                f"a {job.kind} call may use {call.tokens} tokens, and only "
                f"{self._limits.tokens_per_minute} may be used in a minute"
            )
            self._caller.drop(job, Dropped.TOO_LARGE)
            return None
        return call

    def _admit(self, call: Call) -> bool:
        """Whether a call may still begin; else its job is dropped."""
        job = call.job
        if job.deadline <= self._monotonic():
            self._caller.drop(job, Dropped.EXPIRED)
            return False
        use = job.tenant, call.tokens_in, call.tokens_out
        held = self._hooks.may_spend(*use) or self._parts.budgets.hold(*use)
        if isinstance(held, Refusal):
            self._caller.refuse(job, held)
            return False
        call.hold = held
        return True

    def _refusal(self, tenant: str, tokens: int) -> Refusal | None:
        refusal = self._hooks.may_spend(tenant, tokens, 0)
        return refusal or self._parts.budgets.refusal(tenant, tokens, 0)
