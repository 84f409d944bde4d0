"""The exact answer, and how much of it an answer holds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.data import Dataset, Float32Matrix

TIE = 1e-5
"""Two scores this close are one: float32 sums over 384 terms in another order differ by less than
this, and so do the scores of a stored vector that a server has normalised once more."""

_QUERIES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Truth:
    """The k nearest by inner product (the vectors have unit length: also by cosine and L2).

    Attributes:
        ids: int64, shape (queries, k), nearest first.
        scores: float32, shape (queries, k).
    """

    ids: NDArray[np.int64]
    scores: Float32Matrix


def exact(dataset: Dataset, k: int, cache: Path | None) -> Truth:
    """Scan everything, or take the scan of the very same vectors from the cache folder."""
    if cache is None:
        return _scan(dataset, k)
    digest = hashlib.blake2b(digest_size=12)
    digest.update(f"ip k={k} {dataset.base.shape} {dataset.queries.shape}".encode())
    digest.update(np.ascontiguousarray(dataset.base).data)
    digest.update(np.ascontiguousarray(dataset.queries).data)
    file = cache / f"truth-{digest.hexdigest()}.npz"
    if file.is_file():
        with np.load(file) as saved:
            return Truth(saved["ids"], saved["scores"])
    truth = _scan(dataset, k)
    cache.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, ids=truth.ids, scores=truth.scores)
    partial.replace(file)
    return truth


def _scan(dataset: Dataset, k: int) -> Truth:
    n = len(dataset.queries)
    ids = np.empty((n, k), dtype=np.int64)
    scores = np.empty((n, k), dtype=np.float32)
    for first in range(0, n, _QUERIES_AT_ONCE):
        part = slice(first, first + _QUERIES_AT_ONCE)
        scores[part], ids[part] = faiss.knn(
            dataset.queries[part], dataset.base, k, metric=faiss.METRIC_INNER_PRODUCT
        )
    return Truth(ids, scores)


def recall(
    found: NDArray[np.int64],
    dataset: Dataset,
    truth: Truth,
    rows: NDArray[np.bool_] | None = None,
    newcomers: Float32Matrix | None = None,
) -> float:
    """Mean share of the true k nearest that was found.

    An id counts if its own score reaches that of the k-th true neighbour, so that it does not
    matter which of two equally near vectors a server returns (the distance-based recall of
    Aumüller, Bernhardsson and Faithfull, "ANN-Benchmarks", 2020). An id found twice counts once.

    Args:
        found: int64, shape (queries, k); -1 where fewer were found.
        rows: bool, shape (queries,): the queries that count; None: all. At least one.
        newcomers: float32, shape (n, dim): vectors that the truth does not know, stored under the
            ids that follow the dataset's. One that is found counts by the same rule.

    Raises:
        ValueError: an id was found that is nobody's.
    """
    k = truth.ids.shape[1]
    if rows is None:
        rows = np.ones(len(found), dtype=np.bool_)
    ordered = np.sort(found[rows], axis=1)
    repeated = np.zeros(ordered.shape, dtype=np.bool_)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    known = len(dataset.base)
    late = ordered >= known
    vectors = dataset.base[np.where(late, 0, ordered)]
    if late.any():
        if newcomers is None:
            raise ValueError(f"id {ordered.max()} was found, and {known} vectors are known")
        vectors[late] = newcomers[ordered[late] - known]
    scores = np.einsum("qkd,qd->qk", vectors, dataset.queries[rows])
    good = (ordered >= 0) & ~repeated & (scores >= truth.scores[rows, -1:] - TIE)
    return float(np.minimum(good.sum(axis=1), k).mean() / k)
