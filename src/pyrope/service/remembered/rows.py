"""The vectors of one scope, to find what is near: a matrix while there are few.

A scan of half a million values takes 0.03 ms, less than a hand-over to another thread; so a small
scope is scanned on the loop, and answers at once. A larger one is searched as indexes are
(`pyrope.service.remembered.near_index`).
"""

from __future__ import annotations

from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pyrope.semantic.remembered.entry import Entry
from pyrope.types import Float32Matrix

SCANNED_VALUES = 2**19
"""Rows times dimensions that are scanned on the loop."""


class Near(NamedTuple):
    """An entry, and the cosine of its prompt's vector to that of another one."""

    entry: Entry
    score: float


class Placed(Protocol):
    """What has a row.

    Attributes:
        place: its number; -1: it has none.
    """

    place: int


T = TypeVar("T", bound=Placed)


class Rows(Generic[T]):
    """A growing float32 matrix of unit vectors, a row for each entry. For the event loop."""

    def __init__(self, dim: int) -> None:
        self._matrix: Float32Matrix = np.empty((1, dim), np.float32)
        self.entries: list[T] = []

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def nbytes(self) -> int:
        """Of what no vector stands in; the entries count those that do."""
        dim: int = self._matrix.shape[1]
        return 4 * dim * (len(self._matrix) - len(self.entries))

    @property
    def matrix(self) -> Float32Matrix:
        """Shape (n, dim); a view, good until the next change."""
        return self._matrix[: len(self.entries)]

    def vector(self, entry: T) -> NDArray[np.float32]:
        """Shape (dim,)."""
        row: NDArray[np.float32] = self._matrix[entry.place].copy()
        return row

    def add(self, entry: T, vector: NDArray[np.float32]) -> None:
        count = len(self.entries)
        if count == len(self._matrix):
            grown = np.empty((count + max(count // 2, 1), vector.shape[0]), np.float32)
            grown[:count] = self._matrix
            self._matrix = grown
        self._matrix[count] = vector
        entry.place = count
        self.entries.append(entry)

    def remove(self, entry: T) -> None:
        place, last = entry.place, self.entries.pop()
        if last is not entry:
            self._matrix[place] = self._matrix[last.place]
            self.entries[place] = last
            last.place = place
        entry.place = -1

    def nearest(self, query: NDArray[np.float32], count: int) -> tuple[list[T], list[float]]:
        """The entries nearest to a unit vector, shape (dim,), and their cosines; nearest first."""
        scores = self.matrix @ query
        if len(scores) > count:
            best = np.argpartition(scores, len(scores) - count)[-count:]
            best = best[np.argsort(-scores[best], kind="stable")]
        else:
            best = np.argsort(-scores, kind="stable")
        entries = self.entries
        cosines = [min(score, 1.0) for score in scores[best].tolist()]
        return [entries[place] for place in best.tolist()], cosines
