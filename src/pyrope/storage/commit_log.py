"""The commit log: small commits become durable by one sync, and reach the store's files later.

A commit through the store's own files takes three syncs whatever it holds: of the vector file, and
of LMDB's pages and meta page. An entry of this log takes one. The log is a write-ahead log of the
redo kind (Mohan et al., ARIES, ACM TODS 17(1), 1992, without undo: nothing that is not committed
ever reaches the files): entries say which keys get which values and which slots which rows, so that
doing them twice does no harm.

One file, written from its start again after every checkpoint, so that it keeps its blocks: a sync
that changes no file size is a single write. Which entries count is told by their *generation*, a
random number which the store keeps: a checkpoint that makes the entries of one generation durable
elsewhere draws another in the same transaction. It is random because the file is full of bytes
that clients chose, some of them where the entries of this generation end: nobody outside can make
them look like its next entry.

An entry is written when the one before it is durable. So the last one may be found half written
after a crash, and never was acknowledged then; but one that cannot be read though others follow
it has been damaged.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from xxhash import xxh3_64_intdigest

from pyrope.storage.store import StorageError
from pyrope.types import Float32Matrix, Slots

# Checksum, length of what follows, generation, number of the entry within it.
_HEADER = struct.Struct("<Q I Q Q")
_LENGTH_AT, _GENERATION_AT = 8, 12
_COUNTS = struct.Struct("<2I")
_OPERATION = struct.Struct("<B H I")
_ROWS = struct.Struct("<Q 2I")
_DELETED = 2**32 - 1
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
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.generation = generation
        self.nbytes = 0
        self.failed = False
        self._number = 0
        self._size = os.fstat(self._descriptor).st_size

    def entries(self) -> Iterator[Entry]:
        """The entries that count, in order; what follows the last whole one was never durable.

        To be read to the end before the first `append`. They may be in the kernel's memory and not
        on disk, where the process that wrote them was killed before its sync had ended.

        Raises:
            StorageError: the file is damaged: an entry cannot be read and others follow it.
        """
        content = self._path.read_bytes()
        while (found := self._entry_at(content, self.nbytes)) and found[0] == self._number:
            body = content[self.nbytes + _HEADER.size : found[1]]
            self.nbytes = found[1]
            self._number += 1
            yield _decode(body)
        self._check_that_nothing_follows(content)

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
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, data[written:], self.nbytes + written)
            os.fdatasync(self._descriptor)
        except OSError:
            self._void()
            raise
        self.failed = False
        self.nbytes += len(data)
        self._number += 1

    def restart(self, generation: int) -> None:
        """Begin again: the entries so far do not count any more."""
        self.generation = generation
        self.nbytes = self._number = 0
        self.failed = False

    def content(self) -> bytes:
        """The entries of this generation as the file holds them. Raises OSError."""
        parts = []
        position = 0
        while position < self.nbytes:
            part = os.pread(self._descriptor, self.nbytes - position, position)
            if not part:
                raise OSError(errno.EIO, f"{self._path} ends before its last entry")
            parts.append(part)
            position += len(part)
        return b"".join(parts)

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

    def _void(self) -> None:
        """Overwrite the header of an entry that failed, which the file may hold whole all the same.

        If the disk refuses this too, the entry may count after a restart; only `restart` is sure.
        """
        with suppress(OSError):
            os.pwrite(self._descriptor, bytes(_HEADER.size), self.nbytes)
            os.fdatasync(self._descriptor)

    def _entry_at(self, content: bytes, start: int) -> tuple[int, int] | None:
        """Number and end of this generation's entry at `start`; None: there is no whole one."""
        if not 0 <= start <= len(content) - _HEADER.size:
            return None
        checksum, length, generation, number = _HEADER.unpack_from(content, start)
        end = start + _HEADER.size + length
        if generation != self.generation or end > len(content):
            return None
        if xxh3_64_intdigest(memoryview(content)[start + _LENGTH_AT : end]) != checksum:
            return None
        return number, end

    def _check_that_nothing_follows(self, content: bytes) -> None:
        """Look for entries of this generation behind the last that was read."""
        mark = self.generation.to_bytes(8, "little")
        position = content.find(mark, self.nbytes)
        while position >= 0:
            found = self._entry_at(content, position - _GENERATION_AT)
            if found is not None and found[0] > self._number:
                raise StorageError(
                    f"{self._path} is damaged at byte {self.nbytes}, and acknowledged writes "
                    "follow there: bring the data directory back from a copy, or cut the file to "
                    f"{self.nbytes} bytes to go on without them"
                )
            position = content.find(mark, position + 1)


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
