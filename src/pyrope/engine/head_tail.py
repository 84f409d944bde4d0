"""The engine of every index: an exact head for what is new, and a tail for the rest.

A vector that comes in is a row for the head to scan, which costs nothing to write and is found at
once. Later, slice by slice, a merger moves vectors into the tail: a graph or inverted lists, whose
insertions take long. The idea is that of log-structured merge trees (O'Neil et al., Acta
Informatica 33, 1996), with two components. A search asks both and is exact about the head.

Every live slot is in exactly one of the two. An index without a tail is exact throughout, which is
what FLAT is, and every other type until it holds enough vectors.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pyrope.engine.base import (
    EngineStatistics,
    Neighbours,
    PreparedUpsert,
    SearchOptions,
    TailIndex,
    VectorSource,
)
from pyrope.engine.exact import ExactScan
from pyrope.engine.head import Head
from pyrope.engine.norm_bound import NormBound
from pyrope.engine.normalise import row_norms
from pyrope.engine.query_counters import QueryCounters
from pyrope.engine.rerank import Reranker
from pyrope.engine.slot_table import SlotTable
from pyrope.types import Float32Matrix, Mask, Metric, Slots

# Rows of the head times queries, up to which they are scored pair by pair.
_SHORT = 2**15
# Rows whose norms are computed at a time.
_NORM_ROWS = 1024


_Pairs = tuple[NDArray[np.intp], Slots, NDArray[np.float32]]
"""Numbers of queries, slots, and their scores."""


class HeadTailIndex:
    """See `VectorIndex` for the groups of calls; `append` is apart from them.

    Args:
        metric: as of the index.
        dim: as of the index.
        source: the raw rows.

    Attributes:
        tail: None while there is none.
        tail_changes: slots that have come into the tail or gone from it, since the start.
    """

    def __init__(self, metric: Metric, dim: int, source: VectorSource) -> None:
        self.metric = metric
        self.dim = dim
        self.tail: TailIndex | None = None
        self.tail_changes = 0
        self._source = source
        self._table = SlotTable()
        # Only for what is scored by products does it matter how long vectors are.
        self._norm_bound = NormBound(self._table) if metric is Metric.IP else None
        self._scan = ExactScan(metric, dim, source, self._table)
        self._reranker = Reranker(metric, source, self._table, self._scan)
        self._head = Head(metric, dim, source, copied=False)
        self._counters = QueryCounters()
        # Held while table or head change: `append` comes from one thread while a merge, a delete
        # or `install`, which have the index to themselves otherwise, run in another.
        self._head_changes = threading.Lock()
        self._past = EngineStatistics()

    def __len__(self) -> int:
        return len(self._table)

    @property
    def honours(self) -> frozenset[str]:
        return frozenset({"max_scans"}) if self.tail is None else self.tail.honours

    @property
    def head_count(self) -> int:
        """Vectors that are scanned by every search."""
        return len(self._head)

    @property
    def tail_count(self) -> int:
        return 0 if self.tail is None else len(self.tail)

    @property
    def deleted_count(self) -> int:
        return 0 if self.tail is None else self.tail.deleted_count

    @property
    def memory_bytes(self) -> int:
        tail = 0 if self.tail is None else self.tail.memory_bytes
        return self._table.nbytes + self._head.nbytes + tail

    @property
    def parameters(self) -> dict[str, int]:
        """What training has chosen (see `TailIndex.parameters`); empty without a tail."""
        return {} if self.tail is None else self.tail.parameters

    @property
    def norm_bound(self) -> float:
        """What no vector's norm exceeds, but for a rounding to float32; inf unless for IP."""
        return float("inf") if self._norm_bound is None else self._norm_bound.value()

    def mean_norm(self) -> float:
        """Of the vectors it holds; 0 without any. Takes 1 ms for a million; in any thread."""
        live = self._table.live
        norms = self._table.norms[: len(live)]
        return float(norms.mean(where=live, dtype=np.float64)) if live.any() else 0.0

    def statistics(self) -> EngineStatistics:
        now = EngineStatistics() if self.tail is None else self.tail.statistics()
        return self._past + now + self._counters.read()

    # -- searching --------------------------------------------------------------------------------

    def is_exact(self, options: SearchOptions) -> bool:
        """Whether a search with these options is a full scan, and so gives the true neighbours."""
        bounded = options.max_scans is not None and options.max_scans < len(self)
        return not self.tail_count and not bounded

    def search_exact(
        self, queries: Float32Matrix, k: int, allowed: Mask | None = None
    ) -> Neighbours:
        self._counters.add(scan=len(queries))
        return self._scan.search(queries, k, allowed)

    def search(
        self, queries: Float32Matrix, k: int, options: SearchOptions, allowed: Mask | None = None
    ) -> Neighbours:
        tail = self.tail
        if tail is None or not len(tail):
            self._counters.add(scan=len(queries))
            return self._scan.search(queries, k, allowed, limit=options.max_scans)
        if not len(self._head) or not len(queries):
            return tail.search(queries, k, options, allowed)
        limit = None
        if options.max_scans is not None:
            # Half of what is allowed is for the head, or less where that is enough.
            limit = min(len(self._head), options.max_scans // 2)
            options = replace(options, max_scans=options.max_scans - limit)
        found = tail.search(queries, k, options, allowed)
        return self._with_head(queries, k, found, allowed, limit)

    def _with_head(
        self,
        queries: Float32Matrix,
        k: int,
        found: Neighbours,
        allowed: Mask | None,
        limit: int | None,
    ) -> Neighbours:
        """What the tail has found, and what of the head belongs among it."""
        full = np.zeros(len(queries), dtype=np.bool_)
        if found.slots.shape[1] == k:
            full = found.slots[:, -1] >= 0
        near = None
        if limit is None and allowed is None and full.all():
            near = self._head.nearer(queries, found.scores[:, -1])
        if near is not None:
            rows, slots, scores = self._scored(queries, *near)
        elif limit is None and len(self._head) * len(queries) <= _SHORT:
            rows, slots, scores = self._short_head(queries, found, full, allowed)
        else:
            rows, slots, scores = self._long_head(queries, k, found, full, allowed, limit)
        if not len(rows):
            return found
        width = found.slots.shape[1]
        there = np.nonzero(found.slots >= 0)
        rows = np.concatenate([there[0], rows])
        slots = np.concatenate([found.slots[there], slots])
        scores = np.concatenate([found.scores[there], scores])
        order = np.lexsort((slots, -scores if self.metric.higher_is_nearer else scores, rows))
        rows, slots, scores = rows[order], slots[order], scores[order]
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)
        best = place < k
        rows, place = rows[best], place[best]
        width = max(width, int(place.max()) + 1)
        merged = Neighbours.nothing(len(queries), width)
        merged.slots[rows, place] = slots[best]
        merged.scores[rows, place] = scores[best]
        return merged

    def _scored(self, queries: Float32Matrix, rows: NDArray[np.intp], slots: Slots) -> _Pairs:
        """Pairs of numbers of queries and slots, with their scores."""
        if not len(rows):
            return _no_pairs()
        order = np.argsort(rows, kind="stable")
        rows, slots = rows[order], slots[order]
        some, first, counts = np.unique(rows, return_index=True, return_counts=True)
        line = np.repeat(np.arange(len(some)), counts)
        column = np.arange(len(rows)) - np.repeat(first, counts)
        candidates = np.full((len(some), counts.max()), -1, dtype=np.int64)
        candidates[line, column] = slots
        return rows, slots, self._reranker.scores(queries[some], candidates)[line, column]

    def _short_head(
        self, queries: Float32Matrix, found: Neighbours, full: Mask, allowed: Mask | None
    ) -> _Pairs:
        """What of the head is nearer than the floor, by one native call and little else.

        Each native call gives the GIL away and waits for it again, beside a busy event loop for
        longer than a few hundred rows take.
        """
        listed = self._head.listed(allowed)
        if not len(listed):
            return _no_pairs()
        candidates = np.repeat(listed[None], len(queries), axis=0)
        scores = self._reranker.scores(queries, candidates)
        higher = self.metric.higher_is_nearer
        floor = np.full(len(queries), -np.inf if higher else np.inf, dtype=np.float32)
        if full.any():
            floor[full] = found.scores[full, -1]
        better = scores > floor[:, None] if higher else scores < floor[:, None]
        rows, columns = np.nonzero(better)
        return rows, listed[columns], scores[rows, columns]

    def _long_head(
        self,
        queries: Float32Matrix,
        k: int,
        found: Neighbours,
        full: Mask,
        allowed: Mask | None,
        limit: int | None,
    ) -> _Pairs:
        """What of the head is at least as near as the floor, in bounded memory."""
        rows, slots, scores = _no_pairs()
        if not full.all():
            rows, slots, scores = self._best_of_head(queries[~full], k, allowed, limit)
            rows = np.flatnonzero(~full)[rows]
        if full.any():
            floor = found.scores[full, -1]
            near, more = self._head.better(queries[full], floor, allowed, limit)
            near = np.flatnonzero(full)[near]
            rows, slots = np.concatenate([rows, near]), np.concatenate([slots, more])
            scores = np.concatenate([scores, self._scan.rescore(queries, near, more)])
        return rows, slots, scores

    def _best_of_head(
        self, queries: Float32Matrix, k: int, allowed: Mask | None, limit: int | None
    ) -> _Pairs:
        """The k best of the head."""
        mask = self._head.mask(len(self._table.live))
        if allowed is not None:
            mask = mask[: len(allowed)] & allowed[: len(mask)]
        found = self._scan.search(queries, k, mask, limit=limit)
        there = np.nonzero(found.slots >= 0)
        return there[0], found.slots[there], found.scores[there]

    def live(self, slots: Slots) -> Slots:
        """Those of the slots that hold a vector."""
        alive: Slots = slots[self._table.live[slots]]
        return alive

    def scores(
        self, query: Float32Matrix, slots: Slots, nearest: int, *, exact: bool
    ) -> NDArray[np.float32]:
        """Scores of one query, shape (1, dim), with live slots.

        Args:
            nearest: so many of the best, and all that may be among them for what rounding does,
                are scored as a search scores them; the others may be off by a rounding.
            exact: as a full scan does, whatever the tail.
        """
        if not len(slots):
            return np.empty(0, dtype=np.float32)
        best = np.arange(len(slots))
        if nearest < len(slots):
            scores = self._reranker.scores_nearby(query, slots)
            keys = (-scores if self.metric.higher_is_nearer else scores).astype(np.float64)
            last = np.partition(keys, nearest - 1)[nearest - 1]
            best = np.flatnonzero(~(keys > last + self._slack(query, slots, last)))
        else:
            scores = np.empty(len(slots), dtype=np.float32)
        if exact or not self.tail_count:
            scores[best] = self._scan.rescore(query, np.zeros(len(best), np.intp), slots[best])
        else:
            scores[best] = self._reranker.scores(query, slots[best][None])[0]
        return scores

    def _slack(self, query: Float32Matrix, slots: Slots, score: float) -> float:
        """How much two float32 scores may be off, together (see `kernels`)."""
        size = max(1.0, abs(score))
        if self.metric is not Metric.COSINE:
            norms = self._table.norms[slots].max(initial=0)
            size = max(size, float(row_norms(query)[0]) * max(float(norms), 1.0))
        return 4 * (self.dim + 16) * 2.0**-24 * size

    # -- writing ----------------------------------------------------------------------------------

    def append(self, slots: Slots, vectors: Float32Matrix) -> None:
        """Add vectors to the head, at slots that hold none.

        May run beside searches and beside any other change of the index, for which it may wait a
        few milliseconds, but not beside another `append`. A search that began before may or may
        not find them.
        """
        for start in range(0, len(slots), _NORM_ROWS):
            some = slice(start, start + _NORM_ROWS)
            norms = row_norms(vectors[some])
            with self._head_changes:
                self._put(slots[some], norms)
                self._head.append(slots[some], self._table.norms[slots[some]])

    def _put(self, slots: Slots, norms: NDArray[np.float64]) -> None:
        self._table.put(slots, norms)
        if self._norm_bound is not None:
            self._norm_bound.put(slots, norms)

    def prepare_upsert(self, slots: Slots, vectors: Float32Matrix) -> PreparedUpsert:
        self.delete(slots)
        self.append(slots, vectors)
        return PreparedUpsert(slots[:0], vectors[:0])

    def insert(self, part: PreparedUpsert) -> None:
        """Nothing: `prepare_upsert` does it all, and leaves no parts."""

    def upsert(self, slots: Slots, vectors: Float32Matrix) -> None:
        self.prepare_upsert(slots, vectors)

    def delete(self, slots: Slots) -> None:
        with self._head_changes:
            removed = self._table.remove(slots)
            self._head.remove(removed)
            if self._norm_bound is not None:
                self._norm_bound.remove(removed)
        tail = self.tail
        if tail is not None and len(removed):
            in_tail = removed[removed < len(tail.live)]
            in_tail = in_tail[tail.live[in_tail]]
            if len(in_tail):
                tail.delete(in_tail)
                self.tail_changes += len(in_tail)

    # -- moving the head into the tail ------------------------------------------------------------

    def waiting(self) -> Slots:
        """Slots in the head, from the oldest on; not to be called beside a change."""
        return self._head.oldest(len(self._head))

    def prepare_merge(self, count: int) -> tuple[Slots, PreparedUpsert]:
        """The first part of moving the `count` oldest vectors of the head into the tail.

        The second is `tail.insert` with each piece of the result's `split`, the third
        `finish_merge` with the slots. All three together are one writer.
        """
        if self.tail is None:
            raise RuntimeError("there is no tail to merge into")
        with self._head_changes:
            slots = self._head.oldest(count)
        return slots, self.tail.prepare_upsert(slots, self._source.view()[slots])

    def finish_merge(self, slots: Slots) -> None:
        """The slots that `prepare_merge` returned are in the tail."""
        with self._head_changes:
            self._head.remove(slots)
        self.tail_changes += len(slots)

    def install(self, tail: TailIndex, changed: Slots) -> None:
        """Put another tail in the place of this one (a writer).

        Args:
            tail: filled with some slots of this index, whichever.
            changed: slots that have been deleted, or deleted and used again, since they were put
                into it.
        """
        tail.delete(changed)
        live = self._table.live
        tail.delete(np.flatnonzero(_held_by(tail, len(live)) & ~live))
        with self._head_changes:
            live = self._table.live
            held = _held_by(tail, len(live))
            # What is in the head already keeps its place in the queue.
            old = self.waiting()
            old = old[~held[old]]
            rest = live & ~held
            rest[old] = False
            self._head = self._head_of(np.flatnonzero(rest), old, copied=True)
        if self.tail is not None:
            self._past += self.tail.statistics()
        self.tail = tail
        self.tail_changes += len(tail) + 1

    def abandon_tail(self) -> None:
        """Go on without a tail (a writer): everything is scanned."""
        tail, self.tail = self.tail, None
        if tail is None:
            return
        self._past += tail.statistics()
        self.tail_changes += 1
        with self._head_changes:
            rest = self._table.live.copy()
            old = self.waiting()
            rest[old] = False
            self._head = self._head_of(np.flatnonzero(rest), old, copied=False)

    def live_slots(self) -> Slots:
        """Every slot that holds a vector, ascending."""
        with self._head_changes:
            return np.flatnonzero(self._table.live)

    def restore(self, slots: Slots, tail: TailIndex | None) -> None:
        """Fill an empty index with slots whose rows are there already.

        Args:
            slots: ascending.
            tail: holds some of them, and no others.
        """
        for start in range(0, len(slots), _NORM_ROWS):
            some = slots[start : start + _NORM_ROWS]
            self._put(some, row_norms(self._source.view()[some]))
        self.tail = tail
        rest = slots
        if tail is not None:
            rest = slots[~_held_by(tail, int(slots.max(initial=-1)) + 1)[slots]]
        self._head = self._head_of(rest, copied=tail is not None)

    def _head_of(self, *groups: Slots, copied: bool) -> Head:
        head = Head(self.metric, self.dim, self._source, copied=copied)
        for slots in groups:
            head.append(slots, self._table.norms[slots])
        return head


def _held_by(tail: TailIndex, size: int) -> Mask:
    """The slots below `size` that a tail holds, shape (size,)."""
    held = np.zeros(size, dtype=np.bool_)
    live = tail.live[:size]
    held[: len(live)] = live
    return held


def _no_pairs() -> _Pairs:
    return np.empty(0, np.intp), np.empty(0, np.int64), np.empty(0, np.float32)
