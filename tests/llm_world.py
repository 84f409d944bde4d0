"""A worker, with everything around it made by hand."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from random import Random

from pydantic import BaseModel, ConfigDict

from pyrope.llm.budget import BudgetLimits, MonthlyBudgets, Refusal
from pyrope.llm.call import Hooks
from pyrope.llm.job import Job, JobKind
from pyrope.llm.provider import Completion, Failure, Prompt, ProviderError
from pyrope.llm.worker import LLMWorker
from pyrope.llm.worker_limits import WorkerLimits
from pyrope.testing.clock import ManualClock
from pyrope.testing.timers import ManualTimers
from pyrope.timers import Schedule

GOOD = '{"answer": 42}'
TOKENS_IN, TOKENS_OUT = 120, 30


class Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")

    answer: int


class Hang:
    """The provider never answers."""


Outcome = str | Completion | BaseException | Hang
Script = Callable[[Prompt], Outcome]


def throttled(retry_after_s: float | None = None) -> ProviderError:
    return ProviderError(Failure.THROTTLED, "too many", retry_after_s=retry_after_s)


def failing(failure: Failure = Failure.UNAVAILABLE) -> ProviderError:
    return ProviderError(failure, f"it is {failure}")


class FakeProvider:
    """Answers by a script: a function of the prompt, or outcomes one after the other.

    Attributes:
        asked: prompts, with the monotonic times they came at.
        most: calls under way at the same time, at the most.
    """

    name = "fake"
    model = "model-1"

    def __init__(self, clock: ManualClock, *script: Outcome, by: Script | None = None) -> None:
        self._clock = clock
        self.script = list(script)
        self.by = by
        self.asked: list[tuple[float, Prompt]] = []
        self.started = self.closed = self.under_way = self.most = 0
        self.start_outcomes: list[BaseException | Hang] = []
        self.close_hangs = False
        self.tokens_in = self.tokens_out = 0

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.asked]

    @property
    def users(self) -> list[str]:
        return [prompt.user for _, prompt in self.asked]

    async def start(self) -> None:
        self.started += 1
        if self.start_outcomes:
            outcome = self.start_outcomes.pop(0)
            if isinstance(outcome, Hang):
                await asyncio.Event().wait()
            else:
                raise outcome

    async def complete(self, prompt: Prompt) -> Completion:
        self.asked.append((self._clock.monotonic(), prompt))
        outcome: Outcome = GOOD
        if self.by is not None:
            outcome = self.by(prompt)
        elif self.script:
            outcome = self.script.pop(0)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0)
            if isinstance(outcome, Hang):
                await asyncio.Event().wait()
        finally:
            self.under_way -= 1
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, str):
            outcome = Completion(outcome, TOKENS_IN, TOKENS_OUT)
        assert isinstance(outcome, Completion)
        self.tokens_in += outcome.tokens_in
        self.tokens_out += outcome.tokens_out
        return outcome

    async def close(self) -> None:
        self.closed += 1
        if self.close_hangs:
            await asyncio.Event().wait()


NO_LIMITS = BudgetLimits()
UNLIMITED = WorkerLimits(requests_per_minute=0, tokens_per_minute=0)


class World:
    """A worker on a ManualClock, and what came of its work.

    Attributes:
        delivered: keys of jobs, with their answers.
        ledger: tokens charged, by tenant.
        refused: tenants whose own budget is spent.
    """

    def __init__(
        self,
        *script: Outcome,
        limits: WorkerLimits = UNLIMITED,
        by: Script | None = None,
        budget: BudgetLimits = NO_LIMITS,
        tenant_budget: BudgetLimits = NO_LIMITS,
        schedule: Schedule | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.timers = ManualTimers(self.clock)
        self.provider = FakeProvider(self.clock, *script, by=by)
        self.month = "2026-01"
        self.budgets = MonthlyBudgets(
            lambda: self.month, budget, lambda _: tenant_budget, lambda i, o: (i + 2 * o) / 1000
        )
        self.delivered: list[tuple[object, BaseModel]] = []
        self.ledger: Counter[str] = Counter()
        self.refused: set[str] = set()
        self.deliver: Callable[[Job], None] = lambda _: None
        self.prompt: Callable[[Job], Prompt | None] = prompt_of
        self.worker = LLMWorker(
            self.provider,
            self.clock,
            limits,
            Hooks(
                build=self._build,
                deliver=self._deliver,
                charge=self._charge,
                may_spend=lambda tenant, *_: Refusal.TENANT if tenant in self.refused else None,
                count_tokens=lambda text: len(text) // 4,
            ),
            self.budgets,
            random=Random(7),
            schedule=schedule or self.timers,
        )

    def _build(self, job: Job) -> Prompt | None:
        return self.prompt(job)

    async def _deliver(self, job: Job, answer: BaseModel) -> None:
        await asyncio.sleep(0)
        self.deliver(job)
        self.delivered.append((job.key, answer))

    def _charge(self, tenant: str, tokens_in: int, tokens_out: int) -> None:
        self.ledger[tenant] += tokens_in + tokens_out

    @property
    def keys(self) -> list[object]:
        return [key for key, _ in self.delivered]

    def submit(
        self,
        key: str | int,
        *,
        tenant: str = "a",
        value: float = 1.0,
        deadline: float = math.inf,
        kind: JobKind = JobKind.CANONICAL,
    ) -> bool:
        return self.worker.submit_nowait(Job(kind, tenant, key, value, deadline, key, 100))

    async def start(self, *keys: str | int) -> None:
        await self.worker.start()
        for key in keys:
            self.submit(key)
        await self.timers.settle()

    async def stop(self) -> float:
        """Seconds of the clock that it has taken."""
        return await self.timers.finish(asyncio.create_task(self.worker.stop()))


def prompt_of(job: Job) -> Prompt:
    return Prompt("Answer.", f"what about {job.key}?", Reply, 64)
