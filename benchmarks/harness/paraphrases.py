"""Queries that have been asked before in other words, and the index that they are asked of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.data import QQP_FILE, Float32Matrix, generated, normalised

PAIRS_FILE = Path("data/qqp/pairs.npy")


@dataclass(frozen=True, slots=True)
class Paraphrases:
    """Unit vectors.

    Attributes:
        description: where they come from, for the report.
        base: what is searched, shape (count, dim).
        cached: queries that came first, shape (pairs, dim).
        new: for each the query that comes second, shape (pairs, dim). None of either is in `base`.
    """

    description: str
    base: Float32Matrix
    cached: Float32Matrix
    new: Float32Matrix

    @property
    def cosines(self) -> NDArray[np.float32]:
        """Between the two queries of each pair, shape (pairs,)."""
        products: NDArray[np.float32] = np.einsum("ij,ij->i", self.cached, self.new)
        return products


def load(shared: Path, pairs: int, seed: int) -> Paraphrases:
    """Pairs of the QQP questions labelled as the same, if they are there, else generated ones."""
    embeddings, labelled = shared / QQP_FILE, shared / PAIRS_FILE
    if embeddings.is_file() and labelled.is_file():
        return _questions(np.load(embeddings), np.load(labelled), pairs, seed)
    return imitated(60_000, pairs, seed)


def _questions(
    embeddings: NDArray[np.floating], labelled: NDArray[np.int32], pairs: int, seed: int
) -> Paraphrases:
    same = labelled[labelled[:, 2] == 1]
    drawn = same[np.random.default_rng(seed).permutation(len(same))[:pairs]]
    vectors = normalised(embeddings.astype(np.float32))
    searched = np.ones(len(vectors), dtype=np.bool_)
    searched[drawn[:, :2]] = False
    return Paraphrases(
        description=f"QQP questions (all-MiniLM-L6-v2): {len(drawn):,} pairs labelled as the same "
        f"(seed {seed}), the other {int(searched.sum()):,} questions searched",
        base=vectors[searched],
        cached=vectors[drawn[:, 0]],
        new=vectors[drawn[:, 1]],
    )


def imitated(count: int, pairs: int, seed: int) -> Paraphrases:
    """Generated clusters, and queries that were moved: by as much as QQP's pairs are apart."""
    dataset = generated(count, pairs, seed)
    generator = np.random.default_rng([seed, pairs])
    # Distances of QQP's pairs: 0.42 on average, with a standard deviation of 0.19.
    apart = np.abs(generator.normal(0.42, 0.19, (pairs, 1)))
    dim = dataset.queries.shape[1]
    noise = apart * generator.standard_normal((pairs, dim)) / dim**0.5
    return Paraphrases(
        description=f"{dataset.description}, {pairs:,} queries that were moved",
        base=dataset.base,
        cached=dataset.queries,
        new=normalised((dataset.queries + noise).astype(np.float32)),
    )
