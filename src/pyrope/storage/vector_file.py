"""The raw vectors of one index: row = slot, read through a mapping, written with pwrite.

Writes never go through the mapping: a full disk would then answer with SIGBUS, which kills the
process, where pwrite answers ENOSPC. The mapping never reaches beyond the end of the file, for
the same reason. Pages of the mapping are the file's own page cache, so rows that were written are
seen by every view, old ones included, and count as file-backed memory, not anonymous memory.

The file grows sparsely (ftruncate; a hole reads as zeros) rather than with posix_fallocate. Writing
and syncing a row takes as long in either (0.1 to 0.2 ms on ext4, benchmarks/micro_storage.py), and
thousands of small indexes then hold no disk that they do not use. A full disk is found out by
pwrite instead of by the growth; both are before anything is acknowledged.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from pyrope.types import Float32Matrix, Slots

_GROWTH_LIMIT_BYTES = 64 * 2**20
"""A large file grows by this much at a time, a smaller one by a quarter."""

_SMALLEST_GROWTH_BYTES = 64 * 2**10
"""So that a young index does not remap its file for each vector; sparse, so it costs no disk."""


class VectorFile:
    """Float32 rows by slot. One thread at a time may write; any may call `view`.

    Args:
        descriptor: open for reading and writing; owned from here on.
        dim: floats in a row.
        name: how errors call the file.
        is_in_memory: it is on no disk.

    Raises:
        ValueError: dim is not positive.
        OSError: the file cannot be examined or mapped.
    """

    def __init__(self, descriptor: int, dim: int, name: str, *, is_in_memory: bool = False) -> None:
        if dim < 1:
            os.close(descriptor)
            raise ValueError(f"a vector has at least one dimension, not {dim}")
        self.dim = dim
        self._row_bytes = 4 * dim
        self._name = name
        self._is_in_memory = is_in_memory
        self._descriptor = descriptor
        self._before_write: Callable[[Slots], None] | None = None
        try:
            self._view = self._map(os.fstat(descriptor).st_size // self._row_bytes)
        except OSError:
            os.close(descriptor)
            raise

    @classmethod
    def open(cls, path: Path, dim: int) -> VectorFile:
        """Open the file at `path`, creating it (mode 0600) where there is none."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        return cls(os.open(path, flags, 0o600), dim, str(path))

    @classmethod
    def in_memory(cls, dim: int, name: str) -> VectorFile:
        """A file that is nowhere but in (shared) memory and ends with its last user."""
        return cls(os.memfd_create(name, os.MFD_CLOEXEC), dim, name, is_in_memory=True)

    @property
    def capacity(self) -> int:
        """Rows that the file has room for; every slot below it can be read."""
        return len(self._view)

    @property
    def disk_bytes(self) -> int:
        """Bytes allocated; 0 once closed."""
        return 0 if self._descriptor < 0 else os.fstat(self._descriptor).st_blocks * 512

    @property
    def memory_bytes(self) -> int:
        """Bytes that no file on disk backs: all that are allocated, where it is in memory."""
        return self.disk_bytes if self._is_in_memory else 0

    def view(self) -> Float32Matrix:
        """Every row, shape (capacity, dim), read-only, no copy.

        Rows that were never written read as zeros. The view shows later writes to its rows and
        stays valid for as long as someone holds it, after growth and after `close` too; it does
        not show slots that growth added.
        """
        return self._view

    def ensure(self, slots: int) -> None:
        """Have room for at least `slots` rows. Raises OSError where the file cannot grow."""
        if slots <= self.capacity:
            return
        self._check_open()
        now = self.capacity * self._row_bytes
        step = max(min(now // 4, _GROWTH_LIMIT_BYTES), _SMALLEST_GROWTH_BYTES)
        capacity = max(slots, (now + step) // self._row_bytes)
        os.ftruncate(self._descriptor, capacity * self._row_bytes)
        self._view = self._map(capacity)

    def write(self, slots: Slots, vectors: Float32Matrix) -> None:
        """Write row `vectors[i]` at slot `slots[i]`; runs of consecutive slots in one call each.

        Not durable before `sync`. After an error any of these rows may hold anything.

        Args:
            slots: shape (n,), no duplicates, none negative.
            vectors: shape (n, dim), float32.

        Raises:
            OSError: the disk is full, a limit on file sizes is reached, or the device failed.
            ValueError: shapes that do not match, a negative slot, or a closed file.
        """
        if vectors.shape != (len(slots), self.dim) or vectors.dtype != np.float32:
            raise ValueError(
                f"expected float32 rows of shape ({len(slots)}, {self.dim}), "
                f"not {vectors.dtype} of shape {vectors.shape}"
            )
        if not len(slots):
            return
        self._check_open()
        gaps = np.diff(slots)
        if (gaps <= 0).any():
            order = np.argsort(slots, kind="stable")
            slots, vectors = slots[order], vectors[order]
            gaps = np.diff(slots)
        if slots[0] < 0:
            raise ValueError(f"slot {slots[0]} is negative")
        self.ensure(int(slots[-1]) + 1)
        rows = np.ascontiguousarray(vectors).data.cast("B")
        starts = [0, *(np.flatnonzero(gaps != 1) + 1).tolist(), len(slots)]
        if self._before_write is not None:
            self._before_write(slots)
        for start, end in pairwise(starts):
            block = rows[start * self._row_bytes : end * self._row_bytes]
            self._write_block(block, int(slots[start]) * self._row_bytes)

    def watch(self, before_write: Callable[[Slots], None] | None) -> None:
        """Have something told of the slots that `write` is about to write to; None: no more.

        For the thread that writes. What is called must not raise.
        """
        self._before_write = before_write

    def sync(self) -> None:
        """Make every row written so far durable (fdatasync).

        Raises:
            OSError: the device failed. The kernel reports that once and may then hold the pages
                for clean, so rows written since the last successful sync must be written again
                before a later sync can be believed.
        """
        self._check_open()
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Give the descriptor back. Idempotent.

        `view` goes on answering: a search in flight while its index is dropped must not fail.
        The mapping, and with it the disk space of an unlinked file, ends with this object and
        the last view.
        """
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _map(self, capacity: int) -> Float32Matrix:
        if capacity == 0:
            empty = np.empty((0, self.dim), np.float32)
            empty.flags.writeable = False
            return empty
        mapping = mmap.mmap(
            self._descriptor, capacity * self._row_bytes, mmap.MAP_SHARED, mmap.PROT_READ
        )
        return np.frombuffer(mapping, np.float32).reshape(capacity, self.dim)

    def _write_block(self, block: memoryview, offset: int) -> None:
        # A nearly full disk, a limit, or 2 GiB in one call: pwrite may take a part only. Where
        # no more fits the next call says why.
        while len(block):
            written = os.pwrite(self._descriptor, block, offset)
            block = block[written:]
            offset += written

    def _check_open(self) -> None:
        if self._descriptor < 0:
            raise ValueError(f"vector file {self._name} is closed")
