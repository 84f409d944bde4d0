"""One search: what is asked, what comes back, and the work of a batch of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pyrope.engine.base import SearchOptions
from pyrope.engine.batcher import Piece
from pyrope.engine.filter import Filter
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.service.promise import Promise
from pyrope.types import Mask, Metric


@dataclass(slots=True, eq=False)
class Search:
    """What is asked of each query of a request.

    Attributes:
        count: most hits wanted.
        options: effort.
        exact: scan everything.
        filter: only vectors whose attributes it holds for.
        epsilon: most distance of a hit (COSINE and IP: 1 - score; L2: the score); None: any.
        with_attributes: whether `Hits.attributes` is wanted.
    """

    count: int
    options: SearchOptions = field(default_factory=SearchOptions)
    exact: bool = False
    filter: Filter | None = None
    epsilon: float | None = None
    with_attributes: bool = False


class Hits(NamedTuple):
    """The answer to one query, nearest first.

    Attributes:
        ids: as `IdMap` encodes them.
        attributes: raw JSON of each hit, None where it has none; empty unless asked for.
        exact: whether everything was scanned, so that the answer is proven.
        queue_seconds, search_seconds: spent waiting for a batch, and in it.
        slots: of the hits.
        whole: whether they are known to be everything that takes part.
        matching: vectors that the filter lets through, about; None: there is no filter, or nobody
            has looked.
    """

    ids: list[bytes]
    scores: list[float]
    attributes: list[bytes | None]
    exact: bool
    queue_seconds: float
    search_seconds: float
    slots: list[int]
    whole: bool
    matching: int | None = None


class SearchRequest(Promise[list[Hits]]):
    """Queries that wait for their batches, or run. The outcome is one `Hits` for each.

    Attributes:
        client: whose turn it takes in a batch.
        queries: n·dim little-endian float32, finite.
        weight: n.
        asked: what is asked of each.
        queued_at: monotonic time in seconds.
    """

    __slots__ = ("_hits", "_missing", "asked", "client", "queries", "queued_at", "weight")

    def __init__(
        self, client: Hashable, queries: bytes, weight: int, asked: Search, queued_at: float
    ) -> None:
        super().__init__()
        self.client = client
        self.queries = queries
        self.weight = self._missing = weight
        self.asked = asked
        self.queued_at = queued_at
        self._hits: list[Hits] = []

    def answer(self, start: int, hits: list[Hits]) -> None:
        """The answers to the queries from `start` on; the last of them settle the outcome."""
        if len(hits) == self.weight:
            self.set_result(hits)
            return
        if not self._hits:
            self._hits = [_MISSING] * self.weight
        self._hits[start : start + len(hits)] = hits
        self._missing -= len(hits)
        if not self._missing:
            self.set_result(self._hits)


_MISSING = Hits(
    [], [], [], exact=False, queue_seconds=0.0, search_seconds=0.0, slots=[], whole=False
)


class Found(NamedTuple):
    """What a batch found for one piece of a request, still as slots: a row for each query.

    Attributes:
        exact: whether everything that takes part was scanned.
        whole: of each row, whether it is known to be everything that takes part.
        began_at, ended_at: monotonic times of the native call that found it.
        matching: as of `Hits`.
    """

    slots: list[list[int]]
    scores: list[list[float]]
    exact: bool
    whole: list[bool]
    began_at: float
    ended_at: float
    matching: int | None


def run_batch(
    pieces: Sequence[Piece[SearchRequest]],
    engine: HeadTailIndex,
    mask_of: Callable[[Filter], Mask],
    monotonic: Callable[[], float],
) -> list[Found | BaseException]:
    """Answer a batch, in any thread. Pieces alike share one native call.

    A group that fails gives its error to its own requests only.
    """
    answers: list[Any] = [None] * len(pieces)
    groups: dict[Hashable, list[int]] = {}
    for position, piece in enumerate(pieces):
        groups.setdefault(_group(piece.request.asked), []).append(position)
    for positions in groups.values():
        members = [pieces[position] for position in positions]
        try:
            found: Sequence[Any] = _run_group(members, engine, mask_of, monotonic)
        except Exception as error:  # noqa: BLE001 - it goes to whoever asked
            found = [error] * len(members)
        for position, answer in zip(positions, found, strict=True):
            answers[position] = answer
    return answers


# A scan's cost does not depend on the count up to about here.
_SCAN_COUNT = 32


def _group(asked: Search) -> tuple[Hashable, ...]:
    """Pieces of one batch whose groups are equal share a native call.

    Those that differ in their counts do so as long as the largest costs no more than the smallest:
    a beam is wide enough for twice the count even where some of what it holds takes no part.
    """
    free = (asked.options.ef or 2 * _SCAN_COUNT) // 2
    return asked.exact, asked.count if asked.count > free else 0, asked.options, asked.filter


def _run_group(
    pieces: Sequence[Piece[SearchRequest]],
    engine: HeadTailIndex,
    mask_of: Callable[[Filter], Mask],
    monotonic: Callable[[], float],
) -> list[Found]:
    asked = pieces[0].request.asked
    began_at = monotonic()
    size = 4 * engine.dim
    blobs = [
        request.queries
        if request.weight == stop - start
        else request.queries[start * size : stop * size]
        for request, start, stop in pieces
    ]
    queries = np.frombuffer(b"".join(blobs), dtype="<f4").reshape(-1, engine.dim)
    count = max([piece.request.asked.count for piece in pieces])
    allowed = None if asked.filter is None else mask_of(asked.filter)
    matching = None if allowed is None else int(np.count_nonzero(allowed))
    if asked.exact:
        neighbours = engine.search_exact(queries, count, allowed)
    else:
        neighbours = engine.search(queries, count, asked.options, allowed)
    ended_at = monotonic()
    exact = asked.exact or engine.is_exact(asked.options)
    # One conversion for the whole group: a call per row would cost more than the rows do.
    slots, scores = neighbours.slots.tolist(), neighbours.scores.tolist()
    width = neighbours.slots.shape[1]
    found = []
    row = 0
    for request, start, stop in pieces:
        end = row + stop - start
        whole = [False] * (stop - start)
        for i in range(row, end):
            # Fewer than there are, where a bound on distances has cut the search short.
            if width < request.asked.count and (exact or asked.options.max_scans is None):
                whole[i - row] = not width or slots[i][-1] >= 0
            kept = hits_wanted(slots[i], scores[i], request.asked, engine.metric)
            if kept < len(slots[i]):
                slots[i], scores[i] = slots[i][:kept], scores[i][:kept]
        found.append(
            Found(slots[row:end], scores[row:end], exact, whole, began_at, ended_at, matching)
        )
        row = end
    return found


def hits_wanted(slots: list[int], scores: list[float], asked: Search, metric: Metric) -> int:
    """How many of the neighbours, nearest first, are hits."""
    kept = min(len(slots), asked.count)
    while kept and slots[kept - 1] < 0:
        kept -= 1
    if asked.epsilon is not None:
        return _within(scores[:kept], asked.epsilon, metric)
    return kept


def _within(scores: list[float], epsilon: float, metric: Metric) -> int:
    """How many of the scores, nearest first, are within a distance."""
    if metric.higher_is_nearer:
        return sum(1 for score in scores if 1.0 - score <= epsilon)
    return sum(1 for score in scores if score <= epsilon)
