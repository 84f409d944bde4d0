"""What becomes of a call.

A reply that is not what its schema says is sent back once, as another call for the same job, which
passes all the same limits. A call that failed and may do better is put back into the queue with a
moment before which it is not tried again; others go on meanwhile. One that was throttled holds up
the whole provider for as long. All else ends the job.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from functools import lru_cache

from pydantic import BaseModel

from pyrope.llm.backoff import Backoff
from pyrope.llm.breaker import Breaker
from pyrope.llm.budget import Refusal
from pyrope.llm.call import Call, Parts
from pyrope.llm.job import Dropped, Job
from pyrope.llm.limits import RateLimits
from pyrope.llm.provider import Completion, Failure, Prompt, ProviderError
from pyrope.llm.queue import JobQueue
from pyrope.llm.replies import MalformedReplyError, parse_reply, repair_prompt
from pyrope.llm.timing import time_limit
from pyrope.log import get_logger

_log = get_logger(__name__)

# What frames the messages of a prompt; a guess on the safe side.
_FRAME_TOKENS = 32


class Caller:
    """Makes calls, and sees jobs to their end. To be made in the loop it is used in.

    Attributes:
        queue: what waits.
        rates: requests and tokens a minute, and holds of the provider's.
        breaker: whether the provider is called at all.
        calls: under way.
        prepared: that have a prompt, and have not begun: one that waits for tokens, and repairs.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._monotonic = parts.clock.monotonic
        self._hooks = parts.hooks
        self._counters = parts.counters
        limits = self._limits = parts.limits
        self.queue = JobQueue(
            parts.clock,
            max_jobs=limits.max_queued,
            max_bytes=limits.max_queue_bytes,
            drop=parts.counters.drop,
        )
        self.rates = RateLimits(parts.clock, limits.requests_per_minute, limits.tokens_per_minute)
        self.breaker = Breaker(
            parts.clock,
            failures=limits.breaker_failures,
            probe_s=limits.breaker_probe_s,
            max_probe_s=limits.breaker_max_probe_s,
        )
        self.calls: set[Call] = set()
        self.prepared: deque[Call] = deque()
        self._backoff = Backoff(limits.backoff_base_s, limits.backoff_max_s, parts.random)
        self._throttled_in_a_row = 0
        self._fixed_tokens = lru_cache(maxsize=32)(self._count_fixed)

    def call(self, job: Job, prompt: Prompt) -> Call:
        """A call that is to be made; counts its tokens."""
        tokens_in = self._fixed_tokens(prompt.system, prompt.schema)
        tokens_in += self._hooks.count_tokens(prompt.user)
        return Call(job, prompt, tokens_in, prompt.max_tokens_out + self._limits.thinking_tokens)

    def begin(self, call: Call) -> None:
        """A call that everything has let through is under way: `carry_out` is next."""
        call.reservation = self.rates.reserve(call.tokens)
        call.era = self.breaker.begin()
        call.job.attempts += 1
        self.queue.pay(call.job.tenant, call.tokens)
        self._counters.calls_total += 1
        self.calls.add(call)

    async def carry_out(self, call: Call) -> None:
        """Make a call, and see to what comes of it. Raises nothing but CancelledError."""
        job = call.job
        try:
            outcome = await self._ask(call)
            if isinstance(outcome, ProviderError):
                self._failed(call, outcome)
            else:
                await self._answered(call, outcome)
        except asyncio.CancelledError:
            self._abandon(call)
            raise
        except Exception as error:  # noqa: BLE001 - what becomes of one outcome holds up no other
            _log.error("an outcome could not be used", kind=job.kind, exc_info=error)
            self.fail(job, f"a {job.kind} outcome could not be used ({type(error).__name__})")
        finally:
            # Where nothing has been said of it yet, it was no proof of anything.
            self.breaker.give_up(call.era)
            self.calls.discard(call)

    def abandon_all(self) -> None:
        """Count what will never be asked. For the end."""
        # A task that was cancelled before its first step has not seen to its call.
        for call in self.calls:
            self._abandon(call)
        for job in [*self.queue.waiting(), *(call.job for call in self.prepared)]:
            self._counters.drop(job, Dropped.STOPPED)
        self.calls.clear()
        self.prepared.clear()

    def fail(self, job: Job, reason: str) -> None:
        """End a job that was taken: nothing has come of it."""
        self.queue.done(job)
        self._counters.fail(job, reason)

    def drop(self, job: Job, reason: Dropped) -> None:
        """End a job that was taken: it is not asked."""
        self.queue.done(job)
        self._counters.drop(job, reason)

    def refuse(self, job: Job, refusal: Refusal) -> None:
        """End a job that was taken: it is not asked for a budget."""
        self.queue.done(job)
        self._counters.refuse(job, refusal)

    def _count_fixed(self, system: str, schema: type[BaseModel]) -> int:
        count = self._hooks.count_tokens
        return count(system) + count(json.dumps(schema.model_json_schema())) + _FRAME_TOKENS

    def _abandon(self, call: Call) -> None:
        # Whatever the provider has begun to count, it will not tell any more.
        self._settle(call, 0, 0, known=False)
        self.drop(call.job, Dropped.STOPPED)

    async def _ask(self, call: Call) -> Completion | ProviderError:
        task = asyncio.current_task()
        try:
            async with time_limit(self._limits.call_s, self._parts.schedule):
                return await self._parts.provider.complete(call.prompt)
        except ProviderError as error:
            return error
        except TimeoutError:
            return ProviderError(
                Failure.UNAVAILABLE, f"there was no answer within {self._limits.call_s:g} s"
            )
        except asyncio.CancelledError:
            if task is None or task.cancelling():
                raise
            return ProviderError(Failure.UNAVAILABLE, "the provider gave up")
        except Exception as error:  # noqa: BLE001 - whatever a library raises, the job ends
            _log.error("a provider raised what it may not", exc_info=error)
            return ProviderError(
                Failure.INVALID, f"the call could not be made ({type(error).__name__})"
            )

    def _settle(self, call: Call, tokens_in: int, tokens_out: int, *, known: bool) -> None:
        """Charge a call with what it has used, once.

        Args:
            known: otherwise it may have used more: what was reserved stays so, though nobody is
                charged for it.
        """
        hold, call.hold = call.hold, None
        if hold is None or call.reservation is None:
            return
        counters, tenant, tokens = self._counters, call.job.tenant, tokens_in + tokens_out
        counters.tokens_in_total += tokens_in
        counters.tokens_out_total += tokens_out
        counters.cost_micro += self._parts.budgets.settle(hold, tokens_in, tokens_out)
        if known:
            self.rates.settle(call.reservation, tokens)
            self.queue.pay(tenant, tokens - call.tokens)
        if tokens:
            self._hooks.charge(tenant, tokens_in, tokens_out)

    async def _answered(self, call: Call, completion: Completion) -> None:
        job = call.job
        self._settle(call, completion.tokens_in, completion.tokens_out, known=True)
        self.breaker.succeed(call.era)
        self._throttled_in_a_row = 0
        try:
            answer = parse_reply(call.prompt.schema, completion.text, self._limits.max_reply_bytes)
        except MalformedReplyError as error:
            self._send_back(call, completion.text, error)
            return
        delivered = self._hooks.deliver(job, answer)
        if delivered is not None:
            await delivered
        self.queue.done(job)
        self._counters.succeeded[job.kind] += 1

    def _send_back(self, call: Call, reply: str, error: MalformedReplyError) -> None:
        """Ask for a reply that is what its schema says, once."""
        job = call.job
        if not call.is_repair and job.attempts < self._limits.max_attempts:
            again = self.call(job, repair_prompt(call.prompt, reply, error))
            if self.rates.fits(again.tokens):
                again.is_repair = True
                self._counters.note(str(error))
                self._counters.repaired_total += 1
                self.prepared.append(again)
                return
        self.fail(job, f"{Failure.MALFORMED}: {error}")

    def _failed(self, call: Call, error: ProviderError) -> None:
        job, failure = call.job, error.failure
        known = failure is not Failure.UNAVAILABLE or bool(error.tokens_in or error.tokens_out)
        self._settle(call, error.tokens_in, error.tokens_out, known=known)
        self._judge(call, failure)
        wait = self._backoff.delay_s(max(job.attempts, 1), error.retry_after_s)
        if failure is Failure.THROTTLED:
            self._counters.rate_limited_total += 1
            self._throttled_in_a_row += 1
            wait = self._backoff.delay_s(self._throttled_in_a_row, error.retry_after_s)
        if failure is Failure.THROTTLED or error.retry_after_s:
            self.rates.hold(wait)
        reason = f"{failure}: {error}"
        if failure.is_permanent or job.attempts >= self._limits.max_attempts:
            self.fail(job, reason)
        elif self.queue.put_back(job, self._monotonic() + wait):
            self._counters.note(reason)
            self._counters.retried_total += 1
        else:
            self._counters.note(reason)

    def _judge(self, call: Call, failure: Failure) -> None:
        """What a failure says of the provider. One that declines is there, and works."""
        match failure:
            case Failure.UNAUTHORISED:
                self.breaker.fail(call.era, for_good=True)
            case Failure.UNAVAILABLE | Failure.INVALID:
                self.breaker.fail(call.era)
            case Failure.THROTTLED | Failure.REFUSED | Failure.MALFORMED:
                self.breaker.succeed(call.era)
