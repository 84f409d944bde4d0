"""Differences between one look and the next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.http.dashboard.recent import Recent, sum_of
from pyrope.metrics import Durations
from pyrope.testing.clock import ManualClock


@pytest.fixture
def recent(clock: ManualClock) -> Recent:
    return Recent(clock.monotonic)


def test_rates_are_known_from_the_second_look_on(clock: ManualClock, recent: Recent) -> None:
    found = []
    for value in (10, 30):
        recent.turn()
        found.append((recent.seconds, recent.per_second("queries", value)))
        clock.advance(2)
    assert found == [(None, None), (2, 10)]
    assert recent.grown("new", 5) is None


def test_what_falls_has_begun_anew(clock: ManualClock, recent: Recent) -> None:
    for value, expected in ((10, None), (3, None), (5, 2)):
        recent.turn()
        assert recent.grown("queries", value) == expected
        clock.advance(1)


def test_what_was_not_looked_at_is_forgotten(clock: ManualClock, recent: Recent) -> None:
    recent.turn()
    recent.grown("index", 1)
    recent.turn()
    recent.turn()
    assert recent.grown("index", 2) is None


def test_two_looks_at_the_same_moment_have_no_rate(recent: Recent) -> None:
    for value in (1, 2):
        recent.turn()
        assert recent.per_second("queries", value) is None


@given(
    before=st.lists(st.floats(1e-7, 10), max_size=50),
    since=st.lists(st.floats(1e-7, 10), max_size=50),
    share=st.floats(0.01, 1),
)
def test_percentiles_are_of_what_came_between_the_looks(
    before: list[float], since: list[float], share: float
) -> None:
    recent, durations, expected = Recent(ManualClock().monotonic), Durations(), Durations()
    for one in before:
        durations.record(one)
    recent.percentiles(sum_of([durations, Durations()]), (share,))
    for one in since:
        durations.record(one)
        expected.record(one)
    found = recent.percentiles(sum_of([durations, Durations()]), (share,))
    assert found == [expected.histogram.percentile(share) if since else None]


def test_percentiles_outlive_what_is_cleared_away_and_what_begins_anew(recent: Recent) -> None:
    durations = Durations()
    durations.record(1.0)
    assert recent.percentiles(sum_of([durations]), (0.5,)) == [None]
    durations.histogram.clear()
    durations.record(0.001)
    (median,) = recent.percentiles(sum_of([durations]), (0.5,))
    assert median is not None
    assert 1e6 <= median < 1.125e6
    assert recent.percentiles(sum_of([Durations()]), (0.5,)) == [None]
