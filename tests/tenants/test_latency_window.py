"""Percentiles over a window that slides."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrope.tenants.latency_window import LatencyWindow
from pyrope.testing.clock import ManualClock

ERROR = 1 / 32
LONGEST = 2**26 * 1e-6


def nearest_rank(values: list[float], share: float) -> float:
    return sorted(values)[ceil(round(share * len(values), 9)) - 1]


@settings(deadline=None)
@given(
    st.lists(st.floats(0, LONGEST, allow_nan=False), min_size=1, max_size=300),
    st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]),
)
def test_a_percentile_is_never_too_low_and_too_high_by_a_thirty_second_at_most(
    values: list[float], share: float
) -> None:
    window = LatencyWindow(ManualClock(), 10)
    for value in values:
        window.record(value)
    exact = nearest_rank(values, share)
    found = window.percentile(share)
    assert exact * (1 - 1e-9) <= found <= max(exact * (1 + ERROR), exact + 1e-6) * (1 + 1e-9)


def test_without_values_there_is_no_latency() -> None:
    window = LatencyWindow(ManualClock(), 10)
    assert window.percentile(0.99) == 0
    assert window.count == 0


def test_what_takes_longer_than_the_longest_counts_as_that() -> None:
    window = LatencyWindow(ManualClock(), 10)
    window.record(1e9)
    assert window.percentile(0.99) == pytest.approx(LONGEST)


def test_a_value_is_forgotten_when_the_window_has_passed_it() -> None:
    clock = ManualClock()
    window = LatencyWindow(clock, 10)
    window.record(5.0)
    for _ in range(9):
        clock.advance(1)
        window.record(0.001)
    assert window.percentile(1.0) == pytest.approx(5.0, rel=ERROR)
    clock.advance(1)
    assert window.percentile(1.0) == pytest.approx(0.001, rel=ERROR)
    assert window.count == 9


def test_a_long_silence_empties_the_window() -> None:
    clock = ManualClock()
    window = LatencyWindow(clock, 10)
    window.record(5.0)
    clock.advance(1_000_000.5)
    assert window.count == 0
    window.record(0.25)
    clock.advance(8.9)
    assert window.percentile(0.5) == pytest.approx(0.25, rel=ERROR)


def test_more_values_than_are_sorted_at_once_are_all_counted() -> None:
    window = LatencyWindow(ManualClock(), 10)
    for number in range(10_000):
        window.record((number + 1) * 1e-5)
    assert window.count == 10_000
    assert window.percentile(0.99) == pytest.approx(0.099, rel=ERROR)


def test_clearing_forgets_everything() -> None:
    window = LatencyWindow(ManualClock(), 10)
    window.record(1.0)
    assert window.count == 1
    window.record(1.0)
    window.clear()
    assert window.count == 0


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 4), st.floats(1e-6, 10)), max_size=80))
def test_the_window_holds_its_length_and_no_more_whatever_the_gaps(
    arrivals: list[tuple[float, float]],
) -> None:
    clock = ManualClock()
    window = LatencyWindow(clock, 10)
    held: list[tuple[float, float]] = []
    for gap, value in arrivals:
        clock.advance(gap)
        window.record(value)
        now = clock.monotonic()
        held.append((now, value))
        inside = [one for at, one in held if at > now - 9]
        about = [one for at, one in held if at > now - 10]
        assert len(inside) <= window.count <= len(about)
        assert max(inside) * (1 - 1e-9) <= window.percentile(1.0)
        assert window.percentile(1.0) <= max(about) * (1 + ERROR) + 1e-6


def test_a_window_of_no_length_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than nothing"):
        LatencyWindow(ManualClock(), 0)
