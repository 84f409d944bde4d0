"""GroupCommitter: order, sharing, failure, cancellation, draining."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pyrope.errors import MisconfError
from pyrope.storage.group_commit import GroupCommitter
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.memory_store import MemoryStore
from pyrope.storage.store import Change, DropIndex, PutIndex, StorageError, WriteBatch
from pyrope.testing.clock import ManualClock
from storage.store_samples import DIM, puts, rows, stored_records


class ScriptedStore(MemoryStore):
    """Remembers what it was asked to commit, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[list[int]] = []
        self.failures: deque[Exception] = deque()
        self.garbage = 0
        self.log: list[str] = []

    def commit(self, changes: Sequence[Change]) -> None:
        self.log.append("commit")
        if self.failures:
            raise self.failures.popleft()
        self.commits.append([change.uid for change in changes if isinstance(change, PutIndex)])

    @property
    def garbage_left(self) -> bool:
        return self.garbage > 0

    def collect_garbage(self, limit: int = 5_000) -> None:
        self.log.append("collect")
        if self.failures:
            raise self.failures.popleft()
        self.garbage -= 1


class SteppedRun:
    """Runs what it is given when the test says so."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._waiting: deque[tuple[Callable[[], None], asyncio.Future[None]]] = deque()

    def __call__(self, function: Callable[[], None]) -> Awaitable[None]:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((function, future))
        return future

    async def step(self, seconds: float = 0.0) -> None:
        """Let the loop settle, run the one function in flight, let the loop settle."""
        await settle()
        (only,) = self._waiting
        self._waiting.clear()
        function, future = only
        self._clock.advance(seconds)
        try:
            function()
        except Exception as error:  # noqa: BLE001 - as an executor passes on anything
            future.set_exception(error)
        else:
            future.set_result(None)
        await settle()

    @property
    def in_flight(self) -> int:
        return len(self._waiting)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Bench:
    """A committer over a scripted store, stepped by hand."""

    def __init__(self, max_group_bytes: int = 2**20) -> None:
        clock = ManualClock()
        self.store = ScriptedStore()
        self.run = SteppedRun(clock)
        self.committer = GroupCommitter(
            self.store, self.run, clock, max_group_bytes=max_group_bytes
        )

    def put(self, uid: int, size: int = 1) -> asyncio.Future[None]:
        return self.committer.commit(PutIndex(uid, b"x" * size))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.committer.start()
    yield made
    stopping = asyncio.ensure_future(made.committer.stop())
    await settle()
    while made.run.in_flight:
        await made.run.step()
    await stopping


async def test_a_change_is_acknowledged_after_its_commit_and_not_before(bench: Bench) -> None:
    done = bench.put(1)
    await settle()
    assert not done.done()
    await bench.run.step()
    assert done.done()
    assert bench.store.commits == [[1]]


async def test_changes_that_arrive_during_a_commit_share_the_next_one_in_order(
    bench: Bench,
) -> None:
    first = bench.put(1)
    await settle()
    later = [bench.put(uid) for uid in (4, 2, 3)]
    await bench.run.step()
    assert first.done()
    assert not any(done.done() for done in later)
    await bench.run.step()
    assert all(done.done() for done in later)
    assert bench.store.commits == [[1], [4, 2, 3]]


async def test_the_changes_of_one_call_are_never_split(bench: Bench) -> None:
    half = 600_000
    bench.put(1)
    await settle()
    bench.put(2, half)
    bench.committer.commit(PutIndex(3, b"x" * half), PutIndex(4, b"x" * half))
    bench.put(5)
    for _ in range(4):
        await bench.run.step()
    assert bench.store.commits == [[1], [2], [3, 4], [5]]


async def test_a_group_is_bounded_in_bytes_and_a_large_call_goes_alone(bench: Bench) -> None:
    bench.put(0)
    await settle()
    for uid, size in enumerate([400_000, 400_000, 400_000, 2_000_000, 1], start=1):
        bench.put(uid, size)
    for _ in range(5):
        await bench.run.step()
    assert bench.store.commits == [[0], [1, 2], [3], [4], [5]]


async def test_a_failure_reaches_every_caller_of_its_group_and_no_other(bench: Bench) -> None:
    bench.put(1)
    await settle()
    second, third = bench.put(2), bench.put(3)
    await bench.run.step()
    await settle()
    after = bench.put(4)
    bench.store.failures.append(MisconfError("the disk is full"))
    await bench.run.step()
    errors = [done.exception() for done in (second, third)]
    assert [str(error) for error in errors] == ["the disk is full"] * 2
    assert all(isinstance(error, MisconfError) for error in errors)
    assert errors[0] is not errors[1]
    await bench.run.step()
    assert after.exception() is None
    assert bench.store.commits == [[1], [4]]


async def test_a_run_that_cannot_run_fails_the_callers() -> None:
    def refuse(function: Callable[[], None]) -> Awaitable[None]:
        raise RuntimeError("the executor is gone")

    committer = GroupCommitter(ScriptedStore(), refuse, ManualClock(), max_group_bytes=1)
    await committer.start()
    with pytest.raises(RuntimeError, match="executor is gone"):
        await committer.commit(PutIndex(1, b""))
    await committer.stop()


async def test_a_cancelled_caller_neither_breaks_its_group_nor_loses_its_write(
    bench: Bench,
) -> None:
    bench.put(1)
    await settle()
    gone, stays = bench.put(2), bench.put(3)
    gone.cancel()
    await bench.run.step()
    gone_in_flight = bench.put(4)
    await bench.run.step()
    await settle()
    assert stays.exception() is None
    gone_in_flight.cancel()
    await bench.run.step()
    assert bench.store.commits == [[1], [2, 3], [4]]


async def test_a_caller_cancelled_before_its_group_fails_is_passed_over(bench: Bench) -> None:
    gone, stays = bench.put(1), bench.put(2)
    gone.cancel()
    bench.store.failures.append(MisconfError("full"))
    await bench.run.step()
    assert isinstance(stays.exception(), MisconfError)
    assert gone.cancelled()


async def test_the_disk_counts_as_refusing_until_it_takes_a_group(bench: Bench) -> None:
    states = []
    for failure in (None, MisconfError("full"), StorageError("a bug"), MisconfError("full"), None):
        if failure is not None:
            bench.store.failures.append(failure)
        done = bench.put(1)
        await bench.run.step()
        await settle()
        done.exception()
        states.append(bench.committer.statistics().is_refused)
    assert states == [False, True, False, True, False]


async def test_stop_commits_what_was_accepted_and_accepts_nothing_more() -> None:
    bench = Bench()
    await bench.committer.start()
    first = bench.put(1)
    await settle()
    second = bench.put(2)
    stopping = asyncio.ensure_future(bench.committer.stop())
    await settle()
    with pytest.raises(RuntimeError, match="not running"):
        bench.put(3)
    assert not stopping.done()
    await bench.run.step()
    await bench.run.step()
    await stopping
    assert first.done()
    assert second.done()
    assert bench.store.commits == [[1], [2]]
    await bench.committer.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stop_that_is_cancelled_leaves_the_commit_in_flight_alone() -> None:
    bench = Bench()
    await bench.committer.start()
    done = bench.put(1)
    await settle()
    stopping = asyncio.ensure_future(bench.committer.stop())
    await settle()
    stopping.cancel()
    await settle()
    await bench.run.step()
    assert done.exception() is None
    await bench.committer.stop()


async def test_a_committer_that_was_never_started_accepts_nothing_and_stops() -> None:
    bench = Bench()
    with pytest.raises(RuntimeError, match="not running"):
        bench.put(1)
    await bench.committer.stop()


async def test_a_committer_starts_once(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="once"):
        await bench.committer.start()


async def test_garbage_is_collected_from_the_start_and_between_commits() -> None:
    bench = Bench()
    bench.store.garbage = 3
    await bench.committer.start()
    await bench.run.step()
    assert bench.store.log == ["collect"]
    bench.put(1)
    bench.put(2)
    await bench.run.step()  # the collection that was in flight already
    await bench.run.step()
    assert bench.store.log == ["collect", "collect", "commit"]
    await bench.run.step()
    await settle()
    assert bench.store.log == ["collect", "collect", "commit", "collect"]
    assert not bench.run.in_flight
    await bench.committer.stop()


async def test_collection_that_fails_waits_for_the_next_commit_that_succeeds() -> None:
    bench = Bench()
    bench.store.garbage = 1
    bench.store.failures.extend([MisconfError("full"), MisconfError("full")])
    await bench.committer.start()
    await bench.run.step()
    assert not bench.run.in_flight
    refused = bench.put(1)
    await bench.run.step()
    assert isinstance(refused.exception(), MisconfError)
    assert not bench.run.in_flight
    bench.put(2)
    await bench.run.step()
    await bench.run.step()
    assert bench.store.log == ["collect", "commit", "commit", "collect"]
    assert bench.store.garbage == 0
    assert bench.committer.statistics().errors_total == 2
    await bench.committer.stop()


async def test_stop_does_not_wait_for_all_garbage() -> None:
    bench = Bench()
    bench.store.garbage = 1_000
    await bench.committer.start()
    await settle()
    stopping = asyncio.ensure_future(bench.committer.stop())
    await bench.run.step()
    await stopping
    assert bench.store.garbage == 999


async def test_statistics_count_what_happened(bench: Bench) -> None:
    bench.put(1)
    await settle()
    failed = [bench.put(2), bench.put(3), bench.put(4)]
    assert bench.committer.statistics().pending_current == 4
    await bench.run.step(seconds=0.25)
    bench.store.failures.append(MisconfError("full"))
    await bench.run.step(seconds=9.0)
    bench.committer.commit(PutIndex(5, b""), PutIndex(6, b""))
    await bench.run.step(seconds=0.5)
    assert all(done.exception() for done in failed)
    statistics = bench.committer.statistics()
    assert statistics.commits_total == 2
    assert statistics.changes_total == 3
    assert statistics.largest_group == 2
    assert statistics.last_seconds == 0.5
    assert statistics.errors_total == 1
    assert statistics.pending_current == 0


async def test_with_a_real_store_concurrent_writers_share_commits_and_find_their_writes(
    tmp_path: Path,
) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as executor:
        store = LmdbStore.open(tmp_path)
        uid = store.next_uid()
        committer = GroupCommitter(
            store,
            lambda function: loop.run_in_executor(executor, function),
            ManualClock(),
            max_group_bytes=2**20,
        )
        await committer.start()
        await committer.commit(PutIndex(uid, b""))

        async def write(slot: int) -> None:
            await committer.commit(puts(uid, [slot]))
            assert np.array_equal(store.vectors(uid, DIM).view()[slot], rows([slot])[0])

        await asyncio.gather(*map(write, range(100)))
        with pytest.raises(StorageError, match="in use"):
            await committer.commit(puts(uid, [5]))
        await committer.commit(WriteBatch(uid, 2, deletes=[5]))
        doomed = store.next_uid()
        await committer.commit(PutIndex(doomed, b""), puts(doomed, range(20)))
        await committer.commit(DropIndex(doomed))
        await committer.stop()
        statistics = committer.statistics()
        assert statistics.changes_total == 105
        assert statistics.commits_total < 20
        store.close()
    again = LmdbStore.open(tmp_path)
    assert sorted(stored_records(again, uid)) == [slot for slot in range(100) if slot != 5]
    assert [uid for uid, _ in again.indexes()] == [uid]
    again.close()
