"""Restoring a backup: everything is looked at first, then copied, and counts at the end or never.

``records.mdb`` is written under another name, which is changed when all else is there and durable.
Until then a server refuses the directory, because the folder ``indexes``, which is made first, says
that it has been in use. So the directory itself may be there already and be a mount point, which
cannot be renamed, as volumes of containers are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pyrope.storage.backup_files import (
    Work,
    check_digest,
    check_file,
    check_size,
    copy_blocks,
    open_plain,
    read_blocks,
)
from pyrope.storage.backup_manifest import DATA_NAME, BackupFile, Manifest, load_manifest
from pyrope.storage.data_dir import (
    LOCK_NAME,
    lock_directory,
    make_directory,
    sync_directory,
)
from pyrope.storage.snapshot import INDEXES_NAME, RECORDS_NAME
from pyrope.storage.store import StorageError

_RESTORING_NAME = f"{RECORDS_NAME}.restoring"
_UNCOUNTED = {LOCK_NAME, "lost+found"}
"""What may be in an empty directory: the lock that is held, and what a file system makes."""


def restore_backup(backup: Path, data_dir: Path, work: Work) -> Manifest:
    """Make a data directory out of a backup.

    Args:
        backup: the folder that `write_backup` made.
        data_dir: is made where it is missing, and has to be empty.
        work: told of every byte, twice; and looked at.

    Raises:
        StorageError: the backup is damaged, foreign, or of a newer format; the directory is not
            empty, or a server has it open; or `work` was cancelled. Nothing is left behind.
        OSError: something cannot be read or written. Nothing is left behind.
    """
    manifest = load_manifest(backup)
    data = backup / DATA_NAME
    _check_links(data, manifest.files)
    work.total_bytes = 2 * manifest.nbytes
    if data_dir.exists():
        _check_empty(data_dir)
    for file in manifest.files:
        check_file(data, file, work)
    existed = data_dir.exists()
    make_directory(data_dir)
    lock = lock_directory(data_dir)
    try:
        _check_empty(data_dir)
        try:
            _copy_all(data, data_dir, manifest, work)
        except BaseException:
            _clear(data_dir)
            raise
    except BaseException:
        if not existed:
            shutil.rmtree(data_dir, ignore_errors=True)
        raise
    finally:
        os.close(lock)
    return manifest


def _copy_all(data: Path, data_dir: Path, manifest: Manifest, work: Work) -> None:
    make_directory(data_dir / INDEXES_NAME)
    for folder in manifest.folders:
        (data_dir / folder).mkdir(mode=0o700, parents=True)
    for file in manifest.files:
        name = _RESTORING_NAME if file.path == RECORDS_NAME else file.path
        (data_dir / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = open_plain(data / file.path)
        try:
            check_size(data / file.path, descriptor, file)
            blocks = read_blocks(descriptor, file.size)
            _, digest = copy_blocks(blocks, data_dir / name, work)
        finally:
            os.close(descriptor)
        check_digest(data / file.path, digest, file)
    for directory, _, _ in os.walk(data_dir, topdown=False):
        sync_directory(Path(directory))
    (data_dir / _RESTORING_NAME).rename(data_dir / RECORDS_NAME)
    sync_directory(data_dir)


def _check_links(data: Path, files: Sequence[BackupFile]) -> None:
    """Raises StorageError where a folder of the backup leads out of it."""
    folders = {(data / file.path).parent for file in files}
    root = data.resolve()
    for folder in folders:
        if not folder.resolve().is_relative_to(root):
            raise StorageError(f"{folder} leads out of the backup")


def _check_empty(data_dir: Path) -> None:
    if not data_dir.is_dir():
        raise StorageError(f"{data_dir} is no directory")
    found = sorted({path.name for path in data_dir.iterdir()} - _UNCOUNTED)
    if _RESTORING_NAME in found:
        raise StorageError(
            f"{data_dir} holds what a restore that did not end has left: remove it first"
        )
    if found:
        raise StorageError(
            f"{data_dir} is not empty (it holds {found[0]}): a backup is restored to an empty "
            "directory, or to one that is not there yet"
        )


def _clear(data_dir: Path) -> None:
    for path in data_dir.iterdir():
        if path.name in _UNCOUNTED:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
