"""Searches in inverted lists: bounds on distance computations, and what comes after too little."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import faiss
import numpy as np
import pytest

from engine_ivf import (
    COUNT,
    QUERIES,
    VECTORS,
    every_kind,
    filled,
    large,
    recall_of,
)
from pyrope.engine import init_worker_thread
from pyrope.engine.base import Neighbours, SearchOptions
from pyrope.engine.inverted_lists import NONE
from pyrope.engine.rerank import Reranker
from pyrope.types import Float32Matrix, Metric, Slots

_faiss: Any = faiss


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """As the threads of the executor: OpenMP's own would spin."""
    init_worker_thread()


def native_ndis(search: Any) -> int:
    """Vectors or codes that FAISS compares meanwhile."""
    statistics = _faiss.cvar.indexIVF_stats
    before = statistics.ndis
    search()
    return int(statistics.ndis - before)


# -- bounds ------------------------------------------------------------------------------------


class CountingReranker(Reranker):
    """Counts what it scores."""

    reranked = 0

    def best(self, queries: Float32Matrix, candidates: Slots, width: int) -> Neighbours:
        self.reranked += int(np.count_nonzero(candidates >= 0))
        return super().best(queries, candidates, width)


@every_kind
@pytest.mark.parametrize("step", [1, 2])
def test_distance_computations_keep_within_their_bound(kind: str, step: int) -> None:
    ivf = filled(kind, Metric.COSINE, VECTORS)
    index, nlist = ivf.index, ivf.index.parameters["nlist"]
    ivf.delete(list(range(0, 1000, 7)))
    allowed = None if step == 1 else np.arange(COUNT) % step == 0
    counting = CountingReranker(index.metric, index._source, index._table, index._scan)
    index._reranker = counting
    reached = 0
    for most in (nlist + 1, nlist + 20, nlist + 100, nlist + 300, nlist + 900, nlist + 2500):
        for i in range(15):
            counting.reranked = 0

            def search(i: int = i, most: int = most) -> None:
                options = SearchOptions(nprobe=nlist, max_scans=most)
                index.search(QUERIES[i : i + 1], 10, options, allowed)

            used = nlist + native_ndis(search) + counting.reranked
            assert used <= most
            reached += used >= 0.8 * most
    assert reached > 30  # of 90: the bound is made use of


@every_kind
def test_a_looser_bound_finds_more(kind: str) -> None:
    index = large(kind).index
    nlist = index.parameters["nlist"]
    bounds = (nlist + 50, nlist + 100, nlist + 200)
    recalls = [recall_of(index, SearchOptions(max_scans=most)) for most in bounds]
    assert all(a < b for a, b in pairwise(recalls))
    assert recall_of(index, SearchOptions(max_scans=1500)) > 0.9


@every_kind
@pytest.mark.parametrize("most", [1, 3, 100])
def test_a_bound_below_the_number_of_lists_compares_with_the_first_rows(
    kind: str, most: int
) -> None:
    ivf = large(kind)
    allowed = np.arange(COUNT) % 3 == 0
    found = ivf.index.search(QUERIES[:4], 10, SearchOptions(max_scans=most), allowed)
    assert found.slots.shape == (4, 10)
    first = np.zeros(COUNT, dtype=np.bool_)
    first[np.flatnonzero(allowed)[:most]] = True
    expected = ivf.index.search_exact(QUERIES[:4], 10, first)
    width = expected.slots.shape[1]
    assert (found.slots[:, :width] == expected.slots).all()
    assert (found.slots[:, width:] == NONE).all()
    assert np.isnan(found.scores[:, width:]).all()


@every_kind
def test_a_bound_that_no_list_fits_into_compares_with_some_rows(kind: str) -> None:
    index = large(kind).index
    bound = index.parameters["nlist"] + 2
    found = index.search(QUERIES[:4], 5, SearchOptions(max_scans=bound))
    assert found.slots.shape == (4, 5)
    assert (found.slots[:, 0] >= 0).all()


@every_kind
@pytest.mark.parametrize("left", [1, 2, 3])
def test_a_bound_that_leaves_hardly_a_vector_is_not_spent_on_what_cannot_be_ranked(
    kind: str, left: int
) -> None:
    # Lists of one vector, so that they fit.
    ivf = filled(kind, Metric.COSINE, VECTORS[:64], nlist=64)
    bound = ivf.index.parameters["nlist"] + left
    ivf.upsert(np.arange(64, 3000), np.tile(VECTORS[:1], (2936, 1)))
    found = ivf.index.search(QUERIES[:8], 5, SearchOptions(nprobe=64, max_scans=bound))
    assert (found.slots[:, 0] >= 0).all()


@every_kind
def test_a_bound_above_the_number_of_vectors_allows_every_answer(kind: str) -> None:
    ivf = filled(kind, Metric.L2, VECTORS[:300])
    found = ivf.index.search(QUERIES[:4], 300, SearchOptions(max_scans=1000))
    ivf.check_exact(found, QUERIES[:4], 300)
