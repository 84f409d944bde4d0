"""Copying the files of a backup, there and back: in blocks, checked, sparse, without a flood.

Blocks of zeros are not written, so that what is sparse stays sparse. What has been written is
synced every few MiB, and its pages given back: left to itself, the kernel would collect hundreds
of MiB and write them all at once, with the commits of the server waiting behind them, and would
put the pages that searches read out of memory for them. Beside a server it rests after each MiB for
as long as that took the disk, so that a commit waits for one such sync at most.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128

from pyrope.storage.backup_manifest import BackupFile
from pyrope.storage.store import StorageError

BLOCK_BYTES = 2**20
_SYNCED_AT_ONCE_BYTES = 8 * 2**20
_LONGEST_REST_S = 1.0
"""A disk that stalls for minutes is no reason to rest for minutes."""

Block = NDArray[np.uint8]


class CancelledError(StorageError):
    """Somebody has asked for the end of it."""


class Work:
    """How far something is, and whether it is to go on. One thread works, any other looks on.

    Args:
        monotonic: a clock, where others need the disk meanwhile: it is then left to them for as
            long as it is used; None: nobody else does.

    Attributes:
        done_bytes: so far.
        total_bytes: in the end; it grows while files are found.
    """

    def __init__(self, monotonic: Callable[[], float] | None = None) -> None:
        self.done_bytes = 0
        self.total_bytes = 0
        self._monotonic = monotonic
        self._cancelled = threading.Event()

    @property
    def sync_bytes(self) -> int:
        """Bytes that may be written before they are synced."""
        return _SYNCED_AT_ONCE_BYTES if self._monotonic is None else BLOCK_BYTES

    def step(self, nbytes: int) -> None:
        """So many bytes more are done. Raises CancelledError."""
        self.done_bytes += nbytes
        if self._cancelled.is_set():
            raise CancelledError("it was given up on request")

    def cancel(self) -> None:
        """Have it end at its next step."""
        self._cancelled.set()

    @contextmanager
    def using_disk(self) -> Iterator[None]:
        """What is done within the ``with`` uses the disk; then others may."""
        if self._monotonic is None:
            yield
            return
        began = self._monotonic()
        yield
        self._cancelled.wait(min(self._monotonic() - began, _LONGEST_REST_S))


class WrittenFile:
    """A new file (mode 0600) that is written from its start to its end.

    Args:
        path: nothing is there yet.
        work: told of every byte.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path, work: Work) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        self._work = work
        self._digest = xxh3_128()
        self._size = 0
        self._synced = 0

    def write(self, block: Block) -> None:
        """Write what comes next. Raises OSError, CancelledError."""
        data = block.data
        self._digest.update(data)
        if block.any():
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, data[written:], self._size + written)
        self._size += len(data)
        if self._size - self._synced >= self._work.sync_bytes:
            self._sync()
        self._work.step(len(data))

    def finish(self) -> tuple[int, str]:
        """Make it durable, and close it. Returns its size and XXH3-128. Raises OSError."""
        os.ftruncate(self._descriptor, self._size)
        self._sync()
        self.close()
        return self._size, self._digest.hexdigest()

    def close(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _sync(self) -> None:
        with self._work.using_disk():
            os.fdatasync(self._descriptor)
        os.posix_fadvise(
            self._descriptor, self._synced, self._size - self._synced, os.POSIX_FADV_DONTNEED
        )
        self._synced = self._size


def read_blocks(
    descriptor: int, size: int, start: int = 0, change: Callable[[int, Block], None] | None = None
) -> Iterator[Block]:
    """Blocks of a file, from byte `start` to byte `size`; zeros where the file ends before.

    A block is good until the next one.

    Args:
        change: called with each block's offset and itself before anyone sees it.

    Raises:
        OSError: it cannot be read.
    """
    buffer = np.empty(BLOCK_BYTES, np.uint8)
    for offset in range(start, size, BLOCK_BYTES):
        block = buffer[: min(BLOCK_BYTES, size - offset)]
        count = 0
        while count < len(block):
            got = os.preadv(descriptor, [block.data[count:]], offset + count)
            if not got:
                block[count:] = 0
                break
            count += got
        if change is not None:
            change(offset, block)
        yield block


def copy_blocks(blocks: Iterator[Block], target: Path, work: Work) -> tuple[int, str]:
    """Write blocks to a new file, durably. Returns its size and XXH3-128.

    Raises:
        OSError, CancelledError: the file is there in part.
    """
    file = WrittenFile(target, work)
    try:
        for block in blocks:
            file.write(block)
        return file.finish()
    finally:
        file.close()


def open_plain(path: Path) -> int:
    """Open a file for reading, if it is none of the special kinds. Returns a descriptor.

    Raises:
        StorageError: it is a link, a device, a directory, or not there.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise StorageError(f"{path} is missing") from None
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StorageError(f"{path} is no plain file")
    return descriptor


def check_file(data: Path, file: BackupFile, work: Work) -> None:
    """Read a file of a backup, to see that it is as it was.

    Raises:
        StorageError: it is not; CancelledError.
        OSError: it cannot be read.
    """
    descriptor = open_plain(data / file.path)
    try:
        check_size(data / file.path, descriptor, file)
        digest = xxh3_128()
        for block in read_blocks(descriptor, file.size):
            digest.update(block.data)
            work.step(len(block))
    finally:
        os.close(descriptor)
    check_digest(data / file.path, digest.hexdigest(), file)


def check_size(path: Path, descriptor: int, file: BackupFile) -> None:
    """Raises StorageError where a file does not have its size."""
    size = os.fstat(descriptor).st_size
    if size != file.size:
        raise StorageError(f"{path} is damaged: it has {size} bytes, and had {file.size}")


def check_digest(path: Path, digest: str, file: BackupFile) -> None:
    """Raises StorageError where a file does not have its checksum."""
    if digest != file.xxh3_128:
        raise StorageError(f"{path} is damaged: it does not have its checksum")
