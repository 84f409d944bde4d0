"""Writes at a steady pace beside a closed loop of searches.

The loop of writes is open: each is sent when the clock says so, whether or not those before it
have been answered, and its latency counts from that moment. A server that falls behind is thus
seen to, and cannot slow down its own load ("coordinated omission": Tene, "How NOT to Measure
Latency", 2013).
"""

from __future__ import annotations

import select
import socket
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import hiredis
import numpy as np

from benchmarks.harness.wire import Recipe

_RECEIVE_BYTES = 65536

_IDLE_SECONDS = 1.0
"""How long the loop may wait for replies when no write is due any more."""


class LoadError(Exception):
    """The server refused a request, closed a connection, or fell silent."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Writes to be sent.

    Attributes:
        recipe: as many requests as the time and the rate come to, at least; each is sent once.
        rate: per second.
        connections: sent over in turn, pipelined where the server is behind.
    """

    recipe: Recipe
    rate: float
    connections: int


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of paced writes.

    Attributes:
        sent: in all, warm-up included; every one has been acknowledged.
        rate: acknowledged per second within the measured time.
        p50_us: median latency in microseconds, from the moment when a write was due, of those
            acknowledged within the measured time; p99_us and max_us likewise.
    """

    sent: int
    rate: float
    p50_us: float
    p99_us: float
    max_us: float


class _Connection:
    """A socket, and when each of its unanswered writes was due."""

    __slots__ = ("due", "reader", "socket", "unsent")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(0)
        self.reader = hiredis.Reader()
        self.due: deque[int] = deque()
        self.unsent = bytearray()


class NoWriter:
    """Stands in the place of a `PacedWriter` where nothing is to be written."""

    busy = False

    def __init__(self, pause: float) -> None:
        """Nothing to connect.

        Args:
            pause: seconds that the loop may wait for replies.
        """
        self._pause = pause

    def begin(self, now: int, measure_from: int, deadline: int) -> None: ...

    def send_due(self, now: int) -> float:
        return self._pause

    def handle(self, fileno: int, event: int, now: int) -> NoReturn:
        raise LoadError(f"an event on the unknown descriptor {fileno}")

    def result(self) -> None: ...

    def close(self) -> None: ...


class PacedWriter:
    """Sends the writes of a pace; driven by the generator's loop. Times: perf_counter_ns."""

    def __init__(
        self, port: int, pace: Pace, requests: Sequence[bytes], epoll: select.epoll
    ) -> None:
        """Connect, and have `epoll` watch the connections.

        Raises:
            OSError: a connection could not be made.
        """
        self._requests = requests
        self._interval = 1e9 / pace.rate
        self._epoll = epoll
        self._connections: list[_Connection] = []
        try:
            for _ in range(pace.connections):
                self._connections.append(_Connection(port))
        except OSError:
            self.close()
            raise
        self._by_fileno = {one.socket.fileno(): one for one in self._connections}
        for fileno in self._by_fileno:
            epoll.register(fileno, select.EPOLLIN)
        self._latencies = array("q")
        self._sent = self._unanswered = 0
        self._began = self._measure_from = self._deadline = 0

    def begin(self, now: int, measure_from: int, deadline: int) -> None:
        """The first write is due now; none is after `deadline`."""
        self._began, self._measure_from, self._deadline = now, measure_from, deadline

    @property
    def busy(self) -> bool:
        """Whether a write awaits its acknowledgement."""
        return self._unanswered > 0

    def send_due(self, now: int) -> float:
        """Send what is due; seconds until the next is.

        Raises:
            LoadError: the recipe had too few requests.
        """
        while (due := self._began + int(self._sent * self._interval)) <= now:
            if due >= self._deadline:
                return _IDLE_SECONDS
            if self._sent == len(self._requests):
                raise LoadError(f"the pace needs more than {self._sent} writes")
            connection = self._connections[self._sent % len(self._connections)]
            connection.due.append(due)
            self._send(connection, self._requests[self._sent])
            self._sent += 1
            self._unanswered += 1
        return (due - now) / 1e9

    def handle(self, fileno: int, event: int, now: int) -> None:
        """What `epoll` said about one of the connections.

        Raises:
            LoadError: the server answered a write with an error, or closed the connection.
        """
        connection = self._by_fileno[fileno]
        if event & select.EPOLLOUT:
            self._send(connection, b"")
        if not event & ~select.EPOLLOUT:
            return
        chunk = connection.socket.recv(_RECEIVE_BYTES)
        if not chunk:
            raise LoadError("the server closed a connection that writes")
        connection.reader.feed(chunk)
        while (reply := connection.reader.gets()) is not False:
            if isinstance(reply, hiredis.ReplyError):
                raise LoadError(f"the server answered a write: {reply}")
            self._unanswered -= 1
            due = connection.due.popleft()
            if self._measure_from <= now < self._deadline:
                self._latencies.append(now - due)

    def result(self) -> WriteResult:
        """After the last acknowledgement.

        Raises:
            LoadError: none came within the measured time.
        """
        if not self._latencies:
            raise LoadError("no write was acknowledged within the measured time")
        microseconds = np.frombuffer(self._latencies, dtype=np.int64) / 1e3
        p50, p99 = np.percentile(microseconds, [50, 99])
        return WriteResult(
            sent=self._sent,
            rate=len(microseconds) / ((self._deadline - self._measure_from) / 1e9),
            p50_us=float(p50),
            p99_us=float(p99),
            max_us=float(microseconds.max()),
        )

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.socket.close()

    def _send(self, connection: _Connection, request: bytes) -> None:
        """Send what waits and then the request, as far as the socket takes them."""
        waited = bool(connection.unsent)
        connection.unsent += request
        try:
            sent = connection.socket.send(connection.unsent)
        except BlockingIOError:
            sent = 0
        del connection.unsent[:sent]
        if waited != bool(connection.unsent):
            watch = select.EPOLLIN | (select.EPOLLOUT if connection.unsent else 0)
            self._epoll.modify(connection.socket.fileno(), watch)
