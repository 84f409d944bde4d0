"""Making a backup: a snapshot of a data directory, written to a folder with a manifest.

It is written to ``<target>.partial``, which is renamed at the end, so that a folder that has the
right name is whole. What a backup that was killed leaves behind is in the way of none with another
name, and has to be removed by hand: nothing tells it from one that is under way.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import lmdb
import numpy as np

from pyrope import __version__
from pyrope.storage.backup_files import Block, Work, copy_blocks, read_blocks
from pyrope.storage.backup_manifest import (
    DATA_NAME,
    MANIFEST_NAME,
    BackupFile,
    Manifest,
    check_data_format,
    encode_manifest,
)
from pyrope.storage.commit_log import CommitLog
from pyrope.storage.data_dir import sync_directory
from pyrope.storage.graph_file import decode_sidecar, read_sidecar, sidecar_path
from pyrope.storage.lmdb_changes import sequences_of
from pyrope.storage.lmdb_store import FIRST_GENERATION, FORMAT_KEY, GENERATION_KEY
from pyrope.storage.snapshot import (
    COMMITS_NAME,
    GRAPH_NAME,
    INDEXES_NAME,
    RECORDS_NAME,
    VECTORS_NAME,
    Snapshot,
)
from pyrope.storage.store import StorageError

_MAX_DATABASES = 8
_GRAPH_ATTEMPTS = 3
"""A graph that is replaced while it is looked for is looked for again."""


class BackupTarget:
    """The folder of a backup that is being made.

    Args:
        path: absolute; nothing is there yet, or an empty folder.
        data_dir: what is backed up.

    Raises:
        StorageError: it cannot be there.
        OSError: it cannot be made.
    """

    def __init__(self, path: Path, data_dir: Path) -> None:
        if not path.is_absolute() or not path.name:
            raise StorageError(f"the path of a backup is an absolute one, not {path}")
        self.path = path
        self.partial = path.with_name(f"{path.name}.partial")
        source = data_dir.resolve()
        if path.parent.resolve().is_relative_to(source):
            raise StorageError(f"{path} is in the data directory, and would be lost with it")
        if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
            raise StorageError(f"{path} exists already: give a backup a folder of its own")
        try:
            self.partial.mkdir(mode=0o700)
        except FileExistsError:
            raise StorageError(
                f"{self.partial} is there: another backup is under way, or one did not end and it "
                "can be removed"
            ) from None
        except FileNotFoundError:
            raise StorageError(f"{path.parent} is not there: make it first") from None
        self.data = self.partial / DATA_NAME
        self.data.mkdir(mode=0o700)

    def discard(self) -> None:
        """Remove what has been written."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def finish(self, manifest: Manifest) -> None:
        """Make the backup whole and durable, under its name. Raises OSError."""
        with (self.partial / MANIFEST_NAME).open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(encode_manifest(manifest))
            file.flush()
            os.fsync(file.fileno())
        for directory, _, _ in os.walk(self.partial, topdown=False):
            sync_directory(Path(directory))
        self.partial.rename(self.path)
        sync_directory(self.path.parent)


def write_backup(
    snapshot: Snapshot, target: BackupTarget, created_at: float, work: Work
) -> Manifest:
    """Write a backup of a snapshot. For a thread: it takes as long as the disk does.

    Args:
        target: is removed where this fails.
        created_at: when the snapshot was taken, Unix time in seconds.
        work: told of every byte, and looked at.

    Raises:
        SnapshotLostError: the store grew too much meanwhile: another attempt will do.
        StorageError: the snapshot is damaged, or of a newer format; or `work` was cancelled.
        OSError: something cannot be read or written.
    """
    try:
        return _Writer(snapshot, target, work).write(created_at)
    except BaseException:
        target.discard()
        raise


class _Writer:
    def __init__(self, snapshot: Snapshot, target: BackupTarget, work: Work) -> None:
        self._snapshot = snapshot
        self._source = snapshot.data_dir
        self._target = target
        self._work = work
        self._files: list[BackupFile] = []

    def write(self, created_at: float) -> Manifest:
        snapshot = self._snapshot
        self._work.total_bytes = snapshot.metas.nbytes + len(snapshot.log)
        self._copy_records()
        snapshot.records_copied()
        snapshot.check()
        if snapshot.log:
            self._write(Path(COMMITS_NAME), iter([np.frombuffer(snapshot.log, np.uint8)]))
        data_format, sequences = self._look_into_records()
        self._work.total_bytes += sum(map(self._vector_bytes, sequences))
        self._work.total_bytes += sum(sum(files.values()) for files in snapshot.logs.values())
        folder = self._target.data / INDEXES_NAME
        folder.mkdir(mode=0o700)
        for uid, sequence in sequences.items():
            (folder / str(uid)).mkdir(mode=0o700)
            self._copy_vectors(uid)
            self._copy_graph(uid, sequence)
        for name, files in snapshot.logs.items():
            (self._target.data / name).mkdir(mode=0o700)
            for path, end in files.items():
                self._copy(path, end)
        snapshot.check()
        manifest = Manifest(
            pyrope=__version__,
            data_format=data_format,
            created_at=created_at,
            indexes=len(sequences),
            folders=list(snapshot.logs),
            files=self._files,
        )
        self._target.finish(manifest)
        return manifest

    def _copy_records(self) -> None:
        """All pages that the last transaction counts; those that it does not use may be torn."""
        metas = self._snapshot.metas
        first = np.frombuffer(metas.content, np.uint8)
        descriptor = os.open(self._source / RECORDS_NAME, os.O_RDONLY | os.O_CLOEXEC)
        try:
            rest = read_blocks(
                descriptor,
                metas.nbytes,
                start=len(first),
                change=lambda offset, block: self._snapshot.check(),
            )
            self._write(Path(RECORDS_NAME), chain([first], rest))
        finally:
            os.close(descriptor)

    def _look_into_records(self) -> tuple[int, dict[int, int]]:
        """Format, and write sequences of the indexes by uid, as the copy has them with its log."""
        path = self._target.data / RECORDS_NAME
        try:
            with lmdb.Environment(
                str(path), subdir=False, readonly=True, lock=False, max_dbs=_MAX_DATABASES
            ) as env:
                meta = env.open_db(b"meta", create=False)
                with env.begin() as txn:
                    data_format = int.from_bytes(txn.get(FORMAT_KEY, b"", db=meta), "big")
                    generation = txn.get(GENERATION_KEY, FIRST_GENERATION, db=meta)
                check_data_format(data_format, self._source)
                catalogue = env.open_db(b"catalogue", create=False)
                numbers = env.open_db(b"sequences", create=False)
                with env.begin() as txn:
                    sequences = {
                        int.from_bytes(uid, "big"): int.from_bytes(
                            txn.get(uid, b"", db=numbers), "big"
                        )
                        for uid in txn.cursor(db=catalogue).iternext(values=False)
                    }
        except lmdb.Error as error:
            raise StorageError(
                f"{self._source / RECORDS_NAME} is damaged, or not Pyrope's: {error}"
            ) from error
        if self._snapshot.log:
            sequences |= self._logged_sequences(int.from_bytes(generation, "big"))
        return data_format, sequences

    def _logged_sequences(self, generation: int) -> dict[int, int]:
        path = self._target.data / COMMITS_NAME
        log = CommitLog(path, generation)
        try:
            return sequences_of(log.entries())
        except StorageError as error:
            source = str(self._source / COMMITS_NAME)
            raise StorageError(str(error).replace(str(path), source)) from error
        finally:
            log.close()

    def _vector_bytes(self, uid: int) -> int:
        kept = self._snapshot.kept_rows(uid)
        if kept is not None:
            return kept.nbytes
        path = self._source / INDEXES_NAME / str(uid) / VECTORS_NAME
        return path.stat().st_size if path.exists() else 0

    def _copy_vectors(self, uid: int) -> None:
        path = Path(INDEXES_NAME, str(uid), VECTORS_NAME)
        if not (self._source / path).exists():
            return  # an index that nothing has ever been written to

        def put_back(offset: int, block: Block) -> None:
            kept = self._snapshot.kept_rows(uid)
            if kept is not None:
                kept.put_back(offset, block)
            self._snapshot.check()

        self._copy(path, self._vector_bytes(uid), put_back)

    def _copy_graph(self, uid: int, sequence: int) -> None:
        """The saved graph of an index, if there is one that is not younger than the snapshot.

        A younger one must not be there: in time the restored index would be past its sequence, and
        would take it for one of its own past.
        """
        folder = Path(INDEXES_NAME, str(uid))
        path = self._source / folder / GRAPH_NAME
        for _ in range(_GRAPH_ATTEMPTS):
            try:
                content = read_sidecar(path)
            except FileNotFoundError:
                return
            saved = decode_sidecar(path, content)
            if isinstance(saved, str) or saved.meta.sequence > sequence:
                return
            try:
                descriptor = os.open(saved.file, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # another one has come in its place
            try:
                size = os.fstat(descriptor).st_size
                self._work.total_bytes += size
                self._write(folder / saved.file.name, read_blocks(descriptor, size))
            finally:
                os.close(descriptor)
            sidecar = np.frombuffer(content, np.uint8)
            self._write(folder / sidecar_path(path).name, iter([sidecar]))
            return

    def _copy(
        self, path: Path, size: int, change: Callable[[int, Block], None] | None = None
    ) -> None:
        descriptor = os.open(self._source / path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._write(path, read_blocks(descriptor, size, change=change))
        finally:
            os.close(descriptor)

    def _write(self, path: Path, blocks: Iterator[Block]) -> None:
        size, digest = copy_blocks(blocks, self._target.data / path, self._work)
        self._files.append(BackupFile(path.as_posix(), size, digest))
