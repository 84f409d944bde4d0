"""Near hits of the benchmarks: what they are compared with, and what a stream of them sums to."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from benchmarks.harness.near_hits import Hits, near_hits, rescored, search
from benchmarks.harness.near_stream import CHECKPOINTS, Streamed, stream
from benchmarks.harness.paraphrases import Paraphrases, imitated, load

K = 5


@pytest.fixture(scope="module")
def data() -> Paraphrases:
    return imitated(600, 80, seed=3)


def hits_of(data: Paraphrases, kept: int) -> Hits:
    index = faiss.IndexFlatIP(data.base.shape[1])
    index.add(data.base)
    before = search(index, data.base, data.cached, kept)
    truth = search(index, data.base, data.new, K).slots
    return near_hits(data, before, rescored(data.base, data.new, before.slots), truth, kept, K)


def test_a_search_orders_all_rows_as_float64_does(data: Paraphrases) -> None:
    index = faiss.IndexFlatIP(data.base.shape[1])
    index.add(data.base)
    found = search(index, data.base, data.new, 20)
    products = data.new.astype(np.float64) @ data.base.astype(np.float64).T
    assert np.allclose(found.scores, -np.sort(-products, axis=1)[:, :20], atol=1e-6)


def test_more_candidates_recall_and_prove_more_and_no_proof_is_refuted(data: Paraphrases) -> None:
    few, many = hits_of(data, 10), hits_of(data, 500)
    assert few.recall.mean() < many.recall.mean() <= 1.0
    assert few.proven.sum() < many.proven.sum()
    assert few.refuted == many.refuted == 0
    assert (few.proven <= few.recall + 1e-9).all()
    assert (few.by_chords <= few.proven + 1e-9).mean() > 0.95


def test_a_stream_counts_every_hit_once_and_none_that_was_not_good_enough(
    data: Paraphrases,
) -> None:
    seen = Streamed()
    checkpoints = list(stream(data, {K: hits_of(data, 100)}, seed=1))
    for some in checkpoints:
        seen.add(some)
    assert len(checkpoints) == len(CHECKPOINTS)
    assert seen.hits == CHECKPOINTS[-1]
    assert 0 < seen.close_served <= seen.close <= seen.hits
    assert 0 < seen.audits < seen.served < seen.hits
    assert seen.recall / seen.served > 0.95


def test_without_the_questions_pairs_are_imitated(tmp_path: Path) -> None:
    data = load(tmp_path, 30, 1)
    assert data.description.startswith("generated")
    assert data.cached.shape == data.new.shape == (30, data.base.shape[1])
    assert np.allclose(np.linalg.norm(data.new, axis=1), 1.0, atol=1e-5)
    again = load(tmp_path, 30, 1)
    assert np.array_equal(again.new, data.new)
