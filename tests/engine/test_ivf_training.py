"""How many lists, which centroids and codes; data of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import faiss
import numpy as np
import pytest

from engine_ivf import (
    ANY,
    COUNT,
    QUERIES,
    VECTORS,
    Ivf,
    every_kind,
    every_metric,
    filled,
    recall_of,
)
from pyrope.engine import init_worker_thread
from pyrope.engine.ivf_training import (
    check_pqm,
    choose_nlist,
    choose_nprobe,
    default_pqm,
    minimum_count,
    training_size,
)
from pyrope.engine.list_search import ListSearch
from pyrope.types import Float32Matrix, Metric

_faiss: Any = faiss


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """As the threads of the executor: OpenMP's own would spin."""
    init_worker_thread()


@pytest.fixture
def lists_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan never costs less, however few vectors there are."""
    monkeypatch.setattr(ListSearch, "pays", lambda *_: True)


# -- training ----------------------------------------------------------------------------------


def odd_data() -> Iterator[tuple[str, Float32Matrix]]:
    rng = np.random.default_rng(8)
    normal = rng.standard_normal((600, 6)).astype(np.float32)
    zeros = np.zeros((600, 6), dtype=np.float32)
    half = normal.copy()
    half[::2] = 0
    yield "one vector", normal[:1]
    yield "fewer vectors than lists", normal[:7]
    yield "fewer distinct vectors than lists", np.tile(normal[:5], (120, 1))
    yield "identical vectors", np.tile(normal[:1], (600, 1))
    yield "zero vectors", zeros
    yield "half of them zero", half
    yield "tiny vectors", normal * np.float32(1e-25)
    yield "huge vectors", normal * np.float32(1e18)
    yield "one dimension", normal[:, :1]
    yield "five dimensions", normal[:, :5]
    yield "one far away", np.concatenate([normal, normal[:1] * 1e6]).astype(np.float32)


@every_kind
@every_metric
@pytest.mark.parametrize("name", [name for name, _ in odd_data()])
def test_data_of_any_kind_can_be_trained_on_and_found(
    kind: str, metric: Metric, name: str, lists_only: None, capfd: pytest.CaptureFixture[str]
) -> None:
    data = np.ascontiguousarray(dict(odd_data())[name])
    nlist = 32
    with np.errstate(all="raise", under="ignore"):
        ivf = filled(kind, metric, data, nlist=nlist, nprobe=nlist, rerank_factor=1000)
        queries = np.concatenate([data[:2], data[-1:], np.zeros_like(data[:1])])
        found = ivf.index.search(queries, 5, ANY)
    assert 1 <= ivf.index.parameters["nlist"] <= min(nlist, len(np.unique(data, axis=0)))
    assert np.isfinite(found.scores).all()
    ivf.check_exact(found, queries, 5, tolerance=2e-6)
    out, err = capfd.readouterr()
    assert out == err == ""


def test_lists_and_visits_are_chosen_by_the_number_of_vectors() -> None:
    assert [choose_nlist(n) for n in (1, 1000, 10_000, 100_000, 1_000_000)] == [
        16,
        128,
        512,
        1024,
        4096,
    ]
    assert [choose_nprobe(n) for n in (1, 8, 16, 1024, 4096)] == [1, 8, 12, 96, 192]
    ivf = Ivf("IVF_PQ", Metric.COSINE, VECTORS, expected=COUNT)
    assert ivf.index.parameters == {"nlist": 256, "nprobe": 48, "pqm": 24}
    assert Ivf("IVF_FLAT", Metric.COSINE, VECTORS, nlist=20, nprobe=3).index.parameters == {
        "nlist": 20,
        "nprobe": 3,
        "pqm": 0,
    }


def test_a_sample_too_small_for_the_lists_gets_fewer() -> None:
    ivf = Ivf("IVF_FLAT", Metric.COSINE, VECTORS[:400], expected=100_000)
    assert ivf.index.parameters["nlist"] == 100


def test_training_takes_as_many_vectors_as_lists_need() -> None:
    assert training_size(0, 100_000) == 40 * 1024
    assert training_size(16, 100_000) == 640
    assert training_size(0, 500) == 500
    assert training_size(0, 10**7) == 2**16
    assert training_size(65_536, 10**7) == 4 * 65_536
    assert minimum_count(0) >= 1000
    assert minimum_count(10_000) >= 8 * 10_000


@pytest.mark.parametrize("dim", [1, 2, 7, 24, 97, 105, 384, 4096])
def test_default_segments_divide_the_dimension(dim: int) -> None:
    assert dim % default_pqm(dim) == 0
    check_pqm(dim, default_pqm(dim))
    check_pqm(dim, 0)


@pytest.mark.parametrize(("dim", "pqm"), [(24, 7), (24, 25), (24, -1), (7, 2), (1, 2)])
def test_segments_that_do_not_divide_the_dimension_are_refused(dim: int, pqm: int) -> None:
    with pytest.raises(ValueError, match="PQM must divide the dimension"):
        check_pqm(dim, pqm)
    with pytest.raises(ValueError, match="PQM must divide the dimension"):
        Ivf("IVF_PQ", Metric.IP, np.empty((0, dim), np.float32), pqm=pqm)


def test_more_segments_tell_vectors_better_apart(lists_only: None) -> None:
    recalls = []
    for pqm in (2, 12, 24):
        index = filled("IVF_PQ", Metric.L2, VECTORS[:4000], pqm=pqm, rerank_factor=1).index
        assert index.parameters["pqm"] == pqm
        recalls.append(recall_of(index, ANY))
    assert all(a < b for a, b in pairwise(recalls))


def test_more_candidates_find_more(lists_only: None) -> None:
    recalls = []
    for factor in (1.0, 2.0, 8.0):
        options = {"pqm": 6, "rerank_factor": factor, "nprobe": 64}
        recalls.append(
            recall_of(filled("IVF_PQ", Metric.COSINE, VECTORS[:4000], **options).index, ANY)
        )
    assert all(a < b for a, b in pairwise(recalls))


def test_training_is_repeatable() -> None:
    first, second = (filled("IVF_PQ", Metric.COSINE, VECTORS[:3000]) for _ in range(2))
    found = [ivf.index.search(QUERIES, 10, ANY).slots for ivf in (first, second)]
    assert (found[0] == found[1]).all()


@every_kind
def test_nothing_can_be_added_before_training(kind: str) -> None:
    ivf = Ivf(kind, Metric.COSINE, VECTORS[:0])
    with pytest.raises(RuntimeError, match="trained"):
        ivf.index.upsert(np.arange(3), VECTORS[:3])
