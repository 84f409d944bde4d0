"""One search: what is asked, what comes back, and the work of a batch of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pyrope.engine.base import SearchOptions, VectorIndex
from pyrope.engine.filter import Filter
from pyrope.types import Mask, Metric


@dataclass(slots=True, eq=False)
class SearchRequest:
    """A search that waits for its batch, or runs.

    Attributes:
        client: whose turn it takes in a batch.
        future: resolves to `Hits`.
        query: little-endian float32, 4·dim bytes, finite.
        count: most hits wanted.
        exact: scan everything.
        epsilon: most distance of a hit (COSINE and IP: 1 - score; L2: the score); None: any.
        with_attributes: whether `Hits.attributes` is wanted.
        queued_at: monotonic time in seconds.
    """

    client: Hashable
    future: asyncio.Future[Hits]
    query: bytes
    count: int
    options: SearchOptions
    exact: bool
    filter: Filter | None
    epsilon: float | None
    with_attributes: bool
    queued_at: float

    @property
    def group(self) -> tuple[Hashable, ...]:
        """Requests of one batch whose groups are equal share a native call."""
        return self.exact, self.count, self.options, self.filter


class Found(NamedTuple):
    """What a batch found for one request, still as slots.

    Attributes:
        began_at, ended_at: monotonic times of the native call that found it.
    """

    slots: list[int]
    scores: list[float]
    began_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class Hits:
    """The answer to one search, nearest first.

    Attributes:
        ids: as `IdMap` encodes them.
        attributes: raw JSON of each hit, None where it has none; empty unless asked for.
        exact: whether everything was scanned, so that the answer is proven.
        queue_seconds, search_seconds: spent waiting for a batch, and in it.
    """

    ids: list[bytes]
    scores: list[float]
    attributes: list[bytes | None]
    exact: bool
    queue_seconds: float
    search_seconds: float


def run_batch(
    requests: Sequence[SearchRequest],
    engine: VectorIndex,
    mask_of: Callable[[Filter], Mask],
    monotonic: Callable[[], float],
) -> list[Found | BaseException]:
    """Answer a batch, in any thread. Requests alike share one native call.

    A group that fails gives its error to its own requests only.
    """
    answers: list[Any] = [None] * len(requests)
    groups: dict[Hashable, list[int]] = {}
    for position, request in enumerate(requests):
        groups.setdefault(request.group, []).append(position)
    for positions in groups.values():
        members = [requests[position] for position in positions]
        try:
            found = _run_group(members, engine, mask_of, monotonic)
        except Exception as error:  # noqa: BLE001 - it goes to whoever asked
            answers_of_group: Sequence[Any] = [error] * len(members)
        else:
            answers_of_group = found
        for position, answer in zip(positions, answers_of_group, strict=True):
            answers[position] = answer
    return answers


def _run_group(
    requests: Sequence[SearchRequest],
    engine: VectorIndex,
    mask_of: Callable[[Filter], Mask],
    monotonic: Callable[[], float],
) -> list[Found]:
    first = requests[0]
    began_at = monotonic()
    queries = np.frombuffer(b"".join([request.query for request in requests]), dtype="<f4")
    queries = queries.reshape(len(requests), engine.dim)
    allowed = None if first.filter is None else mask_of(first.filter)
    if first.exact:
        neighbours = engine.search_exact(queries, first.count, allowed)
    else:
        neighbours = engine.search(queries, first.count, first.options, allowed)
    ended_at = monotonic()
    # One conversion for the whole group: a call per row would cost more than the rows do.
    slots, scores = neighbours.slots.tolist(), neighbours.scores.tolist()
    found = []
    for request, row, row_scores in zip(requests, slots, scores, strict=True):
        kept = len(row)
        while kept and row[kept - 1] < 0:
            kept -= 1
        if request.epsilon is not None:
            kept = _within(row_scores[:kept], request.epsilon, engine.metric)
        found.append(Found(row[:kept], row_scores[:kept], began_at, ended_at))
    return found


def _within(scores: list[float], epsilon: float, metric: Metric) -> int:
    """How many of the scores, nearest first, are within a distance."""
    if metric.higher_is_nearer:
        return sum(1 for score in scores if 1.0 - score <= epsilon)
    return sum(1 for score in scores if score <= epsilon)
