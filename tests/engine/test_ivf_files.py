"""Files of inverted lists: round trips, forks, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from engine_ivf import (
    ANY,
    DIM,
    QUERIES,
    VECTORS,
    Ivf,
    every_kind,
    every_metric,
    filled,
)
from pyrope.engine import init_worker_thread
from pyrope.engine.base import DamagedIndexError, SearchOptions
from pyrope.engine.faiss_file import write_file
from pyrope.engine.list_search import ListSearch
from pyrope.types import Metric

_faiss: Any = faiss


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """As the threads of the executor: OpenMP's own would spin."""
    init_worker_thread()


@pytest.fixture
def lists_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan never costs less, however few vectors there are."""
    monkeypatch.setattr(ListSearch, "pays", lambda *_: True)


# -- files -------------------------------------------------------------------------------------


@every_kind
@every_metric
def test_a_loaded_index_answers_as_the_saved_one(kind: str, metric: Metric, tmp_path: Path) -> None:
    ivf = filled(kind, metric, VECTORS[:3000])
    ivf.delete(list(range(0, 3000, 10)))
    path = str(tmp_path / "lists")
    ivf.index.save(path)
    loaded = ivf.empty_copy()
    assert not len(loaded.load(path, ivf.live(), ivf.live()))
    assert loaded.parameters == ivf.index.parameters
    assert (len(loaded), loaded.deleted_count) == (2700, 300)
    before, after = (index.search(QUERIES, 10, ANY) for index in (ivf.index, loaded))
    np.testing.assert_array_equal(before.slots, after.slots)
    np.testing.assert_array_equal(before.scores, after.scores)
    loaded.upsert(np.array([0, 5000]), VECTORS[3000:3002])
    assert len(loaded) == 2702


@every_kind
def test_what_has_changed_since_the_file_was_written_is_asked_for_again(
    kind: str, lists_only: None, tmp_path: Path
) -> None:
    ivf = filled(kind, Metric.L2, VECTORS[:500])
    path = str(tmp_path / "lists")
    ivf.index.save(path)
    loaded = ivf.empty_copy()
    ivf.delete([0, 1])
    ivf.upsert([2, 900], VECTORS[1000:1002])
    unchanged = np.setdiff1d(ivf.live(), [2, 900, 10])
    missing = loaded.load(path, ivf.live()[::-1], unchanged[::-1])
    assert missing.tolist() == [2, 10, 900]
    assert len(loaded) == 496
    loaded.upsert(missing, ivf.rows.view()[missing])
    ivf.index = loaded
    ivf.check_exact(loaded.search(VECTORS[:3], 500, SearchOptions(nprobe=10**6)), VECTORS[:3], 500)


@every_kind
def test_a_file_of_an_untrained_index_holds_nothing(kind: str, tmp_path: Path) -> None:
    ivf = Ivf(kind, Metric.COSINE, VECTORS[:0])
    path = str(tmp_path / "lists")
    ivf.index.save(path)
    loaded = ivf.empty_copy()
    assert loaded.load(path, np.array([3, 1]), np.array([3])).tolist() == [1, 3]
    assert loaded.parameters["nlist"] == 0


@every_kind
def test_a_file_of_which_nothing_is_true_any_more_leaves_trained_lists(
    kind: str, tmp_path: Path
) -> None:
    ivf = filled(kind, Metric.COSINE, VECTORS[:500])
    path = str(tmp_path / "lists")
    ivf.index.save(path)
    loaded = ivf.empty_copy()
    assert loaded.load(path, np.array([3, 4]), np.array([], np.int64)).tolist() == [3, 4]
    assert (len(loaded), loaded.deleted_count) == (0, 0)
    loaded.upsert(np.array([3, 4]), VECTORS[3:5])
    assert len(loaded) == 2


@every_kind
def test_a_forked_process_writes_the_same_file_while_writers_go_on(
    kind: str, tmp_path: Path
) -> None:
    ivf = filled(kind, Metric.COSINE, VECTORS[:2000])
    ivf.index.save(str(tmp_path / "before"))
    calls = []

    def forked() -> None:
        calls.append(1)
        ivf.upsert(np.arange(2000, 2100), VECTORS[2000:2100])

    ivf.index.save_forked(str(tmp_path / "forked"), forked)
    assert calls == [1]
    assert (tmp_path / "before").read_bytes() == (tmp_path / "forked").read_bytes()


@every_kind
def test_a_file_that_cannot_be_written_is_an_error(kind: str, tmp_path: Path) -> None:
    ivf = filled(kind, Metric.COSINE, VECTORS[:200])
    with pytest.raises(OSError, match="nowhere"):
        ivf.index.save(str(tmp_path / "nowhere" / "lists"))
    with pytest.raises(OSError, match="nowhere"):
        ivf.index.save_forked(str(tmp_path / "nowhere" / "lists"), lambda: None)


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "IVF_PQ"},
        {"metric": Metric.L2},
        {"nlist": 9},
        {"pqm": 12},
        {"sample": np.zeros((0, 23), np.float32)},
    ],
    ids=str,
)
def test_a_file_of_another_definition_is_refused(other: dict[str, Any], tmp_path: Path) -> None:
    path = str(tmp_path / "lists")
    filled("IVF_FLAT", Metric.COSINE, VECTORS[:200], nlist=8).index.save(path)
    options = {
        "kind": "IVF_FLAT",
        "metric": Metric.COSINE,
        "sample": VECTORS[:0],
        "nlist": 8,
        **other,
    }
    with pytest.raises(DamagedIndexError, match="definition"):
        Ivf(**options).index.load(path, np.arange(200), np.arange(200))


@every_kind
def test_a_file_cut_short_anywhere_is_refused(kind: str, tmp_path: Path) -> None:
    ivf = filled(kind, Metric.COSINE, VECTORS[:300])
    path = tmp_path / "lists"
    ivf.index.save(str(path))
    whole = path.read_bytes()
    for length in (0, 1, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedIndexError):
            ivf.empty_copy().load(str(path), ivf.live(), ivf.live())


@every_kind
def test_a_file_whose_parts_do_not_fit_together_is_refused(kind: str, tmp_path: Path) -> None:
    """As another version of this program might write it."""
    ivf = filled(kind, Metric.COSINE, VECTORS[:300])
    index, lists = ivf.index, ivf.index._lists
    assert lists is not None
    path = str(tmp_path / "lists")
    good = {
        "lists": lists.lists,
        "sizes": lists.sizes,
        "norms": index._table.norms,
        "unevenness": np.array([1.0]),
        "expected": np.array([300]),
    }

    def refuses(native: Any, arrays: dict[str, NDArray[Any]]) -> None:
        write_file(path, native, index._definition, arrays)
        with pytest.raises(DamagedIndexError, match="does not hold inverted lists"):
            ivf.empty_copy().load(path, ivf.live(), ivf.live())

    refuses(lists.index, {name: array for name, array in good.items() if name != "norms"})
    refuses(lists.index, {**good, "sizes": lists.sizes + 1})
    refuses(lists.index, {**good, "sizes": lists.sizes[1:]})
    refuses(lists.index, {**good, "lists": lists.lists + lists.nlist})
    refuses(lists.index, {**good, "expected": np.empty(0, np.int64)})
    refuses(faiss.IndexFlatIP(DIM), good)


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, struct.pack("<6Q", 1, 2, 3, 4, 5, 6) * 99])
def test_a_foreign_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    ivf = Ivf("IVF_PQ", Metric.COSINE, VECTORS[:0])
    with pytest.raises(DamagedIndexError):
        ivf.index.load(str(path), np.arange(3), np.arange(3))
    with pytest.raises(OSError, match="absent"):
        ivf.index.load(str(tmp_path / "absent"), np.arange(3), np.arange(3))
