"""How often and after what time a request is sent again: without I/O, for both clients.

`exchange` is a generator. It asks for something to be sent, or for time to pass, and is told what
came of it; a client does what it asks for, blocking or in an event loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias, TypeVar

from redis.exceptions import RedisError

from pyrope.client.failures import least_wait_s, typed
from pyrope.client.request import Request
from pyrope.errors import PyropeError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a request that was refused, or whose connection failed, is sent again.

    Before the n-th try after the first one, a client waits for as long as the server has asked for,
    and then for a time drawn evenly from 0 to ``min(longest_s, first_s · 2^(n - 1))``: exponential
    backoff with full jitter (Brooker, *Exponential Backoff And Jitter*, AWS Architecture Blog
    2015), so that clients that were refused together do not come back together.

    Attributes:
        attempts: tries in a row of which nothing has come, with the first one; 1: a refusal is
            final. Of requests that were sent together, one that is answered is progress.
        first_s, longest_s: see above; in seconds.
        total_s: after so long since the first try, no other one begins.

    Raises:
        ValueError: a number is out of range.
    """

    attempts: int = 6
    first_s: float = 0.05
    longest_s: float = 2.0
    total_s: float = 15.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("there is at least one attempt")
        if not (0 <= self.first_s <= self.longest_s < math.inf and self.total_s >= 0):
            raise ValueError("0 <= first_s <= longest_s and 0 <= total_s are expected, in seconds")

    def backoff_s(self, failures: int, random: Random) -> float:
        """Seconds to wait, beyond what the server asks for, after so many failures (1 at least)."""
        # 2^64 of anything is longer than any bound; more would not fit into a float.
        return random.uniform(0.0, min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 64)))


NO_RETRIES = RetryPolicy(attempts=1)


@dataclass(frozen=True, slots=True)
class Send:
    """Ask for requests to be sent together. Told: of each, its reply or its exception."""

    requests: Sequence[Request[Any]]


@dataclass(frozen=True, slots=True)
class Wait:
    """Ask for time to pass. Told: anything."""

    seconds: float


Steps: TypeAlias = Generator[Send | Wait, Any, T]


@dataclass(frozen=True, slots=True)
class Patience:
    """What it takes to wait.

    Attributes:
        monotonic: a clock, in seconds.
        random: of the jitter.
    """

    policy: RetryPolicy
    monotonic: Callable[[], float]
    random: Random


def exchange(requests: Sequence[Request[T]], patience: Patience) -> Steps[list[T]]:
    """Send requests together, and those that are refused again.

    Returns:
        The results, in the order of the requests.

    Raises:
        PyropeError: the server refuses one; others may have been carried out.
        redis.exceptions.RedisError: the connection has failed; what was sent may have been carried
            out or not.
    """
    began = patience.monotonic()
    results: list[Any] = [None] * len(requests)
    waiting: Sequence[int] = range(len(requests))
    failures = 0
    while True:
        outcomes = yield Send([requests[each] for each in waiting])
        refused: list[int] = []
        waits = [0.0]
        error: PyropeError | RedisError | None = None
        for each, outcome in zip(waiting, outcomes, strict=True):
            if not isinstance(outcome, RedisError):
                results[each] = requests[each].parse(outcome)
                continue
            refused.append(each)
            error = typed(outcome)
            wait_s = least_wait_s(requests[each], error)
            if wait_s is None:
                raise error
            waits.append(wait_s)
        if error is None:
            return results
        failures = 1 if len(refused) < len(waiting) else failures + 1
        wait_s = max(waits) + patience.policy.backoff_s(failures, patience.random)
        waited = patience.monotonic() - began + wait_s
        if failures >= patience.policy.attempts or waited > _deadline_s(requests, patience.policy):
            raise error
        yield Wait(wait_s)
        waiting = refused


def _deadline_s(requests: Sequence[Request[Any]], policy: RetryPolicy) -> float:
    given = [each.deadline_s for each in requests if each.deadline_s is not None]
    return min(policy.total_s, *given) if given else policy.total_s
