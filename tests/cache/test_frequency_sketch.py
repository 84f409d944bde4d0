from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.cache.frequency_sketch import COUNTER_LIMIT, WINDOW_FACTOR, FrequencySketch


def add(sketch: FrequencySketch, item: object, times: int) -> None:
    for _ in range(times):
        sketch.add(item)


@given(
    items=st.lists(st.integers(0, 30), max_size=400),
    capacity=st.integers(1, 8),
    seed=st.integers(0, 2**64 - 1),
)
def test_an_estimate_is_never_below_an_exact_count_halved_at_the_same_times(
    items: list[int], capacity: int, seed: int
) -> None:
    sketch = FrequencySketch(capacity, seed)
    exact: Counter[int] = Counter()
    for number, item in enumerate(items, start=1):
        sketch.add(item)
        exact[item] += 1
        if number % sketch.window == 0:
            exact = Counter({key: count // 2 for key, count in exact.items()})
    assert sketch.epoch == len(items) // sketch.window
    for item, count in exact.items():
        assert sketch.estimate(item) >= min(count, COUNTER_LIMIT)


def test_estimates_of_a_skewed_stream_are_nearly_exact() -> None:
    sketch = FrequencySketch(capacity=2048, seed=7)
    ranks = np.arange(1, 20_001)
    shares = 1 / ranks**0.9
    draws = np.random.default_rng(1).choice(ranks, sketch.window - 1, p=shares / shares.sum())
    exact = Counter(draws.tolist())
    for item in draws.tolist():
        sketch.add(item)
    errors = [
        sketch.estimate(item) - count for item, count in exact.items() if count < COUNTER_LIMIT
    ]
    assert min(errors) == 0
    assert np.mean(np.array(errors) == 0) > 0.97
    unseen = [sketch.estimate(item) for item in range(30_000, 40_000)]
    assert np.mean(np.array(unseen) == 0) > 0.85


def test_a_counter_stops_at_its_limit() -> None:
    sketch = FrequencySketch(capacity=100, seed=1)
    add(sketch, "often", COUNTER_LIMIT + 50)
    assert sketch.estimate("often") == COUNTER_LIMIT


def test_counts_are_halved_after_ten_lookups_for_each_item_of_the_capacity() -> None:
    sketch = FrequencySketch(capacity=64, seed=1)
    assert sketch.window == WINDOW_FACTOR * 64
    add(sketch, "star", 40)
    add(sketch, "other", sketch.window - 41)
    assert (sketch.estimate("star"), sketch.epoch) == (40, 0)
    sketch.add("other")
    assert (sketch.estimate("star"), sketch.epoch) == (20, 1)
    assert sketch.recorded == 0


@pytest.mark.parametrize(("windows", "left"), [(1, 100), (3, 25), (7, 1), (8, 0), (60, 0)])
def test_lookups_recorded_from_outside_age_the_counts_as_well(windows: int, left: int) -> None:
    sketch = FrequencySketch(capacity=64, seed=1)
    add(sketch, "star", 200)
    sketch.recorded = windows * sketch.window + 4
    sketch.add("other")
    assert (sketch.estimate("star"), sketch.epoch, sketch.recorded) == (left, windows, 5)


@given(count=st.integers(0, 300), before=st.integers(0, 300))
def test_an_estimate_can_be_raised_and_is_never_lowered_by_that(count: int, before: int) -> None:
    sketch = FrequencySketch(capacity=100, seed=1)
    add(sketch, "item", before)
    sketch.raise_to("item", count)
    assert sketch.estimate("item") == min(max(count, before), COUNTER_LIMIT)


@given(items=st.lists(st.integers(0, 50), max_size=150), capacity=st.integers(1, 5000))
def test_growing_changes_no_estimate(items: list[int], capacity: int) -> None:
    sketch = FrequencySketch(capacity=16, seed=3)
    for item in items:
        sketch.add(item)
    before = [sketch.estimate(item) for item in range(60)]
    sketch.grow(capacity)
    assert sketch.capacity >= capacity
    assert [sketch.estimate(item) for item in range(60)] == before
    assert 16 * capacity <= sketch.nbytes <= max(16 * 16, 32 * capacity)


def test_the_seed_decides_which_items_share_counters() -> None:
    def shared(seed: int) -> list[int]:
        sketch = FrequencySketch(capacity=4, seed=seed)
        add(sketch, "item", 10)
        return [item for item in range(20_000) if sketch.estimate(item)]

    assert shared(1) == shared(1)
    assert shared(1) != shared(2)


def test_a_sketch_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity"):
        FrequencySketch(0, seed=1)
