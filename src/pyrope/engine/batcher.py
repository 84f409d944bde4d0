"""Natural batching: requests that arrive while a batch is in flight form the next one.

There is no timer. Requests of one turn of the event loop are collected, and as soon as a thread is
free for this index they go out together, split evenly over the free threads, so that one client
alone waits for nobody and a hundred clients share a native call. More batches than there are
threads may be handed out, so that a thread finds the next one without waiting for the loop; what
has come in is not split any further for their sake (that costs 6 % of the throughput at 32
connections: each batch is a hand-over of the GIL).

Clients take turns inside a batch (round robin), so that one that pipelines a thousand searches does
not hold up one that sends a single one. A request may hold many queries: it goes out in pieces, as
large as the turns of the others leave room for, and pieces of it may run in several threads.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from pyrope.engine.gate import Gate


class BatchRequest(Protocol):
    """What the batcher needs to know of a request.

    Attributes:
        client: whose turn it takes.
        weight: queries in it, at least 1.
    """

    client: Hashable
    weight: int

    def done(self) -> bool:
        """Whether nobody waits for it (any more): then what has not started is dropped."""
        ...

    def set_exception(self, error: BaseException) -> None: ...


R = TypeVar("R", bound=BatchRequest)
A = TypeVar("A")
_R = TypeVar("_R")


class Piece(NamedTuple, Generic[_R]):
    """The queries from `start` to before `stop` of a request."""

    request: _R
    start: int
    stop: int


Run = Callable[
    [Callable[..., Any], tuple[Any, ...], Callable[[Any, BaseException | None], None]], None
]
"""Hands a function and its arguments to a thread; calls the last argument on the loop after it."""


@dataclass(frozen=True, slots=True)
class BatcherStatistics:
    """A snapshot: queries queued and batches running now, and totals since the start."""

    queued_current: int
    batches_running_current: int
    batches_total: int
    requests_total: int


class Batcher(Generic[R, A]):
    """Collects requests of one index into batches and runs them off the loop.

    Args:
        run: hands a batch to the executor.
        work: called in a thread with a batch; returns one answer or exception per piece.
        deliver: called on the loop for each piece with its answer, while the gate still keeps
            writers out: what it reads of the index is what the search saw.
        threads: batches that run at the same time, at least 1.
        parallel: batches that may be handed out at the same time, at least `threads`.
        room: how many queries a batch may hold now, at least 1; asked whenever some are to go out.
        observe: told of each batch that has come back, on the loop, with its answers.
    """

    def __init__(
        self,
        *,
        run: Run,
        work: Callable[[list[Piece[R]]], Sequence[A | BaseException]],
        deliver: Callable[[Piece[R], A], None],
        threads: int,
        parallel: int,
        room: Callable[[], int],
        observe: Callable[[Sequence[Piece[R]], Sequence[A | BaseException]], None] | None = None,
    ) -> None:
        self.gate = Gate(self._dispatch)
        self._run = run
        self._work = work
        self._deliver = deliver
        self._threads = threads
        self._parallel = parallel
        self._room = room
        self._observe = observe
        self._queues: OrderedDict[Hashable, deque[R]] = OrderedDict()
        # Queries of the first request of a queue that are on their way; others are not there.
        self._begun: dict[R, int] = {}
        self._queued = 0
        self._running = 0
        self._scheduled = False
        self._batches_total = 0
        self._requests_total = 0

    @property
    def queued(self) -> int:
        """Queries that have not started."""
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
        self._queued += request.weight
        if not self._scheduled and self._running < self._parallel:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch_scheduled)

    def fail_queued(self, error: BaseException) -> None:
        """Give every request that has not started this error (the index is going away).

        One that has started in part is among them.
        """
        # Whoever hears of it may submit another one at once.
        queues, self._queues = self._queues, OrderedDict()
        self._begun.clear()
        self._queued = 0
        for queue in queues.values():
            for request in queue:
                if not request.done():
                    request.set_exception(error)

    def statistics(self) -> BatcherStatistics:
        return BatcherStatistics(
            self._queued, self._running, self._batches_total, self._requests_total
        )

    def _dispatch_scheduled(self) -> None:
        self._scheduled = False
        self._dispatch()

    def _dispatch(self) -> None:
        free = min(self._parallel - self._running, self._threads)
        if not self._queued or not free or not self.gate.is_open:
            return
        size = min(-(-self._queued // free), self._room())
        while self._queued and self._running < self._parallel and self.gate.is_open:
            batch = self._take(size)
            if not batch:
                continue
            self.gate.enter_shared()
            self._running += 1
            self._batches_total += 1
            self._run(self._work, (batch,), partial(self._completed, batch))

    def _take(self, room: int) -> list[Piece[R]]:
        batch: list[Piece[R]] = []
        queues = self._queues
        turns = share = 0
        while queues and room:
            if not turns:
                # Another round: what room there is, is for each client in equal parts.
                turns = len(queues)
                share = max(1, room // turns)
            turns -= 1
            client, queue = queues.popitem(last=False)
            request = queue[0]
            weight = request.weight
            start = 0 if weight == 1 else self._begun.pop(request, 0)
            if request.done():
                stop = start
                self._queued -= weight - start
                queue.popleft()
            else:
                stop = min(start + min(share, room), weight)
                self._queued -= stop - start
                room -= stop - start
                batch.append(Piece(request, start, stop))
                if stop == weight:
                    queue.popleft()
                else:
                    self._begun[request] = stop
                if not start:
                    self._requests_total += 1
            if queue:
                queues[client] = queue
        return batch

    def _completed(self, batch: list[Piece[R]], answers: Any, error: BaseException | None) -> None:
        self._running -= 1
        try:
            if error is None and self._observe is not None:
                self._observe(batch, answers)
            self._hand_out(batch, [error] * len(batch) if error is not None else answers)
        finally:
            self.gate.leave_shared()
            self._dispatch()

    def _hand_out(self, batch: list[Piece[R]], answers: Sequence[A | BaseException]) -> None:
        for piece, answer in zip(batch, answers, strict=True):
            request = piece.request
            if request.done():
                continue
            if isinstance(answer, BaseException):
                request.set_exception(answer)
                continue
            try:
                self._deliver(piece, answer)
            except Exception as failure:  # noqa: BLE001 - it is this request's answer
                if not request.done():
                    request.set_exception(failure)
