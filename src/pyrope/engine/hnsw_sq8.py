"""HNSW over 8-bit codes: FAISS' graph, and float32 for the last word.

The graph sees codes only (`pyrope.engine.codes`), with FAISS' `QT_8bit_direct_signed`, which takes
integers as they are. Its best ``rerank_factor k`` candidates are scored again from the raw rows,
which brings recall to that of a float32 graph and makes scores exact (`pyrope.engine.rerank`).
A vector takes a quarter of the memory in the graph, and less time: on 100,000 sentence embeddings
of 384 dimensions (M 16, ef 64, k 10), two threads with batches of 16 answer 15,000 to 17,000
queries/s at recall 0.992; in hnswlib's float32 graph 12,000 at 0.991; in one with FAISS' own
`QT_8bit`, whose steps are no integers, 11,600. Both threads insert 6,000 to 7,200 vectors/s, and
2,700 into hnswlib's.

What FAISS leaves to its callers, and what is done about it here:

- *Positions are only ever appended.* They are mapped to slots and back, equal codes share one, and
  a delete leaves a tombstone that an equal code revives (`pyrope.engine.positions`).
- *Filters and tombstones*: with a selector, FAISS returns the best members among all nodes that it
  came by, be they far from where the beam ended: enough of them are found for every query, and
  nothing tells that they are the wrong ones. So the whole beam is asked for and sifted here; it is
  widened, and a scan is made where that is cheaper, as in `pyrope.engine.hnsw`.
- *A search may reach fewer nodes than there are.* The queries concerned are scanned.
- *Bounds on distance computations*: a beam is chosen that keeps within (`bounded_beam`).
- *Additions use OpenMP's threads, and cannot run beside one another*: what is prepared is one
  piece, and two threads work on it only if it is large and the caller had several to spare.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrope.engine.base import (
    DamagedIndexError,
    EngineStatistics,
    Neighbours,
    PreparedUpsert,
    SearchOptions,
    VectorSource,
)
from pyrope.engine.beam import (
    WIDEN,
    beam_cost,
    beam_distances,
    bounded_beam,
    first_beam,
    scan_cost,
)
from pyrope.engine.code_graph import CodeGraph, stored
from pyrope.engine.codes import TRAINING_SIZE, Scale
from pyrope.engine.digests import DigestTable, digests_of
from pyrope.engine.exact import ExactScan
from pyrope.engine.faiss_file import Arrays, read_file, write_file
from pyrope.engine.forked import write_forked
from pyrope.engine.normalise import row_norms
from pyrope.engine.positions import Positions
from pyrope.engine.query_counters import QueryCounters
from pyrope.engine.rerank import Reranker
from pyrope.engine.slot_table import SlotTable
from pyrope.types import Float32Matrix, Mask, Metric, Slots

# FAISS links up to 100 nodes of a level in one thread, however many it may use.
_WORTH_THREADS = 256
# Tombstones among the nearest that are no reason to score all that a beam has found.
_SPARE = 4


@dataclass(frozen=True, slots=True)
class _PreparedCodes(PreparedUpsert):
    """Consecutive new positions in the place of slots, and codes in that of vectors.

    Attributes:
        threads: that may work on them.
    """

    threads: int = 1

    def split(self, parts: int) -> list[PreparedUpsert]:
        """One piece, or none."""
        threads = parts if len(self) >= _WORTH_THREADS else 1
        return [replace(self, threads=threads)] if len(self) else []


@dataclass(frozen=True, slots=True)
class _TakingPart:
    """What one search may find.

    Attributes:
        allowed: as the caller gave it.
        part: slots that take part, shape (<= capacity,).
        matches: how many they are.
        sieve: positions that have a member which takes part, by position; None: all do.
        matching: how many they are.
        width: hits that a query can have, at least 1.
        ranked: positions whose members are to be scored from the raw rows.
    """

    allowed: Mask | None
    part: Mask
    matches: int
    sieve: Mask | None
    matching: int
    width: int
    ranked: int

    @property
    def wanted(self) -> int:
        """Positions that an answer needs; shared ones give more than one hit."""
        return min(self.width, self.matching)

    def sift(self, found: Slots) -> Slots:
        """Positions that take part, of each row; -1 at its end for each that does not."""
        if self.sieve is None:
            return found
        keep = self.sieve[found] & (found >= 0)
        order = np.argsort(~keep, axis=1, kind="stable")
        sifted: Slots = np.where(keep, found, -1)
        return np.take_along_axis(sifted, order, axis=1)


class HnswSq8Index:
    """The engine of `IndexType.HNSW_SQ8` (see `TailIndex`).

    Args:
        metric: as of the index.
        dim: as of the index.
        source: the raw rows.
        m: links of a node on the upper levels, at least 2; twice that on level 0.
        ef_construction: candidates considered while a node is linked.
        ef: candidates that a search considers which does not say.
        rerank_factor: candidates scored from the raw rows, for each hit asked for; at least 1.
        capacity: vectors to take memory for at once.
    """

    honours = frozenset({"ef", "max_scans"})
    training_size = TRAINING_SIZE

    def __init__(
        self,
        metric: Metric,
        dim: int,
        source: VectorSource,
        *,
        m: int,
        ef_construction: int,
        ef: int,
        rerank_factor: float,
        capacity: int = 0,
    ) -> None:
        self.metric = metric
        self.dim = dim
        self.ef = ef
        self._m = m
        self._ef_construction = ef_construction
        self._rerank_factor = rerank_factor
        self._capacity = capacity
        self._source = source
        self._table = SlotTable()
        self._scan = ExactScan(metric, dim, source, self._table)
        self._reranker = Reranker(metric, source, self._table, self._scan)
        self._scale = Scale(metric, dim)
        self._positions = Positions()
        self._digests = DigestTable()
        self._graph: CodeGraph | None = None
        self._counters = QueryCounters()
        self._inserting = threading.Lock()

    def __len__(self) -> int:
        return len(self._table)

    @property
    def live(self) -> Mask:
        return self._table.live

    @property
    def deleted_count(self) -> int:
        return self._positions.count - self._positions.standing

    @property
    def parameters(self) -> dict[str, int]:
        """Nothing: what training chooses is no number that clients could use."""
        return {}

    @property
    def worn(self) -> bool:
        return self._scale.worn

    def statistics(self) -> EngineStatistics:
        return self._counters.read()

    @property
    def memory_bytes(self) -> int:
        own = self._table.nbytes + self._positions.nbytes + self._digests.nbytes
        return own + (0 if self._graph is None else self._graph.nbytes)

    # -- searching --------------------------------------------------------------------------------

    def search_exact(
        self, queries: Float32Matrix, k: int, allowed: Mask | None = None
    ) -> Neighbours:
        self._counters.add(scan=len(queries))
        return self._scan.search(queries, k, allowed)

    def search(
        self, queries: Float32Matrix, k: int, options: SearchOptions, allowed: Mask | None = None
    ) -> Neighbours:
        ef = options.ef or self.ef
        if allowed is None and options.max_scans is None:
            plain = self._search_plain(queries, k, ef)
            if plain is not None:
                return plain
        part = self._table.taking_part(allowed)
        matches = len(self._table) if allowed is None else int(np.count_nonzero(part))
        width = min(k, matches)
        graph, positions = self._graph, self._positions
        if graph is None or not width or not len(queries):
            return Neighbours.nothing(len(queries), width)
        # Where every position takes part (the usual case), nothing needs to be sifted.
        sieve, matching = None, positions.count
        if matches != len(self._table):
            sieve = positions.matching(part)
            matching = int(np.count_nonzero(sieve))
        elif positions.standing < positions.count:
            sieve, matching = positions.stands, positions.standing
        ranked = min(max(width, ceil(width * self._rerank_factor)), matching)
        some = _TakingPart(allowed, part, matches, sieve, matching, width, ranked)
        return self._search_widening(graph, queries, some, ef, options.max_scans)

    def _search_plain(self, queries: Float32Matrix, k: int, ef: int) -> Neighbours | None:
        """The usual search, in two native calls and few others: each takes the GIL anew.

        None where it is not the usual one: a scan costs less, or a beam found too few that stand.
        """
        graph, positions, count = self._graph, self._positions, len(self._table)
        if graph is None or not count or not len(queries):
            return None
        width = min(k, count)
        standing, nodes = positions.standing, positions.count
        ranked = min(max(width, ceil(width * self._rerank_factor)), standing)
        beam = first_beam(ef, ranked, standing, nodes)
        if beam_cost(beam, len(queries)) >= scan_cost(count, count, len(queries)):
            return None
        prepared, far = self._scale.queries(queries)
        if far is not None:
            return None
        if standing == nodes:
            found = graph.search(prepared, ranked, beam)
            if found[:, -1].min() < 0:
                return None
        else:
            # What does not stand has no member, and so no score.
            found = graph.search(prepared, beam, beam)
            enough = _enough(positions.stands[found] & (found >= 0), ranked)
            if not enough:
                return None
            found = np.ascontiguousarray(found[:, :enough])
        self._counters.add(graph=len(queries))
        return self._reranker.best(queries, positions.members(found, None, width), width)

    def _search_widening(
        self,
        graph: CodeGraph,
        queries: Float32Matrix,
        some: _TakingPart,
        ef: int,
        max_scans: int | None,
    ) -> Neighbours:
        """Beams that grow until they hold enough, a scan promises more, or no budget is left."""
        nodes = self._positions.count
        budget = inf if max_scans is None else max_scans
        ranked = some.ranked if max_scans is None else min(some.ranked, max(1, max_scans // 2))
        found = Neighbours.nothing(len(queries), some.width)
        prepared, far = self._scale.queries(queries)
        left = np.arange(len(queries))
        if far is not None and budget >= some.matches:
            self._scan_into(found, queries, left[far], some, budget)
            left = left[~far]
        beam = self._beam_within(first_beam(ef, ranked, some.matching, nodes), budget - ranked)
        last = 0
        while len(left) and not self._scan_pays(some, beam, budget, len(left)):
            self._counters.add(widened=len(left) if last else 0)
            kept = min(ranked, beam)
            positions = graph.search(prepared[left], kept if some.sieve is None else beam, beam)
            exhausted = bool(positions[:, -1].min() < 0)
            positions = some.sift(positions)[:, :kept]
            budget -= beam_distances(beam, self._m, nodes)
            candidates = self._positions.members(positions, some.part, some.width)
            if budget < candidates.shape[1]:
                candidates = np.ascontiguousarray(candidates[:, : int(budget)])
            budget -= candidates.shape[1]
            best = self._reranker.best(queries[left], candidates, some.width)
            found.slots[left, : best.slots.shape[1]] = best.slots
            found.scores[left, : best.slots.shape[1]] = best.scores
            few = (positions >= 0).sum(axis=1) < min(some.wanted, kept)
            self._counters.add(graph=len(left) - int(np.count_nonzero(few)))
            left, last = left[few], beam
            beam = self._beam_within(min(beam * WIDEN, nodes), budget - ranked)
            if exhausted or beam <= last:
                self._counters.add(fallback=len(left))
                break
        if last and budget < some.matches:
            # The few rows that could be scanned would not make up for what a beam has found.
            lost = left[found.slots[left, 0] < 0]
            self._counters.add(graph=len(left) - len(lost))
            left = lost
        self._scan_into(found, queries, left, some, budget)
        return found

    def _beam_within(self, beam: int, budget: float) -> int:
        """A beam, or the widest whose distances stay within the budget."""
        if budget == inf:
            return beam
        return min(beam, bounded_beam(int(budget), self._m, self._positions.count))

    def _scan_pays(self, some: _TakingPart, beam: int, budget: float, queries: int) -> bool:
        """Whether a scan promises more of the true neighbours than a beam, or as many for less.

        Without a budget, both promise all.
        """
        rows = min(some.matches, budget)
        enough = first_beam(1, some.wanted, some.matching, self._positions.count)
        by_scan, by_beam = rows / some.matches, min(1.0, beam / enough)
        if by_scan != by_beam:
            return by_scan > by_beam
        total = len(self._table.live)
        return beam_cost(beam, queries) >= scan_cost(int(rows), total, queries)

    def _scan_into(
        self,
        found: Neighbours,
        queries: Float32Matrix,
        rows: NDArray[np.intp],
        some: _TakingPart,
        budget: float,
    ) -> None:
        """Answer the queries of these numbers by a scan of as many rows as the budget allows."""
        if not len(rows):
            return
        self._counters.add(scan=len(rows))
        limit = int(min(max(budget, 0), some.matches))
        scanned = self._scan.search(queries[rows], some.width, some.allowed, limit=limit)
        found.slots[rows], found.scores[rows] = scanned.slots, scanned.scores

    # -- writing ----------------------------------------------------------------------------------

    def train(self, sample: Float32Matrix) -> None:
        if self._positions.count:
            raise RuntimeError("codes are there already, which would mean something else")
        self._scale.train(sample)

    def prepare_upsert(self, slots: Slots, vectors: Float32Matrix) -> PreparedUpsert:
        """As `VectorIndex.prepare_upsert`. What it returns has one piece, whatever the parts.

        Raises:
            RuntimeError: the index has not been trained.
        """
        if not self._scale.trained:
            raise RuntimeError("an HNSW_SQ8 index must be trained before vectors are added")
        if not len(slots):
            return _PreparedCodes(slots, vectors)
        self._positions.remove(self._table.remove(slots))
        norms = row_norms(vectors)
        codes = self._scale.encode(vectors, norms)
        self._table.put(slots, norms)
        if self._graph is None:
            self._graph = self._new_graph()
        kept = stored(codes)
        digests = digests_of(kept)
        new, hosts = self._hosts(self._graph.codes, kept, digests.tolist())
        positions = self._positions.append(slots[new])
        self._digests.put_all(positions, digests[new])
        guests = hosts >= 0
        if guests.any():
            self._positions.join(slots[guests], hosts[guests], self._source.view())
        return _PreparedCodes(positions, codes[new])

    def _hosts(
        self, held: NDArray[np.uint8], codes: NDArray[np.uint8], digests: list[int]
    ) -> tuple[NDArray[np.intp], Slots]:
        """Which codes need a position of their own; and those of the others, -1 for these.

        Args:
            held: those of the graph.
        """
        hosts = np.full(len(codes), -1, dtype=np.int64)
        new: list[int] = []
        # By digest: the row that is new, and its position.
        coming: dict[int, tuple[int, int]] = {}
        for row, digest in enumerate(digests):
            first = coming.get(digest)
            if first is not None and np.array_equal(codes[first[0]], codes[row]):
                hosts[row] = first[1]
                continue
            for position in self._digests.labels(digest):
                if np.array_equal(held[position], codes[row]):
                    hosts[row] = position
                    break
            else:
                coming[digest] = row, self._positions.count + len(new)
                new.append(row)
        return np.array(new, dtype=np.intp), hosts

    def insert(self, part: PreparedUpsert) -> None:
        if not len(part):
            return
        threads = part.threads if isinstance(part, _PreparedCodes) else 1
        graph = self._graph
        if graph is None:
            raise RuntimeError("there is nothing prepared to insert")
        with self._inserting:
            if len(graph) != part.slots[0]:
                raise RuntimeError(f"position {part.slots[0]} comes after {len(graph)}")
            graph.add(part.vectors, threads)

    def upsert(self, slots: Slots, vectors: Float32Matrix) -> None:
        self.insert(self.prepare_upsert(slots, vectors))

    def delete(self, slots: Slots) -> None:
        self._positions.remove(self._table.remove(slots))
        if not len(self._table):
            self._forget()

    def _forget(self) -> None:
        """Nothing is left to find: give the memory back, tombstones and all."""
        self._graph, self._positions, self._digests = None, Positions(), DigestTable()
        self._capacity = 0

    def _new_graph(self) -> CodeGraph:
        return CodeGraph(self.metric, self.dim, self._m, self._ef_construction, self._capacity)

    # -- files ------------------------------------------------------------------------------------

    def _definition(self) -> dict[str, int | str]:
        return {
            "engine": "HNSW_SQ8",
            "metric": self.metric.value,
            "dim": self.dim,
            "m": self._m,
            "ef_construction": self._ef_construction,
        }

    def save(self, path: str) -> None:
        slots, positions = self._positions.all_members()
        arrays: Arrays = {
            "slots": slots,
            "positions": positions,
            "norms": self._table.norms[slots],
            **self._scale.arrays(),
        }
        native = None if self._graph is None else self._graph.native
        write_file(path, native, self._definition(), arrays)

    def save_forked(self, path: str, forked: Callable[[], None]) -> None:
        write_forked(self.save, path, None, forked)

    def load(self, path: str, live: Slots, unchanged: Slots) -> Slots:
        native, arrays = read_file(path, self._definition())
        graph = CodeGraph(self.metric, self.dim, self._m, self._ef_construction)
        try:
            self._scale.restore(arrays)
            slots, positions, norms = (arrays[name] for name in ("slots", "positions", "norms"))
            if native is not None:
                graph.adopt(native)
            _check_members(slots, positions, norms, len(graph))
        except (KeyError, ValueError) as error:
            raise DamagedIndexError(f"'{path}' is of no HNSW_SQ8 index: {error}") from error
        view = self._source.view()
        kept = np.isin(slots, unchanged) & (slots < len(view))
        slots, positions, norms = slots[kept], positions[kept], norms[kept]
        if len(slots):
            graph.reserve(self._capacity)
            self._graph = graph
            self._positions.append_tombstones(len(graph))
            self._digests.put_all(np.arange(len(graph)), digests_of(graph.codes))
            self._positions.join(slots, positions, view)
            self._table.put(slots, norms.astype(np.float64))
        return np.setdiff1d(live, slots)


def _check_members(slots: Slots, positions: Slots, norms: NDArray[Any], count: int) -> None:
    """Raise ValueError unless these are distinct slots with norms, at positions below `count`."""
    if not len(slots) == len(positions) == len(norms):
        raise ValueError(f"{len(slots)} slots, {len(positions)} positions, {len(norms)} norms")
    if len(slots) and not 0 <= positions.min() <= positions.max() < count:
        raise ValueError(f"a position that none of its {count} codes has")
    if len(slots) and (slots.min() < 0 or len(np.unique(slots)) != len(slots)):
        raise ValueError("a slot that is there twice, or none")


def _enough(stand: NDArray[np.bool_], wanted: int) -> int:
    """How many columns hold so many that stand in every row; 0: not even all of them."""
    for columns in (wanted + _SPARE, stand.shape[1]):
        if int(np.count_nonzero(stand[:, :columns], axis=1).min()) >= wanted:
            return columns
    return 0
