"""The load: a closed loop over many connections, in one thread.

Each connection sends a batch of requests (as many as the pipeline is deep), and the next one when
all have been answered. A latency is the time from the sending of a batch to the arrival of the
reply. That the next request waits for the last reply hides what a client feels who sends at a
pace of his own while the server is behind ("coordinated omission", G. Tene, 2013); the percentiles
are of a server under as much load as these connections make, not of one at a given rate.

It runs beside the server on the same cores, often enough. So it does little: it counts replies and
does not decode them, and it tells how much of a core it took itself.
"""

from __future__ import annotations

import os
import select
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pyrope.bench.histogram import Histogram
from pyrope.clock import Clock
from pyrope.console.connection import Connection

_RECEIVE_BYTES = 262_144
_STALL_S = 60.0
"""A server that says nothing on any connection for so long has failed."""
_TICK_S = 0.1

_ARRAY, _BULK, _ERROR = b"*"[0], b"$"[0], b"-"[0]


class LoadError(Exception):
    """The server fell silent, or closed a connection, or answered what is no reply."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What became of the load, within the measured time.

    Attributes:
        requests: answered, errors included.
        seconds: measured.
        latencies: of those that were no errors.
        errors: by prefix.
        cpu_share: of one core, what the generator took itself.
    """

    requests: int
    seconds: float
    latencies: Histogram
    errors: Counter[str]
    cpu_share: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


class _Lane:
    """A connection with a batch under way."""

    __slots__ = ("buffer", "connection", "outstanding", "started", "unsent")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection.socket
        self.connection.settimeout(0)
        self.buffer = b""
        self.outstanding = 0
        self.started = 0.0
        self.unsent: memoryview | None = None


def run_load(
    connections: Sequence[Connection],
    batches: Iterator[bytes],
    depth: int,
    *,
    warmup: float,
    seconds: float,
    clock: Clock,
    tick: Callable[[float], None],
) -> LoadResult:
    """Put load on a server.

    Args:
        connections: used up.
        batches: of `depth` requests each, encoded; without an end.
        warmup: seconds before measuring begins.
        seconds: to measure.
        tick: told now and then how many seconds have passed, warm-up included.

    Raises:
        LoadError, OSError: see there.
    """
    return _Load(connections, batches, depth, clock, tick).run(warmup, seconds)


class _Load:
    def __init__(
        self,
        connections: Sequence[Connection],
        batches: Iterator[bytes],
        depth: int,
        clock: Clock,
        tick: Callable[[float], None],
    ) -> None:
        self._lanes = {one.socket.fileno(): _Lane(one) for one in connections}
        self._batches = batches
        self._depth = depth
        self._now = clock.monotonic
        self._tick = tick
        self._latencies = Histogram()
        self._errors: Counter[str] = Counter()

    def run(self, warmup: float, seconds: float) -> LoadResult:
        now = began = self._now()
        measure_from, deadline = began + warmup, began + warmup + seconds
        warming, cpu, ticked, heard = True, 0.0, began, began
        with select.epoll() as epoll:
            for number, lane in self._lanes.items():
                epoll.register(number, select.EPOLLIN)
                self._send_batch(lane, now, epoll)
            while now < deadline:
                events = epoll.poll(_TICK_S)
                now = self._now()
                if warming and now >= measure_from:
                    # What is under way counts from here on, so that a slow server counts at all.
                    warming, cpu, measure_from = False, _cpu_seconds(), now
                    deadline = now + seconds
                    self._latencies, self._errors = Histogram(), Counter()
                for number, event in events:
                    heard = now
                    self._handle(self._lanes[number], event, now, epoll)
                if now - ticked >= _TICK_S:
                    ticked = now
                    self._tick(now - began)
                if now - heard > _STALL_S:
                    raise LoadError(f"no reply on any connection for {_STALL_S:.0f} s")
            cpu = _cpu_seconds() - cpu
        return LoadResult(
            self._latencies.count + self._errors.total(),
            now - measure_from,
            self._latencies,
            self._errors,
            cpu / (now - measure_from),
        )

    def _handle(self, lane: _Lane, event: int, now: float, epoll: select.epoll) -> None:
        if lane.unsent is not None:
            self._send(lane, lane.unsent, epoll)
            if not event & select.EPOLLIN:
                return
        try:
            data = lane.connection.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise LoadError("the server has closed a connection")
        data = lane.buffer + data if lane.buffer else data
        position, answered = 0, 0
        while answered < lane.outstanding:
            end = end_of_reply(data, position)
            if end < 0:
                break
            if data[position] == _ERROR:
                self._errors[data[position + 1 : end].split(None, 1)[0].decode()] += 1
            else:
                self._latencies.add(int((now - lane.started) * 1e6))
            answered += 1
            position = end
        lane.buffer = data[position:]
        lane.outstanding -= answered
        if not lane.outstanding:
            if lane.buffer:
                raise LoadError("the server has answered more than it was asked")
            self._send_batch(lane, now, epoll)

    def _send_batch(self, lane: _Lane, now: float, epoll: select.epoll) -> None:
        lane.outstanding, lane.started = self._depth, now
        self._send(lane, memoryview(next(self._batches)), epoll)

    def _send(self, lane: _Lane, data: memoryview, epoll: select.epoll) -> None:
        """Send what the socket takes; epoll tells when it takes more."""
        try:
            sent = lane.connection.send(data)
        except BlockingIOError:
            sent = 0
        rest = data[sent:] if sent < len(data) else None
        if (rest is None) != (lane.unsent is None):
            events = select.EPOLLIN if rest is None else select.EPOLLIN | select.EPOLLOUT
            epoll.modify(lane.connection.fileno(), events)
        lane.unsent = rest


def _cpu_seconds() -> float:
    """What this process has taken so far."""
    times = os.times()
    return times.user + times.system


def end_of_reply(data: bytes, start: int) -> int:
    """Where the RESP2 reply that begins at `start` ends; -1: it is not all there.

    Raises:
        LoadError: it is no reply.
    """
    position, pending = start, 1
    while pending:
        line_end = data.find(b"\r\n", position)
        if line_end < 0:
            return -1
        kind = data[position]
        try:
            number = int(data[position + 1 : line_end]) if kind in (_ARRAY, _BULK) else 0
        except ValueError:
            raise LoadError(f"{data[position : position + 64]!r} is no reply") from None
        position = line_end + 2
        pending -= 1
        if kind == _ARRAY:
            pending += max(number, 0)
        elif kind == _BULK and number >= 0:
            position += number + 2
            if position > len(data):
                return -1
    return position
