"""Plays a trace against a server, and keeps every reply with what was written by then.

Searches are a closed loop over some connections, in the order of the trace. Writes go over one
connection of their own, in order, a few at a time; while it is full, the trace waits. So a search
overlaps with few writes, and it is known with which: the trace is no slower for it, and each answer
can be checked. The loop runs in the harness' process, which does nothing else meanwhile.
"""

from __future__ import annotations

import gc
import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn

import hiredis
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.paced import LoadError
from benchmarks.harness.servers import K
from benchmarks.harness.traces import Kind, Trace
from benchmarks.harness.wire import pack

WRITES_AHEAD = 16
"""Writes that may be under way; a server makes them durable together."""

_STALL_SECONDS = 60.0
_RECEIVE_BYTES = 65536


class Policy(Enum):
    """How the caches are used.

    CACHED: as they are. OFF: every search says CACHE OFF. DROP_ALL: a client sends VECTOR.CACHE
    FLUSH after each write, as caches do that cannot repair what they hold.
    """

    CACHED = "cached"
    OFF = "off"
    DROP_ALL = "drop all at each write"


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came back; rows are searches in the order of the trace.

    Attributes:
        seconds: from the first request to the last reply.
        latencies_us: float64, shape (searches,).
        replies: as hiredis gives them.
        acknowledged: int64, shape (searches,): writes that had been when the search was sent.
        sent: int64, shape (searches,): writes that had been when its reply came.
        cpu_us: CPU time of the generator per step.
    """

    seconds: float
    latencies_us: NDArray[np.float64]
    replies: list[Any]
    acknowledged: NDArray[np.int64]
    sent: NDArray[np.int64]
    cpu_us: float


def requests(
    trace: Trace, index: bytes, policy: Policy, informed: NDArray[np.bool_], *, sessions: bool
) -> list[bytes]:
    """The steps of a trace as commands.

    Args:
        informed: bool, shape (n,): searches that ask for WITHINFO.
        sessions: whether a search says to which session it belongs.
    """
    made: dict[tuple[int, bool, int], bytes] = {}
    common: tuple[bytes, ...] = (b"COUNT", b"%d" % K, b"WITHSCORES")
    common += (b"CACHE", b"OFF") if policy is Policy.OFF else trace.options
    vectors = iter(trace.written)
    found = []
    steps = zip(
        trace.kinds.tolist(), trace.what.tolist(), trace.tags.tolist(), informed, strict=True
    )
    for kind, what, tag, info in steps:
        if kind == Kind.SEARCH:
            key = what, bool(info), tag if sessions else -1
            if key not in made:
                words = (*common, b"WITHINFO") if info else common
                words += (b"SESSION", b"%d" % tag) if sessions else ()
                vector = trace.queries[what].tobytes()
                made[key] = pack((b"VECTOR.SEARCH", index, b"FP32", vector, *words))
            found.append(made[key])
        elif kind == Kind.DELETE:
            found.append(pack((b"VECTOR.DEL", index, b"%d" % what)))
        else:
            blob = next(vectors).tobytes()
            found.append(pack((b"VECTOR.ADD", index, b"%d" % what, b"FP32", blob)))
    return found


def replay(
    port: int, trace: Trace, commands: Sequence[bytes], connections: int, after_write: bytes | None
) -> Replayed:
    """Play a trace to its end.

    Args:
        commands: its steps.
        after_write: a command that is sent when a write has been acknowledged; None: none.

    Raises:
        LoadError: the server refused a command, closed a connection, or fell silent.
        OSError: a connection could not be made or failed.
    """
    player = _Player(port, trace, commands, connections, after_write)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        return player.play()
    finally:
        if collecting:
            gc.enable()
        player.close()


def _refuse(error: str) -> NoReturn:
    raise LoadError(f"the server answered: {error}")


class _Lane:
    """A connection."""

    __slots__ = ("reader", "search", "socket", "started")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_STALL_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = hiredis.Reader(replyError=_refuse)
        self.search = 0
        self.started = 0

    def receive(self) -> None:
        chunk = self.socket.recv(_RECEIVE_BYTES)
        if not chunk:
            raise LoadError("the server closed a connection that awaits a reply")
        self.reader.feed(chunk)


class _Player:
    def __init__(
        self,
        port: int,
        trace: Trace,
        commands: Sequence[bytes],
        connections: int,
        after_write: bytes | None,
    ) -> None:
        self._lanes = [_Lane(port) for _ in range(connections)]
        self._writer = _Lane(port)
        self._after_write = after_write
        self._is_write: list[bool] = (trace.kinds != Kind.SEARCH).tolist()
        self._commands = commands
        self._steps: Iterator[int] = iter(range(len(commands)))
        self._held: int | None = None
        # Of each command under way on the writer's connection: whether it is a write.
        self._writing: deque[bool] = deque()
        self._idle: list[_Lane] = []
        self._sent = self._acknowledged = self._searches = 0
        count = trace.searches
        self._latencies = np.empty(count, np.float64)
        self._windows = np.empty((2, count), np.int64)
        self._replies: list[Any] = [None] * count

    def play(self) -> Replayed:
        epoll = select.epoll()
        try:
            lanes = {lane.socket.fileno(): lane for lane in self._lanes}
            for fileno in [*lanes, self._writer.socket.fileno()]:
                epoll.register(fileno, select.EPOLLIN)
            cpu_began, began = time.process_time(), time.perf_counter()
            self._idle = list(self._lanes)
            self._go_on()
            while len(self._idle) < len(self._lanes) or self._writing:
                events = epoll.poll(_STALL_SECONDS)
                if not events:
                    raise LoadError(f"no reply on any connection for {_STALL_SECONDS:.0f} s")
                for fileno, _ in events:
                    lane = lanes.get(fileno)
                    if lane is None:
                        self._hear_writer()
                    else:
                        self._hear(lane)
                self._go_on()
            seconds = time.perf_counter() - began
            cpu_us = (time.process_time() - cpu_began) / max(1, len(self._commands)) * 1e6
        finally:
            epoll.close()
        acknowledged, sent = self._windows
        return Replayed(seconds, self._latencies, self._replies, acknowledged, sent, cpu_us)

    def close(self) -> None:
        for lane in (*self._lanes, self._writer):
            lane.socket.close()

    def _go_on(self) -> None:
        """Send what comes next, as long as there is somewhere to send it."""
        while self._idle:
            step = self._held if self._held is not None else next(self._steps, None)
            self._held = None
            if step is None:
                return
            if self._is_write[step]:
                if len(self._writing) >= WRITES_AHEAD:
                    self._held = step
                    return
                self._write(self._commands[step])
            else:
                self._search(self._idle.pop(), self._commands[step])

    def _search(self, lane: _Lane, command: bytes) -> None:
        lane.search = self._searches
        self._searches += 1
        self._windows[0, lane.search] = self._acknowledged
        lane.started = time.perf_counter_ns()
        lane.socket.sendall(command)

    def _hear(self, lane: _Lane) -> None:
        lane.receive()
        reply = lane.reader.gets()
        if reply is False:
            return
        self._latencies[lane.search] = (time.perf_counter_ns() - lane.started) / 1e3
        self._windows[1, lane.search] = self._sent
        self._replies[lane.search] = reply
        self._idle.append(lane)

    def _write(self, command: bytes) -> None:
        self._sent += 1
        self._writing.append(True)
        self._writer.socket.sendall(command)

    def _hear_writer(self) -> None:
        self._writer.receive()
        while self._writer.reader.gets() is not False:
            if not self._writing.popleft():
                continue
            self._acknowledged += 1
            if self._after_write is not None:
                self._writing.append(False)
                self._writer.socket.sendall(self._after_write)
