"""Which centroid is nearest, against a plain search in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.semantic.centroids import Centroids, choose_count
from pyrope.types import Metric

METRICS = list(Metric)


def random_rows(count: int, dim: int, seed: int, scale: float = 1.0) -> Any:
    rows = np.random.default_rng(seed).standard_normal((count, dim))
    return (scale * rows).astype(np.float32)


def nearest(metric: Metric, points: Any, rows: Any) -> Any:
    x, c = rows.astype(np.float64), points.astype(np.float64)
    if metric is Metric.COSINE:
        c = c / np.linalg.norm(c, axis=1)[:, None]
        return (x @ c.T).argmax(axis=1)
    return np.linalg.norm(x[:, None] - c[None], axis=2).argmin(axis=1)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("count", "dim"), [(1, 3), (7, 1), (40, 16), (256, 384)])
def test_a_vector_belongs_to_the_centroid_that_a_plain_search_finds(
    metric: Metric, count: int, dim: int
) -> None:
    points, rows = random_rows(count, dim, 1), random_rows(100, dim, 2)
    centroids = Centroids(metric, points)
    expected = nearest(metric, points, rows).tolist()
    assert centroids.assign_many(rows).tolist() == expected
    assert [centroids.assign(row) for row in rows] == expected


def test_a_batch_of_any_length_is_assigned_as_its_rows_are() -> None:
    points, rows = random_rows(900, 4, 1), random_rows(3000, 4, 2)
    found = Centroids(Metric.L2, points).assign_many(rows)
    assert (found == nearest(Metric.L2, points, rows)).all()
    assert len(Centroids(Metric.L2, points).assign_many(rows[:0])) == 0


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
def test_what_all_vectors_have_in_common_does_not_blur_what_sets_them_apart(
    metric: Metric,
) -> None:
    points, rows = random_rows(50, 8, 1) + 30_000, random_rows(200, 8, 2) + 30_000
    found = Centroids(metric, points).assign_many(rows)
    own = np.linalg.norm(rows.astype(float) - points[found], axis=1)
    best = np.linalg.norm(rows[:, None].astype(float) - points[None], axis=2).min(axis=1)
    assert (own <= best + 0.05).all()


@pytest.mark.parametrize("metric", METRICS)
def test_vectors_as_large_as_an_index_takes_belong_somewhere(metric: Metric) -> None:
    largest = math.sqrt(float(np.finfo(np.float32).max) / 4 / 16) * 0.999
    points = np.full((3, 16), largest, np.float32) * np.array([[1], [-1], [0.5]], np.float32)
    centroids = Centroids(metric, points)
    assert centroids.assign(points[1]) == 1
    assert centroids.assign_many(points)[1] == 1
    assert math.isfinite(centroids.score(points[0], 1))


def test_of_equal_centroids_the_first_is_taken() -> None:
    points = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    for metric in METRICS:
        assert Centroids(metric, points).assign(points[2]) == 1


def test_for_cosine_centroids_are_unit_vectors_and_length_does_not_matter() -> None:
    points = random_rows(20, 8, 1, scale=50)
    centroids = Centroids(Metric.COSINE, points)
    assert np.linalg.norm(centroids.matrix, axis=1) == pytest.approx(np.ones(20), rel=1e-6)
    vector = random_rows(1, 8, 2)[0]
    assert centroids.assign(vector) == centroids.assign(vector * np.float32(1e6))


def test_scores_are_cosines_or_distances() -> None:
    points = np.array([[3, 4], [0, 2]], np.float32)
    vector = np.array([3, 0], np.float32)
    assert Centroids(Metric.COSINE, points).score(vector, 0) == pytest.approx(0.6)
    assert Centroids(Metric.COSINE, points).score(np.zeros(2, np.float32), 0) == 0
    for metric in (Metric.L2, Metric.IP):
        assert Centroids(metric, points).score(vector, 0) == pytest.approx(4)
        assert Centroids(metric, points).score(vector, 1) == pytest.approx(math.sqrt(13))


@pytest.mark.parametrize("metric", METRICS)
def test_distances_are_euclidean(metric: Metric) -> None:
    points, rows = random_rows(9, 5, 1), random_rows(30, 5, 2)
    centroids = Centroids(metric, points)
    clusters = centroids.assign_many(rows)
    x, c = rows.astype(np.float64), points.astype(np.float64)[clusters]
    if metric is Metric.COSINE:
        x /= np.linalg.norm(x, axis=1)[:, None]
        c /= np.linalg.norm(c, axis=1)[:, None]
    expected = np.linalg.norm(x - c, axis=1)
    assert centroids.distances(rows, clusters) == pytest.approx(expected, abs=1e-6)


def test_memory_is_counted_by_what_is_held() -> None:
    points = random_rows(10, 8, 1)
    assert Centroids(Metric.COSINE, points).nbytes == 10 * 8 * 4
    assert Centroids(Metric.L2, points).nbytes == 2 * 10 * 8 * 4 + 8 * 4 + 10 * 4


def test_later_changes_of_the_rows_change_nothing() -> None:
    for metric in METRICS:
        points = np.eye(3, dtype=np.float32)
        centroids = Centroids(metric, points)
        points[:] = 0
        assert centroids.assign(np.array([0, 1, 0], np.float32)) == 1


@given(st.integers(0, 10**9), st.integers(1, 1024))
def test_there_are_as_many_as_the_square_root_within_the_bounds(vectors: int, most: int) -> None:
    count = choose_count(vectors, most)
    assert 1 <= count <= most
    if 1 < count < most:
        assert abs(count - math.sqrt(vectors)) <= 0.5
