"""The pool of threads beside the loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pyrope.engine.executor import Executor


async def test_a_job_runs_beside_the_loop_and_its_result_comes_back() -> None:
    executor = Executor(1, name="test")
    executor.start()
    assert await executor.run(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await executor.run(lambda: 1 // 0)
    await executor.stop()


async def test_each_thread_is_initialised_once_before_its_first_job() -> None:
    initialised: list[int] = []
    executor = Executor(
        2, name="test", initializer=lambda: initialised.append(threading.get_ident())
    )
    executor.start()
    used = await asyncio.gather(*(executor.run(threading.get_ident) for _ in range(50)))
    await executor.stop()
    assert set(used) <= set(initialised)
    assert len(initialised) == len(set(initialised)) <= 2


async def test_stopping_waits_for_the_jobs_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    executor = Executor(2, name="test")
    executor.start()
    release = threading.Event()
    waiting = executor.run(release.wait, 30)
    stopping = asyncio.create_task(executor.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    release.set()
    await stopping
    assert await waiting
    assert set(threading.enumerate()) == before
    with pytest.raises(RuntimeError, match="not running"):
        executor.run(int)


async def test_shared_work_is_done_once_each_and_in_several_threads() -> None:
    executor = Executor(2, name="test")
    executor.start()
    meeting = threading.Barrier(2, timeout=30)
    done: list[int] = []

    def work(part: int) -> None:
        meeting.wait()  # both parts run at the same time
        done.append(part)

    await executor.run(executor.share, work, [1, 2])
    assert sorted(done) == [1, 2]
    await executor.stop()


async def test_jobs_that_share_their_work_never_wait_for_one_another() -> None:
    executor = Executor(2, name="test")
    executor.start()
    done: list[int] = []
    jobs = [executor.run(executor.share, done.append, [n, n, n]) for n in range(50)]
    async with asyncio.timeout(30):
        await asyncio.gather(*jobs)
    assert sorted(done) == sorted([*range(50)] * 3)
    await executor.stop()


async def test_a_failing_part_is_raised_when_every_part_has_ended() -> None:
    executor = Executor(2, name="test")
    executor.start()
    done: list[int] = []

    def work(part: int) -> None:
        if part == 0:
            raise ValueError("part")
        done.append(part)

    with pytest.raises(ValueError, match="part"):
        await executor.run(executor.share, work, [0, 1, 2, 3])
    assert sorted(done) == [1, 2, 3]
    await executor.stop()


def test_a_pool_without_threads_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one thread"):
        Executor(0, name="test")


async def test_a_job_whose_future_is_cancelled_before_it_begins_is_dropped() -> None:
    executor = Executor(1, name="test")
    executor.start()
    release = threading.Event()
    done: list[int] = []
    first = executor.run(release.wait, 30)
    second = executor.run(done.append, 2)
    third = executor.run(done.append, 3)
    second.cancel()
    release.set()
    await asyncio.gather(first, third)
    assert done == [3]
    await executor.stop()


async def test_what_follows_a_job_runs_on_the_loop_and_its_failure_stops_nothing() -> None:
    executor = Executor(2, name="test")
    executor.start()
    loop = asyncio.get_running_loop()
    reported: list[str] = []
    loop.set_exception_handler(lambda _, context: reported.append(str(context["exception"])))
    here = threading.get_ident()
    outcomes: list[tuple[object, object, bool]] = []

    def fail(_result: object, _error: object) -> None:
        raise ValueError("what follows")

    def note(result: object, error: object) -> None:
        outcomes.append((result, error, threading.get_ident() == here))

    executor.submit(int, ("7",), fail)
    executor.submit(int, ("8",), note)
    executor.submit(int, ("x",), note)
    await executor.stop()
    assert reported == ["what follows"]
    assert (8, None, True) in outcomes
    assert [type(error) for _, error, _ in outcomes if error is not None] == [ValueError]


async def test_many_jobs_from_the_loop_all_come_back() -> None:
    executor = Executor(4, name="test")
    executor.start()
    results = await asyncio.gather(*(executor.run(pow, n, 2) for n in range(2000)))
    assert results == [n * n for n in range(2000)]
    await executor.stop()
