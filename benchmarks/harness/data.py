"""What is measured on: unit vectors, and queries that are not among them.

With the QQP embeddings at hand (all-MiniLM-L6-v2 over questions of the Quora Question Pairs set),
the vectors are those, filled up to the requested number with seeded mixtures of them. Without,
they are generated: topics of very different size and spread, with most of the variance in few
directions, as sentence embeddings have it, so that a graph has to work for its recall.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Float32Matrix = NDArray[np.float32]

DIM = 384
QQP_FILE = Path("data/qqp/embeddings.f16.npy")

_CHUNK = 16_384
"""Rows generated at a time: bounds the float64 intermediates to 50 MB."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Unit vectors of one run.

    Attributes:
        description: where they come from, for the report.
        base: float32, shape (count, dim); row i is stored under the id ``i``.
        queries: float32, shape (number of queries, dim); none of them is a row of `base` by
            construction (two questions of the source may still embed alike).
        base_file: a ``.npy`` file that begins with the rows of `base`; None: there is none yet.
    """

    description: str
    base: Float32Matrix
    queries: Float32Matrix
    base_file: Path | None = None


def newcomers(dataset: Dataset, count: int, seed: int) -> Float32Matrix:
    """Unit vectors like the dataset's that are not in it; shape (count, dim)."""
    return _mixtures(dataset.base, count, np.random.default_rng([seed, count]))


def load(shared: Path, count: int, queries: int, seed: int) -> Dataset:
    """The QQP embeddings below `shared` if they are there, else generated vectors."""
    source = shared / QQP_FILE
    if source.is_file():
        return from_embeddings(np.load(source), count, queries, seed)
    return generated(count, queries, seed)


def from_embeddings(
    embeddings: NDArray[np.floating], count: int, queries: int, seed: int
) -> Dataset:
    """Real embeddings, held-out queries drawn from them, the rest filled up with mixtures.

    Args:
        embeddings: any float type, shape (n, dim).

    Raises:
        ValueError: the queries would leave no vector.
    """
    if queries >= len(embeddings):
        raise ValueError(f"{queries} queries cannot be held out of {len(embeddings)} embeddings")
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(embeddings))
    held_out, kept = order[:queries], order[queries : queries + count]
    real = normalised(embeddings[kept].astype(np.float32))
    missing = count - len(real)
    description = f"QQP embeddings (all-MiniLM-L6-v2), {len(real):,} real"
    if missing:
        description += f" and {missing:,} mixtures of them (seed {seed})"
    return Dataset(
        description=description,
        base=np.vstack([real, _mixtures(real, missing, generator)]) if missing else real,
        queries=normalised(embeddings[held_out].astype(np.float32)),
    )


def generated(count: int, queries: int, seed: int, dim: int = DIM) -> Dataset:
    """Clustered vectors: topic sizes by Zipf's law, spreads log-normal, variance in few axes."""
    generator = np.random.default_rng(seed)
    total = count + queries
    topics = max(8, total // 200)
    axes, _ = np.linalg.qr(generator.standard_normal((dim, dim)))
    # Variance falls as 1/rank: half of it lies in the first 4 % of 384 axes or so.
    scaled_axes = (axes / np.sqrt(np.arange(1, dim + 1))[:, None]).astype(np.float32)
    scaled_axes /= np.linalg.norm(scaled_axes)
    centres = generator.standard_normal((topics, dim), dtype=np.float32) @ scaled_axes
    spreads = np.exp(generator.normal(-0.4, 0.4, topics)).astype(np.float32)
    weights = 1.0 / np.arange(1, topics + 1)
    members = generator.choice(topics, total, p=weights / weights.sum())
    vectors = np.empty((total, dim), dtype=np.float32)
    for first in range(0, total, _CHUNK):
        topic = members[first : first + _CHUNK]
        noise = generator.standard_normal((len(topic), dim), dtype=np.float32) @ scaled_axes
        vectors[first : first + _CHUNK] = centres[topic] + spreads[topic, None] * noise
    vectors = normalised(vectors)
    return Dataset(
        description=f"generated: {topics:,} topics (seed {seed})",
        base=vectors[:count],
        queries=vectors[count:],
    )


def normalised(vectors: Float32Matrix) -> Float32Matrix:
    """Rows scaled to unit length; shape (n, dim), none of them zero."""
    lengths: Float32Matrix = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths


def _mixtures(real: Float32Matrix, count: int, generator: np.random.Generator) -> Float32Matrix:
    """Each mostly one real vector, partly another, plus noise of its own strength."""
    dim = real.shape[1]
    made = np.empty((count, dim), dtype=np.float32)
    for first in range(0, count, _CHUNK):
        n = min(_CHUNK, count - first)
        one, other = real[generator.integers(len(real), size=(2, n))]
        share = generator.uniform(0.6, 0.9, (n, 1)).astype(np.float32)
        strength = generator.uniform(0.1, 0.4, (n, 1)).astype(np.float32) / np.float32(dim**0.5)
        noise = generator.standard_normal((n, dim), dtype=np.float32)
        made[first : first + n] = share * one + (1 - share) * other + strength * noise
    return normalised(made)
