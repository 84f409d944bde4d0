"""The commit log: small commits become durable by one sync, and reach the store's files later.

A commit through the store's own files takes three syncs whatever it holds: of the vector file, and
of LMDB's pages and meta page. An entry of this log takes one. The log is a write-ahead log of the
redo kind (Mohan et al., ARIES, ACM TODS 17(1), 1992, without undo: nothing that is not committed
ever reaches the files): entries say which keys get which values and which slots which rows, so that
doing them twice does no harm.

One file, written from its start again after every checkpoint, so that it keeps its blocks: a sync
that changes no file size is a single write. Which entries count is told by their *generation*,
which the store keeps: a checkpoint that makes the entries of one generation durable elsewhere
counts it up in the same transaction.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from xxhash import xxh3_64_intdigest

from pyrope.types import Float32Matrix, Slots

# Checksum, length of what follows, generation, number of the entry within it.
_HEADER = struct.Struct("<Q I Q Q")
_COUNTS = struct.Struct("<2I")
_OPERATION = struct.Struct("<B H I")
_ROWS = struct.Struct("<Q 2I")
_DELETED = 2**32 - 1
_LARGEST_ENTRY = 2**30
_PREALLOCATED_BYTES = 2**20


class Operation(NamedTuple):
    """One key of one database gets a value, or goes (None)."""

    database: int
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one index: `vectors[i]` belongs at slot `slots[i]`."""

    uid: int
    slots: Slots
    vectors: Float32Matrix


@dataclass(frozen=True, slots=True)
class Entry:
    """One commit."""

    operations: Sequence[Operation]
    rows: Sequence[Rows]


class CommitLog:
    """The file. One thread at a time.

    Args:
        path: is made where it does not exist; the caller syncs its directory.
        generation: of the entries that count.

    Attributes:
        generation: as above.
        nbytes: of the entries of this generation.
        failed: nobody knows what the file holds behind them; only `restart` helps.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, generation: int) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.generation = generation
        self.nbytes = 0
        self.failed = False
        self._number = 0
        self._size = os.fstat(self._descriptor).st_size

    def entries(self) -> Iterator[Entry]:
        """The entries that count, in order; what follows the last whole one was never durable.

        To be read to the end before the first `append`.
        """
        while (entry := self._read()) is not None:
            yield entry

    def append(self, entry: Entry) -> None:
        """Make an entry durable.

        Raises:
            OSError: the disk refused. The entry does not count, and nothing can be appended any
                more before `restart`.
        """
        body = _encode(entry)
        self.failed = True
        header = struct.pack("<I Q Q", len(body), self.generation, self._number)
        checksum = xxh3_64_intdigest(header + body)
        data = memoryview(checksum.to_bytes(8, "little") + header + body)
        self._reserve(self.nbytes + len(data))
        written = 0
        while written < len(data):
            written += os.pwrite(self._descriptor, data[written:], self.nbytes + written)
        os.fdatasync(self._descriptor)
        self.failed = False
        self.nbytes += len(data)
        self._number += 1

    def restart(self, generation: int) -> None:
        """Begin again: the entries so far do not count any more."""
        self.generation = generation
        self.nbytes = self._number = 0
        self.failed = False

    def close(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _reserve(self, size: int) -> None:
        """Have blocks for so many bytes. Raises OSError where the disk is full."""
        if size > self._size:
            size = -(-size // _PREALLOCATED_BYTES) * _PREALLOCATED_BYTES
            os.posix_fallocate(self._descriptor, self._size, size - self._size)
            self._size = size

    def _read(self) -> Entry | None:
        head = os.pread(self._descriptor, _HEADER.size, self.nbytes)
        if len(head) < _HEADER.size:
            return None
        checksum, length, generation, number = _HEADER.unpack(head)
        if (generation, number) != (self.generation, self._number) or length > _LARGEST_ENTRY:
            return None
        body = os.pread(self._descriptor, length, self.nbytes + _HEADER.size)
        if len(body) < length or xxh3_64_intdigest(head[8:] + body) != checksum:
            return None
        self.nbytes += _HEADER.size + length
        self._number += 1
        return _decode(body)


def _encode(entry: Entry) -> bytes:
    parts = [_COUNTS.pack(len(entry.operations), len(entry.rows))]
    for operation in entry.operations:
        value = operation.value
        length = _DELETED if value is None else len(value)
        parts += (
            _OPERATION.pack(operation.database, len(operation.key), length),
            operation.key,
            value or b"",
        )
    for rows in entry.rows:
        parts += (
            _ROWS.pack(rows.uid, *rows.vectors.shape),
            rows.slots.astype("<i8").tobytes(),
            rows.vectors.astype("<f4", copy=False).tobytes(),
        )
    return b"".join(parts)


def _decode(body: bytes) -> Entry:
    """The entry of a body whose checksum is right."""
    operation_count, rows_count = _COUNTS.unpack_from(body)
    position = _COUNTS.size
    operations = []
    for _ in range(operation_count):
        database, key_length, value_length = _OPERATION.unpack_from(body, position)
        position += _OPERATION.size
        key = body[position : position + key_length]
        position += key_length
        value = None
        if value_length != _DELETED:
            value = body[position : position + value_length]
            position += value_length
        operations.append(Operation(database, key, value))
    every_rows = []
    for _ in range(rows_count):
        uid, count, dim = _ROWS.unpack_from(body, position)
        position += _ROWS.size
        slots = np.frombuffer(body, "<i8", count, position).astype(np.int64)
        position += slots.nbytes
        vectors = np.frombuffer(body, "<f4", count * dim, position).reshape(count, dim)
        position += vectors.nbytes
        every_rows.append(Rows(uid, slots, vectors.astype(np.float32)))
    return Entry(operations, every_rows)
