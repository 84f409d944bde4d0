"""Generated vectors: the same from the same seed, clustered, and with known exact neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.harness import clusters, truth
from benchmarks.harness.clusters import BLOCK, Clusters
from benchmarks.harness.data import Float32Matrix

DIM = 24


@pytest.fixture(scope="module")
def drawn() -> Clusters:
    return Clusters(DIM, seed=5)


def written(of: Clusters, count: int, file: Path) -> Float32Matrix:
    of.write_base(count, file)
    rows: Float32Matrix = np.load(file)
    return rows


def test_vectors_come_from_the_seed_alone(drawn: Clusters, tmp_path: Path) -> None:
    rows = written(drawn, 100, tmp_path / "a.npy")
    again = Clusters(DIM, seed=5)
    assert np.array_equal(again.queries(10), drawn.queries(10))
    assert np.array_equal(written(again, 100, tmp_path / "b.npy"), rows)
    assert not np.array_equal(written(Clusters(DIM, seed=6), 100, tmp_path / "c.npy"), rows)


def test_a_small_dataset_is_the_beginning_of_a_large_one(drawn: Clusters, tmp_path: Path) -> None:
    large = written(drawn, BLOCK + 100, tmp_path / "large.npy")
    assert large.shape == (BLOCK + 100, DIM)
    assert np.array_equal(written(drawn, 50, tmp_path / "small.npy"), large[:50])
    assert np.array_equal(drawn.queries(7), drawn.queries(20)[:7])


def test_vectors_have_unit_length_and_none_comes_twice(drawn: Clusters, tmp_path: Path) -> None:
    parts = [written(drawn, 500, tmp_path / "a.npy"), drawn.queries(100), drawn.newcomers(100)]
    rows = np.concatenate(parts)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    products = rows @ rows.T
    np.fill_diagonal(products, 0)
    assert products.max() < 1 - 1e-6


def test_no_rows_are_no_rows(drawn: Clusters) -> None:
    assert drawn.newcomers(0).shape == (0, DIM)


def test_neighbours_stand_out(drawn: Clusters, tmp_path: Path) -> None:
    """What makes approximate search meaningful: the nearest are far nearer than any."""
    clusters.Clusters(128, seed=5).write_base(4000, tmp_path / "base.npy")
    dataset = clusters.dataset(Clusters(128, seed=5), tmp_path / "base.npy", 4000, 100)
    scores = dataset.queries @ dataset.base.T
    ordinary = np.median(scores, axis=1)
    spread = scores.std(axis=1)
    tenth = np.sort(scores, axis=1)[:, -10]
    assert np.median((tenth - ordinary) / spread) > 2.5


def test_a_part_of_a_mapped_file_has_exact_neighbours(drawn: Clusters, tmp_path: Path) -> None:
    drawn.write_base(900, tmp_path / "base.npy")
    dataset = clusters.dataset(drawn, tmp_path / "base.npy", 600, 30)
    assert dataset.base.shape == (600, DIM)
    exact = truth.exact(dataset, 5, tmp_path / "cache")
    scores = dataset.queries.astype(np.float64) @ dataset.base.astype(np.float64).T
    expected = np.sort(scores, axis=1)[:, :-6:-1]
    np.testing.assert_allclose(exact.scores, expected, atol=1e-6)
    assert truth.recall(exact.ids, dataset, exact) == 1.0
    whole = clusters.dataset(drawn, tmp_path / "base.npy", 900, 30)
    truth.exact(whole, 5, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2, "each has a scan of its own"
