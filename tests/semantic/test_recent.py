"""Samples of queries and slots of late."""

from __future__ import annotations

import numpy as np

from pyrope.semantic.recent import RecentQueries, RecentSlots


def queries_of(capacity: int) -> RecentQueries:
    return RecentQueries(2, capacity, np.random.default_rng(3))


def test_until_it_is_full_every_query_is_kept() -> None:
    queries = queries_of(100)
    for number in range(100):
        queries.offer(np.array([number, -number], np.float32))
    assert queries.rows().tolist() == [[number, -number] for number in range(100)]


def test_queries_are_taken_as_bytes_too() -> None:
    queries = queries_of(4)
    queries.offer(np.array([1, 2], "<f4").tobytes())
    assert queries.rows().tolist() == [[1, 2]]


def test_what_is_kept_is_bounded_and_mostly_of_late() -> None:
    queries = queries_of(100)
    for number in range(50_000):
        queries.offer(np.array([number, 0], np.float32))
    rows = queries.rows()
    assert rows.shape == (100, 2)
    assert queries.nbytes == 100 * 2 * 4
    # One in eight is taken: the mean age is 800 queries, and nearly all are of the last 5000.
    ages = 50_000 - rows[:, 0]
    assert np.median(ages) < 2000
    assert (ages < 5000).mean() > 0.9
    assert len(np.unique(ages)) == 100


def test_an_index_that_nobody_asks_holds_no_sample() -> None:
    assert queries_of(10_000).nbytes == 0
    assert RecentSlots(10_000).nbytes == 0
    assert len(RecentSlots(10).slots()) == 0


def test_the_sample_that_is_handed_out_is_a_copy() -> None:
    queries = queries_of(1)
    queries.offer(np.array([1, 1], np.float32))
    rows = queries.rows()
    for _ in range(100):
        queries.offer(np.array([2, 2], np.float32))
    assert rows.tolist() == [[1, 1]]
    assert queries.rows().tolist() == [[2, 2]]


def test_the_last_slots_are_kept_each_once() -> None:
    slots = RecentSlots(5)
    slots.add(np.array([7, 7, 3]))
    assert slots.slots().tolist() == [3, 7]
    slots.add(np.arange(10, 13))
    assert slots.slots().tolist() == [3, 7, 10, 11, 12]
    slots.add(np.arange(100, 200))
    assert slots.slots().tolist() == [195, 196, 197, 198, 199]
