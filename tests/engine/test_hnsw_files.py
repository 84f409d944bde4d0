"""HNSW in files: saved, forked, loaded, damaged."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine_hnsw import COUNT, DIM, filled, labels_of, small
from engine_oracle import Rows, clustered, recall
from pyrope.engine import init_worker_thread
from pyrope.engine.base import DamagedIndexError, SearchOptions
from pyrope.engine.forked import write_forked
from pyrope.engine.hnsw import HnswIndex
from pyrope.types import Float32Matrix, Metric, Slots

ANY = SearchOptions()


@pytest.fixture(scope="module")
def vectors() -> Float32Matrix:
    return clustered(COUNT, DIM, 1)


@pytest.fixture(scope="module")
def large(vectors: Float32Matrix) -> HnswIndex:
    """Not to be written to."""
    return filled(vectors)[0]


@pytest.fixture(scope="module")
def queries() -> Float32Matrix:
    return clustered(120, DIM, 1)[40:]


def save_directly(index: HnswIndex, path: str) -> None:
    index.save(path)


def save_forked(index: HnswIndex, path: str) -> None:
    index.save_forked(path, lambda: None)


@pytest.fixture(params=[save_directly, save_forked])
def save(request: pytest.FixtureRequest) -> Callable[[HnswIndex, str], None]:
    chosen: Callable[[HnswIndex, str], None] = request.param
    return chosen


def loaded_from(
    path: Path | str, rows: Rows, live: Slots, metric: Metric = Metric.COSINE, **changes: int
) -> tuple[HnswIndex, Slots]:
    """An index with what a file has for it, and the slots that it has not."""
    options = {"dim": 8, "m": 12, "ef_construction": 80} | changes
    index = HnswIndex(metric, options.pop("dim"), rows, ef=64, capacity=len(live), **options)
    return index, index.load(str(path), live, live)


@pytest.mark.parametrize("metric", list(Metric))
def test_a_loaded_graph_answers_as_the_saved_one_did(
    tmp_path: Path, save: Callable[[HnswIndex, str], None], metric: Metric
) -> None:
    vectors = clustered(3000, 8, 3)
    index, rows = filled(vectors, metric)
    index.delete(np.arange(0, 100))
    save(index, str(tmp_path / "graph"))
    live = np.arange(100, 3000)
    loaded, left = loaded_from(tmp_path / "graph", rows, live, metric)
    assert left.size == 0
    assert (len(loaded), loaded.deleted_count) == (2900, 100)
    assert labels_of(loaded) == labels_of(index)
    assert np.flatnonzero(loaded.live).tolist() == live.tolist()
    found, expected = (one.search(vectors[:50], 10, ANY) for one in (loaded, index))
    assert found.slots.tolist() == expected.slots.tolist()
    assert found.scores.tolist() == expected.scores.tolist()


@pytest.mark.parametrize("metric", list(Metric))
def test_a_loaded_graph_names_what_has_changed_since_it_was_saved(
    tmp_path: Path, metric: Metric
) -> None:
    index, rows = small(metric)
    path = str(tmp_path / "graph")
    rows.write(np.array([290]), rows.view()[:1].copy())
    index.upsert(np.array([290]), rows.view()[:1].copy())  # a guest of slot 0
    index.save(path)
    changed = np.array([3, 7, 299, 300, 350])
    rows.write(changed, clustered(5, 8, 77))
    live = np.setdiff1d(np.arange(351), [*range(20, 40), *range(301, 350)])
    loaded, left = loaded_from(path, rows, live, metric)
    assert left.tolist() == [3, 7, 290, 299, 300, 350]
    loaded.upsert(left, rows.view()[left].copy())
    assert len(loaded) == len(live)
    queries = rows.view()[live].copy()
    found = loaded.search(queries, 5, SearchOptions(ef=400))
    assert recall(found, loaded.search_exact(queries, 5)) >= 0.99
    assert np.isin(found.slots, live).all()


def test_an_empty_graph_can_be_saved_and_loaded(
    tmp_path: Path, save: Callable[[HnswIndex, str], None]
) -> None:
    index, rows = small()
    index.delete(np.arange(300))
    save(index, str(tmp_path / "graph"))
    loaded, left = loaded_from(tmp_path / "graph", rows, np.arange(5))
    assert left.tolist() == [0, 1, 2, 3, 4]
    loaded.upsert(left, rows.view()[left].copy())
    assert len(loaded) == 5


@pytest.mark.parametrize("changes", [{"dim": 9}, {"m": 13}, {"ef_construction": 81}])
def test_a_graph_of_another_definition_is_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    index, _ = small()
    index.save(str(tmp_path / "graph"))
    with pytest.raises(DamagedIndexError):
        loaded_from(
            tmp_path / "graph",
            Rows(changes.get("dim", 8)),
            np.arange(300),
            Metric.COSINE,
            **changes,
        )


@pytest.mark.parametrize("size", [0, 50, 95, 96, 5000, -1])
def test_a_graph_that_is_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    index, rows = small()
    path = tmp_path / "graph"
    index.save(str(path))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedIndexError):
        loaded_from(path, rows, np.arange(300))


def test_a_graph_that_names_a_slot_twice_is_refused(tmp_path: Path) -> None:
    index, rows = small()
    path = tmp_path / "graph"
    index.save(str(path))
    content = bytearray(path.read_bytes())
    stride = 4 + 8 * 12 + 4 * 8 + 8
    label = 96 + stride - 8
    content[label : label + 8] = content[label + stride : label + stride + 8]
    path.write_bytes(content)
    with pytest.raises(DamagedIndexError):
        loaded_from(path, rows, np.arange(300))


@pytest.mark.parametrize("path", ["/dev/full", "/nowhere/at/all"])
def test_a_file_that_cannot_be_written_is_an_error(
    save: Callable[[HnswIndex, str], None], path: str
) -> None:
    with pytest.raises(OSError, match=path):
        save(small()[0], path)


def test_a_child_that_dies_is_an_error(tmp_path: Path) -> None:
    def die(path: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def fail(path: str) -> None:
        raise ValueError(path)

    for write in (die, fail):
        with pytest.raises(OSError, match="ended with status"):
            write_forked(write, str(tmp_path / "file"), 0, lambda: None)


def test_a_forked_save_holds_the_index_as_it_was_at_the_fork(tmp_path: Path) -> None:
    index, rows = small()
    path = str(tmp_path / "graph")

    def go_on_writing() -> None:
        rows.write(np.array([300]), clustered(1, 8, 50))
        index.upsert(np.array([300]), rows.view()[300:301].copy())

    index.save_forked(path, go_on_writing)
    assert labels_of(index) == [*range(301)]
    loaded, left = loaded_from(path, rows, np.arange(301))
    assert labels_of(loaded) == [*range(300)]
    assert left.tolist() == [300]


def test_searches_go_on_while_the_process_forks(
    tmp_path: Path, large: HnswIndex, queries: Float32Matrix
) -> None:
    stop = threading.Event()
    counts = [0, 0]

    def searches(number: int) -> None:
        init_worker_thread()
        while not stop.is_set():
            large.search(queries, 10, ANY)
            large.search_exact(queries, 10)
            counts[number] += 1

    threads = [threading.Thread(target=searches, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            large.save_forked(str(tmp_path / "graph"), lambda: None)
        before = list(counts)
        deadline = threading.Event()
        for _ in range(200):
            if all(now > then for now, then in zip(counts, before, strict=True)):
                break
            deadline.wait(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert all(now > then for now, then in zip(counts, before, strict=True))
