"""Tenants' ways to the executor's threads: each has a lane of its own, and the threads are shared.

What fairness can do ends where a job begins: a native call is not interrupted. While several
tenants search, jobs of searches are therefore kept short (`Lane.is_contended` tells the batcher);
a tenant that is alone has batches as large as they come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from pyrope.engine.executor import Done, Executor, run_by
from pyrope.engine.fair_queue import FairQueue, Flow, Job

T = TypeVar("T")
P = TypeVar("P")

NORMAL_WEIGHT = 2

CONTENDED_SECONDS = 1.0
"""Tenants that have searched within so long of one another are in each other's way."""

# Threads that no tenant may take from the others while they search.
_LEFT_FREE = 1

# Of what a job takes, in seconds, until one has run. Of each that has, this share is taken over.
_FIRST_ESTIMATE, _NEWEST = 0.001, 0.125


class Lanes:
    """The lanes of one executor. For the event loop, but for what is said to be for jobs.

    Args:
        executor: its threads take jobs from `queue`, and nobody else's.
    """

    def __init__(
        self,
        executor: Executor,
        queue: FairQueue,
        monotonic: Callable[[], float],
    ) -> None:
        self.executor = executor
        self.queue = queue
        self.monotonic = monotonic
        self._weights: dict[str, int] = {}
        self._lanes: WeakValueDictionary[str, Lane] = WeakValueDictionary()
        self._searching: Flow | None = None
        self._searched_at = self._contended_until = float("-inf")
        self._is_contended = False

    def lane(self, tenant: str) -> Lane:
        """A tenant's lane: the same one as long as somebody holds it."""
        lane = self._lanes.get(tenant)
        if lane is None:
            lane = self._lanes[tenant] = Lane(self, Flow(self._weights.get(tenant, NORMAL_WEIGHT)))
        return lane

    def set_weight(self, tenant: str, weight: int) -> None:
        """Set a tenant's share of the time beside others that want it too, from here on.

        Args:
            weight: at least 1; tenants whose weight is not set have `NORMAL_WEIGHT`.
        """
        if weight == NORMAL_WEIGHT:
            self._weights.pop(tenant, None)
        else:
            self._weights[tenant] = weight
        lane = self._lanes.get(tenant)
        if lane is not None:
            lane.flow.weight = weight

    @property
    def idle_seconds(self) -> float:
        """How long ago anybody's search was handed to the threads last."""
        return self.monotonic() - self._searched_at

    def searches(self, flow: Flow) -> bool:
        """A search of this flow is to be handed over: whether others' searches are about."""
        self._searched_at = now = self.monotonic()
        if self._searching is not flow:
            if self._searching is not None:
                self._contended_until = now + CONTENDED_SECONDS
                self._is_contended = True
                self.queue.leave_free(_LEFT_FREE)
            self._searching = flow
        return self._is_contended and self.look()

    def look(self) -> bool:
        """Whether several tenants search; to be called now and then while they did."""
        if self._is_contended and self.monotonic() >= self._contended_until:
            self._is_contended = False
            self.queue.leave_free(0)
        return self._is_contended


class Lane:
    """One tenant's way to the threads of an executor; it can be used in the executor's place."""

    def __init__(self, lanes: Lanes, flow: Flow) -> None:
        self.flow = flow
        self.threads = lanes.executor.threads
        self._lanes = lanes
        self._executor = lanes.executor
        self._monotonic = lanes.monotonic
        self._settle = lanes.queue.settle
        self._estimate = _FIRST_ESTIMATE

    @property
    def idle_seconds(self) -> float:
        """How long ago a search, of any tenant, was handed to the threads last."""
        return self._lanes.idle_seconds

    def is_contended(self) -> bool:
        """Called before searches are submitted: whether other tenants search at the same time."""
        return self._lanes.searches(self.flow)

    def run(self, function: Callable[..., T], *args: object) -> asyncio.Future[T]:
        """As `Executor.run`."""
        return run_by(self.submit, function, args)

    def submit(self, function: Callable[..., Any], args: tuple[Any, ...], done: Done) -> None:
        """As `Executor.submit`."""
        cost = self._estimate
        self._lanes.look()
        self._executor.put(Job(self._paid, (function, args, cost), done, self.flow, cost))

    def share(self, function: Callable[[P], None], parts: Sequence[P]) -> None:
        """As `Executor.share`; for use in a job of this lane, or of another executor."""
        self._executor.share(function, parts, self._ask)

    def _ask(self, work: Callable[[], None]) -> None:
        self._executor.put(Job(self._paid, (work, (), 0.0), None, self.flow, helps=True))

    def _paid(self, function: Callable[..., T], args: tuple[Any, ...], cost: float) -> T:
        """In a thread."""
        began = self._monotonic()
        try:
            return function(*args)
        finally:
            seconds = self._monotonic() - began
            self._settle(self.flow, seconds - cost)
            if cost:
                # Threads may overwrite one another's: it is an estimate.
                self._estimate += _NEWEST * (seconds - self._estimate)
