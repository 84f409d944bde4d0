"""Vectors brought to length 1, whatever an embedder has made of a text."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np

from pyrope.types import Float32Matrix


def to_unit_rows(rows: Float32Matrix) -> Float32Matrix:
    """Divide each row by its Euclidean norm, in place.

    Args:
        rows: shape (n, dim).

    Returns:
        The same array. A row that has no direction (zeros, NaN, infinity) is all zeros.
    """
    for row in rows:
        # In double precision, so that no square overflows.
        wide = row.astype(np.float64)
        square = float(wide @ wide)
        if 0.0 < square < inf:
            np.divide(wide, sqrt(square), out=row, casting="same_kind")
        else:
            row[:] = 0.0
    return rows
