"""The durable store: catalogue and records in one LMDB environment, vectors in files beside it.

The rule that everything here keeps: *a slot that committed state refers to is never overwritten*.
An update of a vector goes to a free slot and deletes the old one, so a commit writes rows that
nobody refers to, makes them durable, and only then commits the records that refer to them:

    begin transaction, put records -> pwrite rows -> fdatasync vector files -> commit (fsync)

Whatever happens in between (kill -9, power loss, full disk) leaves rows that no record names,
which are free slots. The records are put into the transaction before the rows are written because
that is where a batch that breaks the rule is found out; they reach the disk with the commit alone.

Failures of the disk:
- pwrite or fdatasync fails: the transaction is aborted. A failed fdatasync may leave pages that
  the kernel holds for clean though they are not on disk. Nothing refers to their new rows, and a
  later commit that wants those slots writes them again before its own fdatasync.
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
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import lmdb
import numpy as np

from pyrope.errors import MisconfError
from pyrope.storage.codec import decode_columns, index_prefix
from pyrope.storage.data_dir import lock_directory, make_directory, sync_directory
from pyrope.storage.lmdb_changes import ChangeWriter, Databases, delete_records
from pyrope.storage.store import Change, DropIndex, RecordColumns, StorageError, WriteBatch
from pyrope.storage.vector_file import VectorFile

FORMAT = 1
"""Version of the directory's layout; see docs/storage.md."""

_INITIAL_MAP_BYTES = 256 * 2**20
"""Address space, not disk; doubled whenever it is full."""

_UIDS_AT_ONCE = 64
"""uids reserved by one durable write; those not given out before a restart are skipped."""

_FORMAT_KEY = b"format"
_NEXT_UID_KEY = b"next_uid"


class LmdbStore:
    """A `pyrope.storage.store.Store` in a data directory. `open` makes one.

    Args:
        data_dir: exists.
        lock: descriptor that holds the directory's lock; owned from here on.
        env: owned from here on.

    Raises:
        StorageError, OSError, lmdb.Error: as `open` tells; everything is closed then.
    """

    def __init__(self, data_dir: Path, lock: int, env: lmdb.Environment) -> None:
        self._data_dir = data_dir
        self._indexes_dir = data_dir / "indexes"
        self._lock = lock
        self._env = env
        self._files: dict[int, VectorFile] = {}
        self._uids = range(0)
        try:
            self._databases = self._open_databases()
            make_directory(self._indexes_dir)
            self._remove_orphans()
            self._garbage_left = self._first_garbage() is not None
            sync_directory(data_dir)
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, data_dir: Path, *, map_bytes: int = _INITIAL_MAP_BYTES) -> Self:
        """Open the store in a directory, which is made (mode 0700) where it does not exist.

        Args:
            map_bytes: initial size of LMDB's map, which grows by itself.

        Raises:
            StorageError: the directory cannot be used, another server has it open, or it was
                written by a newer Pyrope.
        """
        try:
            make_directory(data_dir)
            lock = lock_directory(data_dir)
            try:
                env = _open_environment(data_dir / "records.mdb", map_bytes)
            except BaseException:
                os.close(lock)
                raise
            return cls(data_dir, lock, env)
        except (OSError, lmdb.Error) as error:
            raise StorageError(f"the data directory {data_dir} cannot be used: {error}") from error

    # -- reading ----------------------------------------------------------------------------------

    def indexes(self) -> list[tuple[int, bytes]]:
        with _reading(), self._env.begin(db=self._databases.catalogue) as txn:
            return [(int.from_bytes(key, "big"), blob) for key, blob in txn.cursor()]

    def load(self, uid: int) -> RecordColumns:
        prefix = index_prefix(uid)
        keys: list[bytes] = []
        values: list[bytes] = []
        with _reading(), self._env.begin() as txn:
            sequence = txn.get(prefix, b"", db=self._databases.sequences)
            cursor = txn.cursor(db=self._databases.records)
            if cursor.set_range(prefix):
                for key, value in cursor:
                    if not key.startswith(prefix):
                        break
                    keys.append(key)
                    values.append(value)
        return decode_columns(int.from_bytes(sequence, "big"), keys, values)

    def vectors(self, uid: int, dim: int) -> VectorFile:
        file = self._files.get(uid)
        if file is None:
            with _refusing():
                file = self._files[uid] = self._open_vectors(uid, dim)
        if file.dim != dim:
            raise StorageError(f"index {uid} has {file.dim} dimensions, not {dim}")
        return file

    def discard(self, uid: int) -> None:
        file = self._files.pop(uid, None)
        if file is not None:
            file.close()
        shutil.rmtree(self._index_dir(uid), ignore_errors=True)

    def graph_path(self, uid: int) -> Path:
        return self._index_dir(uid) / "graph"

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
        def write(txn: lmdb.Transaction[bytes]) -> None:
            ChangeWriter(txn, self._databases).apply(changes)
            self._write_rows(changes)

        with _refusing():
            self._transact(write)
        for change in changes:
            if isinstance(change, DropIndex):
                self._garbage_left = True
                file = self._files.pop(change.uid, None)
                if file is not None:
                    file.close()

    @property
    def garbage_left(self) -> bool:
        return self._garbage_left

    def collect_garbage(self, limit: int = 5_000) -> None:
        with _refusing():
            prefix = self._first_garbage()
            if prefix is None:
                self._garbage_left = False
                return
            directory = self._index_dir(int.from_bytes(prefix, "big"))
            if directory.exists():
                shutil.rmtree(directory)

            def write(txn: lmdb.Transaction[bytes]) -> None:
                if delete_records(txn, self._databases.records, prefix, limit) < limit:
                    txn.delete(prefix, db=self._databases.garbage)

            self._transact(write)

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._env.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # -- inside -----------------------------------------------------------------------------------

    def _transact(self, write: Callable[[lmdb.Transaction[bytes]], None]) -> None:
        """Run `write` in a transaction and commit it; again with a larger map where it is full."""
        while True:
            try:
                with self._env.begin(write=True) as txn:
                    write(txn)
                return
            except lmdb.MapFullError:
                # No transaction is open now, as set_mapsize demands: every call to the store
                # comes from one thread, and no reader outlives its call.
                self._env.set_mapsize(2 * self._env.info()["map_size"])

    def _write_rows(self, changes: Sequence[Change]) -> None:
        touched: dict[int, VectorFile] = {}
        for change in changes:
            if isinstance(change, WriteBatch) and change.vectors is not None:
                file = self.vectors(change.uid, change.vectors.shape[1])
                slots = np.array([record.slot for record in change.puts], np.int64)
                file.write(slots, change.vectors)
                touched[change.uid] = file
        for file in touched.values():
            file.sync()

    def _reserve_uids(self) -> range:
        meta = self._databases.meta
        with self._env.begin() as txn:
            start = int.from_bytes(txn.get(_NEXT_UID_KEY, b"\x01", db=meta), "big")
        uids = range(start, start + _UIDS_AT_ONCE)
        self._transact(lambda txn: _put_number(txn, meta, _NEXT_UID_KEY, uids.stop))
        return uids

    def _first_garbage(self) -> bytes | None:
        with self._env.begin(db=self._databases.garbage) as txn:
            return next(iter(txn.cursor().iternext(values=False)), None)

    def _index_dir(self, uid: int) -> Path:
        return self._indexes_dir / str(uid)

    def _open_vectors(self, uid: int, dim: int) -> VectorFile:
        directory = self._index_dir(uid)
        path = directory / "vectors.f32"
        make_directory(directory)
        is_new = not path.exists()
        file = VectorFile.open(path, dim)
        if is_new:
            try:
                sync_directory(directory)
            except BaseException:
                file.close()
                raise
        return file

    def _open_databases(self) -> Databases:
        """Open the databases, making them in a new directory; all in one transaction."""
        databases: list[Databases] = []

        def write(txn: lmdb.Transaction[bytes]) -> None:
            meta = self._env.open_db(b"meta", txn=txn)
            stored = txn.get(_FORMAT_KEY, db=meta)
            if stored is None:
                _put_number(txn, meta, _FORMAT_KEY, FORMAT)
            elif int.from_bytes(stored, "big") != FORMAT:
                raise StorageError(
                    f"the data directory {self._data_dir} has format "
                    f"{int.from_bytes(stored, 'big')} and this Pyrope knows format {FORMAT}: "
                    "start the newer Pyrope that wrote it, or start this one with another data "
                    "directory"
                )
            names = (b"catalogue", b"sequences", b"garbage", b"records")
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


def _open_environment(path: Path, map_bytes: int) -> lmdb.Environment:
    # meminit: pages need no zeroing before they are filled, as no one reads their slack.
    return lmdb.Environment(
        str(path), map_size=map_bytes, subdir=False, mode=0o600, max_dbs=8, meminit=False
    )


def _put_number(
    txn: lmdb.Transaction[bytes], database: lmdb._Database, key: bytes, number: int
) -> None:
    txn.put(key, number.to_bytes(8, "big"), db=database)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except lmdb.Error as error:
        raise StorageError(f"the store cannot be read: {error}") from error


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
