"""Writes in a sliding window, against a list of all writes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.semantic.write_heat import WriteHeat
from pyrope.testing.clock import ManualClock

WINDOW = 300.0


@given(
    st.lists(
        st.tuples(
            st.floats(0, 200) | st.floats(0, 3 * WINDOW),
            st.lists(st.integers(0, 3), max_size=5),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_what_counts_was_written_within_the_window_to_a_tenth(
    steps: list[tuple[float, list[int], bool]],
) -> None:
    clock = ManualClock()
    heat = WriteHeat(4, WINDOW, clock.monotonic)
    written: list[tuple[float, int]] = []
    for seconds, clusters, at_once in steps:
        clock.advance(seconds)
        if at_once:
            heat.add_many(np.array(clusters, np.int64))
        else:
            for cluster in clusters:
                heat.add(cluster)
        written += [(clock.monotonic(), cluster) for cluster in clusters]
        now = clock.monotonic()
        for cluster in range(4):
            ages = [now - at for at, one in written if one == cluster]
            # An age of exactly nine tenths may be a rounding away from either side.
            least = sum(age < 0.9 * WINDOW - 1e-6 for age in ages)
            most = sum(age < WINDOW + 1e-6 for age in ages)
            assert least <= heat.of(cluster) <= most
        assert heat.total == sum(heat.of(cluster) for cluster in range(4))


@pytest.mark.parametrize("pause", [WINDOW, 1.9 * WINDOW, 10 * WINDOW, 1e9])
def test_an_idle_window_is_empty_without_anybody_having_looked(
    clock: ManualClock, pause: float
) -> None:
    heat = WriteHeat(2, WINDOW, clock.monotonic)
    heat.add(1, 5)
    clock.advance(pause)
    assert (heat.of(0), heat.of(1), heat.total) == (0, 0, 0)


def test_writes_leave_tenth_by_tenth(clock: ManualClock) -> None:
    heat = WriteHeat(1, WINDOW, clock.monotonic)
    for _ in range(10):
        heat.add(0)
        clock.advance(WINDOW / 10)
    left = []
    for _ in range(10):
        left.append(heat.of(0))
        clock.advance(WINDOW / 10)
    assert left == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_a_sample_counts_for_the_whole_batch(clock: ManualClock) -> None:
    heat = WriteHeat(3, WINDOW, clock.monotonic)
    heat.add_many(np.array([2, 2, 0, 2]), 2.5)
    assert [heat.of(cluster) for cluster in range(3)] == [2.5, 0, 7.5]
    assert heat.total == 10


def test_writes_keep_their_age_when_clusters_change(clock: ManualClock) -> None:
    heat = WriteHeat(3, WINDOW, clock.monotonic)
    heat.add(0, 4)
    clock.advance(WINDOW / 2)
    heat.add(1, 2)
    heat.add(2, 1)
    heat.move(np.array([1, 1, 0]), 4)
    assert [heat.of(cluster) for cluster in range(4)] == [1, 6, 0, 0]
    clock.advance(WINDOW / 2)
    assert [heat.of(cluster) for cluster in range(4)] == [1, 2, 0, 0]
    heat.spread(np.array([0.75, 0.25]))
    assert [heat.of(cluster) for cluster in range(2)] == [2.25, 0.75]
    assert len(heat) == 2
    clock.advance(WINDOW / 2)
    assert heat.total == 0
