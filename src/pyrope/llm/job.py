"""What the worker is asked to find out."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum


class JobKind(StrEnum):
    """The four questions."""

    CANONICAL = "canonical"
    """Which canonical key a query has: one of some candidates, or a new one."""
    NEXT = "next"
    """What a session is likely to ask next."""
    ADVICE = "advice"
    """Whether a cluster is volatile or lasting, and how much its answers matter."""
    VERIFY = "verify"
    """Whether two prompts deserve the same answer."""


@dataclass(slots=True, eq=False)
class Job:
    """A question.

    Attributes:
        tenant: who pays, and whose turn it is.
        key: what it is about; of two with the same kind, tenant and key one is enough.
        value: what an answer is expected to be worth, in cost units; higher goes first.
        deadline: monotonic time in seconds, after which nobody wants to know.
        question: what a prompt is made of, when its turn has come; a few kilobytes at the most.
        nbytes: bytes that the question takes.
        attempts: calls that were made for it.
        number: the queue's own; of those that wait, the older ones are lower; 0: it does not wait.
        submitted_at: the queue's own; monotonic time in seconds.
        due: the queue's own; monotonic time in seconds before which it is not tried again; 0: it
            may be its turn.
    """

    kind: JobKind
    tenant: str
    key: Hashable
    value: float
    deadline: float
    question: object
    nbytes: int
    attempts: int = 0
    number: int = 0
    submitted_at: float = 0.0
    due: float = 0.0


class Dropped(StrEnum):
    """Why a job has ended without an answer, and without a failure of its own."""

    OVERLOAD = "overload"
    """More waited than may, and it was the least valuable of the tenant with most."""
    EXPIRED = "expired"
    """Nobody wanted to know any more."""
    DUPLICATE = "duplicate"
    """The same question waits, or is being asked."""
    BUDGET = "budget"
    """A monthly budget has not enough left for it."""
    TOO_LARGE = "too_large"
    """It needs more tokens than may be used in a minute."""
    WITHDRAWN = "withdrawn"
    """When its turn came, there was nothing left to ask."""
    STOPPED = "stopped"
    """The worker was not running, or has been stopped."""
