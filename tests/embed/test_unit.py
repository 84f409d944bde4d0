from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pyrope.embed.unit import to_unit_rows
from pyrope.types import Float32Matrix

_ROWS = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 6)))


@given(_ROWS)
def test_rows_have_length_1_or_are_zeros(rows: Float32Matrix) -> None:
    before = rows.astype(np.float64)
    after = to_unit_rows(rows)
    assert after is rows
    for was, now in zip(before, after, strict=True):
        if np.isfinite(was).all() and was.any():
            assert abs(float(np.linalg.norm(now.astype(np.float64))) - 1) < 1e-6
            direction = was / np.abs(was).max()
            np.testing.assert_allclose(now, direction / np.linalg.norm(direction), atol=1e-6)
        else:
            assert not now.any()
