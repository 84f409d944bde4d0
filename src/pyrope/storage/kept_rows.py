"""Rows of vector files as they were at one moment, while others are written over them.

A copy of a vector file takes seconds, and slots that are freed meanwhile are used again meanwhile:
a row that the copy has not come to would be missing from it, or half of it. So whoever is about to
write over such a row keeps it here first (copy on write), and whoever copies puts it in the place
of what it has read. No order of the two goes wrong, because both take the same lock:

- kept before the copy looks: the copy finds it, whatever it has read of the row.
- kept after the copy has looked: not at all, because the copy tells then that it is past the row;
  and it had read it before it looked, so before the row was written over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import SpooledTemporaryFile

import numpy as np
from numpy.typing import NDArray

from pyrope.types import Float32Matrix, Slots

_SPOOL_MEMORY_BYTES = 16 * 2**20
"""What is kept goes to a file past this, in one go, which takes some 10 ms."""


class Spool:
    """Where kept rows are put: memory, and then a file without a name.

    Args:
        directory: for that file.
    """

    def __init__(self, directory: Path) -> None:
        self._file: SpooledTemporaryFile[bytes] = SpooledTemporaryFile(  # noqa: SIM115 - see close
            max_size=_SPOOL_MEMORY_BYTES, dir=str(directory)
        )
        self._size = 0

    def append(self, data: bytes) -> int:
        """Keep bytes; where they are. Raises OSError."""
        at = self._size
        self._file.seek(at)
        self._file.write(data)
        self._size = at + len(data)
        return at

    def read(self, at: int, nbytes: int) -> bytes:
        """Bytes that were kept. Raises OSError."""
        self._file.seek(at)
        data: bytes = self._file.read(nbytes)
        return data

    def close(self) -> None:
        self._file.close()


class KeptRows:
    """Those of one vector file.

    Args:
        view: of the file at that moment, shape (capacity, dim); rows behind it did not exist.
        spool: shared by files, like `lock`.
        failed: told of an error for which a row was not kept; it must not raise.
    """

    def __init__(
        self,
        view: Float32Matrix,
        spool: Spool,
        lock: threading.Lock,
        failed: Callable[[OSError], None],
    ) -> None:
        self._view = view
        self._row_bytes = 4 * view.shape[1]
        self._spool = spool
        self._lock = lock
        self._failed = failed
        # Bytes of the file that the copy is past; where in the spool each row is.
        self._copied = 0
        self._kept: dict[int, int] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the file that there were."""
        return self._view.nbytes

    def keep(self, slots: Slots) -> None:
        """Keep the rows of slots that are about to be written to, shape (n,), ascending."""
        with self._lock:
            there = slots[: np.searchsorted(slots, len(self._view))]
            ahead = there[np.searchsorted(there, self._copied // self._row_bytes) :]
            fresh = [slot for slot in ahead.tolist() if slot not in self._kept]
            if not fresh:
                return
            try:
                at = self._spool.append(self._view[fresh].tobytes())
            except OSError as error:
                self._failed(error)
                return
            for slot in fresh:
                self._kept[slot] = at
                at += self._row_bytes

    def put_back(self, offset: int, block: NDArray[np.uint8]) -> None:
        """Put rows that were kept in the place of what was read of the file.

        Blocks come in the order of the file, without gaps.

        Args:
            offset: of the block in the file, in bytes.
            block: uint8, shape (n,), read before this call; changed in place.

        Raises:
            OSError: what was kept cannot be read.
        """
        end = offset + len(block)
        row = self._row_bytes
        with self._lock:
            first, last = offset // row, (end - 1) // row
            if len(self._kept) <= last - first:
                touched = [slot for slot in self._kept if first <= slot <= last]
            else:
                touched = [slot for slot in range(first, last + 1) if slot in self._kept]
            for slot in touched:
                data = np.frombuffer(self._spool.read(self._kept[slot], row), np.uint8)
                begin, stop = max(offset, slot * row), min(end, (slot + 1) * row)
                block[begin - offset : stop - offset] = data[begin - slot * row : stop - slot * row]
                if stop == (slot + 1) * row:
                    del self._kept[slot]
            self._copied = end
