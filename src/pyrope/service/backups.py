"""Backups: of the running server, hot, and of a data directory that no server has open.

A backup of a running server is of one moment between two commits: every write that was acknowledged
before it began is in it, and no write is in it in part. The thread of the store is held up for the
few milliseconds that the moment takes (`pyrope.storage.snapshot`); everything else happens in a
thread of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyrope.clock import Clock
from pyrope.engine.executor import Executor
from pyrope.errors import BusyError, CommandError
from pyrope.log import get_logger
from pyrope.service.audit import Actor, AuditTrail
from pyrope.service.tenancy import AUDIT_FOLDER, BILLING_FOLDER
from pyrope.storage.backup import BackupTarget, write_backup
from pyrope.storage.backup_files import Work
from pyrope.storage.backup_manifest import Manifest
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.snapshot import Snapshot, SnapshotLostError, quiet_snapshot
from pyrope.storage.store import StorageError, Store

_log = get_logger(__name__)

_LOGS = (AUDIT_FOLDER, BILLING_FOLDER)
_ATTEMPTS = 3
"""The store may grow too much in one; each time it has twice the room."""

Run = Callable[..., Awaitable[Any]]
"""Calls a function with arguments in a thread."""


@dataclass(frozen=True, slots=True)
class BackupReport:
    """A backup that was made.

    Attributes:
        path: where it is.
        indexes: in it.
        files: in it.
        bytes: of all of them.
        seconds: that it took.
        stall_us: for how long it held up commits, microseconds.
    """

    path: str
    indexes: int
    files: int
    bytes: int
    seconds: float
    stall_us: int


@dataclass(frozen=True, slots=True)
class BackupStatus:
    """How far a backup is.

    Attributes:
        running: whether one is under way.
        path: where it, or else the last one, goes; empty: there was none.
        done_bytes, total_bytes: of it. Of a backup that begins again, from zero.
        last_at: Unix time in seconds of the moment that the last one is of; 0: there was none.
        last_error: why the last one failed; empty: it did not.
    """

    running: bool
    path: str
    done_bytes: int
    total_bytes: int
    last_at: float
    last_error: str


class Backups:
    """Of the running server, one at a time. For the event loop.

    Args:
        data_dir: None: nothing is on disk.
        store: the store that is open.
        run: calls a function in the store's thread.
        audit: the trail.
        spawn: makes a task that the service waits for when it stops.
    """

    def __init__(
        self,
        data_dir: Path | None,
        clock: Clock,
        *,
        store: Callable[[], Store],
        run: Run,
        audit: Callable[[], AuditTrail],
        spawn: Callable[[Any], asyncio.Task[Any]],
    ) -> None:
        self._data_dir = data_dir
        self._clock = clock
        self._store = store
        self._run = run
        self._audit = audit
        self._spawn = spawn
        self._work: Work | None = None
        self._path = ""
        self._last_at = 0.0
        self._last_error = ""

    async def make(self, actor: Actor, path: Path) -> BackupReport:
        """Back everything up to a folder. Being cancelled ends it.

        Args:
            actor: who wants it, for the audit trail.
            path: absolute; nothing is there yet.

        Raises:
            BusyError: one is under way.
            CommandError: it cannot be made: the sentence says why. Nothing is left of it.
            MisconfError: the audit trail cannot be written.
        """
        if self._work is not None:
            raise BusyError(f"a backup to {self._path} is under way")
        store = self._store()
        if self._data_dir is None or not isinstance(store, LmdbStore):
            raise CommandError("the server keeps nothing on disk: there is nothing to back up")
        work = self._work = Work(self._clock.monotonic)
        self._path = str(path)
        # A task of its own: the thread that copies has to be waited for, whoever gives up.
        making = self._spawn(self._make(actor, store, self._data_dir, path, work))
        try:
            report: BackupReport = await asyncio.shield(making)
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.wait([making])
            making.exception()  # nobody is left to be told
            raise
        return report

    def cancel(self) -> bool:
        """Have the backup that is under way end in an error. Returns whether one is."""
        if self._work is None:
            return False
        self._work.cancel()
        return True

    def status(self) -> BackupStatus:
        work = self._work
        return BackupStatus(
            running=work is not None,
            path=self._path,
            done_bytes=0 if work is None else work.done_bytes,
            total_bytes=0 if work is None else work.total_bytes,
            last_at=self._last_at,
            last_error=self._last_error,
        )

    async def _make(
        self, actor: Actor, store: LmdbStore, data_dir: Path, path: Path, work: Work
    ) -> BackupReport:
        began = self._clock.monotonic()
        thread = Executor(1, name="pyrope-backup")
        thread.start()
        try:
            async with self._audit().act(actor, "server.backup", "", str(path)):
                created_at, stall_us, manifest = await self._write(
                    thread, store, data_dir, path, work
                )
        except (OSError, StorageError) as error:
            self._last_error = str(error)
            _log.error("backup failed", path=str(path), error=str(error))
            raise CommandError(f"the backup failed: {error}") from error
        finally:
            self._work = None
            await thread.stop()
        self._last_at, self._last_error = created_at, ""
        report = BackupReport(
            path=str(path),
            indexes=manifest.indexes,
            files=len(manifest.files),
            bytes=manifest.nbytes,
            seconds=round(self._clock.monotonic() - began, 3),
            stall_us=stall_us,
        )
        _log.info("backup made", **asdict(report))
        return report

    async def _write(
        self, thread: Executor, store: LmdbStore, data_dir: Path, path: Path, work: Work
    ) -> tuple[float, int, Manifest]:
        """Moment, microseconds that it took, and what was written."""
        attempts = 0
        while True:
            attempts += 1
            target = await thread.run(BackupTarget, path, data_dir)
            try:
                created_at, stall_us, snapshot = await self._run(self._begin, store, target.partial)
            except BaseException:
                await thread.run(target.discard)
                raise
            try:
                manifest = await thread.run(write_backup, snapshot, target, created_at, work)
            except SnapshotLostError as error:
                if attempts == _ATTEMPTS:
                    raise
                _log.warning("backup begins again", path=str(path), reason=str(error))
                work.done_bytes = work.total_bytes = 0
            else:
                return created_at, stall_us, manifest
            finally:
                await self._run(store.end_snapshot)

    def _begin(self, store: LmdbStore, spool_dir: Path) -> tuple[float, int, Snapshot]:
        """In the store's thread, between two commits."""
        began = self._clock.monotonic()
        created_at = self._clock.wall()
        snapshot = store.begin_snapshot(_LOGS, spool_dir)
        return created_at, round((self._clock.monotonic() - began) * 1e6), snapshot


def back_up_quietly(data_dir: Path, path: Path, clock: Clock, work: Work) -> BackupReport:
    """Back up a data directory that no server has open. Nothing in it is changed.

    Args:
        path: absolute; nothing is there yet.
        work: told of every byte.

    Raises:
        InUseError: a server has it open.
        StorageError: there is nothing to back up, it is damaged, or the path will not do.
        OSError: something cannot be read or written.
    """
    began = clock.monotonic()
    target = BackupTarget(path, data_dir)
    try:
        with quiet_snapshot(data_dir, _LOGS, target.partial) as snapshot:
            manifest = write_backup(snapshot, target, clock.wall(), work)
    except BaseException:
        target.discard()
        raise
    return BackupReport(
        path=str(path),
        indexes=manifest.indexes,
        files=len(manifest.files),
        bytes=manifest.nbytes,
        seconds=round(clock.monotonic() - began, 3),
        stall_us=0,
    )
