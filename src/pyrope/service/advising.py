"""The language model that advises the caches: from what searches tell to what is done about it.

    signals of an index -> questions, a few at a time -> the worker's queue -> the model
    -> the dispatcher -> aliases, prefetches, advice on clusters, labels

Where no model is configured, nothing of this is made, and `IndexCache.signals` is None. Nothing
here is waited for by a request: signals count, and everything else happens ten times a second, a
few questions at a time, and in the worker.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from random import Random
from typing import Any

from pyrope.cache.asked_texts import ByteBudget
from pyrope.cache.query_key import QueryKey
from pyrope.clock import Clock
from pyrope.config import Settings
from pyrope.llm.adapter import RunOffLoop
from pyrope.llm.budget import BudgetLimits, MonthlyBudgets, Refusal, Spent
from pyrope.llm.call import Hooks
from pyrope.llm.factory import make_provider
from pyrope.llm.job import Job
from pyrope.llm.prompts import PROMPT_VERSION, build
from pyrope.llm.provider import Prompt
from pyrope.llm.statistics import WorkerState
from pyrope.llm.tokens import ByteCounter, TokenCounter, load_token_counter
from pyrope.llm.worker import LLMWorker
from pyrope.llm.worker_limits import WorkerLimits
from pyrope.log import get_logger
from pyrope.semantic.labels import Labels
from pyrope.service.advice_dispatch import Dispatcher
from pyrope.service.advice_signals import Advised, IndexAdvisor
from pyrope.service.advice_work import (
    AdviceWork,
    CanonicalWork,
    NextWork,
    RecallWork,
    VerifyWork,
)
from pyrope.service.answers import Key
from pyrope.service.kept import Kept
from pyrope.service.remembered.verifying import RecallVerifier
from pyrope.service.search import Search
from pyrope.service.tenancy import Tenancy
from pyrope.tenants.cost import Prices
from pyrope.tenants.period import Period
from pyrope.tenants.usage import MAX_UNITS, MICRO
from pyrope.timers import Schedule, on_loop

_log = get_logger(__name__)

# Of texts and vectors that questions are made of, all indexes together.
_MAX_BYTES = 64 * 2**20
# In one turn of the loop: misses taken note of, 10 us each; questions made, half a millisecond
# each; and indexes looked at.
_NOTICED_AT_ONCE = 128
_QUESTIONS_AT_ONCE = 4
_LOOKED_AT_ONCE = 4
# Of the waits before further calls.
_SEED = 30


class _Unheard:
    """The signals of an index that has told nothing yet: most never do, and take no memory."""

    __slots__ = ("_index", "_listen")

    labels = Labels(max_entries=1, max_bytes=1)

    def __init__(self, index: Advised, listen: Callable[[Advised], IndexAdvisor]) -> None:
        self._index = index
        self._listen = listen

    def missed(self, text: QueryKey, key: Key, asked: Search) -> None:
        self._listen(self._index).missed(text, key, asked)

    def near_hit(self, text: QueryKey, key: Key, kept: Kept, asked: Search) -> None:
        self._listen(self._index).near_hit(text, key, kept, asked)

    def alias_hit(self, alias: QueryKey, canonical: QueryKey, key: Key, asked: Search) -> None:
        self._listen(self._index).alias_hit(alias, canonical, key, asked)

    def in_session(self, session: bytes, text: QueryKey, key: Key, asked: Search) -> None:
        self._listen(self._index).in_session(session, text, key, asked)

    def evicted(self, kept: Kept) -> None:
        """Nothing is known of what was asked for, and so nothing can be asked about it."""


class Advisor:
    """One of a server that asks a model. All methods are for the event loop.

    Args:
        run: calls a function in a thread.
        schedule: sets timers on the clock.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        tenancy: Tenancy,
        *,
        run: RunOffLoop,
        schedule: Schedule = on_loop,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._tenancy = tenancy
        self._run = run
        self._counter: TokenCounter = ByteCounter()
        price = settings.llm.price
        self._prices = (
            Prices(0.0, 0.0, 0.0) if price is None else Prices(price.tokens_in, price.tokens_out, 0)
        )
        llm = settings.llm
        of_each = BudgetLimits(llm.tenant_monthly_tokens, llm.tenant_monthly_cost)
        self._budgets = MonthlyBudgets(
            self._period,
            BudgetLimits(llm.monthly_tokens, llm.monthly_cost),
            lambda _: of_each,
            self._cost_of,
        )
        self._charged: Period | None = None
        self._advisors: OrderedDict[int, IndexAdvisor] = OrderedDict()
        self._waiting: OrderedDict[int, IndexAdvisor] = OrderedDict()
        self._budget = ByteBudget(_MAX_BYTES)
        self.worker = LLMWorker(
            make_provider(llm, clock=clock, run=run),
            clock,
            WorkerLimits.of(llm),
            Hooks(
                build=self._build,
                deliver=self._deliver,
                charge=self._charge,
                may_spend=self._may_spend,
                count_tokens=self._count_tokens,
            ),
            self._budgets,
            random=Random(_SEED),  # noqa: S311 - no secret
            schedule=schedule,
        )
        self._dispatcher = Dispatcher(
            llm, settings.aliases, clock, find=self._advisors.get, submit=self.worker.submit_nowait
        )
        self.recalls = RecallVerifier(
            llm, settings.remember, clock, submit=self.worker.submit_nowait
        )
        self._starting: asyncio.Task[None] | None = None

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, once tokens can be counted; whoever starts the server does not wait for that."""
        self._starting = asyncio.get_running_loop().create_task(self._start(), name="llm start")

    async def _start(self) -> None:
        self._counter = await load_token_counter(self._run)
        if self._counter.is_estimate:
            _log.warning("tokens are estimated from above", by=self._counter.name)
        await self.worker.start()

    async def started(self) -> None:
        """Return when questions are asked."""
        if self._starting is not None:
            await asyncio.shield(self._starting)

    async def stop(self) -> None:
        """Ask nothing more, and leave nothing. Idempotent."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
            self._starting = None
        await self.worker.stop()
        for advisor in list(self._advisors.values()):
            self.detach(advisor.index)

    # -- indexes ----------------------------------------------------------------------------------

    def attach(self, index: Advised) -> None:
        """Listen to what an index tells."""
        index.cache.signals = _Unheard(index, self._listen)

    def _listen(self, index: Advised) -> IndexAdvisor:
        """An index has told something for the first time."""
        advisor = IndexAdvisor(index, self._settings.llm, self._clock, self._budget, self._wake)
        self._advisors[index.spec.uid] = advisor
        index.cache.signals = advisor
        return advisor

    def detach(self, index: Advised) -> None:
        """An index is going away; what is asked about it comes to nothing."""
        index.cache.signals = None
        advisor = self._advisors.pop(index.spec.uid, None)
        self._waiting.pop(index.spec.uid, None)
        if advisor is not None:
            advisor.close()

    def of_index(self, uid: int) -> IndexAdvisor | None:
        """What listens to an index."""
        return self._advisors.get(uid)

    def _wake(self, advisor: IndexAdvisor) -> None:
        self._waiting[advisor.uid] = advisor

    @property
    def has_pending(self) -> bool:
        """Whether something waits to be made a question of."""
        return bool(self._waiting)

    def tick(self) -> None:
        """Make questions of what has become worth one; to be called several times a second.

        Indexes take turns. While searches of an index run, only one is made.
        """
        if self.worker.state is WorkerState.STOPPED:
            return
        try:
            self._make_questions()
        except Exception as error:  # noqa: BLE001 - whoever sweeps has other things to do as well
            _log.error("no questions could be made", exc_info=error)

    def _make_questions(self) -> None:
        submit = self.worker.submit_nowait
        # Round after round, as long as anybody has something.
        left = _NOTICED_AT_ONCE
        while left > 0 and self._waiting:
            before = left
            for uid, advisor in [*self._waiting.items()][:left]:
                left -= advisor.notice(max(1, left // len(self._waiting)))
                self._waiting.move_to_end(uid)
            if left == before:
                break
        for _ in range(min(_LOOKED_AT_ONCE, len(self._advisors))):
            uid, advisor = next(iter(self._advisors.items()))
            self._advisors.move_to_end(uid)
            job = advisor.advice()
            if job is not None:
                submit(job)
        # While the provider does not work, there is no use in more than keeping it probed.
        left = 1 if self.worker.state is WorkerState.OPEN else _QUESTIONS_AT_ONCE
        while left > 0 and self._waiting:
            uid, advisor = next(iter(self._waiting.items()))
            self._waiting.move_to_end(uid)
            if advisor.index.busy:
                left = min(left, 1)
            for job in advisor.questions(1):
                submit(job)
            left -= 1
            if not advisor.pending:
                del self._waiting[uid]

    # -- what the worker asks ---------------------------------------------------------------------

    def _build(self, job: Job) -> Prompt | None:
        work = job.question
        if isinstance(work, RecallWork):
            return build(work.question) if work.is_wanted() else None
        if not isinstance(work, CanonicalWork | NextWork | AdviceWork | VerifyWork):
            raise TypeError(f"{type(work).__name__} is no question")
        return None if work.uid not in self._advisors else build(work.question)

    async def _deliver(self, job: Job, reply: object) -> None:
        await self._dispatcher.deliver(job, reply)

    def _count_tokens(self, text: str) -> int:
        # Another counter takes over when the vocabulary has been loaded.
        return self._counter.count(text)

    def _cost_of(self, tokens_in: int, tokens_out: int) -> float:
        return min(self._prices.of_tokens(tokens_in, tokens_out), MAX_UNITS)

    def _charge(self, tenant: str, tokens_in: int, tokens_out: int) -> None:
        account = self._tenancy.enforcer.enter(tenant)
        account.charge_llm(tokens_in, tokens_out, self._cost_of(tokens_in, tokens_out))

    def _may_spend(self, tenant: str, tokens_in: int, tokens_out: int) -> Refusal | None:
        remaining = self._tenancy.enforcer.enter(tenant).remaining
        if remaining is None:
            return None
        # What is under way has not been charged yet.
        left = remaining - self._budgets.held(tenant)
        enough = left > 0 and left >= self._cost_of(tokens_in, tokens_out)
        return None if enough else Refusal.TENANT

    def _period(self) -> Period:
        """The month that the ledger charges in; whenever that is another one, the totals are its.

        So budgets of the worker outlast a restart, and follow a clock that is set.
        """
        period = self._tenancy.period()
        if period != self._charged:
            self._charged = period
            totals = self._tenancy.llm_totals()
            self._budgets.load(period, {name: Spent(*spent) for name, *spent in totals})
        return period

    # -- managing ---------------------------------------------------------------------------------

    def pause(self) -> None:
        self.worker.pause()

    def resume(self) -> None:
        self.worker.resume()

    def jobs(self, count: int) -> list[dict[str, Any]]:
        """What runs and what waits, without its texts."""
        return [
            {
                "kind": one.kind.value,
                "tenant": one.tenant,
                "value": one.value,
                "age": one.age_s,
                "attempts": one.attempts,
                "state": one.state.value,
            }
            for one in self.worker.jobs(count)
        ]

    def describe(self) -> dict[str, Any]:
        """What has been done since the start, and is being done; of all tenants together."""
        told, spent = self.worker.statistics(), self._budgets.spent()
        return {
            "enabled": told.enabled,
            "provider": told.provider,
            "model": told.model,
            "state": told.state.value,
            "queued": told.queued_current,
            "pending": sum(one.pending for one in self._waiting.values()),
            "queued_bytes": told.queued_bytes_current,
            "running": told.running_current,
            "submitted": told.submitted_total,
            "succeeded": told.succeeded_total,
            "failed": told.failed_total,
            "retried": told.retried_total,
            "repaired": told.repaired_total,
            "dropped": told.dropped_total,
            "rate_limited": told.rate_limited_total,
            "budget_dropped": told.budget_dropped_total,
            "calls": told.calls_total,
            "tokens_in": told.tokens_in_total,
            "tokens_out": told.tokens_out_total,
            "cost": told.cost_total,
            "month_tokens": spent.tokens,
            "month_cost": spent.micro / MICRO,
            "last_error": told.last_error,
            "token_counter": self._counter.name,
            "prompt_version": PROMPT_VERSION,
            **asdict(self._dispatcher.statistics),
            **{f"dropped_{reason.value}": count for reason, count in told.dropped.items()},
            **{
                f"{kind.value}_{outcome}": count
                for kind, one in told.by_kind.items()
                for outcome, count in (
                    ("submitted", one.submitted_total),
                    ("succeeded", one.succeeded_total),
                    ("failed", one.failed_total),
                    ("dropped", one.dropped_total),
                )
            },
        }
