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
        number: the queue's own; the older ones are lower.
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
