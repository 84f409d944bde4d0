"""Tenants' ways to the threads."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import AsyncIterator, Hashable

import pytest

from pyrope.engine.batcher import Batcher
from pyrope.engine.executor import Executor
from pyrope.engine.fair_queue import FairQueue
from pyrope.engine.lanes import CONTENDED_SECONDS, NORMAL_WEIGHT, Lanes
from pyrope.testing.clock import ManualClock

THREADS = 2


class Pool:
    def __init__(self) -> None:
        self.clock = ManualClock()
        queue = FairQueue(THREADS)
        self.executor = Executor(THREADS, name="test", jobs=queue)
        self.lanes = Lanes(self.executor, queue, self.clock.monotonic)
        self.executor.start()


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    made = Pool()
    yield made
    await made.executor.stop()


async def test_a_lane_runs_jobs_as_the_executor_does(pool: Pool) -> None:
    lane = pool.lanes.lane("a")
    assert await lane.run(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await lane.run(lambda: 1 // 0)
    results = await asyncio.gather(*(lane.run(pow, n, 2) for n in range(500)))
    assert results == [n * n for n in range(500)]


async def test_parts_of_a_job_are_shared_by_threads_and_fail_together(pool: Pool) -> None:
    lane = pool.lanes.lane("a")
    meeting = threading.Barrier(THREADS, timeout=30)
    done: list[int] = []

    def work(part: int) -> None:
        meeting.wait()  # the parts run at the same time
        done.append(part)

    await lane.run(lane.share, work, [1, 2])
    assert sorted(done) == [1, 2]
    with pytest.raises(ZeroDivisionError):
        await lane.run(lane.share, lambda part: 1 // part, [0, 1])


def test_tenants_have_one_lane_each_as_long_as_somebody_holds_it() -> None:
    queue = FairQueue(THREADS)
    lanes = Lanes(Executor(THREADS, name="test", jobs=queue), queue, ManualClock().monotonic)
    a = lanes.lane("a")
    assert lanes.lane("a") is a
    assert lanes.lane("b") is not a
    del a
    gc.collect()
    assert not lanes._lanes


async def test_a_weight_holds_for_lanes_that_are_there_and_for_those_to_come(pool: Pool) -> None:
    lane = pool.lanes.lane("a")
    assert lane.flow.weight == NORMAL_WEIGHT
    for tenant in "ab":
        pool.lanes.set_weight(tenant, 7)
    assert lane.flow.weight == pool.lanes.lane("b").flow.weight == 7
    pool.lanes.set_weight("a", NORMAL_WEIGHT)
    assert lane.flow.weight == NORMAL_WEIGHT


async def test_tenants_that_search_at_the_same_time_know_of_one_another(pool: Pool) -> None:
    a, b = pool.lanes.lane("a"), pool.lanes.lane("b")
    for _ in range(3):
        assert not a.is_contended()
    assert b.is_contended()
    assert a.is_contended()
    pool.clock.advance(CONTENDED_SECONDS / 2)
    assert a.is_contended()
    pool.clock.advance(CONTENDED_SECONDS / 2)
    assert not a.is_contended()


async def test_it_is_known_how_long_nobody_has_searched(pool: Pool) -> None:
    a, b = pool.lanes.lane("a"), pool.lanes.lane("b")
    assert a.idle_seconds == float("inf")
    pool.clock.advance(1)
    b.is_contended()
    pool.clock.advance(3)
    await a.run(int)
    assert a.idle_seconds == 3


async def test_a_flood_of_jobs_leaves_a_thread_to_a_tenant_that_searches_too(pool: Pool) -> None:
    flood, other = pool.lanes.lane("flood"), pool.lanes.lane("other")
    other.is_contended()
    flood.is_contended()
    release = threading.Event()
    jobs = [flood.run(release.wait, 30) for _ in range(10)]
    # Both threads would wait for the event.
    async with asyncio.timeout(20):
        assert await other.run(pow, 2, 3) == 8
    release.set()
    await asyncio.gather(*jobs)


async def test_once_the_others_are_gone_a_tenant_has_all_threads_again(pool: Pool) -> None:
    flood, other = pool.lanes.lane("flood"), pool.lanes.lane("other")
    other.is_contended()
    flood.is_contended()
    pool.clock.advance(CONTENDED_SECONDS)
    meeting = threading.Barrier(THREADS, timeout=30)
    async with asyncio.timeout(20):
        await asyncio.gather(*(flood.run(meeting.wait) for _ in range(THREADS)))


async def test_a_job_that_shares_its_work_ends_though_no_thread_may_help(pool: Pool) -> None:
    a, b = pool.lanes.lane("a"), pool.lanes.lane("b")
    b.is_contended()
    a.is_contended()
    done: list[int] = []
    async with asyncio.timeout(20):
        jobs = [a.run(a.share, done.append, [n, n, n]) for n in range(50)]
        others = [b.run(b.share, done.append, [n, n, n]) for n in range(50)]
        await asyncio.gather(*jobs, *others)
    assert Counter(done) == dict.fromkeys(range(50), 6)


class Request:
    """Of one query."""

    def __init__(self) -> None:
        self.client: Hashable = "test"
        self.weight = 1
        self.future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def done(self) -> bool:
        return self.future.done()

    def set_exception(self, error: BaseException) -> None:
        self.future.set_exception(error)


async def test_indexes_of_many_tenants_never_come_to_a_halt(pool: Pool) -> None:
    """Searches and exclusive work of each, while jobs are held back: everything ends."""
    ended: Counter[str] = Counter()

    async def live(tenant: str) -> None:
        lane = pool.lanes.lane(tenant)

        def room() -> int:
            return 2 if lane.is_contended() else 8

        batcher: Batcher[Request, int] = Batcher(
            run=lane.submit,
            work=lambda pieces: [1] * len(pieces),
            deliver=lambda piece, answer: piece.request.future.set_result(answer),
            threads=THREADS,
            parallel=2 * THREADS,
            room=room,
        )

        async def search() -> None:
            for _ in range(30):
                request = Request()
                batcher.submit(request)
                answer = await request.future
                ended[tenant] += answer

        async def write(*, urgent: bool) -> None:
            for _ in range(10):
                await batcher.gate.enter_exclusive(urgent=urgent)
                try:
                    await lane.run(lane.share, lambda _: None, [1, 2, 3])
                finally:
                    batcher.gate.leave_exclusive()
                await asyncio.sleep(0)

        await asyncio.gather(
            write(urgent=False), write(urgent=True), *(search() for _ in range(10))
        )

    async def time_passes() -> None:
        while True:
            await asyncio.sleep(0)
            pool.clock.advance(0.01)

    passing = asyncio.create_task(time_passes())
    async with asyncio.timeout(60):
        await asyncio.gather(*(live(tenant) for tenant in "abcde"))
    passing.cancel()
    assert ended == dict.fromkeys("abcde", 300)
