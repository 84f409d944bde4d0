"""Which nodes of a graph may hold a given vector: a hash table from digests to labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from pyrope.engine.slot_table import grown
from pyrope.types import Float32Matrix, Slots

_NONE = 0
"""The digest of labels that are not in the table."""

_FREE = -1


def digests_of(vectors: Float32Matrix | NDArray[np.uint8]) -> NDArray[np.uint64]:
    """XXH3-64 of each row's bytes, shape (n,), never 0."""
    digests = (xxh3_64_intdigest(row) or 1 for row in vectors)
    return np.fromiter(digests, np.uint64, len(vectors))


class DigestTable:
    """Open addressing with linear probing, in arrays: 8 bytes a label and 8 to 16 a place.

    A dict would take about 110 bytes an entry. Places of labels whose digest has changed are left
    behind, and go when the table is made anew.
    """

    __slots__ = ("_digests", "_places", "_taken")

    def __init__(self) -> None:
        self._digests = np.zeros(0, dtype=np.uint64)
        self._places = np.full(1024, _FREE, dtype=np.int32)
        self._taken = 0

    @property
    def nbytes(self) -> int:
        return self._digests.nbytes + self._places.nbytes

    def digest(self, label: int) -> int:
        """The digest that a label was given last; 0 where it has none."""
        return int(self._digests[label]) if label < len(self._digests) else _NONE

    def labels(self, digest: int) -> Iterator[int]:
        """Labels that have this digest."""
        mask = len(self._places) - 1
        position = digest & mask
        while (label := int(self._places[position])) != _FREE:
            if self._digests[label] == digest:
                yield label
            position = (position + 1) & mask

    def forget(self, label: int) -> None:
        """Take the digest of a label away, if it has one."""
        if label < len(self._digests):
            self._digests[label] = _NONE

    def put(self, label: int, digest: int) -> None:
        self.put_all(np.array([label], np.int64), np.array([digest], np.uint64))

    def put_all(self, labels: Slots, digests: NDArray[np.uint64]) -> None:
        """Give distinct labels their digests."""
        if not len(labels):
            return
        size = grown(len(self._digests), int(labels.max()) + 1)
        if size > len(self._digests):
            added = np.zeros(size - len(self._digests), np.uint64)
            self._digests = np.concatenate([self._digests, added])
        self._digests[labels] = digests
        if 2 * (self._taken + len(labels)) > len(self._places):
            labels = np.flatnonzero(self._digests)
            size = 1 << (4 * len(labels) - 1).bit_length()
            self._places = np.full(max(size, 1024), _FREE, dtype=np.int32)
            self._taken = 0
        self._place(labels)

    def _place(self, labels: Slots) -> None:
        """Find places for labels, all at once: who loses a race for a place tries the next."""
        self._taken += len(labels)
        mask = np.uint64(len(self._places) - 1)
        positions = (self._digests[labels] & mask).astype(np.int64)
        while len(labels):
            free = self._places[positions] == _FREE
            self._places[positions[free]] = labels[free]
            lost = self._places[positions] != labels
            labels, positions = labels[lost], (positions[lost] + 1) & int(mask)
