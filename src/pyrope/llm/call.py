"""What a worker is made of and joined by, and a call that it makes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from pydantic import BaseModel

from pyrope.clock import Clock
from pyrope.llm.budget import Hold, MonthlyBudgets, Refusal
from pyrope.llm.job import Job
from pyrope.llm.limits import Reservation
from pyrope.llm.provider import Prompt, Provider
from pyrope.llm.statistics import WorkerCounters
from pyrope.llm.worker_limits import WorkerLimits
from pyrope.timers import Schedule


@dataclass(frozen=True, slots=True)
class Hooks:
    """What joins a worker to the rest. All are called on the loop, and none may block it.

    Attributes:
        build: the prompt of a job whose turn has come; None: there is nothing left to ask.
        deliver: takes the validated reply, an instance of the prompt's schema.
        charge: tells the ledger that a call of a tenant has used so many tokens, in and out.
        may_spend: whether something else than the worker's own budgets is against a call of a
            tenant that takes so many tokens, in and out, and what; None: no.
        count_tokens: of a text, by estimate.
    """

    build: Callable[[Job], Prompt | None]
    deliver: Callable[[Job, BaseModel], Awaitable[None] | None]
    charge: Callable[[str, int, int], None]
    may_spend: Callable[[str, int, int], Refusal | None]
    count_tokens: Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker is made of, and keeps from one run to the next."""

    provider: Provider
    clock: Clock
    limits: WorkerLimits
    hooks: Hooks
    budgets: MonthlyBudgets
    random: Random
    schedule: Schedule
    counters: WorkerCounters


class Call:
    """A prompt on its way.

    Attributes:
        tokens_in: of the prompt, by estimate.
        tokens_out: of the reply at the most.
        hold, reservation, era: what it has been let through by, when it begins.
    """

    __slots__ = (
        "era",
        "hold",
        "is_repair",
        "job",
        "prompt",
        "reservation",
        "tokens_in",
        "tokens_out",
    )

    def __init__(self, job: Job, prompt: Prompt, tokens_in: int, tokens_out: int) -> None:
        self.job = job
        self.prompt = prompt
        self.tokens_in = tokens_in
        self.tokens_out = tokens_out
        self.is_repair = False
        self.hold: Hold | None = None
        self.reservation: Reservation | None = None
        self.era = 0

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out
