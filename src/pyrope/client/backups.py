"""VECTOR.BACKUP: backing up the running server; for its administrator, on its host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyrope.client.replies import fields, text
from pyrope.client.request import Request
from pyrope.client.results import Backup, BackupStatus


def to(path: str) -> Request[Backup]:
    """Back everything up, as of one moment; returns when that is done, however long it takes.

    For a client whose `timeout_s` is None, unless there is little to be backed up.

    Args:
        path: of a new folder on the server's host, absolute.

    Raises:
        NoPermError: only the administrator may, and only from the server's host.
        CommandError: it cannot be made there.
    """
    return Request(("VECTOR.BACKUP", "TO", path), _backup, repeatable=False)


def status() -> Request[BackupStatus]:
    """How far one is that is under way, and what became of the last one. Raises NoPermError."""
    return Request(("VECTOR.BACKUP", "STATUS"), _status)


def cancel() -> Request[bool]:
    """Have the one that is under way end, in an error. Returns whether there was one.

    Raises:
        NoPermError: only the administrator may.
    """
    return Request(("VECTOR.BACKUP", "CANCEL"), bool, repeatable=False)


def _backup(reply: Mapping[bytes, Any]) -> Backup:
    told = fields(reply)
    return Backup(
        path=text(told["path"]),
        indexes=told["indexes"],
        files=told["files"],
        nbytes=told["bytes"],
        seconds=told["seconds"],
        stall_us=told["stall_us"],
    )


def _status(reply: Mapping[bytes, Any]) -> BackupStatus:
    told = fields(reply)
    return BackupStatus(
        running=bool(told["running"]),
        path=text(told["path"]),
        done_bytes=told["done_bytes"],
        total_bytes=told["total_bytes"],
        last_at=told["last_at"],
        last_error=text(told["last_error"]),
    )
