"""Randomized operations over the wire, each answer held against a plain model.

They come in bursts: some searches and at most one write, each over a connection of its own, sent
before any reply is read. So searches wait for one another's results and overlap with writes; a
search may have been answered before or after the write of its burst. The next burst to the same
index is sent when all have been answered: what was acknowledged has to be in it. Meanwhile others
are on their way to other indexes, so that neither side waits for the other.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import hiredis
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.paced import LoadError
from benchmarks.harness.plain_model import FILTERS, Asked, Attributes, PlainModel
from benchmarks.harness.progress import Progress
from benchmarks.harness.servers import Pyrope
from benchmarks.harness.wire import pack

DIM = 16
METRICS = ("COSINE", "L2", "IP")
INDEXES_OF_EACH = 4
SIZE, CAPACITY = 400, 800
"""Vectors of an index at first, and at most."""

QUERIES = 12
"""Distinct queries of an index at a time; one of them is replaced now and then."""

SEARCHES_AT_ONCE = 8

_WRITES, _REPLACED, _FLUSHED = 0.6, 0.02, 0.002
"""Chances that a burst writes, replaces a query, and empties the cache before."""

_CALL_SECONDS = 60.0


@dataclass(slots=True)
class Correctness:
    """What came of it.

    Attributes:
        operations: searches and writes.
        by_level: searches that asked for WITHINFO, by what it said.
        refused: searches with CACHE ONLY that found nothing.
        wrong: answers that no moment since they were asked explains.
        examples: of those, the first few.
        counters: VECTOR.CACHE STATS, summed over the indexes.
    """

    operations: int = 0
    searches: int = 0
    writes: int = 0
    by_level: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    wrong: int = 0
    examples: list[str] = field(default_factory=list)
    counters: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Search:
    asked: Asked
    query: NDArray[np.float32]
    words: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Write:
    id: int
    words: tuple[bytes, ...]
    vector: NDArray[np.float32] | None = None
    attributes: Attributes | None = None


class _Connection:
    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), _CALL_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def send(self, words: tuple[bytes, ...]) -> None:
        self._socket.sendall(pack(words))

    def receive(self) -> Any:
        """The next reply; an error as an object."""
        while (reply := self._reader.gets()) is False:
            chunk = self._socket.recv(65536)
            if not chunk:
                raise LoadError("the server closed a connection that awaits a reply")
            self._reader.feed(chunk)
        return reply

    def call(self, *words: bytes) -> Any:
        self.send(words)
        reply = self.receive()
        if isinstance(reply, hiredis.ReplyError):
            raise LoadError(f"the server answered {words[0].decode()} with: {reply}")
        return reply

    def close(self) -> None:
        self._socket.close()


def run(
    servers: Sequence[Pyrope], operations: int, seed: int, progress: Progress, *, near: bool
) -> Correctness:
    """So many operations or a few more, on some indexes of each metric.

    Args:
        servers: that the indexes are divided among.
        near: whether some searches ask for near hits that are proven (MINRECALL 1 CERTIFIED).

    Raises:
        LoadError: the server refused what it should do, or fell silent.
        OSError: a connection failed.
    """
    found = Correctness()
    names = [(metric, number) for number in range(INDEXES_OF_EACH) for metric in METRICS]
    with contextlib.ExitStack() as connected:
        worlds = []
        for metric, number in names:
            server = servers[number % len(servers)]
            connections = [_Connection(server.port) for _ in range(SEARCHES_AT_ONCE + 1)]
            for connection in connections:
                connected.callback(connection.close)
            chooser = random.Random(f"{seed} {metric} {number}")
            worlds.append(_World(metric, number, connections, chooser, near=near))
        bursts = 0
        while found.operations < operations:
            world = worlds[bursts % len(worlds)]
            world.judge(found)
            world.send()
            bursts += 1
            if not bursts % 64:
                progress.part(min(found.operations, operations), operations)
        for world in worlds:
            world.judge(found)
            world.close(found)
    return found


class _World:
    """An index, the model that says what it holds, and the burst that is on its way to it."""

    def __init__(
        self,
        metric: str,
        number: int,
        connections: list[_Connection],
        chooser: random.Random,
        *,
        near: bool,
    ) -> None:
        self._index = f"random-{metric.lower()}-{number}".encode()
        self._model = PlainModel(metric, DIM, CAPACITY)
        self._connections = connections
        self._chooser = chooser
        self._generator = np.random.default_rng(chooser.getrandbits(63))
        # Without a bound on norms, inner products of one query say nothing about another's.
        self._near = near and metric != "IP"
        self._newest = 0
        self._sent: list[tuple[_Connection, _Search | _Write]] = []
        create = (b"DIM", b"%d" % DIM, b"METRIC", metric.encode(), b"TYPE", b"FLAT")
        call = connections[0].call
        call(b"VECTOR.DROP", self._index)
        call(b"VECTOR.CREATE", self._index, *create)
        for _ in range(SIZE):
            write = self._add()
            call(*write.words)
            self._apply(write)
        self._queries = [self._vector() for _ in range(QUERIES)]

    def send(self) -> None:
        """Send some operations at once."""
        chooser = self._chooser
        if chooser.random() < _REPLACED:
            self._queries[chooser.randrange(QUERIES)] = self._vector()
        if chooser.random() < _FLUSHED:
            self._connections[0].call(b"VECTOR.CACHE", b"FLUSH", self._index)
        searches = [self._search() for _ in range(chooser.randint(0, SEARCHES_AT_ONCE))]
        operations: list[_Search | _Write] = [*searches]
        if chooser.random() < _WRITES:
            operations.insert(chooser.randint(0, len(searches)), self._write())
        chooser.shuffle(self._connections)
        self._sent = list(zip(self._connections, operations, strict=False))
        for connection, operation in self._sent:
            connection.send(operation.words)

    def judge(self, found: Correctness) -> None:
        """Judge what comes back of what was sent."""
        sent, self._sent = self._sent, []
        replies = [(operation, connection.receive()) for connection, operation in sent]
        doubtful: list[tuple[_Search, Any]] = []
        writes: list[_Write] = []
        for operation, reply in replies:
            if isinstance(operation, _Search):
                if not self._is_right(operation, reply, found):
                    doubtful.append((operation, reply))
                continue
            if isinstance(reply, hiredis.ReplyError):
                command = operation.words[0].decode()
                raise LoadError(f"the server answered {command} with: {reply}")
            writes.append(operation)
        for write in writes:
            self._apply(write)
            doubtful = [one for one in doubtful if not self._is_right(*one)]
        found.operations += len(sent)
        found.searches += len(sent) - len(writes)
        found.writes += len(writes)
        found.wrong += len(doubtful)
        room = 5 - len(found.examples)
        found.examples += [self._told(*one) for one in doubtful[: max(0, room)]]

    def close(self, found: Correctness) -> None:
        """Add up the counters, and drop the index."""
        call = self._connections[0].call
        flat = call(b"VECTOR.CACHE", b"STATS", self._index)
        for name, value in zip(flat[::2], flat[1::2], strict=True):
            if isinstance(value, int):
                key = name.decode()
                found.counters[key] = found.counters.get(key, 0) + value
        call(b"VECTOR.DROP", self._index)

    # -- drawing ----------------------------------------------------------------------------------

    def _search(self) -> _Search:
        chooser = self._chooser
        query = self._queries[min(int(chooser.paretovariate(1.0)) - 1, QUERIES - 1)]
        asked = Asked(
            chooser.choice((1, 5, 10, 10, 10, 50)),
            chooser.choice((None, None, None, *FILTERS)),
            chooser.choice((None, None, None, 0.6 if self._model.metric == "COSINE" else 4.0)),
        )
        words: list[bytes] = [b"COUNT", b"%d" % asked.count, b"WITHSCORES"]
        if asked.filter is not None:
            words += [b"FILTER", asked.filter.encode()]
        if asked.epsilon is not None:
            words += [b"EPSILON", b"%g" % asked.epsilon]
        if chooser.random() < 0.2:
            words += [b"CACHE", chooser.choice((b"ONLY", b"REFRESH", b"OFF"))]
        elif self._near and chooser.random() < 0.3:
            words += [b"MINRECALL", b"1", b"CERTIFIED"]
            step = 0.02 * self._generator.standard_normal(DIM)
            query = (query + step).astype(np.float32)
        options = ((b"TRUTH", 0.1), (b"WITHATTRIBS", 0.2), (b"WITHINFO", 0.3))
        words += [word for word, chance in options if chooser.random() < chance]
        vector = (b"VECTOR.SEARCH", self._index, b"FP32", query.tobytes())
        return _Search(asked, query, (*vector, *words))

    def _write(self) -> _Write:
        chooser, stored = self._chooser, self._model.ids
        kind = chooser.choices(("add", "update", "delete", "describe"), (3, 3, 2, 2))[0]
        if len(stored) >= CAPACITY - 1:
            kind = "delete"
        elif len(stored) < SIZE // 2:
            kind = "add"
        if kind == "add":
            return self._add()
        id_ = chooser.choice(stored)
        name = b"%d" % id_
        if kind == "update":
            return self._put(id_)
        if kind == "delete":
            return _Write(id_, (b"VECTOR.DEL", self._index, name))
        attributes = self._attributes()
        words = (b"VECTOR.SETATTR", self._index, name, json.dumps(attributes).encode())
        return _Write(id_, words, attributes=attributes)

    def _add(self) -> _Write:
        self._newest += 1
        return self._put(self._newest)

    def _put(self, id_: int) -> _Write:
        """Anywhere, or near a query, so that answers change often."""
        vector = self._vector()
        if self._chooser.random() < 0.3 and self._newest > SIZE:
            step = 0.3 * self._generator.standard_normal(DIM)
            vector = (self._chooser.choice(self._queries) + step).astype(np.float32)
        words: tuple[bytes, ...] = (b"VECTOR.ADD", self._index, b"%d" % id_)
        words += (b"FP32", vector.tobytes())
        if self._chooser.random() < 0.3:
            return _Write(id_, words, vector)
        attributes = self._attributes()
        words += (b"SETATTR", json.dumps(attributes).encode())
        return _Write(id_, words, vector, attributes)

    def _attributes(self) -> Attributes:
        chooser = self._chooser
        made: dict[str, Any] = {}
        if chooser.random() < 0.8:
            made["n"] = chooser.randrange(10)
        if chooser.random() < 0.8:
            made["tag"] = chooser.choice("abc")
        return made

    def _vector(self) -> NDArray[np.float32]:
        return self._generator.standard_normal(DIM).astype(np.float32)

    # -- judging ----------------------------------------------------------------------------------

    def _apply(self, write: _Write) -> None:
        if write.vector is not None:
            self._model.put(write.id, write.vector, write.attributes)
        elif write.attributes is not None:
            self._model.describe(write.id, write.attributes)
        else:
            self._model.remove(write.id)

    def _is_right(self, search: _Search, reply: Any, found: Correctness | None = None) -> bool:
        """Whether the index as it is now explains a reply.

        Args:
            found: is told of the level; None: has been already.
        """
        if isinstance(reply, hiredis.ReplyError):
            if b"ONLY" not in search.words or not str(reply).startswith("BUSY"):
                raise LoadError(f"the server answered a search with: {reply}")
            if found is not None:
                found.refused += 1
            return True
        if b"WITHINFO" in search.words:
            reply, info = reply
            if found is not None:
                level = info[info.index(b"cache") + 1].decode()
                found.by_level[level] = found.by_level.get(level, 0) + 1
        step = 3 if b"WITHATTRIBS" in search.words else 2
        ids = [int(one) for one in reply[::step]]
        scores = [float(one) for one in reply[1::step]]
        if not self._model.is_answer(search.asked, search.query, ids, scores):
            return False
        if step == 2:
            return True
        said = [json.loads(one) if one else {} for one in reply[2::step]]
        return said == [self._model.attributes_of(one) for one in ids]

    def _told(self, search: _Search, reply: Any) -> str:
        options = b" ".join(search.words[4:]).decode()
        return f"{self._model.metric} {options}: {reply}"
