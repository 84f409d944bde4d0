"""A data directory as it is at one moment between two commits, to be copied while it changes.

What belongs to the moment, and why a copy that takes minutes sees nothing younger of it:

- ``records.mdb``: LMDB never writes over a page that a reader's transaction can reach (it copies on
  write), and one is held until the file has been copied. Only its first two pages change in place;
  they are read at the moment itself. Where the map has to grow before the file has been copied, the
  binding ends every transaction (and LMDB wants it so), and pages may be written over: the snapshot
  is lost then, and has to be taken again. The map doubles whenever it grows, so that is rare, and
  rarer still twice.
- ``commits.log``: what LMDB does not hold yet. At most a few MiB, read at the moment itself.
- vector files: slots are used again when they are free, so rows are kept before they are written
  over; see `kept_rows`.
- chained logs: they only grow, so their length at the moment is enough.
- saved graphs: whole files, each with its checksum and the write sequence that it was true at. One
  that is younger than the moment is left out: it is a copy of what is here anyway.

Directories of dropped indexes are removed when the snapshot has ended, not before.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pyrope.storage.chained_files import log_files
from pyrope.storage.data_dir import lock_directory
from pyrope.storage.kept_rows import KeptRows, Spool
from pyrope.storage.lmdb_environment import MetaPages, check_end, read_meta_pages
from pyrope.storage.store import StorageError
from pyrope.storage.vector_file import VectorFile

RECORDS_NAME = "records.mdb"
INDEXES_NAME = "indexes"
COMMITS_NAME = "commits.log"
VECTORS_NAME = "vectors.f32"
GRAPH_NAME = "graph"


class SnapshotLostError(StorageError):
    """LMDB had to map its file anew before it had been copied: another snapshot will do."""


class Snapshot:
    """What is to be copied. Made and ended in the store's thread; copied from in any one other.

    Args:
        data_dir: the directory.
        metas: of ``records.mdb`` at the moment.
        log: what counted of ``commits.log`` at the moment.
        logs: of each folder of chained logs, the length of each file at the moment, by its path in
            the directory.
        spool_dir: where rows are kept that do not fit memory.
        release: lets LMDB use the pages again that this snapshot holds.
    """

    def __init__(
        self,
        data_dir: Path,
        metas: MetaPages,
        log: bytes,
        logs: Mapping[str, Mapping[Path, int]],
        spool_dir: Path,
        release: Callable[[], None],
    ) -> None:
        self.data_dir = data_dir
        self.metas = metas
        self.log = log
        self.logs = logs
        self._release: Callable[[], None] | None = release
        self._lock = threading.Lock()
        self._spool = Spool(spool_dir)
        self._watched: dict[int, tuple[VectorFile, KeptRows]] = {}
        self._failure: OSError | None = None
        self._is_lost = False

    def watch(self, uid: int, file: VectorFile) -> None:
        """Keep rows of an index before they are written over. For the store's thread."""
        view = file.view()
        if len(view):
            kept = KeptRows(view, self._spool, self._lock, self._fail)
            self._watched[uid] = file, kept
            file.watch(kept.keep)

    def kept_rows(self, uid: int) -> KeptRows | None:
        """Rows of an index that are kept; None: nobody can have written to them."""
        watched = self._watched.get(uid)
        return None if watched is None else watched[1]

    def check(self) -> None:
        """Look whether a copy is right so far.

        Raises:
            SnapshotLostError: see there.
            OSError: a row could not be kept.
        """
        if self._is_lost:
            raise SnapshotLostError("the store grew too much while it was being copied")
        if self._failure is not None:
            raise self._failure

    def records_copied(self) -> None:
        """``records.mdb`` has been copied: LMDB need hold its pages no longer. Idempotent."""
        with self._lock:
            if self._release is not None:
                self._release()
                self._release = None

    def lose_records(self) -> None:
        """LMDB is about to map its file anew. For the store's thread."""
        with self._lock:
            if self._release is not None:
                self._release()
                self._release = None
                self._is_lost = True

    def end(self) -> None:
        """Keep nothing any more. For the store's thread. Idempotent."""
        for file, _ in self._watched.values():
            file.watch(None)
        self._watched.clear()
        self.records_copied()
        self._spool.close()

    def _fail(self, error: OSError) -> None:
        self._failure = error


def log_ends(data_dir: Path, folders: Sequence[str]) -> dict[str, dict[Path, int]]:
    """Of the folders that are there, the length of each file of chained logs, by its path.

    Raises:
        OSError: one cannot be examined.
    """
    return {
        folder: {
            file.path.relative_to(data_dir): file.path.stat().st_size
            for file in log_files(data_dir / folder)
        }
        for folder in folders
        if (data_dir / folder).is_dir()
    }


@contextmanager
def quiet_snapshot(data_dir: Path, folders: Sequence[str], spool_dir: Path) -> Iterator[Snapshot]:
    """A snapshot of a directory that no server has open; none can open it before its end.

    Nothing in it is changed, not even by what a start would do about a commit log. An older format
    stays what it is.

    Args:
        folders: of chained logs.

    Raises:
        InUseError: a server has it open.
        StorageError: there are no data of Pyrope, or they have lost their end.
        OSError: it cannot be read.
    """
    records = data_dir / RECORDS_NAME
    if not records.is_file():
        raise StorageError(f"{data_dir} holds no data of Pyrope")
    lock = lock_directory(data_dir)
    try:
        metas = read_meta_pages(records)
        check_end(records, metas)
        commits = data_dir / COMMITS_NAME
        log = commits.read_bytes() if commits.exists() else b""
        ends = log_ends(data_dir, folders)
        snapshot = Snapshot(data_dir, metas, log, ends, spool_dir, lambda: None)
        try:
            yield snapshot
        finally:
            snapshot.end()
    finally:
        os.close(lock)
