"""The load generator's loop: closed, one thread, the same for every server.

Beside the closed loop it can send writes at a steady pace (`benchmarks.harness.paced`).

It shares two cores with the server that it measures, so it does as little as it can: requests are
encoded before the clock starts, one epoll watches all connections, hiredis finds the end of a
reply, and one reading of the clock serves as the end of a request and the start of the next.
Its own CPU time is part of the result.
"""

from __future__ import annotations

import gc
import itertools
import select
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import hiredis
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.paced import LoadError, NoWriter, Pace, PacedWriter, WriteResult
from benchmarks.harness.wire import Recipe, opened

STALL_SECONDS = 120.0
"""A server silent for this long on all connections has failed; the slowest thing asked of one is
a batch of a thousand vectors linked into a graph, which takes seconds."""

RECEIVE_BYTES = 65536

PROGRESS_MASK = 15
"""Progress is told of every sixteenth request; it looks at the clock for itself."""


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of load.

    Attributes:
        port: on 127.0.0.1.
        connections: each has one request outstanding at a time.
        seconds: how long to measure, going round the requests; None: send each request once.
        warmup: seconds of the same load before the measurement starts (timed jobs only).
        ids_per_reply: where not 0, replies are arrays of decimal ids, of which this many are kept.
        writes: sent beside the requests from the start of the warm-up to the end of the measured
            time (timed jobs only).
        opening: a command that each connection begins with; empty: none.
    """

    port: int
    recipe: Recipe
    connections: int
    seconds: float | None = None
    warmup: float = 0.0
    ids_per_reply: int = 0
    writes: Pace | None = None
    opening: bytes = b""


@dataclass(frozen=True, slots=True)
class Result:
    """What a job saw.

    Attributes:
        requests: answered within the measured time.
        total_requests: answered, warm-up and drain included.
        seconds: measured time.
        p50_us: median latency in microseconds; p99_us and max_us likewise.
        cpu_us: CPU time (user and system) of the generator per request, microseconds; what paced
            writes take is in it.
        found: int64, shape (number of distinct requests, ids_per_reply): the ids of the last reply
            to each; -1 where there was none.
        answered: bool, shape (number of distinct requests,): which had a reply.
        writes: what became of the paced writes; None: there were none.
    """

    requests: int
    total_requests: int
    seconds: float
    p50_us: float
    p99_us: float
    max_us: float
    cpu_us: float
    found: NDArray[np.int64]
    answered: NDArray[np.bool_]
    writes: WriteResult | None = None

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


class _Connection:
    """A socket with a reply parser and at most one request under way."""

    __slots__ = (
        "feed",
        "fileno",
        "gets",
        "index",
        "receive",
        "send",
        "socket",
        "started",
        "unsent",
    )

    def __init__(self, port: int, opening: bytes) -> None:
        self.socket = opened(port, opening)
        self.socket.settimeout(0)
        reader = hiredis.Reader(replyError=_refuse)
        self.fileno = self.socket.fileno()
        self.feed = reader.feed
        self.gets = reader.gets
        self.receive = self.socket.recv
        self.send = self.socket.send
        self.index = 0
        self.started = 0
        self.unsent: memoryview | None = None


def run(
    job: Job,
    requests: Sequence[bytes],
    progress: Callable[[int, int], None] | None = None,
    writes: Sequence[bytes] = (),
) -> Result:
    """Put the job's load on the server.

    Args:
        requests: the recipe's, encoded.
        progress: called now and then with (answered, to be answered) by jobs that are not timed.
        writes: those of `job.writes`, encoded.

    Raises:
        LoadError: see there.
        OSError: a connection could not be made or failed.
    """
    connections: list[_Connection] = []
    writer: PacedWriter | NoWriter = NoWriter(STALL_SECONDS)
    epoll = select.epoll()
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        connections.extend(_Connection(job.port, job.opening) for _ in range(job.connections))
        for connection in connections:
            epoll.register(connection.fileno, select.EPOLLIN)
        if job.writes is not None:
            writer = PacedWriter(job.port, job.writes, writes, epoll)
        return _drive(job, requests, connections, epoll, progress, writer)
    finally:
        if collecting:
            gc.enable()
        epoll.close()
        writer.close()
        for connection in connections:
            connection.socket.close()


def _refuse(error: str) -> NoReturn:
    """Called by the parser for an error reply: the job ends there."""
    raise LoadError(f"the server answered: {error}")


def _drive(
    job: Job,
    requests: Sequence[bytes],
    connections: list[_Connection],
    epoll: select.epoll,
    progress: Callable[[int, int], None] | None,
    writer: PacedWriter | NoWriter,
) -> Result:
    count = len(requests)
    clock, poll = time.perf_counter_ns, epoll.poll
    by_fileno = {connection.fileno: connection for connection in connections}
    replies: list[Any] = [None] * count
    latencies = array("q")
    cpu_began, before, warming = time.process_time(), 0, True
    indices, measure_from, deadline = _schedule(job, count)
    outstanding = _begin(connections, requests, indices, epoll)
    total = now = 0
    heard = clock()
    writer.begin(heard, measure_from, deadline)

    while outstanding or writer.busy:
        events = poll(writer.send_due(clock()))
        heard = _alive(heard, events)
        for fileno, event in events:
            connection = by_fileno.get(fileno)
            if connection is None:
                writer.handle(fileno, event, clock())
                continue
            if connection.unsent is not None:
                _send(connection, connection.unsent, epoll)
                continue
            chunk = connection.receive(RECEIVE_BYTES)
            if not chunk:
                raise LoadError("the server closed a connection that awaits a reply")
            connection.feed(chunk)
            reply = connection.gets()
            if reply is False:
                continue
            now = clock()
            if warming and now >= measure_from:
                warming, cpu_began, before = False, time.process_time(), total
            total += 1
            if measure_from <= now < deadline:
                latencies.append(now - connection.started)
                replies[connection.index] = reply
            index = next(indices, -1) if now < deadline else -1
            if index < 0:
                outstanding -= 1
                continue
            if progress is not None and not total & PROGRESS_MASK:
                progress(total, count)
            connection.index, connection.started = index, now
            request = requests[index]
            # The last request has been answered, so the buffer is empty and takes most requests
            # whole; a larger one goes the long way.
            if (sent := connection.send(request)) != len(request):
                _send(connection, memoryview(request)[sent:], epoll)

    cpu_us = (time.process_time() - cpu_began) / max(1, total - before) * 1e6
    seconds = (now - measure_from) / 1e9 if job.seconds is None else job.seconds
    return _result(job, latencies, replies, total, seconds, cpu_us, writer.result())


def _alive(heard: int, events: list[tuple[int, int]]) -> int:
    """When something was last heard of the server: now, or `heard` if there are no events."""
    now = time.perf_counter_ns()
    if events:
        return now
    if now - heard >= STALL_SECONDS * 1e9:
        raise LoadError(f"no reply on any connection for {STALL_SECONDS:.0f} s")
    return heard


def _schedule(job: Job, count: int) -> tuple[Iterator[int], int, int]:
    """Which requests to send, when measuring starts and when it ends (perf_counter_ns)."""
    now = time.perf_counter_ns()
    if job.seconds is None:
        return iter(range(count)), now, sys.maxsize
    measure_from = now + int(job.warmup * 1e9)
    return itertools.cycle(range(count)), measure_from, measure_from + int(job.seconds * 1e9)


def _begin(
    connections: list[_Connection],
    requests: Sequence[bytes],
    indices: Iterator[int],
    epoll: select.epoll,
) -> int:
    """Send the first request of each connection; how many connections there was one for."""
    outstanding = 0
    for connection, index in zip(connections, indices, strict=False):
        connection.index, connection.started = index, time.perf_counter_ns()
        _send(connection, requests[index], epoll)
        outstanding += 1
    return outstanding


def _send(connection: _Connection, data: bytes | memoryview, epoll: select.epoll) -> None:
    """Send what the socket takes; epoll tells when it takes the rest."""
    try:
        sent = connection.send(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        connection.unsent = memoryview(data)[sent:]
        epoll.modify(connection.fileno, select.EPOLLOUT)
    elif connection.unsent is not None:
        connection.unsent = None
        epoll.modify(connection.fileno, select.EPOLLIN)


def _result(
    job: Job,
    latencies: array[int],
    replies: list[Any],
    total: int,
    seconds: float,
    cpu_us: float,
    written: WriteResult | None,
) -> Result:
    measured = len(latencies)
    if not measured:
        raise LoadError("no request was answered within the measured time")
    microseconds = np.frombuffer(latencies, dtype=np.int64) / 1e3
    p50, p99 = np.percentile(microseconds, [50, 99])
    found = np.full((len(replies), job.ids_per_reply), -1, dtype=np.int64)
    if job.ids_per_reply:
        for row, reply in zip(found, replies, strict=True):
            if reply is not None:
                ids = [int(identifier) for identifier in reply[: job.ids_per_reply]]
                row[: len(ids)] = ids
    return Result(
        requests=measured,
        total_requests=total,
        seconds=seconds,
        p50_us=float(p50),
        p99_us=float(p99),
        max_us=float(microseconds.max()),
        cpu_us=cpu_us,
        found=found,
        answered=np.array([reply is not None for reply in replies], dtype=np.bool_),
        writes=written,
    )
