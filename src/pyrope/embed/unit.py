"""Vectors brought to length 1, whatever an embedder has made of a text."""

from __future__ import annotations

import numpy as np

from pyrope.types import Float32Matrix


def to_unit_rows(rows: Float32Matrix) -> Float32Matrix:
    """Divide each row by its Euclidean norm, in place.

    Args:
        rows: shape (n, dim).

    Returns:
        The same array. A row that has no direction (zeros, NaN, infinity) is all zeros.
    """
    # In double precision, so that no square overflows.
    wide = rows.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    usable = np.isfinite(norms) & (norms > 0)
    np.divide(wide, norms[:, None], out=wide, where=usable[:, None])
    wide[~usable] = 0.0
    rows[:] = wide
    return rows
