"""Questions, their vectors, and pairs of them that people have labelled."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Float32Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPairs:
    """Pairs of questions.

    Attributes:
        questions: the texts.
        vectors: of them, unit length, float32, shape (questions, dim).
        rows: of the two questions of each pair, shape (pairs, 2).
        labels: 1: one answer serves both, shape (pairs,).
    """

    questions: list[str]
    vectors: Float32Matrix
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]

    def similarities(self, vectors: Float32Matrix) -> NDArray[np.float64]:
        """Cosines of the pairs, by vectors of all questions."""
        a, b = vectors[self.rows[:, 0]], vectors[self.rows[:, 1]]
        cosines: NDArray[np.float64] = np.einsum("ij,ij->i", a, b).astype(np.float64)
        return cosines

    def components(self) -> NDArray[np.int64]:
        """Of each pair, the connected component of the graph of all pairs that it is in."""
        roots = join(len(self.questions), self.rows)
        return roots[self.rows[:, 0]]

    def folds(self, count: int, seed: int) -> NDArray[np.int64]:
        """Of each pair, a number below `count`, at random; those that share a question together."""
        components = self.components()
        distinct, of_pair = np.unique(components, return_inverse=True)
        drawn = np.random.default_rng(seed).integers(count, size=len(distinct))
        return drawn[of_pair]

    def part(self, chosen: NDArray[np.bool_]) -> LabelledPairs:
        """Only those pairs; all questions."""
        return LabelledPairs(self.questions, self.vectors, self.rows[chosen], self.labels[chosen])


def join(count: int, edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """The least member of the connected component of each of `count` nodes."""
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in edges.tolist():
        a, b = sorted((root(one), root(other)))
        parent[b] = a
    return np.array([root(node) for node in range(count)])


def load_pairs(folder: Path) -> LabelledPairs:
    """The Quora Question Pairs as they lie beside the project.

    Raises:
        FileNotFoundError: they do not.
    """
    vectors = np.load(folder / "embeddings.f16.npy").astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with gzip.open(folder / "questions.txt.gz", "rt", encoding="utf-8") as file:
        questions = file.read().split("\n")[: len(vectors)]
    pairs = np.load(folder / "pairs.npy").astype(np.int64)
    return LabelledPairs(questions, vectors, pairs[:, :2], pairs[:, 2])
