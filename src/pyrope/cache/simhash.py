"""Codes of vectors whose differing bits tell the angle between them (SimHash).

Charikar, Similarity estimation techniques from rounding algorithms, STOC 2002, section 3: a random
hyperplane through the origin separates two vectors at an angle of `a` radians with probability
``a / pi``. Of b bits that each say on which side of a hyperplane a vector lies, two vectors
therefore differ in ``b a / pi`` on average, with a variance of ``b p (1 - p)``, ``p = a / pi``.
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
from numpy.typing import NDArray

from pyrope.types import Float32Matrix

_MOST_BITS = 64
# Of two vectors at some angle, one in 740 pairs differs in more bits than this many standard
# deviations above the mean (by the normal approximation), and is not found.
_DEVIATIONS = 3.0


class SimHash:
    """Signs of a seeded random projection.

    Args:
        dim: of the vectors.
        seed: equal seeds give equal codes.
        bits: of a code, 1 to 64.

    Raises:
        ValueError: `bits` is out of range.
    """

    def __init__(self, dim: int, seed: int, bits: int = 64) -> None:
        if not 1 <= bits <= _MOST_BITS:
            raise ValueError(f"a code has 1 to {_MOST_BITS} bits, not {bits}")
        generator = np.random.default_rng(seed)
        self._planes = generator.standard_normal((bits, dim), dtype=np.float32)
        self._signs = np.zeros(_MOST_BITS, dtype=np.bool_)
        self.bits = bits

    @property
    def nbytes(self) -> int:
        return self._planes.nbytes + self._signs.nbytes

    def code(self, vector: NDArray[np.float32]) -> np.uint64:
        """The code of one vector, shape (dim,). Its length does not matter.

        A component of size 1e30 or more may overflow; scale such vectors first.
        """
        # einsum and not @: BLAS would bring threads of its own (see `pyrope.engine.forked`).
        products = np.einsum("ij,j->i", self._planes, vector)
        np.greater(products, 0.0, out=self._signs[: self.bits])
        code: np.uint64 = np.packbits(self._signs).view(np.uint64)[0]
        return code

    def codes(self, vectors: Float32Matrix) -> NDArray[np.uint64]:
        """The codes of many vectors, shape (n,); the same as one by one."""
        return np.fromiter(map(self.code, vectors), dtype=np.uint64, count=len(vectors))

    def radius(self, angle: float) -> int:
        """Bits in which codes of vectors at most `angle` radians apart differ, but for one in 740.

        Args:
            angle: 0 to pi.
        """
        share = min(angle / pi, 1.0)
        expected = self.bits * share
        # One more: equal vectors that were scaled in different ways may disagree about a sign.
        allowance = _DEVIATIONS * sqrt(self.bits * share * (1.0 - share)) + 1.0
        return min(self.bits, int(expected + allowance))
