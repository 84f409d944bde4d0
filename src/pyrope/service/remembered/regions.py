"""Regions: where among prompts labels have come, so that what they taught holds near by.

Leaders (Hartigan, Clustering algorithms, 1975, section 3.2): the first prompt of which something
was said is the centre of a region, and what is near enough to a centre belongs to the nearest one.
When there are as many as there may be, the one gives way of which least is known.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from pyrope.semantic.evidence import NOTHING, Evidence
from pyrope.types import Float32Matrix

MAX_REGIONS = 256
_LEAST_COSINE = 0.7
_COUNTS = struct.Struct("<II")


class Regions:
    """Of one index. Each call takes some microseconds.

    Args:
        dim: of the vectors, which are of length 1.
    """

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._centres: Float32Matrix = np.empty((0, dim), np.float32)
        self._evidence: list[Evidence] = []

    def __len__(self) -> int:
        return len(self._evidence)

    @property
    def nbytes(self) -> int:
        return int(self._centres.nbytes) + 100 * len(self._evidence)

    def of(self, vector: NDArray[np.float32]) -> Evidence:
        """What is known where a vector is, shape (dim,)."""
        place = self._find(vector)
        return NOTHING if place is None else self._evidence[place]

    def learn(self, vector: NDArray[np.float32], evidence: Evidence) -> None:
        """That is known there now."""
        place = self._find(vector)
        if place is None and len(self._evidence) < MAX_REGIONS:
            self._centres = np.concatenate([self._centres, vector[None]])
            self._evidence.append(evidence)
            return
        if place is None:
            place = min(range(MAX_REGIONS), key=lambda one: self._evidence[one].information)
            self._centres[place] = vector
        self._evidence[place] = evidence

    def encode(self) -> bytes:
        """All of it, to be stored."""
        numbers = [(one.offset, one.information) for one in self._evidence]
        return (
            _COUNTS.pack(len(self._evidence), self._dim)
            + self._centres.astype("<f4").tobytes()
            + np.array(numbers, "<f8").tobytes()
        )

    def restore(self, stored: bytes) -> None:
        """Take over what `encode` gave. Raises ValueError where it is of other vectors."""
        count, dim = _COUNTS.unpack_from(stored)
        if dim != self._dim:
            raise ValueError(f"regions of {dim} dimensions, not {self._dim}")
        centres = np.frombuffer(stored, "<f4", count * dim, _COUNTS.size)
        self._centres = centres.reshape(count, dim).astype(np.float32)
        numbers = np.frombuffer(stored, "<f8", 2 * count, _COUNTS.size + centres.nbytes)
        self._evidence = [Evidence(*pair) for pair in numbers.reshape(count, 2).tolist()]

    def _find(self, vector: NDArray[np.float32]) -> int | None:
        if not self._evidence:
            return None
        scores = self._centres @ vector
        place = int(np.argmax(scores))
        return place if scores[place] >= _LEAST_COSINE else None
