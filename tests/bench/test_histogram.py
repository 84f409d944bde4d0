"""Percentiles out of buckets, against the sorted values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyrope.bench.histogram import Histogram

values = st.lists(st.integers(0, 10**9), min_size=1, max_size=200)


@given(values=values, percent=st.floats(0.01, 100))
def test_a_percentile_is_never_below_the_true_one_and_at_most_a_hundredth_above(
    values: list[int], percent: float
) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    ordered = sorted(values)
    true = next(v for n, v in enumerate(ordered, 1) if n >= percent / 100 * len(ordered))
    assert true <= histogram.percentile(percent) <= true * 1.01
    assert histogram.largest == ordered[-1] == histogram.percentile(100)
    assert histogram.count == len(values)


def test_without_values_there_is_nothing_to_tell() -> None:
    assert Histogram().percentile(99) == 0


def test_several_of_one_value_count_each() -> None:
    histogram = Histogram()
    histogram.add(5, 9)
    histogram.add(1000)
    assert (histogram.count, histogram.percentile(90)) == (10, 5)
