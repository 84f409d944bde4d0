"""Counters and histograms."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pyrope.metrics import ANSWERS, CommandStats, Histogram, ServerCounters, Sizes


@given(st.lists(st.integers(0, 2**36 - 1), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_at_most_an_eighth_above_the_truth_and_never_below(
    values: list[int], share: float
) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    exact = int(np.quantile(values, share, method="inverted_cdf"))
    assert exact <= histogram.percentile(share) <= exact * 9 / 8 + 1


def test_values_beyond_the_range_count_as_the_largest() -> None:
    histogram = Histogram()
    histogram.record(2**60)
    histogram.record(-5)
    assert histogram.percentile(0.1) == 0
    assert 2**36 <= histogram.percentile(1) < 2**37


@given(st.lists(st.integers(0, 2**35)))
def test_powers_of_two_count_the_values_up_to_each_bound(values: list[int]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    seen = 0
    for bound, count in histogram.powers_of_two():
        assert count > seen
        seen = count
        assert sum(1 for v in values if v < bound * 1000 * 8 / 9) <= count
        assert count <= sum(1 for v in values if v <= bound * 1000)
    assert seen == len(values)


def test_an_empty_histogram_has_no_percentiles() -> None:
    assert Histogram().percentile(0.99) == 0
    assert list(Histogram().powers_of_two()) == []


def test_calls_are_counted_beyond_the_clearing_of_their_latencies() -> None:
    stats = CommandStats()
    for _ in range(5000):
        stats.record(0.001)
    assert stats.calls == 5000
    assert round(stats.microseconds) == 5_000_000
    stats.reset_latency()
    stats.record(0.5)
    assert (stats.calls, stats.latency.count) == (5001, 1)
    assert 0.5e9 <= stats.latency.percentile(0.5) <= 0.5e9 * 9 / 8
    stats.reset()
    assert (stats.calls, stats.microseconds, stats.latency.count) == (0, 0.0, 0)


@given(
    st.lists(st.integers(0, 2**36 - 1)),
    st.lists(st.integers(1, 2**36 - 1), min_size=1, max_size=9, unique=True),
)
def test_what_is_folded_up_to_a_bound_is_below_it_and_misses_an_eighth_at_most(
    values: list[int], bounds: list[int]
) -> None:
    bounds.sort()
    histogram = Histogram()
    for value in values[: len(values) // 2]:
        histogram.record(value)
    histogram.clear()
    for value in values[len(values) // 2 :]:
        histogram.record(value)
    folded = histogram.folded(bounds)
    assert folded == sorted(folded)
    for bound, count in zip(bounds, folded, strict=True):
        assert count <= sum(1 for value in values if value <= bound)
        assert count >= sum(1 for value in values if value <= bound * 8 / 9 - 1)


@given(st.lists(st.floats(-1, 200), max_size=200))
def test_durations_are_recorded_alike_one_by_one_and_all_at_once(seconds: list[float]) -> None:
    one, all_ = Histogram(), Histogram()
    for each in seconds:
        one.record(int(each * 1e9))
    all_.record_all(np.array(seconds, np.float64))
    bounds = [1, 10, 1000, 10**6, 10**9, 2**36]
    assert all_.folded(bounds) == one.folded(bounds)
    assert (all_.count, all_.recorded_total) == (one.count, one.recorded_total)
    assert [all_.percentile(share) for share in (0.1, 0.5, 1)] == [
        one.percentile(share) for share in (0.1, 0.5, 1)
    ]


@given(st.lists(st.integers(0, 2**40)))
def test_sizes_are_counted_by_the_power_of_two_that_they_are_up_to(sizes: list[int]) -> None:
    counted = Sizes()
    for size in sizes:
        counted.record(size)
    assert (counted.count, counted.total) == (len(sizes), sum(sizes))
    for power, count in enumerate(counted.folded(20)):
        assert count == sum(1 for size in sizes if size <= 2**power)


def test_calls_that_are_alike_are_told_apart_and_counted_among_the_others() -> None:
    stats = CommandStats()
    stats.record(0.002)
    stats.record_alike(0.001, 3)
    assert (stats.calls, stats.alike.histogram.recorded_total) == (4, 3)
    assert round(stats.alike.seconds, 6) == 0.003
    stats.reset()
    assert (stats.calls, stats.alike.histogram.recorded_total) == (0, 0)


def test_a_new_server_has_answered_nothing_from_anywhere() -> None:
    counters = ServerCounters()
    assert set(counters.answered) == set(ANSWERS)
    counters.count_adjustment("spent")
    counters.count_adjustment("spent")
    assert counters.adjustments == {"spent": 2}
