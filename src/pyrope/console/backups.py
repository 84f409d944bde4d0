"""``pyrope backup`` and ``pyrope restore``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from pyrope.clock import SystemClock
from pyrope.config import Settings
from pyrope.console.connection import Connection, address_of, connect
from pyrope.console.options import EXIT_FAILED, load, settings_options
from pyrope.console.progress import with_progress
from pyrope.console.replies import BrokenReplyError, Reply, ReplyError
from pyrope.errors import PyropeError
from pyrope.log import iso_utc
from pyrope.storage.data_dir import is_locked, lock_owner
from pyrope.storage.store import StorageError

_CONNECT_TIMEOUT_S = 10.0

_FOLDER = click.Path(path_type=Path)


@click.command(
    params=[click.Argument(["folder"], metavar="DIR", type=_FOLDER), *settings_options()]
)
def backup(folder: Path, config: Path | None, **flags: object) -> None:
    """Back everything up to DIR, a new folder, while the server runs or while it does not.

    Takes what `serve` takes, to know where the data are and where the server listens. A running
    server writes the backup itself, as of one moment, and goes on serving meanwhile. Exits with 1
    where there is no backup afterwards; nothing is left in DIR then.
    """
    settings = load(config, flags).settings
    if settings.in_memory:
        _fail("the settings say in_memory: there is nothing on disk to back up")
    path = Path(os.path.abspath(folder))  # noqa: PTH100 - as the server does it, links and all
    data_dir = Path(settings.data_dir)
    try:
        if not data_dir.is_dir():
            raise StorageError(f"{data_dir} is no directory")
        if is_locked(data_dir):
            told = _hot(settings, data_dir, path)
            by = "by the running server"
        else:
            told = _quietly(data_dir, path)
            by = "no server was running"
    except (OSError, PyropeError, StorageError, ReplyError, BrokenReplyError) as error:
        _fail(str(error))
    click.echo(
        f"{told['path']}: {told['indexes']} indexes, {told['files']} files, "
        f"{_human(told['bytes'])}, in {told['seconds']} s ({by})"
    )


@click.command(
    params=[click.Argument(["folder"], metavar="DIR", type=_FOLDER), *settings_options()]
)
def restore(folder: Path, config: Path | None, **flags: object) -> None:
    """Make a data directory out of the backup in DIR.

    Takes what `serve` takes, to know where the data go: --data-dir, which has to be empty or not
    there yet. All of the backup is checked before anything is written. Exits with 1 where there
    is no such data directory afterwards; nothing is left there then.
    """
    from pyrope.storage.backup_files import Work  # noqa: PLC0415 - imports LMDB
    from pyrope.storage.backup_restore import restore_backup  # noqa: PLC0415 - likewise

    data_dir = Path(load(config, flags).settings.data_dir)
    work = Work()

    try:
        manifest = with_progress(
            "Restoring",
            lambda: restore_backup(folder, data_dir, work),
            lambda: (work.done_bytes, work.total_bytes),
            work.cancel,
        )
    except (OSError, StorageError) as error:
        _fail(str(error))
    click.echo(
        f"{data_dir}: {manifest.indexes} indexes, {len(manifest.files)} files, "
        f"{_human(manifest.nbytes)}, as of {iso_utc(manifest.created_at)}"
    )


def _quietly(data_dir: Path, path: Path) -> dict[str, object]:
    from pyrope.service.backups import back_up_quietly  # noqa: PLC0415 - imports the engines
    from pyrope.storage.backup_files import Work  # noqa: PLC0415 - imports LMDB

    work = Work()

    report = with_progress(
        "Backing up",
        lambda: back_up_quietly(data_dir, path, SystemClock(), work),
        lambda: (work.done_bytes, work.total_bytes),
        work.cancel,
    )
    return {
        "path": report.path,
        "indexes": report.indexes,
        "files": report.files,
        "bytes": report.bytes,
        "seconds": report.seconds,
    }


def _hot(settings: Settings, data_dir: Path, path: Path) -> dict[str, object]:
    try:
        asking = connect(settings, _CONNECT_TIMEOUT_S)
    except OSError as error:
        raise StorageError(
            f"the data directory {data_dir} is in use (process {lock_owner(data_dir)}), and no "
            f"server answers at {address_of(settings)}: {error}"
        ) from error
    with asking, connect(settings, None) as working:
        _check_whose(asking, settings, data_dir)

        def progress() -> tuple[int, int]:
            status = asking.fields("VECTOR.BACKUP", "STATUS")
            return _number(status["done_bytes"]), _number(status["total_bytes"])

        def cancel() -> None:
            asking.command("VECTOR.BACKUP", "CANCEL")

        told = with_progress(
            "Backing up",
            lambda: working.fields("VECTOR.BACKUP", "TO", os.fsencode(path)),
            progress,
            cancel,
        )
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value
        for name, value in told.items()
    }


def _check_whose(connection: Connection, settings: Settings, data_dir: Path) -> None:
    """Raises StorageError where the server that answers has another data directory."""
    info = connection.command("INFO", "server")
    lines = info.decode().splitlines() if isinstance(info, bytes) else []
    process = next((line.partition(":")[2] for line in lines if line.startswith("process_id")), "")
    owner = lock_owner(data_dir)
    if process != owner:
        raise StorageError(
            f"the server at {address_of(settings)} (process {process}) is not the one that has "
            f"the data directory {data_dir} open (process {owner}): name the right address"
        )


def _number(value: Reply) -> int:
    return value if isinstance(value, int) else 0


def _human(nbytes: object) -> str:
    size = float(str(nbytes))
    unit = "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def _fail(reason: str) -> NoReturn:
    click.echo(f"pyrope: {reason}", err=True)
    sys.exit(EXIT_FAILED)
