"""Files of a graph over codes: what they keep, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine_oracle import Rows, clustered, recall
from engine_sq8 import ANY, empty, filled, in_batches, small
from pyrope.engine.base import DamagedIndexError, SearchOptions
from pyrope.engine.hnsw_sq8 import HnswSq8Index
from pyrope.types import Metric


def save_directly(index: HnswSq8Index, path: str) -> None:
    index.save(path)


def save_forked(index: HnswSq8Index, path: str) -> None:
    index.save_forked(path, lambda: None)


@pytest.fixture(params=[save_directly, save_forked])
def save(request: pytest.FixtureRequest) -> Callable[[HnswSq8Index, str], None]:
    chosen: Callable[[HnswSq8Index, str], None] = request.param
    return chosen


@pytest.mark.parametrize("metric", list(Metric))
def test_a_loaded_index_answers_as_the_saved_one_did(
    tmp_path: Path, save: Callable[[HnswSq8Index, str], None], metric: Metric
) -> None:
    vectors = clustered(3000, 8, 3)
    vectors[2000:2100] = vectors[:100]
    index, rows = filled(vectors, metric)
    index.delete(np.arange(0, 50))
    save(index, str(tmp_path / "graph"))
    live = np.arange(50, 3000)
    loaded = empty(metric, 8, rows, capacity=4000)
    assert loaded.load(str(tmp_path / "graph"), live, live).tolist() == []
    assert (len(loaded), loaded.deleted_count) == (2950, index.deleted_count)
    for query in (vectors[:50], vectors[1000:1050]):
        found, expected = (one.search(query, 10, ANY) for one in (loaded, index))
        assert found.slots.tolist() == expected.slots.tolist()
        assert found.scores.tolist() == expected.scores.tolist()


def test_slots_that_have_changed_since_the_file_was_written_are_left_out(tmp_path: Path) -> None:
    index, rows = small()
    path = str(tmp_path / "graph")
    index.save(path)
    changed = np.array([3, 7, 299, 300, 350])
    rows.write(changed, clustered(5, 8, 77))
    live = np.setdiff1d(np.arange(351), [*range(20, 40), *range(301, 350)])
    loaded = empty(Metric.COSINE, 8, rows)
    left = loaded.load(path, live, np.setdiff1d(live, changed))
    assert left.tolist() == changed.tolist()
    assert np.flatnonzero(loaded.live).tolist() == np.setdiff1d(live, changed).tolist()
    loaded.upsert(left, rows.view()[left].copy())
    queries = rows.view()[live].copy()
    found = in_batches(loaded, queries, 5, SearchOptions(ef=4))
    assert loaded.statistics().graph_queries_total > 0
    assert recall(found, loaded.search_exact(queries, 5)) >= 0.95
    assert np.isin(found.slots, live).all()


def test_a_file_keeps_what_was_learnt_and_how_worn_it_is(tmp_path: Path) -> None:
    rows = Rows(8)
    index = empty(Metric.L2, 8, rows)
    index.train(clustered(500, 8, 3))
    vectors = 10 * clustered(1500, 8, 3)
    rows.write(np.arange(1500), vectors)
    index.upsert(np.arange(1500), vectors)
    index.save(str(tmp_path / "graph"))
    loaded = empty(Metric.L2, 8, rows)
    assert not loaded.worn
    loaded.load(str(tmp_path / "graph"), np.arange(1500), np.arange(1500))
    assert loaded.worn


def test_an_empty_index_can_be_saved_and_loaded(
    tmp_path: Path, save: Callable[[HnswSq8Index, str], None]
) -> None:
    index, rows = small()
    index.delete(np.arange(300))
    save(index, str(tmp_path / "graph"))
    loaded = empty(Metric.COSINE, 8, rows)
    live = np.arange(5)
    assert loaded.load(str(tmp_path / "graph"), live, live[:0]).tolist() == [0, 1, 2, 3, 4]
    loaded.upsert(live, rows.view()[live].copy())
    assert len(loaded) == 5


@pytest.mark.parametrize("changes", [{"dim": 9}, {"m": 13}, {"ef_construction": 81}, {}])
def test_an_index_of_another_definition_is_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    index, _ = small()
    index.save(str(tmp_path / "graph"))
    options = {"dim": 8} | changes
    dim = options.pop("dim")
    loaded = empty(Metric.COSINE if changes else Metric.L2, dim, Rows(dim), **options)
    with pytest.raises(DamagedIndexError, match="definition"):
        loaded.load(str(tmp_path / "graph"), np.arange(300), np.arange(300))


@pytest.mark.parametrize("size", [0, 10, 39, 40, 5000, -100, -1])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    index, rows = small()
    path = tmp_path / "graph"
    index.save(str(path))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedIndexError):
        empty(Metric.COSINE, 8, rows).load(str(path), np.arange(300), np.arange(300))


@pytest.mark.parametrize("path", ["/dev/full", "/nowhere/at/all"])
def test_a_file_that_cannot_be_written_is_an_error(
    save: Callable[[HnswSq8Index, str], None], path: str
) -> None:
    with pytest.raises(OSError, match=path):
        save(small()[0], path)


def test_a_forked_save_holds_the_index_as_it_was_at_the_fork(tmp_path: Path) -> None:
    index, rows = small()
    path = str(tmp_path / "graph")

    def go_on_writing() -> None:
        rows.write(np.array([300]), clustered(1, 8, 50))
        index.upsert(np.array([300]), rows.view()[300:301].copy())

    index.save_forked(path, go_on_writing)
    assert len(index) == 301
    loaded = empty(Metric.COSINE, 8, rows)
    live = np.arange(301)
    assert loaded.load(path, live, live).tolist() == [300]
