"""Backups as the service makes them: again where the store grew too much, whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pyrope.engine.executor import Executor
from pyrope.errors import CommandError
from pyrope.service.audit import SERVER, AuditTrail
from pyrope.service.backups import Backups
from pyrope.storage.backup_files import Work
from pyrope.storage.backup_restore import restore_backup
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.memory_log import MemoryLog
from pyrope.storage.store import Change, PutIndex, PutMeta
from pyrope.testing.clock import ManualClock
from storage.store_samples import puts, stored_records


class Growing:
    """A store with a small map, which grows whenever it has been told to."""

    def __init__(self, data: Path, thread: Executor) -> None:
        self.store = LmdbStore.open(data, map_bytes=256 * 2**10)
        self.store.commit([PutIndex(1, b"spec")])
        self.store.commit([puts(1, range(20))])
        self.thread = thread
        self.growths_left = 0
        self.moments = 0
        self.commits = 0

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        result = await self.thread.run(function, *args)
        if function.__name__ == "_begin":
            self.moments += 1
            if self.growths_left:
                self.growths_left -= 1
                await self.thread.run(self.grow)
        return result

    def grow(self) -> None:
        before = size = self.store._env.info()["map_size"]
        while size == before:
            self.store.commit([PutMeta("a", b"%d" % self.commits, bytes(10**6))])
            self.commits += 1
            size = self.store._env.info()["map_size"]

    async def commit(self, *changes: Change) -> None:
        await self.thread.run(self.store.commit, changes)


@pytest.fixture
async def growing(tmp_path: Path) -> AsyncIterator[Growing]:
    thread = Executor(1, name="store")
    thread.start()
    made = await thread.run(Growing, tmp_path / "data", thread)
    yield made
    await thread.run(made.store.close)
    await thread.stop()


def backups_of(growing: Growing, tmp_path: Path) -> Backups:
    clock = ManualClock()

    def spawn(work: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(work)

    async def direct(function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    run: Callable[..., Awaitable[Any]] = direct
    audit = AuditTrail(MemoryLog(100), run, growing.commit, clock)
    return Backups(
        tmp_path / "data",
        clock,
        store=lambda: growing.store,
        run=growing.run,
        audit=lambda: audit,
        spawn=spawn,
    )


def left_of_it(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("backup*")]


@pytest.mark.parametrize("growths", [1, 2])
async def test_one_that_is_lost_is_made_again(
    growing: Growing, tmp_path: Path, growths: int
) -> None:
    growing.growths_left = growths
    report = await backups_of(growing, tmp_path).make(SERVER, tmp_path / "backup")
    assert growing.moments == growths + 1
    assert report.indexes == 1
    restore_backup(tmp_path / "backup", tmp_path / "restored", Work())
    copy = LmdbStore.open(tmp_path / "restored")
    assert list(stored_records(copy, 1)) == list(range(20))
    copy.close()


async def test_one_that_is_lost_again_and_again_is_given_up(
    growing: Growing, tmp_path: Path
) -> None:
    growing.growths_left = 100
    backups = backups_of(growing, tmp_path)
    with pytest.raises(CommandError, match="grew too much"):
        await backups.make(SERVER, tmp_path / "backup")
    assert growing.moments == 3
    assert left_of_it(tmp_path) == []
    growing.growths_left = 0
    await backups.make(SERVER, tmp_path / "backup")
    assert backups.status().last_error == ""


async def test_a_caller_that_is_cancelled_ends_it_and_waits_for_the_end(
    growing: Growing, tmp_path: Path
) -> None:
    backups = backups_of(growing, tmp_path)
    making = asyncio.create_task(backups.make(SERVER, tmp_path / "backup"))
    while not backups.status().running:
        await asyncio.sleep(0)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert not backups.status().running
    assert "backup.partial" not in left_of_it(tmp_path)
    assert growing.store._snapshot is None
