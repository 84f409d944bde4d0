"""HNSW: hnswlib's graph, made safe to put whatever data into and to ask for whatever.

What hnswlib leaves to its callers, and what is done about it here:

- *ef is a field of the index*, which concurrent searches would overwrite for one another. A search
  keeps ``max(ef, k)`` candidates, so the index keeps ef at 1, asks for k = beam, and cuts. That
  costs what ef = beam with k = 10 costs (measured).
- *A search that reaches fewer than k nodes raises.* The queries concerned are scanned instead.
- *Deletes.* hnswlib can mark nodes deleted. Marked nodes are no neighbours for new ones, so
  that an insertion into a region where all are marked finds none, and reads the end of an empty
  vector (`mutuallyConnectNewElement`); and each call is one node. Here a delete is a bit in a
  mask, the node goes on leading searches on, and what is found is sifted, as for filters. Compared
  once with marks, on 30,000 sentence embeddings with 0 to 80 % of them deleted at random: the same
  recall within 0.0002, and the same time within 10 %.
- *Equal vectors* share one node (`pyrope.engine.nodes`).
- *Filters* would be a Python callback for each candidate, with the GIL. Instead the beam is made
  wider by the share of nodes that take part, what is found is sifted, the beam is made wider still
  where too few were found, and as soon as a scan of those that take part costs less, they are
  scanned (`pyrope.engine.beam`). A scan is also cheaper on a small index.
- *Scores of IP* come as ``1 - xq`` in float32, which loses small products. Queries are made unit
  vectors, which changes no order, and what is found is scored again from the raw rows.
- *Bounds on distance computations* hnswlib does not know. It is FAISS' algorithm, and M means the
  same, so that `bounded_beam` can say which beam keeps within `max_scans` (replayed on saved
  graphs of hnswlib, with M 4 to 32 and beams of 1 to 256, no query took more than 0.7 of it).
  Where a scan of so many rows promises more, that is made; where the bound is reached before
  enough is found, an answer holds what has been found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import hnswlib
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
from pyrope.engine.digests import digests_of
from pyrope.engine.exact import ExactScan
from pyrope.engine.forked import check_size, write_forked
from pyrope.engine.hnsw_file import read_head
from pyrope.engine.nodes import Nodes
from pyrope.engine.normalise import row_norms, unit_rows
from pyrope.engine.query_counters import QueryCounters
from pyrope.engine.slot_table import SlotTable, grown
from pyrope.types import Float32Matrix, Mask, Metric, Slots

_SEED = 100
# The search threads that have a list of visited nodes each, for the estimate of memory.
_VISITED_LISTS = 3
# Squared norms of queries that need not be made unit vectors: what float32 loses is below 1e-7.
_ORDINARY = (0.25, 4.0)
_UNREACHABLE = "contiguous 2D array"
# Saved unit vectors may differ from those made now by a rounding, on another machine.
_UNIT_TOLERANCE = 1e-6
_COMPARED_ROWS = 2048


@dataclass(frozen=True, slots=True)
class _TakingPart:
    """What one search may find.

    Attributes:
        allowed: as the caller gave it.
        part: the slots that take part, shape (<= capacity,).
        matches: how many they are.
        sieve: the nodes that stand for one of them, shape (capacity,); None: all do.
        matching: how many they are.
        width: hits that a query can have, at least 1.
    """

    allowed: Mask | None
    part: Mask
    matches: int
    sieve: Mask | None
    matching: int
    width: int

    @property
    def everything(self) -> bool:
        """Whether every node takes part."""
        return self.sieve is None

    @property
    def wanted(self) -> int:
        """Nodes that an answer needs; shared ones give more than one hit."""
        return min(self.width, self.matching)

    def sift(self, labels: Slots) -> Mask:
        """Which nodes take part."""
        return np.ones(labels.shape, np.bool_) if self.sieve is None else self.sieve[labels]


class HnswIndex:
    """The engine of `IndexType.HNSW` (see `TailIndex`).

    Args:
        metric: as of the index.
        dim: as of the index.
        source: the raw rows.
        m: links of a node on the upper levels, at least 2; twice that on level 0.
        ef_construction: candidates considered while a node is linked.
        ef: candidates that a search considers which does not say.
        capacity: nodes to have room for at once.
    """

    honours = frozenset({"ef", "max_scans"})
    training_size = 0
    worn = False

    def __init__(
        self,
        metric: Metric,
        dim: int,
        source: VectorSource,
        *,
        m: int,
        ef_construction: int,
        ef: int,
        capacity: int = 0,
    ) -> None:
        self.metric = metric
        self.dim = dim
        self.ef = ef
        self._m = m
        self._ef_construction = ef_construction
        self._capacity = capacity
        self._source = source
        self._table = SlotTable()
        self._scan = ExactScan(metric, dim, source, self._table)
        self._nodes = Nodes()
        self._graph: hnswlib.Index | None = None
        self._counters = QueryCounters()

    def __len__(self) -> int:
        return len(self._table)

    @property
    def deleted_count(self) -> int:
        return self._nodes.known_count - self._nodes.standing_count

    def statistics(self) -> EngineStatistics:
        return self._counters.read()

    @property
    def live(self) -> Mask:
        return self._table.live

    @property
    def parameters(self) -> dict[str, int]:
        """Nothing: all that shapes a graph was given to the constructor."""
        return {}

    def train(self, sample: Float32Matrix) -> None:
        """Nothing: a graph learns as it grows, and never wears out."""

    @property
    def memory_bytes(self) -> int:
        return (
            self._table.nbytes
            + self._nodes.nbytes
            + (0 if self._graph is None else self._graph_bytes(self._graph))
        )

    def _graph_bytes(self, graph: hnswlib.Index) -> int:
        """By hnswlib 0.8.0's own structures; memory that no element has touched is not counted."""
        count, room = graph.get_current_count(), graph.get_max_elements()
        element = 4 + 8 * self._m + 4 * self.dim + 8
        # Nodes rise to the next level with probability 1/m; malloc adds 16 bytes to each block.
        risen = count / (self._m - 1)
        upper = risen * (4 + 4 * self._m) + count / self._m * 16
        # Of a hash map: a block of 32 bytes an entry, and up to two buckets.
        lookup = count * (32 + 12)
        # A mutex of 40 bytes, a level of 4, a 2-byte tag in each list; a pointer of 8 if used.
        places = room * (40 + 4 + 2 * _VISITED_LISTS) + count * 8
        label_locks = 65536 * 40
        return int(count * element + upper + lookup + places + label_locks)

    # -- searching --------------------------------------------------------------------------------

    def search_exact(
        self, queries: Float32Matrix, k: int, allowed: Mask | None = None
    ) -> Neighbours:
        self._counters.add(scan=len(queries))
        return self._scan.search(queries, k, allowed)

    def search(
        self, queries: Float32Matrix, k: int, options: SearchOptions, allowed: Mask | None = None
    ) -> Neighbours:
        if allowed is None and options.max_scans is None:
            plain = self._search_plain(queries, k, options.ef or self.ef)
            if plain is not None:
                return plain
        part = self._table.taking_part(allowed)
        matches = len(self._table) if allowed is None else int(np.count_nonzero(part))
        width = min(k, matches)
        graph, nodes = self._graph, self._nodes
        if graph is None or width == 0:
            return Neighbours.nothing(len(queries), width)
        # Where every node takes part (the usual case), nothing needs to be sifted.
        sieve: Mask | None = None
        matching = nodes.known_count
        if matches != len(self._table):
            sieve = nodes.matching(part)
            matching = int(np.count_nonzero(sieve))
        elif nodes.standing_count < nodes.known_count:
            sieve, matching = nodes.stands, nodes.standing_count
        some = _TakingPart(allowed, part, matches, sieve, matching, width)
        ef = self.ef if options.ef is None else options.ef
        beam = first_beam(ef, some.wanted, matching, nodes.known_count)
        return self._search_widening(graph, queries, some, beam, options.max_scans)

    def _search_widening(
        self,
        graph: hnswlib.Index,
        queries: Float32Matrix,
        some: _TakingPart,
        beam: int,
        max_scans: int | None,
    ) -> Neighbours:
        """Beams that grow until they hold enough, a scan costs less, or no budget is left."""
        nodes, width = self._nodes, some.width
        budget = inf if max_scans is None else max_scans
        if self.metric is Metric.IP:
            budget -= width  # what is found is scored once more
        prepared = queries if self.metric is Metric.L2 else unit_rows(queries)
        found: Neighbours | None = None
        left, tried = np.arange(len(queries)), 0
        while len(left):
            if budget < inf:
                beam = min(beam, bounded_beam(int(budget), self._m, nodes.known_count))
            if beam <= tried or self._scan_pays(beam, budget, some, len(left)):
                break
            pending = prepared if found is None else prepared[left]
            labels, distances, reached = self._beams(graph, pending, beam)
            usual = some.everything and not nodes.guests and width <= beam
            if found is None and usual and reached.all():
                self._counters.add(graph=len(queries))
                left = left[:0]
                scores = self._scores(distances[:, :width])
                found = Neighbours(np.ascontiguousarray(labels[:, :width]), scores)
                break
            found = found or Neighbours.nothing(len(queries), width)
            keep = some.sift(labels)
            enough = reached & (keep.sum(axis=1) >= some.wanted)
            # With a budget, this beam may have been the last.
            fill = enough if budget == inf else reached
            self._fill(found, left[fill], labels[fill], distances[fill], keep[fill])
            self._fill_members(found, left[fill], some.part)
            self._counters.add(graph=int(enough.sum()))
            left, budget = left[~enough], budget - beam_distances(beam, self._m, nodes.known_count)
            if not reached.all():
                self._counters.add(fallback=len(left))
                break
            self._counters.add(widened=len(left))
            tried, beam = beam, min(beam * WIDEN, nodes.known_count)
        if found is None:
            self._counters.add(scan=len(queries))
            return self._scan.search(queries, width, some.allowed, limit=max_scans)
        if len(left):
            self._scan_rest(found, queries, left, some, budget)
        if self.metric is Metric.IP:
            self._rescore(queries, found)
        return found

    def _scan_pays(self, beam: int, budget: float, some: _TakingPart, queries: int) -> bool:
        """Whether a scan promises more than a beam, or as much at less cost."""
        # The share of the true neighbours that each will find, if what takes part is spread
        # evenly, over the graph and over the slots.
        beam_finds = beam * some.matching / (self._nodes.known_count * some.wanted)
        scan_finds = min(budget / some.matches, 1.0)
        if scan_finds < 1:
            return beam_finds < scan_finds
        return beam_finds < 1 or beam_cost(beam, queries) >= scan_cost(
            some.matches, len(self._table.live), queries
        )

    def _scan_rest(
        self,
        found: Neighbours,
        queries: Float32Matrix,
        left: NDArray[np.intp],
        some: _TakingPart,
        budget: float,
    ) -> None:
        """Scan for those that the graph gave too few; if not all rows, for those it gave none."""
        lost = left if budget >= some.matches else left[found.slots[left, 0] < 0]
        self._counters.add(graph=len(left) - len(lost), scan=len(lost))
        limit = int(min(max(budget, 0), some.matches))
        scanned = self._scan.search(queries[lost], some.width, some.allowed, limit=limit)
        found.slots[lost], found.scores[lost] = scanned.slots, scanned.scores

    def _search_plain(self, queries: Float32Matrix, k: int, ef: int) -> Neighbours | None:
        """The usual search, in one native call and few others: each takes the GIL anew.

        None where it is not the usual one: there are tombstones, a query's norm is far from 1, a
        scan costs less, a beam found too few.
        """
        graph, nodes, count = self._graph, self._nodes, len(self._table)
        width, beam = min(k, count), min(max(ef, k), nodes.known_count)
        if (
            graph is None
            or self.metric is Metric.IP
            or nodes.standing_count < nodes.known_count
            or width > beam
            or beam_cost(beam, len(queries)) >= scan_cost(count, count, len(queries))
        ):
            return None
        norms = None
        if self.metric is Metric.COSINE:
            squares = np.einsum("ij,ij->i", queries, queries)
            if not ((squares > _ORDINARY[0]) & (squares < _ORDINARY[1])).all():
                return None
            norms = np.sqrt(squares)[:, None]
        try:
            labels, distances = graph.knn_query(queries, k=beam, num_threads=1)
        except RuntimeError as error:
            if _UNREACHABLE not in str(error):
                raise
            return None
        self._counters.add(graph=len(queries))
        distances = distances[:, :width]
        if norms is None:
            scores = self._scores(distances)
        else:
            # The order does not depend on a query's norm, so that only the score is divided by it.
            scores = np.clip((1 - distances) / norms, -1, 1)
        found = Neighbours(labels.view(np.int64)[:, :width], scores)
        if nodes.guests and nodes.shared[found.slots].any():
            self._fill_members(found, np.arange(len(queries)), self._table.taking_part(None))
        return found

    def _beams(
        self, graph: hnswlib.Index, queries: Float32Matrix, beam: int
    ) -> tuple[Slots, NDArray[np.float32], Mask]:
        """The nearest nodes that a beam holds; whether each query reached that many (else none)."""
        try:
            labels, distances = graph.knn_query(queries, k=beam, num_threads=1)
        except RuntimeError as error:
            if _UNREACHABLE not in str(error):
                raise
            if len(queries) == 1:
                nothing = np.zeros((1, beam), dtype=np.int64)
                return nothing, nothing.astype(np.float32), np.zeros(1, np.bool_)
            # One query fails the whole call: find out which.
            single = [self._beams(graph, queries[i : i + 1], beam) for i in range(len(queries))]
            columns = zip(*single, strict=True)
            labels, distances, reached = (np.concatenate(column) for column in columns)
            return labels, distances, reached
        return labels.view(np.int64), distances, np.ones(len(queries), np.bool_)

    def _fill(
        self,
        found: Neighbours,
        rows: NDArray[np.intp],
        labels: Slots,
        distances: NDArray[np.float32],
        keep: Mask,
    ) -> None:
        """Put the first nodes that are to be kept into rows of `found`."""
        order = np.argsort(~keep, axis=1, kind="stable")[:, : found.slots.shape[1]]
        keep = np.take_along_axis(keep, order, axis=1)
        labels = np.take_along_axis(labels, order, axis=1)
        scores = self._scores(np.take_along_axis(distances, order, axis=1))
        count = order.shape[1]
        found.slots[rows, :count] = np.where(keep, labels, -1)
        found.scores[rows, :count] = np.where(keep, scores, np.nan)

    def _fill_members(self, found: Neighbours, rows: NDArray[np.intp], part: Mask) -> None:
        """Put the members that take part in the place of nodes, where nodes are shared."""
        if not self._nodes.guests:
            return
        width = found.slots.shape[1]
        labels = found.slots[rows]
        shared = self._nodes.shared[labels] & (labels >= 0)
        for i in np.flatnonzero(shared.any(axis=1)).tolist():
            nodes = labels[i][labels[i] >= 0].tolist()
            members = [self._nodes.members(label, part) for label in nodes]
            scores = np.repeat(found.scores[rows[i], : len(nodes)], [len(m) for m in members])
            slots = [slot for some in members for slot in some][:width]
            found.slots[rows[i], : len(slots)] = slots
            found.scores[rows[i], : len(slots)] = scores[:width]

    def _scores(self, distances: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.metric is Metric.L2:
            return np.sqrt(np.maximum(distances, 0))
        # Of IP, where queries were made unit vectors, these only hold a place.
        return np.clip(1 - distances, -1, 1)

    def _rescore(self, queries: Float32Matrix, found: Neighbours) -> None:
        """Replace scores by exact ones, and sort by them."""
        rows, columns = np.nonzero(found.slots >= 0)
        found.scores[rows, columns] = self._scan.rescore(queries, rows, found.slots[rows, columns])
        order = np.lexsort((found.slots, -found.scores), axis=1)
        found.slots[:] = np.take_along_axis(found.slots, order, axis=1)
        found.scores[:] = np.take_along_axis(found.scores, order, axis=1)

    # -- writing ----------------------------------------------------------------------------------

    def prepare_upsert(self, slots: Slots, vectors: Float32Matrix) -> PreparedUpsert:
        if not len(slots):
            return PreparedUpsert(slots, vectors)
        norms = row_norms(vectors)
        rows = unit_rows(vectors, norms) if self.metric is Metric.COSINE else vectors
        nodes, graph = self._nodes, self._room_for(0)
        nodes.ensure(int(slots.max()) + 1)
        self._table.put(slots, norms)
        work: dict[int, NDArray[np.float32]] = {}

        def holds(label: int, row: NDArray[np.float32]) -> bool:
            held = work[label] if label in work else graph.get_items([label])[0]
            return bool(np.array_equal(held, row))

        changed = []
        for slot, row, digest in zip(slots.tolist(), rows, digests_of(rows).tolist(), strict=True):
            same = nodes.owns(slot) and nodes.digests.digest(slot) == digest
            if same and holds(slot, row):
                nodes.revive(slot)
            else:
                changed.append((slot, row, digest))
        # Guests go first: what is left of the guests may inherit, and is not about to change.
        for slot, _, _ in changed:
            if nodes.is_guest(slot):
                nodes.leave(slot, self._table.live)
        for slot, _, _ in changed:
            if nodes.owns(slot) and (inheritance := nodes.abandon(slot)):
                work[inheritance.heir] = graph.get_items([inheritance.owner])[0]
        new: dict[int, int] = {}
        for slot, row, digest in changed:
            hosts = [new[digest]] if digest in new else nodes.digests.labels(digest)
            host = next((label for label in hosts if holds(label, row)), None)
            if host is None:
                nodes.own(slot)
                new[digest] = slot
                work[slot] = row
            else:
                nodes.join(slot, host)
        nodes.digests.put_all(
            np.fromiter(new.values(), np.int64, len(new)), np.fromiter(new, np.uint64, len(new))
        )
        self._room_for(nodes.known_count)
        if not work:
            return PreparedUpsert(slots[:0], rows[:0])
        return PreparedUpsert(np.fromiter(work, np.int64, len(work)), np.stack(list(work.values())))

    def insert(self, part: PreparedUpsert) -> None:
        if len(part):
            self._room_for(0).add_items(part.vectors, part.slots, num_threads=1)

    def upsert(self, slots: Slots, vectors: Float32Matrix) -> None:
        self.insert(self.prepare_upsert(slots, vectors))

    def delete(self, slots: Slots) -> None:
        self._nodes.delete(self._table.remove(slots), self._table.live)
        if not len(self._table):
            # Nothing is left to find: give the memory back, tombstones and all.
            self._graph, self._nodes = None, Nodes()

    def _room_for(self, count: int) -> hnswlib.Index:
        """The graph, made if need be, with room for `count` nodes.

        Room is made for half as much again: a resize takes 25 ns a node, with the GIL.
        """
        graph = self._graph
        if graph is None:
            graph = self._new_graph()
            graph.init_index(
                grown(0, max(count, self._capacity)),
                M=self._m,
                ef_construction=self._ef_construction,
                random_seed=_SEED,
            )
            graph.set_ef(1)
            self._graph = graph
        elif (room := grown(graph.get_max_elements(), count)) > graph.get_max_elements():
            graph.resize_index(room)
        return graph

    def _new_graph(self) -> hnswlib.Index:
        return hnswlib.Index("l2" if self.metric is Metric.L2 else "ip", self.dim)

    # -- files ------------------------------------------------------------------------------------

    def save(self, path: str) -> None:
        graph = self._room_for(0)
        try:
            graph.save_index(path)
        except RuntimeError as error:
            raise OSError(f"'{path}' cannot be written: {error}") from error
        check_size(path, graph.index_file_size())

    def save_forked(self, path: str, forked: Callable[[], None]) -> None:
        graph = self._room_for(0)
        write_forked(graph.save_index, path, graph.index_file_size(), forked)

    def load(self, path: str, live: Slots, unchanged: Slots) -> Slots:
        """Fill this index, which must be empty, from a file of `save`.

        A node is used for its slot only if it holds the vector that the source has, so that a
        file of any age will do.

        Args:
            path: the file. That it is undamaged has been checked: its links are believed.
            live: the slots that hold vectors.
            unchanged: ignored, as the vectors themselves are compared.

        Returns:
            Those of `live` that the index does not hold yet: new since the save, or changed, or
            equal to another one. They are to be upserted.

        Raises:
            OSError: the file cannot be read.
            DamagedIndexError: it is not a graph of this definition, or cannot be loaded.
        """
        head = read_head(path, self.dim, self._m, self._ef_construction)
        if not len(head.labels):
            return live
        graph = self._new_graph()
        room = grown(0, max(len(live), len(head.labels), self._capacity))
        try:
            graph.load_index(path, max_elements=room)
        except (RuntimeError, MemoryError) as error:
            raise DamagedIndexError(f"'{path}' cannot be loaded: {error}") from error
        graph.set_ef(1)
        self._graph = graph
        self._nodes.ensure(int(max(head.labels.max(), live.max(initial=0))) + 1)
        holding = np.zeros(len(self._nodes.known), dtype=np.bool_)
        holding[live] = True
        for start in range(0, len(head.labels), _COMPARED_ROWS):
            some = slice(start, start + _COMPARED_ROWS)
            self._adopt(head.labels[some], np.array(head.vectors[some]), holding)
        return np.setdiff1d(live, np.flatnonzero(self._table.live))

    def _adopt(self, labels: Slots, vectors: Float32Matrix, holding: Mask) -> None:
        """Take in nodes of a loaded graph: as live where they hold what they should."""
        view = self._source.view()
        candidates = np.flatnonzero(holding[labels] & (labels < len(view)))
        raw = view[labels[candidates]]
        norms = row_norms(raw)
        if self.metric is Metric.COSINE:
            difference = np.abs(unit_rows(raw, norms) - vectors[candidates])
            same = (difference <= _UNIT_TOLERANCE).all(axis=1)
        else:
            same = (raw == vectors[candidates]).all(axis=1)
        fresh = labels[candidates[same]]
        self._table.put(fresh, norms[same])
        self._nodes.adopt(labels, fresh, digests_of(vectors))
