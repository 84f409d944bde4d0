"""What is particular to the graph: recall, filters, sharing, memory."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import hnswlib
import numpy as np
import pytest
from numpy.typing import NDArray

from engine_hnsw import COUNT, DIM, filled, labels_of, small
from engine_oracle import Harness, clustered, recall
from pyrope.engine.base import Neighbours, SearchOptions
from pyrope.engine.beam import beam_distances
from pyrope.engine.exact import ExactScan
from pyrope.engine.hnsw import HnswIndex
from pyrope.types import Float32Matrix, Mask, Metric, Slots

ANY = SearchOptions()


@pytest.fixture(scope="module")
def vectors() -> Float32Matrix:
    return clustered(COUNT, DIM, 1)


@pytest.fixture(scope="module")
def large(vectors: Float32Matrix) -> HnswIndex:
    """Not to be written to."""
    return filled(vectors)[0]


@pytest.fixture(scope="module")
def queries() -> Float32Matrix:
    return clustered(120, DIM, 1)[40:]


# -- searching ---------------------------------------------------------------------------------


def test_a_graph_built_by_two_threads_at_once_finds_what_a_scan_finds(
    large: HnswIndex, queries: Float32Matrix
) -> None:
    before = large.statistics()
    found = large.search(queries[:16], 10, ANY)
    after = large.statistics()
    assert after.graph_queries_total - before.graph_queries_total == 16
    assert recall(found, large.search_exact(queries[:16], 10)) >= 0.98


def test_a_wider_beam_finds_more(large: HnswIndex, queries: Float32Matrix) -> None:
    truth = large.search_exact(queries[:16], 10)
    narrow, wide = (
        recall(large.search(queries[:16], 10, SearchOptions(ef=ef)), truth) for ef in (10, 300)
    )
    assert narrow < wide
    assert wide >= 0.999


def test_searches_with_different_beams_do_not_disturb_one_another(
    large: HnswIndex, queries: Float32Matrix
) -> None:
    efs = (10, 40, 160)
    alone = {ef: large.search(queries[:16], 10, SearchOptions(ef=ef)).slots.tolist() for ef in efs}

    def searches(ef: int) -> list[object]:
        return [
            large.search(queries[:16], 10, SearchOptions(ef=ef)).slots.tolist() for _ in range(8)
        ]

    with ThreadPoolExecutor(3) as pool:
        for ef, results in zip(efs, pool.map(searches, efs), strict=True):
            assert all(result == alone[ef] for result in results)


def masks_of(kind: str, share: float, vectors: Float32Matrix) -> Mask:
    generator = np.random.default_rng(5)
    if kind == "random":
        return np.asarray(generator.random(COUNT) < share)
    unit = vectors / np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    order = np.argsort(-(unit * unit[0]).sum(axis=1))
    mask = np.zeros(COUNT, np.bool_)
    matches = int(share * COUNT)
    mask[order[:matches] if kind == "near one place" else order[-matches:]] = True
    return mask


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.1, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["random", "near one place", "far from one place"])
def test_a_filter_keeps_recall_at_any_selectivity(
    large: HnswIndex, vectors: Float32Matrix, queries: Float32Matrix, kind: str, share: float
) -> None:
    # Half of the queries are at that one place.
    there = np.concatenate([queries[:40], vectors[:1] + 0.05 * queries[40:]]).astype(np.float32)
    mask = masks_of(kind, share, vectors)
    truth = large.search_exact(there, 10, mask)
    for batch in (1, 8):
        parts = [
            large.search(there[i : i + batch], 10, ANY, mask).slots for i in range(0, 80, batch)
        ]
        found = np.concatenate(parts)
        assert (mask[found] & (found >= 0)).all()
        hits = sum(np.intersect1d(a, b).size for a, b in zip(found, truth.slots, strict=True))
        assert hits / truth.slots.size >= 0.95


def test_a_filter_that_lets_much_through_is_answered_by_the_graph(
    large: HnswIndex, queries: Float32Matrix
) -> None:
    before = large.statistics()
    large.search(queries[:4], 10, ANY, np.random.default_rng(1).random(COUNT) < 0.5)
    assert large.statistics().graph_queries_total - before.graph_queries_total == 4


def test_the_first_beam_holds_enough_for_a_filter_without_a_pattern(
    large: HnswIndex, queries: Float32Matrix
) -> None:
    mask = np.random.default_rng(2).random(COUNT) < 0.3
    before = large.statistics()
    for query in queries:
        large.search(query[None], 30, ANY, mask)
    after = large.statistics()
    assert after.graph_queries_total - before.graph_queries_total == len(queries)
    assert after.widened_queries_total == before.widened_queries_total


def test_a_beam_with_too_few_that_are_allowed_is_widened(
    large: HnswIndex, vectors: Float32Matrix
) -> None:
    mask = ~masks_of("near one place", 0.01, vectors)
    before = large.statistics()
    found = large.search(vectors[:1], 10, ANY, mask)
    after = large.statistics()
    assert after.widened_queries_total - before.widened_queries_total == 1
    assert after.graph_queries_total - before.graph_queries_total == 1
    assert recall(found, large.search_exact(vectors[:1], 10, mask)) >= 0.9


def test_a_beam_that_would_cost_more_than_a_scan_is_given_up(
    large: HnswIndex, vectors: Float32Matrix
) -> None:
    mask = masks_of("far from one place", 0.5, vectors)
    before = large.statistics()
    found = large.search(vectors[:1], 10, ANY, mask)
    after = large.statistics()
    assert after.widened_queries_total > before.widened_queries_total
    assert after.scan_queries_total - before.scan_queries_total == 1
    assert found.slots.tolist() == large.search_exact(vectors[:1], 10, mask).slots.tolist()


@pytest.mark.parametrize("copies", [500, 6000])
def test_equal_vectors_are_no_trap_for_searches(
    vectors: Float32Matrix, queries: Float32Matrix, copies: int
) -> None:
    mixed = np.concatenate([np.repeat(queries[:1], copies, axis=0), vectors[:6000]])
    index, _ = filled(mixed)
    assert len(index) == copies + 6000
    assert recall(index.search(queries[1:], 10, ANY), index.search_exact(queries[1:], 10)) >= 0.98
    found = index.search(queries[:1], 20, ANY)
    assert (found.slots < copies).all()


def islands() -> Float32Matrix:
    """Tight groups far from one another: with few links to a node, no two groups are linked."""
    generator = np.random.default_rng(2)
    centres = 100 * generator.standard_normal((300, 1, 4))
    points = (centres + 1e-3 * generator.standard_normal((300, 15, 4))).reshape(-1, 4)
    return points.astype(np.float32)


def test_what_the_graph_cannot_reach_is_scanned() -> None:
    vectors = islands()
    index, _ = filled(vectors, Metric.L2, m=2, ef_construction=4)
    queries = vectors[::97]
    exact = index.search_exact(queries, 10).slots.tolist()
    for row, query in enumerate(queries):
        before = index.statistics().fallback_queries_total
        found = index.search(query[None], 10, ANY)
        assert (found.slots >= 0).all()
        if index.statistics().fallback_queries_total > before:
            assert found.slots.tolist() == [exact[row]]
    alone = index.statistics().fallback_queries_total
    assert 0 < alone < len(queries)
    # In a batch, those that can be answered by the graph still are.
    for row in range(0, len(queries), 8):
        index.search(queries[row : row + 8], 10, ANY)
    assert index.statistics().fallback_queries_total == 2 * alone


# -- bounds on distance computations ---------------------------------------------------------


class Watched(HnswIndex):
    """Adds up what its searches spend on each query, by the widths of its beams and scans."""

    def __init__(self, other: HnswIndex) -> None:
        self.__dict__.update(other.__dict__)
        self.spent = 0
        watched = self

        class Scan(ExactScan):
            def search(
                self,
                queries: Float32Matrix,
                k: int,
                allowed: Mask | None = None,
                *,
                limit: int | None = None,
            ) -> Neighbours:
                rows = int(np.count_nonzero(watched._table.taking_part(allowed)))
                spent = watched.spent + (rows if limit is None else min(limit, rows))
                found = super().search(queries, k, allowed, limit=limit)
                watched.spent = spent  # a scan's second pass does not count
                return found

            def rescore(
                self, queries: Float32Matrix, rows: NDArray[np.intp], slots: Slots
            ) -> NDArray[np.float32]:
                watched.spent += int(np.bincount(rows, minlength=1).max())
                return super().rescore(queries, rows, slots)

        self._scan = Scan(self.metric, self.dim, self._source, self._table)

    def _beams(
        self, graph: hnswlib.Index, queries: Float32Matrix, beam: int
    ) -> tuple[Slots, NDArray[np.float32], Mask]:
        self.spent += beam_distances(beam, 12, self._nodes.known_count)
        return super()._beams(graph, queries, beam)


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.IP])
@pytest.mark.parametrize("max_scans", [1, 100, 700, 1500, 4000, 20_000])
def test_a_search_stays_below_its_bound_whatever_it_has_to_do(
    large: HnswIndex, vectors: Float32Matrix, metric: Metric, max_scans: int
) -> None:
    index = Watched(large if metric is Metric.COSINE else filled(vectors[:3000], metric)[0])
    generator = np.random.default_rng(7)
    masks = [None, *(generator.random(COUNT) < share for share in (0.001, 0.05, 0.6))]
    masks += [
        masks_of("far from one place", 0.3, vectors),
        ~masks_of("near one place", 0.01, vectors),
    ]
    for mask in masks:
        for k in (1, 10, 300):
            index.spent = 0
            found = index.search(vectors[:1], k, SearchOptions(max_scans=max_scans), mask)
            assert 0 < index.spent <= max_scans
            taking_part = len(index) if mask is None else np.count_nonzero(mask[: len(index)])
            assert found.slots.shape == (1, min(k, taking_part))
            kept = found.slots[found.slots >= 0]
            assert len(set(kept.tolist())) == len(kept)
            assert len(kept) if mask is None else mask[kept].all()


def test_a_bound_that_leaves_room_changes_nothing(
    large: HnswIndex, vectors: Float32Matrix, queries: Float32Matrix
) -> None:
    there = np.concatenate([queries[:20], vectors[:20]])
    for kind in ("random", "near one place", "far from one place"):
        for share in (0.01, 0.3, 0.9):
            mask = masks_of(kind, share, vectors)
            for batch in (there[:1], there[20:21], there):
                free = large.search(batch, 10, ANY, mask)
                bound = large.search(batch, 10, SearchOptions(max_scans=10**9), mask)
                assert bound.slots.tolist() == free.slots.tolist()


def test_a_larger_bound_finds_more(large: HnswIndex, queries: Float32Matrix) -> None:
    truth = large.search_exact(queries, 10)
    before = large.statistics()
    found = [
        recall(large.search(queries, 10, SearchOptions(ef=300, max_scans=bound)), truth)
        for bound in (900, 1300, 6000)
    ]
    after = large.statistics()
    assert found == sorted(found)
    assert found[0] < found[2] >= 0.99
    assert after.graph_queries_total - before.graph_queries_total == 3 * len(queries)


def test_a_bound_below_any_beam_scans_the_rows_of_the_lowest_slots(
    large: HnswIndex, queries: Float32Matrix
) -> None:
    mask = np.random.default_rng(8).random(COUNT) < 0.5
    first = np.zeros(COUNT, np.bool_)
    first[np.flatnonzero(mask)[:50]] = True
    found = large.search(queries, 10, SearchOptions(max_scans=50), mask)
    exact = large.search_exact(queries, 10, first)
    assert found.slots.tolist() == exact.slots.tolist()
    assert found.scores.tolist() == exact.scores.tolist()


def test_what_a_bounded_beam_finds_too_little_of_is_not_lost(
    large: HnswIndex, vectors: Float32Matrix
) -> None:
    """All about the query is filtered out, and no second beam can be afforded."""
    mask = ~masks_of("near one place", 0.005, vectors)
    found = large.search(vectors[:1], 60, SearchOptions(ef=100, max_scans=4000), mask)
    kept = found.slots[found.slots >= 0]
    assert 0 < len(kept) < 60
    assert mask[kept].all()
    assert np.isnan(found.scores[found.slots < 0]).all()


def test_what_a_bounded_beam_cannot_reach_is_looked_for_in_what_is_left_of_the_bound() -> None:
    vectors = islands()
    index, _ = filled(vectors, Metric.L2, m=2, ef_construction=4)
    queries = vectors[::97]
    for query in queries:
        found = index.search(query[None], 10, SearchOptions(max_scans=100_000))
        assert (found.slots >= 0).all()
    assert index.statistics().fallback_queries_total > 0


# -- as a tail -----------------------------------------------------------------------------------


def test_it_learns_nothing_and_never_wears_out() -> None:
    index, rows = small()
    before = index.search(rows.view()[:9].copy(), 5, ANY).slots.tolist()
    index.train(np.zeros((1, 8), np.float32))
    assert (index.training_size, index.parameters, index.worn) == (0, {}, False)
    assert index.search(rows.view()[:9].copy(), 5, ANY).slots.tolist() == before


def test_its_live_slots_are_those_that_a_search_can_find() -> None:
    index, _ = small()
    index.delete(np.arange(0, 300, 7))
    assert np.flatnonzero(index.live).tolist() == [slot for slot in range(300) if slot % 7]


# -- writing -----------------------------------------------------------------------------------


def test_recall_survives_deletes_and_updates_in_place() -> None:
    vectors = clustered(6000, 16, 4)
    index, rows = filled(vectors[:4000])
    generator = np.random.default_rng(6)
    for _ in range(3):
        gone = generator.permutation(4000)[:1200]
        index.delete(gone)
        back = gone[:900]
        moved = vectors[generator.integers(6000, size=900)] + np.float32(0.01)
        rows.write(back, moved)
        index.upsert(back, moved)
    queries = clustered(100, 16, 4)
    found = index.search(queries, 10, SearchOptions(ef=100))
    assert recall(found, index.search_exact(queries, 10)) >= 0.95


def test_tombstones_are_counted_until_their_slots_are_used_again() -> None:
    index, rows = small()
    index.delete(np.arange(100))
    assert (len(index), index.deleted_count) == (200, 100)
    fresh = clustered(40, 8, 9)
    rows.write(np.arange(40), fresh)
    index.upsert(np.arange(40), fresh)
    assert (len(index), index.deleted_count) == (240, 60)
    index.delete(np.arange(300))
    assert (len(index), index.deleted_count, labels_of(index)) == (0, 0, [])


def test_a_vector_that_is_there_already_needs_no_linking() -> None:
    index, rows = small()
    vectors = rows.view()[:3].copy()
    rows.write(np.array([500, 501, 2]), vectors)
    work = index.prepare_upsert(np.array([500, 501, 2]), vectors)
    assert len(work) == 0
    assert len(index) == 302
    assert index.search(vectors[:2], 2, ANY).slots.tolist() == [[0, 500], [1, 501]]
    index.delete(np.array([2]))
    assert len(index.prepare_upsert(np.array([2]), vectors[2:])) == 0
    assert index.search(vectors[2:], 1, ANY).slots.tolist() == [[2]]


def test_a_guest_inherits_the_node_when_its_owner_moves() -> None:
    harness = Harness("HNSW", Metric.L2, 2)
    harness.upsert([0, 1, 2], [[1, 1]] * 3)
    work = harness.index.prepare_upsert(np.array([0]), np.array([[5, 5]], np.float32))
    assert sorted(work.slots.tolist()) == [0, 1]
    harness.rows.write(np.array([0]), np.array([[5, 5]], np.float32))
    harness.index.insert(work)
    found = harness.index.search(np.array([[1, 1]], np.float32), 3, ANY)
    assert found.slots.tolist() == [[1, 2, 0]]


def test_a_shared_node_is_a_tombstone_once_its_last_member_has_left() -> None:
    harness = Harness("HNSW", Metric.L2, 2)
    harness.upsert([0, 1, 2, 3], [[1, 1], [1, 1], [1, 1], [9, 9]])
    harness.delete([0])
    assert harness.index.deleted_count == 0
    harness.delete([1])
    harness.upsert([2], [[9, 8]])
    assert harness.index.deleted_count == 1
    query = np.array([[1, 1]], np.float32)
    assert harness.index.search(query, 1, ANY).slots.tolist() == [[2]]


def test_nobody_joins_a_node_whose_owner_is_a_guest_elsewhere() -> None:
    harness = Harness("HNSW", Metric.L2, 2)
    harness.upsert([0, 1], [[1, 1], [5, 5]])
    harness.upsert([0], [[5, 5]])
    harness.upsert([2], [[1, 1]])
    harness.upsert([0], [[7, 7]])
    queries = np.array([[1, 1], [5, 5], [7, 7]], np.float32)
    for row, slot in enumerate([2, 1, 0]):
        found = harness.index.search(queries[row : row + 1], 1, ANY)
        assert (found.slots.tolist(), found.scores.tolist()) == ([[slot]], [[0]])


# -- memory ------------------------------------------------------------------------------------

MEASURE = """
import sys
from pathlib import Path
import numpy as np
from pyrope.engine.hnsw import HnswIndex
from pyrope.types import Metric

class Rows:
    def view(self):
        return rows

def anonymous():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])

rows = np.random.default_rng(1).standard_normal((20_000, 128), dtype=np.float32)
index = HnswIndex(Metric.L2, 128, Rows(), m=16, ef_construction=20, ef=64)
index.search_exact(rows[:1], 1)
before = anonymous()
for first in range(0, len(rows), 500):
    index.upsert(np.arange(first, first + 500), rows[first : first + 500])
print(anonymous() - before, index.memory_bytes)
"""


def test_memory_is_what_the_kernel_counts() -> None:
    """Within 15 %: 20,000 vectors of 128 dimensions in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], check=True, capture_output=True, text=True
    )
    measured, estimated = map(int, done.stdout.split())
    assert estimated == pytest.approx(measured, rel=0.15)
