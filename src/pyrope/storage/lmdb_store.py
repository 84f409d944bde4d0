"""The durable store: catalogue and records in one LMDB environment, vectors in files beside it.

The rule that everything here keeps: *a slot that committed state refers to is never overwritten*.
An update of a vector goes to a free slot and deletes the old one, so a commit writes rows that
nobody refers to, makes them durable, and only then commits the records that refer to them. There
are two ways of a commit:

- *Through the log*, if it is small: its rows and records (side records and meta records are
  records too in what follows) become an entry of the commit log (`pyrope.storage.commit_log`),
  durable by one sync. The rows are written to their file, not synced, and the records put into an
  LMDB transaction that stays open.
- *A checkpoint*, if it is large, changes the catalogue, or the log is full:

      put records -> pwrite rows -> fdatasync vector files -> commit (two fsyncs)

  which makes all that the log holds durable in its place, and the log begins anew.

Whatever happens in between (kill -9, power loss, full disk) leaves rows that no record names,
which are free slots, and a log whose entries are done again when the store is opened. The records
are put into the transaction before the rows are written because that is where a batch that breaks
the rule is found out.

Failures of the disk:
- pwrite or fdatasync of a vector file fails: the transaction is aborted. A failed fdatasync may
  leave pages that the kernel holds for clean though they are not on disk. Nothing refers to their
  new rows, and a later commit that wants those slots writes them again before its own fdatasync;
  rows that the log holds are written again before the next one.
- The log cannot be written: the commit becomes a checkpoint, and so does every later one until one
  of them has succeeded. Nobody knows what a failed sync has left in the log; the header of the
  entry is overwritten, and that checkpoint makes all of the log count for nothing.
- The log is full and cannot be emptied: the same, so that it does not grow without an end.
- LMDB cannot write pages (full disk, which it reports as an input/output error where a write was
  cut short): the transaction is aborted, the next one starts from the last commit.
- LMDB cannot write its meta page: it marks the environment as broken and refuses every later
  transaction (MDB_PANIC), because it cannot know which meta page the disk holds. Writes answer
  MISCONF until the store is opened again. Reads of what is in memory go on.

Not taken: `writemap=True` (a full disk is SIGBUS), rows as LMDB values (a scan needs a matrix
without a copy, and each get costs a round through the GIL), a named database per index (LMDB
searches its table of open databases linearly; there may be 100,000 tenants).
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Self

import lmdb
import numpy as np

from pyrope.errors import MisconfError
from pyrope.storage.codec import decode_columns, index_prefix
from pyrope.storage.commit_log import CommitLog, Entry, Rows
from pyrope.storage.data_dir import lock_directory, make_directory, sync_directory
from pyrope.storage.lmdb_changes import (
    ChangeWriter,
    Databases,
    apply_operations,
    delete_records,
)
from pyrope.storage.lmdb_environment import open_environment, read_meta_pages
from pyrope.storage.meta_records import (
    check_metas,
    decode_meta,
    decode_metas,
    meta_key,
    space_prefix,
)
from pyrope.storage.side_records import decode_sides
from pyrope.storage.snapshot import (
    COMMITS_NAME,
    GRAPH_NAME,
    INDEXES_NAME,
    RECORDS_NAME,
    VECTORS_NAME,
    Snapshot,
    log_ends,
)
from pyrope.storage.store import (
    Change,
    DropIndex,
    PutIndex,
    RecordColumns,
    SideRecords,
    StorageError,
    WriteBatch,
)
from pyrope.storage.vector_file import VectorFile

FORMAT = 4
"""Version of the directory's layout; see docs/storage.md."""

OLDER_FORMATS = (1, 2, 3)
"""What can be taken over as it is: 1 had no log, 2 no side records and 3 no meta records."""

_INITIAL_MAP_BYTES = 256 * 2**20
"""Address space, not disk; doubled whenever it is full."""

_UIDS_AT_ONCE = 64
"""uids reserved by one durable write; those not given out before a restart are skipped."""

LOG_BYTES = 4 * 2**20
"""Of the commit log, from which on what it holds is moved to its place: 10 to 50 ms of work."""

_LARGE_SHARE = 1 / 16
"""Of that, what a commit may have to go through the log: a larger one gains little, and would be
written twice."""

FORMAT_KEY = b"format"
GENERATION_KEY = b"log_generation"
FIRST_GENERATION = b"\x01"
_NEXT_UID_KEY = b"next_uid"


class LmdbStore:
    """A `pyrope.storage.store.Store` in a data directory. `open` makes one.

    Args:
        data_dir: exists.
        lock: descriptor that holds the directory's lock; owned from here on.
        env: owned from here on.
        log_bytes: size of the commit log; 0: every commit is a checkpoint.

    Raises:
        StorageError, OSError, lmdb.Error: as `open` tells; everything is closed then.
    """

    def __init__(
        self, data_dir: Path, lock: int, env: lmdb.Environment, log_bytes: int = LOG_BYTES
    ) -> None:
        self._data_dir = data_dir
        self._indexes_dir = data_dir / INDEXES_NAME
        self._lock = lock
        self._env = env
        self._files: dict[int, VectorFile] = {}
        self._uids = range(0)
        self._log_bytes = log_bytes
        self._log: CommitLog | None = None
        # What the log holds and LMDB does not; and the transaction that it has been put into.
        self._pending: list[Entry] = []
        self._txn: lmdb.Transaction[bytes] | None = None
        self._unsynced: dict[int, VectorFile] = {}
        self._rewrite = False
        self._metas_are_checked = False
        self._snapshot: Snapshot | None = None
        try:
            self._databases = self._open_databases()
            make_directory(self._indexes_dir)
            self._log = self._open_log()
            self._recover()
            self._remove_orphans()
            self._garbage_left = self._first_garbage() is not None
            sync_directory(data_dir)
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(
        cls, data_dir: Path, *, map_bytes: int = _INITIAL_MAP_BYTES, log_bytes: int = LOG_BYTES
    ) -> Self:
        """Open the store in a directory, which is made (mode 0700) where it does not exist.

        Args:
            map_bytes: initial size of LMDB's map, which grows by itself.
            log_bytes: size of the commit log; 0: every commit is a checkpoint.

        Raises:
            StorageError: the directory cannot be used, another server has it open, or it was
                written by a newer Pyrope.
        """
        try:
            make_directory(data_dir)
            lock = lock_directory(data_dir)
            try:
                _check_that_records_are_there(data_dir)
                env = open_environment(data_dir / RECORDS_NAME, map_bytes)
            except BaseException:
                os.close(lock)
                raise
            return cls(data_dir, lock, env, log_bytes)
        except (OSError, lmdb.Error) as error:
            raise StorageError(f"the data directory {data_dir} cannot be used: {error}") from error

    # -- reading ----------------------------------------------------------------------------------

    def indexes(self) -> list[tuple[int, bytes]]:
        with self._reading() as txn:
            cursor = txn.cursor(db=self._databases.catalogue)
            return [(int.from_bytes(key, "big"), blob) for key, blob in cursor]

    def load(self, uid: int) -> RecordColumns:
        prefix = index_prefix(uid)
        with self._reading() as txn:
            sequence = txn.get(prefix, b"", db=self._databases.sequences)
            keys, values = _items(txn, self._databases.records, prefix)
        return decode_columns(int.from_bytes(sequence, "big"), keys, values)

    def load_side(self, uid: int) -> SideRecords:
        with self._reading() as txn:
            keys, values = _items(txn, self._databases.side, index_prefix(uid))
        return decode_sides(zip(keys, values, strict=True))

    def load_meta(self, space: str) -> list[tuple[bytes, bytes]]:
        prefix = space_prefix(space)
        with self._reading() as txn:
            database = self._databases.meta_records
            if not self._metas_are_checked:
                # Were a key damaged, its record would be of no space that anyone asks for.
                check_metas(txn.cursor(db=database), txn.stat(database)["entries"])
                self._metas_are_checked = True
            keys, values = _items(txn, database, prefix)
        return decode_metas(prefix, keys, values)

    def page_meta(self, space: str, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        prefix = space_prefix(space)
        # No key lies between one and the same with a NUL behind it.
        start = meta_key(space, after + b"\0")
        keys: list[bytes] = []
        values: list[bytes] = []
        with self._reading() as txn:
            cursor = txn.cursor(db=self._databases.meta_records)
            if cursor.set_range(start):
                for key, value in islice(cursor, limit):
                    if not key.startswith(prefix):
                        break
                    keys.append(key)
                    values.append(value)
        return decode_metas(prefix, keys, values)

    def get_meta(self, space: str, key: bytes) -> bytes | None:
        stored_key = meta_key(space, key)
        with self._reading() as txn:
            stored = txn.get(stored_key, db=self._databases.meta_records)
        return None if stored is None else decode_meta(stored_key, stored)

    def vectors(self, uid: int, dim: int) -> VectorFile:
        file = self._files.get(uid)
        if file is None:
            with _refusing():
                file = self._files[uid] = self._open_vectors(uid, dim)
            if self._snapshot is not None:
                self._snapshot.watch(uid, file)
        if file.dim != dim:
            raise StorageError(f"index {uid} has {file.dim} dimensions, not {dim}")
        return file

    def discard(self, uid: int) -> None:
        file = self._files.pop(uid, None)
        self._unsynced.pop(uid, None)
        if file is not None:
            file.close()
        shutil.rmtree(self._index_dir(uid), ignore_errors=True)

    def graph_path(self, uid: int) -> Path:
        return self._index_dir(uid) / GRAPH_NAME

    def disk_bytes(self) -> int:
        total = 0
        for directory, _, names in os.walk(self._data_dir):
            for name in names:
                try:
                    total += Path(directory, name).stat().st_blocks * 512
                except FileNotFoundError:
                    continue  # a graph that was replaced, or an index dropped, meanwhile
        return total

    # -- writing ----------------------------------------------------------------------------------

    def next_uid(self) -> int:
        if not self._uids:
            with _refusing():
                self._uids = self._reserve_uids()
        uid, self._uids = self._uids[0], self._uids[1:]
        return uid

    def commit(self, changes: Sequence[Change]) -> None:
        with _refusing():
            if not (self._fits_the_log(changes) and self._commit_to_log(changes)):
                self._checkpoint(
                    lambda txn: self._write(changes, ChangeWriter(txn, self._databases))
                )
        for change in changes:
            if isinstance(change, DropIndex):
                self._garbage_left = True
                file = self._files.pop(change.uid, None)
                if file is not None:
                    file.close()

    @property
    def garbage_left(self) -> bool:
        return self._garbage_left and self._snapshot is None

    def collect_garbage(self, limit: int = 5_000) -> None:
        if self._snapshot is not None:
            return  # it may be what is copied
        with _refusing():
            prefix = self._first_garbage()
            if prefix is None:
                self._garbage_left = False
                return
            directory = self._index_dir(int.from_bytes(prefix, "big"))
            if directory.exists():
                shutil.rmtree(directory)

            def write(txn: lmdb.Transaction[bytes]) -> None:
                left = limit
                for database in (self._databases.records, self._databases.side):
                    left -= delete_records(txn, database, prefix, left)
                if left:
                    txn.delete(prefix, db=self._databases.garbage)

            self._checkpoint(write)

    # -- being copied -----------------------------------------------------------------------------

    def begin_snapshot(self, folders: Sequence[str], spool_dir: Path) -> Snapshot:
        """What has been committed so far, to be copied by another thread.

        The store goes on meanwhile, but for the removal of what is left of dropped indexes. It
        takes a few milliseconds for thousands of indexes.

        Args:
            folders: of chained logs in the data directory, which this thread alone appends to.
            spool_dir: on a disk that can take as many rows as are replaced until the end.

        Raises:
            StorageError: another snapshot has not ended, or the store cannot be read.
            OSError: a file cannot be read.
        """
        if self._snapshot is not None:
            raise StorageError("the store is being copied already")
        assert self._log is not None  # noqa: S101 - it is there once the store is open
        try:
            metas = read_meta_pages(self._data_dir / RECORDS_NAME)
            txn = self._env.begin()
        except lmdb.Error as error:
            raise StorageError(f"the store cannot be read: {error}") from error
        try:
            if txn.id() != metas.transaction:
                raise StorageError("the store's file is not what was committed last")
            ends = log_ends(self._data_dir, folders)
            log = self._log.content()
            snapshot = Snapshot(self._data_dir, metas, log, ends, spool_dir, txn.abort)
        except BaseException:
            txn.abort()
            raise
        self._snapshot = snapshot
        for uid, file in self._files.items():
            snapshot.watch(uid, file)
        return snapshot

    def end_snapshot(self) -> None:
        """Nothing is copied any more. Idempotent."""
        if self._snapshot is not None:
            self._snapshot.end()
            self._snapshot = None

    def close(self) -> None:
        self.end_snapshot()
        # What cannot be moved to its place now is there at the next opening.
        with suppress(MisconfError, StorageError):
            if self._pending:
                with _refusing():
                    self._checkpoint()
        self._abort()
        if self._log is not None:
            self._log.close()
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._env.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # -- the log ----------------------------------------------------------------------------------

    def _fits_the_log(self, changes: Sequence[Change]) -> bool:
        return (
            self._log is not None
            and not self._log.failed
            and self._log.nbytes < self._log_bytes
            and not any(isinstance(change, PutIndex | DropIndex) for change in changes)
            and sum(change.nbytes for change in changes) <= _LARGE_SHARE * self._log_bytes
        )

    def _commit_to_log(self, changes: Sequence[Change]) -> bool:
        """Whether the changes are durable now; if not, nothing of them was kept."""
        assert self._log is not None  # noqa: S101 - it is there once the store is open
        try:
            writer = self._put(changes)
            entry = Entry(writer.operations, _rows_of(changes))
            self._log.append(entry)
        except BaseException as error:
            # The transaction holds a part of what was refused: it is made anew when needed.
            self._abort()
            if not self._log.failed or not isinstance(error, OSError):
                raise
            return False
        self._pending.append(entry)
        if self._log.nbytes >= self._log_bytes:
            # The commit is durable whatever becomes of this; the next one tries again.
            with suppress(OSError, lmdb.Error):
                self._checkpoint()
        return True

    def _put(self, changes: Sequence[Change]) -> ChangeWriter:
        while True:
            writer = ChangeWriter(self._transaction(), self._databases)
            try:
                self._write(changes, writer)
            except lmdb.MapFullError:
                self._enlarge_map()
            else:
                return writer

    def _abort(self) -> None:
        if self._txn is not None:
            self._txn.abort()
            self._txn = None

    def _transaction(self) -> lmdb.Transaction[bytes]:
        """The open transaction, which holds what the log holds."""
        while self._txn is None:
            txn = self._env.begin(write=True)
            try:
                for entry in self._pending:
                    apply_operations(txn, self._databases, entry.operations)
            except lmdb.MapFullError:
                txn.abort()
                self._enlarge_map()
            except BaseException:
                txn.abort()
                raise
            else:
                self._txn = txn
        return self._txn

    def _enlarge_map(self) -> None:
        """Double LMDB's map. No transaction may be open for that; what was in it is put anew."""
        self._abort()
        if self._snapshot is not None:
            self._snapshot.lose_records()
        self._env.set_mapsize(2 * self._env.info()["map_size"])

    def _checkpoint(self, write: Callable[[lmdb.Transaction[bytes]], None] | None = None) -> None:
        """Make what the log holds, and what `write` adds, durable in its place."""
        generation = secrets.randbits(64)
        while True:
            txn, self._txn = self._transaction(), None
            try:
                with txn:
                    self._rewrite_rows()
                    if write is not None:
                        write(txn)
                    self._sync_rows()
                    _put_number(txn, self._databases.meta, GENERATION_KEY, generation)
                break
            except lmdb.MapFullError:
                self._enlarge_map()
        self._pending.clear()
        if self._log is not None:
            self._log.restart(generation)

    def _open_log(self) -> CommitLog:
        with self._env.begin(db=self._databases.meta) as txn:
            generation = int.from_bytes(txn.get(GENERATION_KEY, FIRST_GENERATION), "big")
        return CommitLog(self._data_dir / COMMITS_NAME, generation)

    def _recover(self) -> None:
        """Take up what the log holds and LMDB does not; its rows may never have been synced."""
        assert self._log is not None  # noqa: S101 - it has just been opened
        self._pending = list(self._log.entries())
        # Should this fail, no checkpoint may pass over the rows that are missing then.
        self._rewrite = bool(self._pending)
        self._rewrite_rows()
        self._rewrite = False
        if self._pending:
            # Entries that were read may not be on disk, so nothing may be appended behind them. A
            # disk that is full is no reason not to serve what there is: the first commit tries
            # again.
            self._log.failed = True
            with suppress(OSError, lmdb.Error):
                self._checkpoint()

    @contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction[bytes]]:
        """A transaction that sees everything which has been committed, to read from."""
        try:
            if self._pending:
                yield self._transaction()
            else:
                with self._env.begin() as txn:
                    yield txn
        except lmdb.Error as error:
            raise StorageError(f"the store cannot be read: {error}") from error

    # -- inside -----------------------------------------------------------------------------------

    def _transact(self, write: Callable[[lmdb.Transaction[bytes]], None]) -> None:
        """Run `write` in a transaction of its own, before there is a log."""
        while True:
            try:
                with self._env.begin(write=True) as txn:
                    write(txn)
                return
            except lmdb.MapFullError:
                self._enlarge_map()

    def _write(self, changes: Sequence[Change], writer: ChangeWriter) -> None:
        """Records into the writer's transaction, rows into their files."""
        writer.apply(changes)
        self._write_rows(_rows_of(changes))

    def _write_rows(self, every_rows: Iterable[Rows]) -> None:
        for rows in every_rows:
            file = self.vectors(rows.uid, rows.vectors.shape[1])
            self._unsynced[rows.uid] = file
            file.write(rows.slots, rows.vectors)

    def _rewrite_rows(self) -> None:
        """Write the rows that the log holds again if a sync of them has failed.

        The kernel may hold them for clean then though they are not on disk. It comes before the
        rows of the commit, which may go to slots that the log frees.
        """
        if self._rewrite:
            self._write_rows(_latest_rows(self._pending))

    def _sync_rows(self) -> None:
        """Make the rows of the files durable, those that the log holds included."""
        self._rewrite = True
        for file in self._unsynced.values():
            file.sync()
        self._rewrite = False
        self._unsynced.clear()

    def _reserve_uids(self) -> range:
        meta = self._databases.meta
        with self._env.begin() as txn:
            start = int.from_bytes(txn.get(_NEXT_UID_KEY, b"\x01", db=meta), "big")
        uids = range(start, start + _UIDS_AT_ONCE)
        self._checkpoint(lambda txn: _put_number(txn, meta, _NEXT_UID_KEY, uids.stop))
        return uids

    def _first_garbage(self) -> bytes | None:
        with self._env.begin(db=self._databases.garbage) as txn:
            return next(iter(txn.cursor().iternext(values=False)), None)

    def _index_dir(self, uid: int) -> Path:
        return self._indexes_dir / str(uid)

    def _open_vectors(self, uid: int, dim: int) -> VectorFile:
        directory = self._index_dir(uid)
        directory.mkdir(mode=0o700, exist_ok=True)
        file = VectorFile.open(directory / VECTORS_NAME, dim)
        if not file.capacity:
            # New, or of a server that may have ended before these syncs.
            try:
                sync_directory(directory)
                sync_directory(self._indexes_dir)
            except BaseException:
                file.close()
                raise
        return file

    def _open_databases(self) -> Databases:
        """Open the databases, making them in a new directory; all in one transaction."""
        databases: list[Databases] = []

        def write(txn: lmdb.Transaction[bytes]) -> None:
            meta = self._env.open_db(b"meta", txn=txn)
            stored = txn.get(FORMAT_KEY, db=meta)
            if stored is None or int.from_bytes(stored, "big") in OLDER_FORMATS:
                _put_number(txn, meta, FORMAT_KEY, FORMAT)
            elif int.from_bytes(stored, "big") != FORMAT:
                raise StorageError(
                    f"the data directory {self._data_dir} has format "
                    f"{int.from_bytes(stored, 'big')} and this Pyrope knows format {FORMAT}: "
                    "start the newer Pyrope that wrote it, or start this one with another data "
                    "directory"
                )
            names = (
                b"catalogue",
                b"sequences",
                b"garbage",
                b"records",
                b"side",
                b"meta_records",
            )
            databases.append(Databases(meta, *[self._env.open_db(name, txn=txn) for name in names]))

        self._transact(write)
        return databases[-1]

    def _remove_orphans(self) -> None:
        """Remove the files of indexes that the catalogue does not have.

        They are those of dropped indexes, and of indexes whose creation never was committed.
        """
        known = {str(uid) for uid, _ in self.indexes()}
        for directory in list(self._indexes_dir.iterdir()):
            if directory.name.isdecimal() and directory.name not in known:
                shutil.rmtree(directory)


def _items(
    txn: lmdb.Transaction[bytes], database: lmdb._Database, prefix: bytes
) -> tuple[list[bytes], list[bytes]]:
    """Keys and values of a database whose key begins with `prefix`, by ascending key."""
    keys: list[bytes] = []
    values: list[bytes] = []
    cursor = txn.cursor(db=database)
    if cursor.set_range(prefix):
        for key, value in cursor:
            if not key.startswith(prefix):
                break
            keys.append(key)
            values.append(value)
    return keys, values


def _rows_of(changes: Sequence[Change]) -> list[Rows]:
    return [
        Rows(
            change.uid, np.array([record.slot for record in change.puts], np.int64), change.vectors
        )
        for change in changes
        if isinstance(change, WriteBatch) and change.vectors is not None
    ]


def _latest_rows(entries: Iterable[Entry]) -> Iterator[Rows]:
    """The rows of several commits, each slot once: an older row never shows, not for a moment."""
    by_uid: dict[int, list[Rows]] = {}
    for entry in entries:
        for rows in entry.rows:
            by_uid.setdefault(rows.uid, []).append(rows)
    for uid, parts in by_uid.items():
        newest_first = np.concatenate([part.slots for part in parts])[::-1]
        vectors = np.concatenate([part.vectors for part in parts])[::-1]
        slots, newest = np.unique(newest_first, return_index=True)
        yield Rows(uid, slots, vectors[newest])


def is_in_use(data_dir: Path) -> bool:
    """Whether a store has been opened in a directory before."""
    return (data_dir / RECORDS_NAME).exists() or (data_dir / INDEXES_NAME).exists()


def _check_that_records_are_there(data_dir: Path) -> None:
    """Raises StorageError where LMDB would begin anew in a directory that has been in use."""
    path = data_dir / RECORDS_NAME
    is_used = (data_dir / INDEXES_NAME).exists()
    if is_used and not (path.exists() and path.stat().st_size):
        raise StorageError(
            f"{path} is missing or empty, and the data directory was in use: bring the data "
            "directory back from a backup, or start with another one"
        )


def _put_number(
    txn: lmdb.Transaction[bytes], database: lmdb._Database, key: bytes, number: int
) -> None:
    txn.put(key, number.to_bytes(8, "big"), db=database)


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what the disk answers into the refusal that a client gets."""
    try:
        yield
    except lmdb.PanicError as error:
        raise MisconfError(
            "the data directory failed in the middle of a commit and takes no more writes until "
            f"the server is started again: {error}"
        ) from error
    except (OSError, lmdb.Error) as error:
        raise MisconfError(
            f"the data directory cannot be written, nothing of this write was kept: {error}"
        ) from error
