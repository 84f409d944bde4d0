"""Vectors of texts that were embedded before."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

# An entry beside its two byte strings: their headers, the key, and its place in the table.
_ENTRY_BYTES = 33 + 33 + 72 + 150


class TextKey(NamedTuple):
    """Whose text it is, and for which embedder.

    A tenant never meets what another one has embedded: how quickly it is answered would tell.
    """

    embedder: str
    tenant: str
    text: bytes


@dataclass(frozen=True, slots=True)
class TextCacheStatistics:
    """A snapshot: what is kept now, and totals since the start."""

    entries_current: int
    bytes_current: int
    hits_total: int
    misses_total: int


class TextCache:
    """Least recently used goes first. For the event loop.

    Args:
        max_bytes: of texts, vectors and the table about them; 0: nothing is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._vectors: OrderedDict[TextKey, bytes] = OrderedDict()
        self._nbytes = 0
        self._hits = 0
        self._misses = 0

    def get(self, key: TextKey) -> bytes | None:
        """The vector, little-endian float32; None: it is not kept."""
        vector = self._vectors.get(key)
        if vector is None:
            self._misses += 1
            return None
        self._vectors.move_to_end(key)
        self._hits += 1
        return vector

    def put(self, key: TextKey, vector: bytes) -> None:
        """Keep a vector, unless it alone would be too large."""
        former = self._vectors.pop(key, None)
        if former is not None:
            self._nbytes -= _size(key, former)
        size = _size(key, vector)
        if size > self._max_bytes:
            return
        self._vectors[key] = vector
        self._nbytes += size
        while self._nbytes > self._max_bytes:
            old_key, old = self._vectors.popitem(last=False)
            self._nbytes -= _size(old_key, old)

    def statistics(self) -> TextCacheStatistics:
        return TextCacheStatistics(len(self._vectors), self._nbytes, self._hits, self._misses)


def _size(key: TextKey, vector: bytes) -> int:
    return len(key.text) + len(vector) + _ENTRY_BYTES
