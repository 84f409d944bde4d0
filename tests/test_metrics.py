"""Counters and histograms."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pyrope.metrics import CommandStats, Histogram


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
