"""Drift: what counts as one, and that a burst or noise does not."""

from __future__ import annotations

import numpy as np
import pytest

from pyrope.semantic.centroids import Centroids
from pyrope.semantic.drift import LEAST_ROWS, Drift, Fit, mean_distance, unevenness
from pyrope.types import Metric

GOOD = Fit(written=1.0, queried=2.0, uneven=1.2)
FACTOR = 1.2


@pytest.mark.parametrize(
    "bad",
    [Fit(1.3, 2.0, 1.2), Fit(1.0, 2.5, 1.2), Fit(1.0, 2.0, 2.5), Fit(None, 2.5, None)],
    ids=["writes", "queries", "uneven", "too little else"],
)
def test_what_has_grown_at_two_looks_in_a_row_is_drift(bad: Fit) -> None:
    drift = Drift(GOOD)
    assert not drift.has_come(bad, FACTOR)
    assert drift.has_come(bad, FACTOR)


def test_a_burst_is_no_drift() -> None:
    drift = Drift(GOOD)
    for _ in range(5):
        assert not drift.has_come(Fit(5.0, 5.0, 5.0), FACTOR)
        assert not drift.has_come(GOOD, FACTOR)


def test_what_stays_within_the_factor_is_no_drift() -> None:
    drift = Drift(GOOD)
    for _ in range(5):
        assert not drift.has_come(Fit(1.19, 2.39, 2.39), FACTOR)


def test_vectors_and_queries_that_come_nearer_are_no_drift() -> None:
    drift = Drift(GOOD)
    for _ in range(5):
        assert not drift.has_come(Fit(0.1, 0.1, 1.0), FACTOR)


def test_what_could_not_be_told_at_first_is_measured_by_what_is_seen_first() -> None:
    drift = Drift(Fit(None, None, None))
    assert not drift.has_come(GOOD, FACTOR)
    assert not drift.has_come(Fit(1.3, 2.0, 1.2), FACTOR)
    assert drift.has_come(Fit(1.3, 2.0, 1.2), FACTOR)


def test_little_tells_nothing() -> None:
    rows = np.ones((LEAST_ROWS, 2), np.float32)
    centroids = Centroids(Metric.L2, rows[:1] * 4)
    assert mean_distance(centroids, rows[1:]) is None
    assert mean_distance(centroids, rows) == pytest.approx(np.sqrt(18))
    assert unevenness(np.zeros(LEAST_ROWS - 1, np.int64), 4) is None


def test_unevenness_is_one_for_equal_clusters_and_their_number_for_a_single_one() -> None:
    random = np.random.default_rng(1)
    equal = [unevenness(random.integers(16, size=500), 16) for _ in range(40)]
    assert np.mean([value for value in equal if value is not None]) == pytest.approx(1, abs=0.03)
    assert unevenness(np.full(500, 3), 16) == pytest.approx(16)
