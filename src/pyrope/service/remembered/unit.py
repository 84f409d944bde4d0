"""Vectors in the form in which prompts are compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Of a vector's squared length, when an embedder has brought it to 1.
_ROUNDING = 1e-6


def unit(blob: bytes) -> NDArray[np.float32]:
    """A vector brought to length 1, shape (dim,); of zeros, zeros.

    Args:
        blob: little-endian float32.
    """
    given: NDArray[np.float32] = np.frombuffer(blob, "<f4")
    if abs(float(given @ given) - 1.0) <= _ROUNDING:
        return given
    vector = given.astype(np.float64)
    norm = float(np.sqrt(np.dot(vector, vector)))
    return (vector / norm if norm else vector).astype(np.float32)
