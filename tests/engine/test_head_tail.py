"""An exact head in front of a tail: together they answer as one index."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine_oracle import Rows, clustered, oracle_scores
from pyrope.engine.base import SearchOptions, TailIndex
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.engine.hnsw import HnswIndex
from pyrope.types import Float32Matrix, Metric

DIM = 12


class Pair:
    """An index with an HNSW tail, and the vectors that it should hold."""

    def __init__(self, metric: Metric, *, tail: bool = True) -> None:
        self.metric = metric
        self.rows = Rows(DIM)
        self.index = HeadTailIndex(metric, DIM, self.rows)
        self.model: dict[int, Any] = {}
        if tail:
            self.index.install(self.fresh_tail(), np.empty(0, np.int64))

    def fresh_tail(self) -> TailIndex:
        return HnswIndex(self.metric, DIM, self.rows, m=16, ef_construction=100, ef=300)

    def append(self, slots: Any, vectors: Float32Matrix) -> None:
        numbers = np.asarray(slots, np.int64)
        self.rows.write(numbers, vectors)
        self.index.append(numbers, vectors)
        self.model.update(zip(numbers.tolist(), vectors.copy(), strict=True))

    def delete(self, slots: Any) -> None:
        numbers = np.asarray(slots, np.int64)
        self.index.delete(numbers)
        for slot in numbers.tolist():
            self.model.pop(slot, None)

    def merge(self, count: int) -> None:
        slots, prepared = self.index.prepare_merge(count)
        assert self.index.tail is not None
        self.index.tail.insert(prepared)
        self.index.finish_merge(slots)

    def check(self, queries: Float32Matrix, k: int, allowed: Any = None) -> None:
        """A search, which is wide enough here to be exact, gives what the oracle gives."""
        for found in (
            self.index.search(queries, k, SearchOptions(), allowed),
            self.index.search_exact(queries, k, allowed),
        ):
            slots = sorted(
                s for s in self.model if allowed is None or (s < len(allowed) and allowed[s])
            )
            for query, got, scores in zip(queries, found.slots, found.scores, strict=True):
                assert len(got) == min(k, len(slots))
                assert len(set(got.tolist())) == len(got)
                assert set(got.tolist()) <= set(slots)
                if not slots:
                    continue
                matrix = np.array([self.model[s] for s in slots], np.float64)
                true = oracle_scores(self.metric, query, matrix)
                nearest = np.sort(-true if self.metric.higher_is_nearer else true)[:k]
                near = -scores if self.metric.higher_is_nearer else scores
                np.testing.assert_allclose(near, nearest, atol=2e-5, rtol=2e-5)


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads take turns far more often than usual, so that what can go wrong does."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def vectors(count: int, seed: int = 1) -> Float32Matrix:
    return clustered(count, DIM, seed)


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("merged", [0, 1, 150, 300])
def test_a_search_is_over_head_and_tail(metric: Metric, merged: int) -> None:
    pair = Pair(metric)
    pair.append(np.arange(300), vectors(300))
    pair.merge(merged)
    assert (pair.index.head_count, pair.index.tail_count) == (300 - merged, merged)
    for batch in (1, 5):
        pair.check(vectors(batch, 9), 10)
    pair.check(vectors(2, 9), 1000)


@pytest.mark.parametrize("metric", list(Metric))
def test_filters_apply_to_both(metric: Metric) -> None:
    pair = Pair(metric)
    pair.append(np.arange(300), vectors(300))
    pair.merge(200)
    rng = np.random.default_rng(3)
    for share in (0.01, 0.5):
        pair.check(vectors(4, 9), 10, rng.random(280) < share)
    only_head, only_tail = np.zeros(300, np.bool_), np.zeros(300, np.bool_)
    only_head[250:], only_tail[:5] = True, True
    pair.check(vectors(4, 9), 10, only_head)
    pair.check(vectors(4, 9), 10, only_tail)


def test_the_oldest_are_merged_first_and_what_was_deleted_is_not() -> None:
    pair = Pair(Metric.L2)
    pair.append(np.arange(100), vectors(100))
    pair.delete([0, 1, 2, 50])
    assert pair.index.waiting().tolist() == [*range(3, 50), *range(51, 100)]
    pair.merge(10)
    assert pair.index.waiting().tolist() == [*range(13, 50), *range(51, 100)]
    pair.check(vectors(3, 5), 20)


def test_an_upsert_takes_a_vector_out_of_the_tail_and_into_the_head() -> None:
    pair = Pair(Metric.COSINE)
    pair.append(np.arange(100), vectors(100))
    pair.merge(100)
    moved = -vectors(10)
    pair.rows.write(np.arange(10), moved)
    pair.index.upsert(np.arange(10), moved)
    pair.model.update(zip(range(10), moved, strict=True))
    assert (pair.index.head_count, pair.index.tail_count) == (10, 90)
    assert pair.index.deleted_count == 10
    pair.check(moved, 5)


def test_a_slot_used_again_is_found_at_its_new_place_only() -> None:
    pair = Pair(Metric.L2)
    pair.append(np.arange(50), vectors(50))
    pair.merge(50)
    pair.delete(range(20))
    pair.append(np.arange(20), vectors(20, 77))
    pair.check(vectors(4, 6), 50)
    pair.merge(20)
    pair.check(vectors(4, 6), 50)


def test_another_tail_takes_over_whatever_happened_meanwhile() -> None:
    pair = Pair(Metric.COSINE)
    pair.append(np.arange(200), vectors(200))
    pair.merge(100)
    fresh = pair.fresh_tail()
    known = np.array(sorted(pair.model)[:150])
    fresh.upsert(known, pair.rows.view()[known])
    pair.delete([3, 4, 120])
    pair.append([3], vectors(1, 5))  # a slot that the fresh tail knows with another vector
    pair.append([300], vectors(1, 6))
    pair.index.install(fresh, np.array([3, 4, 120]))
    assert pair.index.head_count + pair.index.tail_count == len(pair.model) == len(pair.index)
    assert pair.index.tail_count == 147
    pair.check(vectors(5, 9), 30)
    # Those that waited longest go first; the tail's loss comes before what was in the head.
    assert pair.index.waiting()[-2:].tolist() == [3, 300]


def test_what_a_restored_tail_lacks_is_in_the_head() -> None:
    pair = Pair(Metric.IP, tail=False)
    rows = vectors(100)
    pair.rows.write(np.arange(100), rows)
    pair.model = dict(enumerate(rows))
    tail = pair.fresh_tail()
    tail.upsert(np.arange(0, 100, 2), rows[::2])
    pair.index.restore(np.arange(100), tail)
    assert (pair.index.head_count, pair.index.tail_count) == (50, 50)
    pair.check(vectors(5, 9), 10)


def test_an_index_without_a_tail_is_exact_unless_its_scans_are_bounded() -> None:
    pair = Pair(Metric.L2, tail=False)
    pair.append(np.arange(50), vectors(50))
    assert pair.index.is_exact(SearchOptions())
    assert pair.index.is_exact(SearchOptions(max_scans=50))
    assert not pair.index.is_exact(SearchOptions(max_scans=49))
    pair.index.install(pair.fresh_tail(), np.empty(0, np.int64))
    assert pair.index.is_exact(SearchOptions(ef=10))
    pair.merge(1)
    assert not pair.index.is_exact(SearchOptions(ef=10))
    with pytest.raises(RuntimeError):
        Pair(Metric.L2, tail=False).index.prepare_merge(1)


def test_a_bound_on_scans_is_shared_by_head_and_tail() -> None:
    pair = Pair(Metric.L2)
    pair.append(np.arange(2000), vectors(2000))
    pair.merge(1000)
    found = pair.index.search(vectors(3, 9), 10, SearchOptions(max_scans=20))
    # Ten of the newest of the head, and ten that the tail may look at.
    assert set(found.slots.ravel().tolist()) <= set(range(10)) | set(range(1990, 2000))


@pytest.mark.parametrize("installing", [False, True], ids=["merges", "new tails"])
def test_nothing_that_is_appended_beside_merges_is_lost_or_there_twice(
    *, installing: bool, eager_threads: None
) -> None:
    count = 30_000
    pair = Pair(Metric.L2)
    rows = np.zeros((count, DIM), np.float32)  # which share a node, so that merges are quick
    pair.rows.write(np.arange(count), rows)
    done = threading.Event()

    def merge() -> None:
        while not done.is_set():
            if installing:
                pair.index.install(pair.fresh_tail(), np.empty(0, np.int64))
            else:
                pair.merge(8)

    with ThreadPoolExecutor(1) as pool:
        merging = pool.submit(merge)
        try:
            for start in range(0, count, 8):
                pair.index.append(np.arange(start, start + 8), rows[start : start + 8])
        finally:
            done.set()
        merging.result()
    assert pair.index.tail is not None
    in_tail = np.flatnonzero(pair.index.tail.live)
    everything = np.sort(np.concatenate([pair.index.waiting(), in_tail]))
    assert np.array_equal(everything, np.arange(count))


def test_nothing_that_is_appended_beside_deletes_is_lost(eager_threads: None) -> None:
    count = 30_000
    pair = Pair(Metric.L2, tail=False)
    rows = np.zeros((count, DIM), np.float32)
    pair.rows.write(np.arange(count), rows)
    deleted: list[int] = []
    done = threading.Event()

    def delete() -> None:
        while not done.is_set():
            slots = pair.index.live_slots()[:16]
            pair.index.delete(slots)
            deleted.extend(slots.tolist())

    with ThreadPoolExecutor(1) as pool:
        deleting = pool.submit(delete)
        try:
            for start in range(0, count, 8):
                pair.index.append(np.arange(start, start + 8), rows[start : start + 8])
        finally:
            done.set()
        deleting.result()
    left = pair.index.waiting().tolist()
    assert sorted(deleted + left) == list(range(count))
    assert pair.index.live_slots().tolist() == sorted(left)
    assert len(pair.index) == pair.index.head_count == len(left)


def test_a_tail_that_takes_over_counts_as_changed_throughout() -> None:
    pair = Pair(Metric.L2)
    pair.append(np.arange(50), vectors(50))
    before = pair.index.tail_changes
    fresh = pair.fresh_tail()
    fresh.upsert(np.arange(40), pair.rows.view()[:40])
    pair.index.install(fresh, np.empty(0, np.int64))
    assert pair.index.tail_changes - before > 40


def test_what_a_tail_has_counted_outlives_it() -> None:
    pair = Pair(Metric.L2)
    pair.append(np.arange(3000), vectors(3000))
    pair.merge(3000)
    pair.index.search(vectors(3, 9), 5, SearchOptions(ef=10))
    counted = pair.index.statistics()
    assert counted.graph_queries_total == 3
    pair.index.abandon_tail()
    assert pair.index.statistics() == counted
    assert pair.index.head_count == 3000
    pair.check(vectors(2, 5), 10)


def test_appending_is_safe_beside_searches() -> None:
    """Searches in other threads see a vector whole, or not at all."""
    pair = Pair(Metric.COSINE)
    pair.append(np.arange(500), vectors(500))
    pair.merge(400)
    query = vectors(3, 9)
    stop = threading.Event()
    failures: list[BaseException] = []

    def search() -> None:
        try:
            while not stop.is_set():
                found = pair.index.search(query, 10, SearchOptions())
                assert np.isfinite(found.scores).all()
                assert (np.diff(found.scores, axis=1) <= 0).all()
        except BaseException as error:  # noqa: BLE001 - it is raised in the test's thread
            failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for start in range(500, 4500, 20):
        pair.append(np.arange(start, start + 20), vectors(20, start))
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    pair.check(query, 10)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 700)), max_size=12))
def test_the_queue_of_the_head_keeps_its_order(steps: list[tuple[bool, int]]) -> None:
    pair = Pair(Metric.L2, tail=False)
    expected: list[int] = []
    following = 0
    for adds, count in steps:
        if adds:
            slots = list(range(following, following + count))
            following += count
            pair.append(slots, vectors(count, following))
            expected += slots
        else:
            gone = np.random.default_rng(count).permutation(expected)[: count // 2].tolist()
            gone += expected[: count // 3]
            pair.delete(gone)
            expected = [slot for slot in expected if slot not in set(gone)]
    assert pair.index.waiting().tolist() == expected
    assert pair.index.head_count == len(expected)


class Life(RuleBasedStateMachine):
    """Whatever is added, deleted, merged and rebuilt, head and tail answer as the oracle does."""

    @initialize(metric=st.sampled_from(list(Metric)))
    def begin(self, metric: Metric) -> None:
        self.pair = Pair(metric)
        self.step = 0

    @rule(count=st.integers(1, 30), offset=st.integers(0, 60))
    def add(self, count: int, offset: int) -> None:
        self.step += 1
        slots = [s for s in range(offset, offset + count) if s not in self.pair.model]
        if slots:
            self.pair.append(slots, vectors(len(slots), self.step))

    @rule(first=st.integers(0, 90), count=st.integers(1, 30))
    def drop(self, first: int, count: int) -> None:
        self.pair.delete(range(first, first + count))

    @rule(count=st.integers(1, 40))
    def merge(self, count: int) -> None:
        self.pair.merge(count)

    @rule(share=st.integers(0, 100), gone=st.integers(0, 5))
    def rebuild(self, share: int, gone: int) -> None:
        known = np.array(sorted(self.pair.model), np.int64)[:share]
        fresh = self.pair.fresh_tail()
        if len(known):
            fresh.upsert(known, self.pair.rows.view()[known])
        changed = known[:gone]
        self.pair.delete(changed)
        self.pair.index.install(fresh, changed)

    @invariant()
    def answers(self) -> None:
        if hasattr(self, "pair"):
            self.pair.check(vectors(2, 1000 + self.step), 7)
            assert self.pair.index.head_count + self.pair.index.tail_count == len(self.pair.model)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
