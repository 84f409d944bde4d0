"""What is sent: pings, searches, hits of the cache, new vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, cycle

import numpy as np
from numpy.typing import NDArray

from pyrope.console.connection import Connection
from pyrope.console.replies import encode_command

_QUERIES = 2000
"""Queries of `search`, so many that no two near in time are alike."""
_HIT_QUERIES = 64
_ADDED_VECTORS = 5000
"""Vectors that `add` goes round, under ever new ids."""
_FILL_BYTES = 8 * 2**20

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to put on a server.

    Attributes:
        workload: one of `pyrope.bench.command.WORKLOADS`.
        index: its name; it is made, and has to be new.
        type: as of VECTOR.CREATE.
        dim: of vectors.
        vectors: in the index when searches begin.
        count: results of a search.
        pipeline: requests that are sent at once.
        seed: of the random vectors.
    """

    workload: str
    index: str
    type: str
    dim: int
    vectors: int
    count: int
    pipeline: int
    seed: int

    @property
    def needs_index(self) -> bool:
        return self.workload != "ping"


def prepare(plan: Plan, connection: Connection, progress: Callable[[int], None]) -> Iterator[bytes]:
    """Make the index ready. Returns batches of requests, without an end.

    Args:
        progress: told how many vectors are in.

    Raises:
        ReplyError: the server refuses.
        OSError: the connection failed.
    """
    rng = np.random.default_rng(plan.seed)
    if plan.workload == "ping":
        return cycle([encode_command("PING") * plan.pipeline])
    connection.command("VECTOR.CREATE", plan.index, "DIM", plan.dim, "TYPE", plan.type)
    if plan.workload == "add":
        return _adds(plan, _random(rng, _ADDED_VECTORS, plan.dim))
    _fill(plan, connection, rng, progress)
    hits = plan.workload == "hit"
    queries = _random(rng, _HIT_QUERIES if hits else _QUERIES, plan.dim)
    options = ("COUNT", plan.count, *(() if hits else ("CACHE", "OFF")))
    requests = [
        encode_command("VECTOR.SEARCH", plan.index, "FP32", query.tobytes(), *options)
        for query in queries
    ]
    if hits:
        for query in queries:  # the answers that are hit
            connection.command("VECTOR.SEARCH", plan.index, "FP32", query.tobytes(), *options)
    return _rounds(requests, plan.pipeline)


def _random(rng: np.random.Generator, rows: int, dim: int) -> Matrix:
    return rng.standard_normal((rows, dim), np.float32)


def _fill(
    plan: Plan,
    connection: Connection,
    rng: np.random.Generator,
    progress: Callable[[int], None],
) -> None:
    at_once = max(1, min(1000, _FILL_BYTES // (4 * plan.dim)))
    for start in range(0, plan.vectors, at_once):
        vectors = _random(rng, min(at_once, plan.vectors - start), plan.dim)
        ids = range(start, start + len(vectors))
        connection.command(
            "VECTOR.MADD", plan.index, "FP32", vectors.tobytes(), "IDS", len(ids), *ids
        )
        progress(start + len(vectors))
    connection.command("VECTOR.BUILD", plan.index)


def _rounds(requests: list[bytes], depth: int) -> Iterator[bytes]:
    endless = cycle(requests)
    if depth == 1:
        return endless
    return (b"".join([next(endless) for _ in range(depth)]) for _ in count())


def _adds(plan: Plan, vectors: Matrix) -> Iterator[bytes]:
    blobs = cycle([vector.tobytes() for vector in vectors])
    requests = (
        encode_command("VECTOR.ADD", plan.index, number, "FP32", blob)
        for number, blob in zip(count(), blobs, strict=False)
    )
    if plan.pipeline == 1:
        return requests
    return (b"".join([next(requests) for _ in range(plan.pipeline)]) for _ in count())
