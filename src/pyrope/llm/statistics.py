"""What the worker has done, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pyrope.llm.budget import MICRO, Refusal
from pyrope.llm.job import Dropped, Job, JobKind

_MOST_ERROR_CHARACTERS = 300


class WorkerState(StrEnum):
    """What the worker does: the first of these that applies."""

    OFF = "off"
    """There is no provider."""
    STOPPED = "stopped"
    """It has not been started, or has been stopped."""
    PAUSED = "paused"
    """Somebody has paused it: it begins no calls."""
    OPEN = "open"
    """The provider does not work: the breaker is open, or probes."""
    RUNNING = "running"
    """A call is under way."""
    THROTTLED = "throttled"
    """Something waits for a limit of requests or tokens a minute, or of the provider's."""
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class KindStatistics:
    """Of jobs of one kind: totals by outcome."""

    submitted_total: int
    succeeded_total: int
    failed_total: int
    dropped_total: int


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """What a worker has done since it was made, and what it does now.

    Each job submitted waits, runs, or is counted once among succeeded, failed and dropped.

    Attributes:
        enabled: there is a provider.
        provider, model: their names; empty where there is none.
        queued_current: jobs that wait, for another attempt too.
        queued_bytes_current: that they take.
        running_current: calls under way.
        submitted_total, succeeded_total, failed_total: jobs.
        retried_total: failures after which the job was to be tried again.
        repaired_total: replies that were not what their schema says and were sent back for it.
        dropped: jobs, by reason.
        refusals: jobs that were dropped for a budget, by the budget.
        calls_total: prompts sent to the provider.
        rate_limited_total: of which the provider said that they were too many.
        tokens_in_total, tokens_out_total: as the provider counts them.
        cost_total: of them, in cost units.
        by_kind: the same by kind of job.
        last_error: of a call, a reply or an outcome; empty: there has been none.
    """

    enabled: bool
    provider: str
    model: str
    state: WorkerState
    queued_current: int
    queued_bytes_current: int
    running_current: int
    submitted_total: int
    succeeded_total: int
    failed_total: int
    retried_total: int
    repaired_total: int
    dropped: Mapping[Dropped, int]
    refusals: Mapping[Refusal, int]
    calls_total: int
    rate_limited_total: int
    tokens_in_total: int
    tokens_out_total: int
    cost_total: float
    by_kind: Mapping[JobKind, KindStatistics]
    last_error: str

    @property
    def dropped_total(self) -> int:
        return sum(self.dropped.values())

    @property
    def budget_dropped_total(self) -> int:
        return self.dropped[Dropped.BUDGET]


class WorkerCounters:
    """Totals of a worker, which outlast its being stopped and started again."""

    def __init__(self) -> None:
        self.submitted: Counter[JobKind] = Counter()
        self.succeeded: Counter[JobKind] = Counter()
        self.failed: Counter[JobKind] = Counter()
        self.dropped_by_kind: Counter[JobKind] = Counter()
        self.dropped: Counter[Dropped] = Counter()
        self.refusals: Counter[Refusal] = Counter()
        self.retried_total = 0
        self.repaired_total = 0
        self.calls_total = 0
        self.rate_limited_total = 0
        self.tokens_in_total = 0
        self.tokens_out_total = 0
        self.cost_micro = 0
        self.last_error = ""

    def drop(self, job: Job, reason: Dropped) -> None:
        self.dropped[reason] += 1
        self.dropped_by_kind[job.kind] += 1

    def refuse(self, job: Job, refusal: Refusal) -> None:
        """Drop it for a budget."""
        self.refusals[refusal] += 1
        self.drop(job, Dropped.BUDGET)

    def fail(self, job: Job, reason: str) -> None:
        self.failed[job.kind] += 1
        self.note(reason)

    def note(self, error: str) -> None:
        self.last_error = error[:_MOST_ERROR_CHARACTERS]

    def record(
        self,
        *,
        provider: str,
        model: str,
        state: WorkerState,
        queued: tuple[int, int],
        running: int,
    ) -> WorkerStatistics:
        """All of it now; `queued`: jobs, and their bytes."""
        return WorkerStatistics(
            enabled=state is not WorkerState.OFF,
            provider=provider,
            model=model,
            state=state,
            queued_current=queued[0],
            queued_bytes_current=queued[1],
            running_current=running,
            submitted_total=self.submitted.total(),
            succeeded_total=self.succeeded.total(),
            failed_total=self.failed.total(),
            retried_total=self.retried_total,
            repaired_total=self.repaired_total,
            dropped={reason: self.dropped[reason] for reason in Dropped},
            refusals={refusal: self.refusals[refusal] for refusal in Refusal},
            calls_total=self.calls_total,
            rate_limited_total=self.rate_limited_total,
            tokens_in_total=self.tokens_in_total,
            tokens_out_total=self.tokens_out_total,
            cost_total=self.cost_micro / MICRO,
            by_kind={kind: self._of(kind) for kind in JobKind},
            last_error=self.last_error,
        )

    def _of(self, kind: JobKind) -> KindStatistics:
        return KindStatistics(
            submitted_total=self.submitted[kind],
            succeeded_total=self.succeeded[kind],
            failed_total=self.failed[kind],
            dropped_total=self.dropped_by_kind[kind],
        )
