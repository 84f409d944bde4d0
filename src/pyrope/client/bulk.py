"""Many vectors in bounded pieces, several of them on their way at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike, NDArray
from redis.exceptions import RedisError

from pyrope.client.request import Request
from pyrope.client.retrying import Patience, Steps, exchange
from pyrope.client.vectors import add_block
from pyrope.client.words import Attributes, Id, check_rows, id_word, matrix_of
from pyrope.errors import PyropeError


@dataclass(frozen=True, slots=True)
class BulkOptions:
    """How large the pieces are.

    A piece is one command, which the server carries out as a whole and commits at once. The
    defaults are a guess at what keeps a server busy and holds nobody up.

    Attributes:
        block_vectors, block_bytes: of one piece, at most; bytes are those of its vectors.
        in_flight: pieces that are sent before their replies are waited for.

    Raises:
        ValueError: one of them is below 1.
    """

    block_vectors: int = 2000
    block_bytes: int = 2**22
    in_flight: int = 4

    def __post_init__(self) -> None:
        if min(self.block_vectors, self.block_bytes, self.in_flight) < 1:
            raise ValueError("a bulk's sizes are at least 1")

    def rows(self, dim: int) -> int:
        """Vectors in a piece."""
        return max(1, min(self.block_vectors, self.block_bytes // (4 * dim)))


DEFAULT_BULK = BulkOptions()


@dataclass(frozen=True, slots=True)
class _Bulk:
    """What is to be added, checked. Of an id that was given twice, only the last one is left.

    So pieces may be sent again, and overtake one another, without a change in what is stored.
    """

    index: str
    ids: list[bytes]
    vectors: NDArray[Any]
    attributes: Sequence[Attributes | None] | None
    kept: list[int] | None

    def block(self, start: int, stop: int) -> Request[int]:
        if self.kept is None:
            attributes = None if self.attributes is None else self.attributes[start:stop]
            return add_block(self.index, self.ids[start:stop], self.vectors[start:stop], attributes)
        rows = self.kept[start:stop]
        attributes = None if self.attributes is None else [self.attributes[row] for row in rows]
        ids = [self.ids[row] for row in rows]
        return add_block(self.index, ids, self.vectors[rows], attributes)


def add_many(
    index: str,
    ids: Sequence[Id],
    vectors: ArrayLike,
    attributes: Sequence[Attributes | None] | None,
    options: BulkOptions,
    patience: Patience,
) -> Steps[int]:
    """See `pyrope.client.Client.add_many`."""
    bulk = _checked(index, ids, vectors, attributes)
    total = len(bulk.ids if bulk.kept is None else bulk.kept)
    rows = options.rows(bulk.vectors.shape[1])
    # All of them before the first one is sent.
    for start, stop in _ranges(len(bulk.ids), rows):
        check_rows(bulk.vectors[start:stop])
    new = done = 0
    for start, stop in _ranges(total, rows * options.in_flight):
        window = [bulk.block(start + a, start + b) for a, b in _ranges(stop - start, rows)]
        try:
            new += sum((yield from exchange(window, patience)))
        except (PyropeError, RedisError) as error:
            error.add_note(f"{done} of {total} vectors are written for certain; others may be")
            raise
        done = stop
    return new


def _checked(
    index: str,
    ids: Sequence[Id],
    vectors: ArrayLike,
    attributes: Sequence[Attributes | None] | None,
) -> _Bulk:
    raw = list(map(id_word, ids))
    matrix = matrix_of(vectors)
    if len(raw) != len(matrix):
        raise ValueError(f"{len(raw)} ids for {len(matrix)} vectors")
    if attributes is not None and len(attributes) != len(raw):
        raise ValueError(f"{len(attributes)} attributes for {len(raw)} ids")
    last = {each: row for row, each in enumerate(raw)}
    kept = None if len(last) == len(raw) else sorted(last.values())
    return _Bulk(index, raw, matrix, attributes, kept)


def _ranges(total: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, total, size):
        yield start, min(start + size, total)
