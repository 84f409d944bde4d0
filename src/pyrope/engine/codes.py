"""8-bit codes of vectors: what a component becomes as an integer between -127 and 127.

One scale serves all components, so that products and differences of codes are those of the vectors
times a constant: a graph over codes orders neighbours as one over vectors does, up to rounding.

- L2 takes an offset from each component first, which changes no distance and makes the numbers
  smaller.
- COSINE compares unit vectors by distance, which orders them as their products do. Rounding
  changes a distance in proportion to that distance, but a product in proportion to the lengths: on
  the unit circle, products of codes miss true neighbours that distances find. At 384 dimensions
  neither recall nor time differ.
- IP compares by product.

How far the codes reach is a compromise, measured on eight kinds of data (15,000 vectors of 64 to
384 dimensions, best 20 of the codes re-ranked): clipping costs far more than coarse steps do. The
99 % quantile of all components as the range gives recalls of 0.96 down to 0.38; that of 99.9 %
fails where a few dimensions are large in every vector (0.56); the largest component of all fails
where a vector in 500 is 50 times as long as the others (0.15). What works is a quantile over
vectors: half as much again as the largest component that 99 % of the vectors have. Its recall was
within 0.007 of the best range tried, unless one vector in a hundred is 50 times as long as the
others: then it may be taken for one of many.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyrope.engine.faiss_file import Arrays
from pyrope.engine.normalise import unit_rows
from pyrope.types import Float32Matrix, Mask, Metric

LARGEST_CODE = 127
TRAINING_SIZE = 10_000

_VECTORS_IN_RANGE = 0.99
_HEADROOM = 1.5
# Keeps a scale finite in float32, whatever the data.
_SMALLEST_RANGE, _LARGEST_RANGE = 1e-30, 1e30

# When a scale does not fit any more. Clipping 0.1 % of the components costs up to 0.03 of recall,
# steps that are four times as coarse up to 0.05.
_JUDGED_VECTORS = 1000
_CLIPPED_SHARE = 0.002
_SHRUNK = 0.25

# Squared distance, in steps, of a query for L2 from the nearest one that has a code. Recall is
# above 0.99 up to some steps, 0.90 to 0.96 at 20 to 70, 0.6 to 0.8 at 200.
_FAR = 16.0**2


class Scale:
    """How vectors become codes; learnt once, then fixed.

    Args:
        metric: as of the index.
        dim: as of the index.
    """

    def __init__(self, metric: Metric, dim: int) -> None:
        self._metric = metric
        self._offset = np.zeros(dim, dtype=np.float32)
        # Codes are components times this; 0 until it is known.
        self._factor = np.float32(0)
        # Shares and mean squares of codes: of the sample, and summed up over all that was encoded.
        self._expected = np.zeros(2)
        self._encoded = np.zeros(2)
        self._vectors = 0

    @property
    def trained(self) -> bool:
        return bool(self._factor)

    @property
    def worn(self) -> bool:
        """Whether too much is clipped of what was encoded, or the steps are too coarse for it."""
        if self._vectors < _JUDGED_VECTORS:
            return False
        clipped, square = self._encoded / self._vectors
        expected_clipped, expected_square = self._expected
        # A sample of zeros says nothing of the scale, and zeros fit any.
        shrunk = 0 < square < _SHRUNK**2 * expected_square or (square > 0 == expected_square)
        return bool(shrunk or clipped > 2 * expected_clipped + _CLIPPED_SHARE)

    def train(self, sample: Float32Matrix) -> None:
        """Learn from raw vectors, shape (n, dim), n at least 1."""
        rows = unit_rows(sample) if self._metric is Metric.COSINE else sample
        if self._metric is Metric.L2:
            self._offset = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
            rows = rows - self._offset
        reach = _HEADROOM * np.quantile(np.abs(rows).max(axis=1), _VECTORS_IN_RANGE)
        reach = min(max(reach, _SMALLEST_RANGE), _LARGEST_RANGE) if reach else 1.0
        self._factor = np.float32(LARGEST_CODE / reach)
        self._expected = self._wear(self._scaled(rows)) / len(rows)

    def encode(self, vectors: Float32Matrix, norms: NDArray[np.float64]) -> Float32Matrix:
        """Codes as float32, which is how FAISS takes them, shape (n, dim).

        Args:
            vectors: raw.
            norms: theirs, shape (n,).
        """
        rows = unit_rows(vectors, norms) if self._metric is Metric.COSINE else vectors
        if self._metric is Metric.L2:
            rows = rows - self._offset
        codes = self._scaled(rows)
        self._encoded += self._wear(codes)
        self._vectors += len(codes)
        np.rint(codes, out=codes)
        return np.clip(codes, -LARGEST_CODE, LARGEST_CODE, out=codes)

    def queries(self, queries: Float32Matrix) -> tuple[Float32Matrix, Mask | None]:
        """Codes of queries, and which of them are not worth much; None: all are.

        FAISS makes bytes of queries as it does of vectors, where the processor can multiply bytes.
        Where only its direction counts, a query gets a scale of its own.

        Returns:
            float32, shape (n, dim); bool, shape (n,), True for queries far from all codes.
        """
        if self._metric is Metric.L2:
            with np.errstate(over="ignore"):
                codes = (queries - self._offset) * self._factor
                if np.abs(codes).max(initial=0) <= LARGEST_CODE:
                    return np.rint(codes, out=codes), None
                beyond = np.maximum(np.abs(codes) - LARGEST_CODE, 0)
                far = np.einsum("ij,ij->i", beyond, beyond) > _FAR
            np.clip(codes, -LARGEST_CODE, LARGEST_CODE, out=codes)
            return np.rint(codes, out=codes), far if far.any() else None
        largest = np.maximum(
            queries.max(axis=1, keepdims=True), -queries.min(axis=1, keepdims=True)
        )
        # No division with a mask: it takes so long that the event loop gets the GIL meanwhile.
        codes = queries / np.where(largest > 0, largest, 1)
        reach: NDArray[np.float32] | int = LARGEST_CODE
        if self._metric is Metric.COSINE:
            # The length of a unit vector, or less where it does not fit: it changes no order.
            lengths = np.sqrt(np.einsum("ij,ij->i", codes, codes))[:, None]
            reach = np.minimum(self._factor / np.maximum(lengths, 1), np.float32(LARGEST_CODE))
        codes *= reach
        return np.rint(codes, out=codes), None

    def arrays(self) -> Arrays:
        """All that is known, for a file."""
        return {
            "factor": np.array(self._factor),
            "offset": self._offset,
            "expected": self._expected,
            "encoded": self._encoded,
            "vectors": np.array(self._vectors),
        }

    def restore(self, arrays: Arrays) -> None:
        """Take in what `arrays` gave.

        Raises:
            KeyError: something is missing.
            ValueError: something is of another shape.
        """
        if arrays["offset"].shape != self._offset.shape:
            raise ValueError(f"an offset of shape {arrays['offset'].shape}")
        self._factor = np.float32(arrays["factor"].item())
        self._offset = arrays["offset"].astype(np.float32)
        self._expected, self._encoded = arrays["expected"], arrays["encoded"]
        self._vectors = int(arrays["vectors"].item())

    def _scaled(self, rows: Float32Matrix) -> Float32Matrix:
        with np.errstate(over="ignore"):
            return rows * self._factor

    @staticmethod
    def _wear(codes: Float32Matrix) -> NDArray[np.float64]:
        """Sums over vectors: the share of components beyond the range, and the mean square."""
        beyond = np.abs(codes) > LARGEST_CODE + 0.5
        with np.errstate(over="ignore"):
            squares = np.minimum(np.square(codes), np.float32(LARGEST_CODE**2))
        sums: NDArray[np.float64] = np.array(
            [np.count_nonzero(beyond), squares.sum(dtype=np.float64)], dtype=np.float64
        )
        sums /= codes.shape[1]
        return sums
