"""Directories and their lock: made private, made durable, open in one server at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pyrope.storage.store import StorageError

LOCK_NAME = "LOCK"


class InUseError(StorageError):
    """A server has the directory open."""


def make_directory(path: Path) -> None:
    """Make a directory (mode 0700) and its parents where missing, durably. Raises OSError."""
    missing = [directory for directory in (path, *path.parents) if not directory.is_dir()]
    if not missing:
        return
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for directory in missing:
        sync_directory(directory.parent)


def sync_directory(path: Path) -> None:
    """Make the directory's entries durable: without its name a synced file is lost.

    Raises:
        OSError: the device failed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_directory(data_dir: Path) -> int:
    """Take the directory's lock; it ends when the answered descriptor is closed.

    The kernel gives the lock back when the process ends in whatever way, so there is no stale
    lock to clean up. The file stays; it holds the owner's process id for people to read.

    Raises:
        InUseError: another server holds it.
        OSError: the lock file cannot be made.
    """
    descriptor = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = lock_owner(data_dir)
            raise InUseError(
                f"the data directory {data_dir} is in use by another server (process {owner}): "
                "stop it, or start this one with another data directory"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def lock_owner(data_dir: Path) -> str:
    """Process id of the server that has, or had, the directory open. Raises OSError."""
    with (data_dir / LOCK_NAME).open("rb") as file:
        return file.read(32).decode("ascii", "replace").strip()


def is_locked(data_dir: Path) -> bool:
    """Whether a server has the directory open just now. Raises OSError."""
    try:
        descriptor = os.open(data_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
