"""What every engine promises: the `VectorIndex` protocol and the records it speaks in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pyrope.types import Float32Matrix, Mask, Metric, Slots


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Effort of one search. None: the engine's own default; what an engine lacks it ignores.

    Attributes:
        ef: candidates that a graph search keeps.
        nprobe: inverted lists visited.
        max_scans: upper bound on distance computations.
    """

    ef: int | None = None
    nprobe: int | None = None
    max_scans: int | None = None


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Answers to n queries, nearest first.

    Attributes:
        slots: int64, shape (n, k); -1 where fewer than k were found (always at the end of a row).
        scores: float32, shape (n, k), in the metric's own unit (cosine, inner product, Euclidean
            distance); NaN where slots is -1.
    """

    slots: NDArray[np.int64]
    scores: NDArray[np.float32]


class VectorSource(Protocol):
    """The raw vectors, as clients sent them, by slot."""

    def view(self) -> Float32Matrix:
        """Every slot's row, shape (capacity, dim), read-only and without a copy.

        Rows of slots that hold no vector contain anything. The view stays valid (but may miss
        slots added since) after the source has grown.
        """
        ...


class VectorIndex(Protocol):
    """An index over slots.

    Calls of the first group may run at the same time as one another, in any threads; calls of
    the second group need the index to themselves (the caller sees to it). All native work releases
    the GIL unless said otherwise. Vectors are float32, shape (n, dim), C-contiguous, finite;
    their raw rows have been written to the `VectorSource` before they are added here.
    """

    metric: Metric
    dim: int

    # -- first group: readers ---------------------------------------------------------------

    def search(
        self, queries: Float32Matrix, k: int, options: SearchOptions, allowed: Mask | None = None
    ) -> Neighbours:
        """The k nearest of each query, approximately if that is what the engine is.

        Args:
            queries: shape (n, dim).
            k: at least 1; may exceed the number of vectors.
            allowed: where given, only slots that are True there take part; may be shorter than
                the number of slots (what lies beyond takes no part).
        """
        ...

    def search_exact(
        self, queries: Float32Matrix, k: int, allowed: Mask | None = None
    ) -> Neighbours:
        """The k nearest of each query by a full scan."""
        ...

    def __len__(self) -> int:
        """Vectors that a search can find."""
        ...

    @property
    def deleted_count(self) -> int:
        """Vectors deleted whose place has not been taken again (tombstones)."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Anonymous memory held, in bytes (an estimate from the structure's own arithmetic)."""
        ...

    # -- second group: exclusive ---------------------------------------------------------------

    def upsert(self, slots: Slots, vectors: Float32Matrix) -> None:
        """Add vectors, or replace those whose slots are in use. `slots` has no duplicates."""
        ...

    def delete(self, slots: Slots) -> None:
        """Remove vectors; slots that hold none are passed over."""
        ...
