"""Natural batching: requests that arrive while a batch is in flight form the next one.

There is no timer. Requests of one turn of the event loop are collected, and as soon as a thread is
free for this index they go out together, split evenly over the free threads, so that one client
alone waits for nobody and a hundred clients share a native call. Clients take turns inside a batch
(round robin), so that one that pipelines a thousand searches does not hold up one that sends a
single one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from pyrope.engine.gate import Gate


class BatchRequest(Protocol):
    """What the batcher needs to know of a request.

    Attributes:
        client: whose turn it takes.
        future: where the answer goes; one that is done already (the client has gone, or its time
            is up) is dropped before it starts.
    """

    client: Hashable
    future: asyncio.Future[Any]


R = TypeVar("R", bound=BatchRequest)
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class BatcherStatistics:
    """A snapshot: queued and running now, and totals since the start."""

    queued_current: int
    batches_running_current: int
    batches_total: int
    requests_total: int


class Batcher(Generic[R, A]):
    """Collects requests of one index into batches and runs them off the loop.

    Args:
        run: hands a batch to the executor.
        work: called in a thread with a batch; returns one answer or exception per request.
        deliver: called on the loop for each request with its answer, while the gate still keeps
            writers out: what it reads of the index is what the search saw.
        parallel: batches that may run at the same time, at least 1.
        batch_max: requests in one batch at the most.
    """

    def __init__(
        self,
        *,
        run: Callable[
            [Callable[[list[R]], Sequence[A | BaseException]], list[R]],
            asyncio.Future[Sequence[A | BaseException]],
        ],
        work: Callable[[list[R]], Sequence[A | BaseException]],
        deliver: Callable[[R, A], None],
        parallel: int,
        batch_max: int,
    ) -> None:
        self.gate = Gate(self._dispatch)
        self._run = run
        self._work = work
        self._deliver = deliver
        self._parallel = parallel
        self._batch_max = batch_max
        self._queues: OrderedDict[Hashable, deque[R]] = OrderedDict()
        self._queued = 0
        self._running = 0
        self._scheduled = False
        self._batches_total = 0
        self._requests_total = 0

    @property
    def queued(self) -> int:
        """Requests that have not started."""
        return self._queued

    @property
    def busy(self) -> bool:
        """Whether requests wait or run."""
        return bool(self._queued or self._running)

    def submit(self, request: R) -> None:
        """Queue a request: it starts at the end of this turn of the loop, or when it can."""
        queue = self._queues.get(request.client)
        if queue is None:
            self._queues[request.client] = deque((request,))
        else:
            queue.append(request)
        self._queued += 1
        if not self._scheduled and self._running < self._parallel:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch_scheduled)

    def fail_queued(self, error: BaseException) -> None:
        """Give every request that has not started this error (the index is going away)."""
        for queue in self._queues.values():
            for request in queue:
                if not request.future.done():
                    request.future.set_exception(error)
        self._queues.clear()
        self._queued = 0

    def statistics(self) -> BatcherStatistics:
        return BatcherStatistics(
            self._queued, self._running, self._batches_total, self._requests_total
        )

    def _dispatch_scheduled(self) -> None:
        self._scheduled = False
        self._dispatch()

    def _dispatch(self) -> None:
        while self._queued and self._running < self._parallel and self.gate.is_open:
            free = self._parallel - self._running
            batch = self._take(min(-(-self._queued // free), self._batch_max))
            if not batch:
                continue
            self.gate.enter_shared()
            self._running += 1
            self._batches_total += 1
            self._requests_total += len(batch)
            future = self._run(self._work, batch)
            future.add_done_callback(partial(self._completed, batch))

    def _take(self, count: int) -> list[R]:
        batch: list[R] = []
        queues = self._queues
        while queues and len(batch) < count:
            client, queue = next(iter(queues.items()))
            request = queue.popleft()
            self._queued -= 1
            if queue:
                queues.move_to_end(client)
            else:
                del queues[client]
            if not request.future.done():
                batch.append(request)
        return batch

    def _completed(self, batch: list[R], done: asyncio.Future[Sequence[A | BaseException]]) -> None:
        self._running -= 1
        try:
            self._hand_out(batch, done)
        finally:
            self.gate.leave_shared()
            self._dispatch()

    def _hand_out(self, batch: list[R], done: asyncio.Future[Sequence[A | BaseException]]) -> None:
        error = done.exception()
        answers = [error] * len(batch) if error is not None else done.result()
        for request, answer in zip(batch, answers, strict=True):
            if request.future.done():
                continue
            if isinstance(answer, BaseException):
                request.future.set_exception(answer)
                continue
            try:
                self._deliver(request, answer)
            except Exception as failure:  # noqa: BLE001 - it is this request's answer
                if not request.future.done():
                    request.future.set_exception(failure)
