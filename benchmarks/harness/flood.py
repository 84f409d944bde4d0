"""A flood: commands pipelined over many connections, as fast as they are answered.

It is there to be in somebody's way, so that nothing is noted but how much was answered. It runs in
a process of its own, beside that of the load generator.
"""

from __future__ import annotations

import multiprocessing
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from types import TracebackType
from typing import NoReturn, Self

import hiredis

from benchmarks.harness.paced import LoadError
from benchmarks.harness.wire import Recipe, opened

_RECEIVE_BYTES = 65536
_PAUSE_SECONDS = 0.05
_FIRST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class FloodJob:
    """What is sent.

    Attributes:
        port: on 127.0.0.1.
        opening: a command that each connection begins with; empty: none.
        recipe: of the commands, which are gone round.
        depth: commands of each connection that are under way at any time.
    """

    port: int
    opening: bytes
    recipe: Recipe
    connections: int
    depth: int


class Flood:
    """Begins when it is entered, when every connection has had an answer, and ends when left.

    Attributes:
        rate: commands answered per second, afterwards.
    """

    def __init__(self, job: FloodJob) -> None:
        self.rate = 0.0
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(job, theirs), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        if not self._pipe.poll(_FIRST_SECONDS) or self._pipe.recv() != "begun":
            self._process.kill()
            raise LoadError("the flood has not begun")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._pipe.send("enough")
                if self._pipe.poll(_FIRST_SECONDS):
                    self.rate = self._pipe.recv()
        except (EOFError, OSError) as failure:
            raise LoadError("the flood has ended by itself") from failure
        finally:
            self._process.kill()
            self._process.join()


class _Connection:
    """What is under way on one: its parser, and the number of the next command."""

    def __init__(self, number: int) -> None:
        self._reader = hiredis.Reader(replyError=_refuse)
        self._number = number

    def replies(self, data: bytes) -> int:
        """How many replies have come to their end."""
        self._reader.feed(data)
        ended = 0
        while self._reader.gets() is not False:
            ended += 1
        return ended

    def following(self, wanted: int, requests: Sequence[bytes]) -> bytes:
        """The next so many commands."""
        first = self._number
        self._number += wanted
        return b"".join([requests[(first + i) % len(requests)] for i in range(wanted)])


def _refuse(error: str) -> NoReturn:
    raise LoadError(f"the server answered the flood: {error}")


def _run(job: FloodJob, pipe: Pipe) -> None:
    """In a process of its own."""
    requests = job.recipe.encode()
    count = len(requests)
    sockets = [opened(job.port, job.opening) for _ in range(job.connections)]
    epoll = select.epoll()
    connections = {}
    for number, each in enumerate(sockets):
        one = connections[each.fileno()] = _Connection(number * count // job.connections)
        epoll.register(each.fileno(), select.EPOLLIN)
        each.sendall(one.following(job.depth, requests))
    by_fileno = {each.fileno(): each for each in sockets}
    answered, began = 0, time.perf_counter()
    silent = set(connections)
    while not pipe.poll():
        until = time.perf_counter() + _PAUSE_SECONDS
        while time.perf_counter() < until:
            for fileno, _ in epoll.poll(_PAUSE_SECONDS):
                one, each = connections[fileno], by_fileno[fileno]
                replies = one.replies(each.recv(_RECEIVE_BYTES))
                if replies:
                    answered += replies
                    each.sendall(one.following(replies, requests))
                    silent.discard(fileno)
        if not silent:
            pipe.send("begun")
            answered, began = 0, time.perf_counter()
            # Never again.
            silent = {-1}
    pipe.send(answered / (time.perf_counter() - began))
