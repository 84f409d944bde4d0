"""Generated vectors with the traits of embeddings that make approximate search hard or easy.

A million vectors cannot be had from real text here, and vectors drawn evenly have no neighbours to
speak of: their distances are all alike, and no index finds what hardly differs from the rest. What
is generated instead:

- *Clusters of very different size.* `CLUSTERS` topics; the share of the topic of rank r is
  proportional to 1 / r^`SIZE_EXPONENT` (a power law, as of words and of topics in text), so that
  the largest holds a few percent and the smallest a handful.
- *Topics that relate to one another.* All lies near a subspace of `LATENT` dimensions, along which
  the spread falls as 1 / rank^`FALL`; the centres are normally distributed in it.
- *Low intrinsic dimension.* Within its topic a vector varies along `LOCAL` directions of that
  subspace, which the topic has for itself, the first of them most (again 1 / rank^`FALL`). The
  spread of a topic is log-normal around `SPREAD`, that of a vector varies too: topics overlap at
  their rims, and some vectors are far out.
- *Noise* of `NOISE` times the length, in all directions, which no index can make use of.

A dataset of n vectors is the beginning of one of more: every block of rows has a random generator
of its own, seeded with the seed, the dimension, the part (vectors, queries, newcomers) and the
number of the block. Blocks also keep the memory small: a million rows are written to a file, block
by block, and mapped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.harness.data import Dataset, Float32Matrix, normalised

CLUSTERS = 2_000
SIZE_EXPONENT = 0.9
LATENT = 96
LOCAL = 20
FALL = 0.35
SPREAD = 0.8
NOISE = 0.2
"""Chosen so that 20,000 of these at 384 dimensions behave like as many question embeddings (QQP,
all-MiniLM-L6-v2): recall@10 of hnswlib (M 16, ef 16, 32, 64) is 0.937, 0.971 and 0.991 here, 0.940,
0.977 and 0.994 there; of 1, 4 and 16 of 128 inverted lists 0.58, 0.80 and 0.95 here, 0.50, 0.78 and
0.92 there; the intrinsic dimension by maximum likelihood (Levina and Bickel, 2004) from the ten
nearest neighbours 13 here, 15 there."""

DESCRIPTION = (
    f"generated: {CLUSTERS:,} clusters of power-law sizes, {LOCAL} directions within each, "
    f"{LATENT} in all, noise of {NOISE:g}"
)

BLOCK = 16_384
"""Rows drawn at a time."""

_BASE, _QUERIES, _NEWCOMERS, _SHAPE = range(4)


class Clusters:
    """The distribution of one seed and dimension."""

    def __init__(self, dim: int, seed: int) -> None:
        """Draw the topics.

        Args:
            dim: at least 2.
        """
        self.dim = dim
        self.seed = seed
        latent, local = min(LATENT, dim), min(LOCAL, dim)
        generator = np.random.default_rng([seed, dim, _SHAPE])
        axes, _ = np.linalg.qr(generator.standard_normal((dim, latent)))
        falling = np.arange(1, latent + 1) ** -FALL
        self._axes = (axes.T * (falling / np.linalg.norm(falling))[:, None]).astype(np.float32)
        self._centres = generator.standard_normal((CLUSTERS, latent), dtype=np.float32)
        within = generator.standard_normal((CLUSTERS, local, latent), dtype=np.float32)
        fading = np.arange(1, local + 1, dtype=np.float32) ** -FALL
        self._within = within * (fading / np.linalg.norm(fading))[:, None]
        self._spreads = SPREAD * np.exp(0.35 * generator.standard_normal(CLUSTERS))
        sizes = np.arange(1, CLUSTERS + 1) ** -SIZE_EXPONENT
        self._cumulated = np.cumsum(sizes / sizes.sum())

    def write_base(self, count: int, file: Path) -> None:
        """The first `count` vectors as a ``.npy`` file of float32."""
        rows = np.lib.format.open_memmap(
            file, mode="w+", dtype=np.float32, shape=(count, self.dim)
        )  # fmt: skip
        for first in range(0, count, BLOCK):
            block = self._block(_BASE, first // BLOCK)
            rows[first : first + BLOCK] = block[: count - first]
        rows.flush()

    def queries(self, count: int) -> Float32Matrix:
        """Vectors of the same distribution that `write_base` never gives; shape (count, dim)."""
        return self._rows(_QUERIES, count)

    def newcomers(self, count: int) -> Float32Matrix:
        """Others still, to be written while the first are searched; shape (count, dim)."""
        return self._rows(_NEWCOMERS, count)

    def _rows(self, part: int, count: int) -> Float32Matrix:
        blocks = [self._block(part, number) for number in range(-(-count // BLOCK))]
        return np.concatenate(blocks)[:count] if blocks else np.empty((0, self.dim), np.float32)

    def _block(self, part: int, number: int) -> Float32Matrix:
        """`BLOCK` rows of unit length."""
        generator = np.random.default_rng([self.seed, self.dim, part, number])
        topics = np.searchsorted(self._cumulated, generator.random(BLOCK))
        topics = np.minimum(topics, CLUSTERS - 1)  # the sum of the shares may miss 1 by a rounding
        # By topic, so that each is one matrix product; then back to the order drawn.
        order = np.argsort(topics, kind="stable")
        bounds = np.searchsorted(topics[order], np.arange(CLUSTERS + 1))
        local = self._within.shape[1]
        places = generator.standard_normal((BLOCK, local), dtype=np.float32)
        places *= np.exp(0.2 * generator.standard_normal((BLOCK, 1))).astype(np.float32)
        places *= self._spreads[topics, None].astype(np.float32)
        latent = np.empty((BLOCK, len(self._axes)), dtype=np.float32)
        for topic in np.unique(topics):
            rows = order[bounds[topic] : bounds[topic + 1]]
            latent[rows] = self._centres[topic] + places[rows] @ self._within[topic]
        vectors = normalised(latent @ self._axes)
        noise = generator.standard_normal((BLOCK, self.dim), dtype=np.float32)
        noise *= np.float32(NOISE / self.dim**0.5)
        return normalised(vectors + noise)


def dataset(clusters: Clusters, base_file: Path, count: int, queries: int) -> Dataset:
    """The first `count` rows of a file of `write_base`, mapped, and held-out queries."""
    base: Float32Matrix = np.load(base_file, mmap_mode="r")[:count]
    return Dataset(DESCRIPTION, base, clusters.queries(queries), base_file)
