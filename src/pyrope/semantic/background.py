"""What similarity is worth of an embedder that nobody has measured.

Two texts that have nothing to do with each other have a cosine near 0 with some embedders, and of
0.7 with others, whose vectors all point the same way. The mean cosine of unrelated texts is the
squared length of the mean vector; that is learned from the vectors as they come, and similarity is
measured from there: ``(s - b) / (1 - b)`` is 0 for unrelated texts and 1 for the same.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Float32Vector = NDArray[np.float32]
Float64Vector = NDArray[np.float64]

LEAST_VECTORS: Final = 32
"""Of fewer, the mean tells little."""

_MOST_VECTORS: Final = 10_000


class Background:
    """Of one index. Each call is O(dim).

    Args:
        dim: of the vectors.
    """

    def __init__(self, dim: int) -> None:
        self._sum: Float64Vector = np.zeros(dim)
        self._count = 0

    @property
    def count(self) -> int:
        """How many vectors it knows of, up to a bound beyond which the oldest fade."""
        return self._count

    def observe(self, vector: Float32Vector) -> None:
        """Take in the vector of a prompt.

        Args:
            vector: shape (dim,), of length 1.
        """
        if self._count >= _MOST_VECTORS:
            self._sum *= 0.5
            self._count //= 2
        self._sum += vector
        self._count += 1

    def similarity(self, cosine: float) -> float:
        """What a cosine is worth; 0, which is nothing, as long as too few vectors are known."""
        n = self._count
        if n < LEAST_VECTORS:
            return 0.0
        # Without the n cosines of vectors with themselves, which are 1.
        mean = max(0.0, (float(self._sum @ self._sum) - n) / (n * (n - 1)))
        return (cosine - mean) / (1.0 - mean) if mean < 1.0 else 0.0

    def encode(self) -> tuple[int, bytes]:
        """Count and sum, to be stored."""
        return self._count, self._sum.astype("<f8").tobytes()

    def restore(self, count: int, total: bytes) -> None:
        """Take over what `encode` gave.

        Raises:
            ValueError: it is of another dimension.
        """
        read = np.frombuffer(total, "<f8").astype(np.float64)
        if read.shape != self._sum.shape:
            raise ValueError(f"a sum of {len(read)} numbers for {len(self._sum)} dimensions")
        self._count, self._sum = count, read
