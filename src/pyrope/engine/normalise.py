"""Norms and unit vectors that neither overflow nor vanish."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyrope.types import Float32Matrix

_ROWS = 1024
"""Rows converted to float64 at a time, which bounds the memory of a large batch."""


def row_norms(rows: Float32Matrix) -> NDArray[np.float64]:
    """Euclidean norms, shape (n,), summed in float64: exact enough from 1e-45 to 1e38."""
    norms = np.empty(len(rows), dtype=np.float64)
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS].astype(np.float64)
        norms[start : start + len(block)] = np.sqrt(np.einsum("ij,ij->i", block, block))
    return norms


def unit_rows(rows: Float32Matrix, norms: NDArray[np.float64] | None = None) -> Float32Matrix:
    """Rows divided by their norms, float32, shape (n, dim). A zero row stays zero."""
    if norms is None:
        norms = row_norms(rows)
    divisors = np.where(norms, norms, 1.0)[:, None]
    out = np.empty(rows.shape, dtype=np.float32)
    for start in range(0, len(rows), _ROWS):
        block = slice(start, start + _ROWS)
        # Divided in float64: the norm of a denormal row has an inverse that float32 lacks.
        np.divide(rows[block], divisors[block], out=out[block], casting="same_kind")
    return out
