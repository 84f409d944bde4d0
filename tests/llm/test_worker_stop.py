"""Starting and stopping: nothing is left, in any state, and it does not take long."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from llm_world import FakeProvider, Hang, Outcome, World, failing, prompt_of, throttled
from pyrope.clock import SystemClock
from pyrope.llm.budget import BudgetLimits, MonthlyBudgets
from pyrope.llm.call import Hooks
from pyrope.llm.job import Dropped, Job, JobKind
from pyrope.llm.provider import Completion, Failure, Prompt
from pyrope.llm.statistics import WorkerState
from pyrope.llm.worker import LLMWorker
from pyrope.llm.worker_limits import WorkerLimits
from pyrope.testing.clock import ManualClock


def limits(**changed: float) -> WorkerLimits:
    named: dict[str, float] = {"requests_per_minute": 0, "tokens_per_minute": 0, **changed}
    return WorkerLimits(**named)  # type: ignore[arg-type] # as the caller says


def everything() -> tuple[int, int, int]:
    """Tasks of the loop, threads, and open files of the process, sockets among them."""
    return (
        len(asyncio.all_tasks()),
        threading.active_count(),
        len(list(Path("/proc/self/fd").iterdir())),
    )


async def idle(world: World) -> None:
    await world.start()


async def busy(world: World) -> None:
    await world.start(*range(100))


async def hanging(world: World) -> None:
    world.provider.by = lambda _: Hang()
    await world.start(*range(100))
    assert world.worker.state is WorkerState.RUNNING


async def throttled_by_itself(world: World) -> None:
    await world.start(*range(100))
    await world.timers.advance(1.0)
    assert world.worker.state is WorkerState.THROTTLED


async def throttled_by_the_provider(world: World) -> None:
    world.provider.by = lambda _: throttled(3600.0)
    await world.start(*range(100))
    assert world.worker.state is WorkerState.THROTTLED


async def broken(world: World) -> None:
    world.provider.by = lambda _: failing(Failure.UNAUTHORISED)
    await world.start(*range(100))
    assert world.worker.state is WorkerState.OPEN


async def paused(world: World) -> None:
    world.worker.pause()
    await world.start(*range(100))


async def starting(world: World) -> None:
    world.provider.start_outcomes = [Hang()]
    await world.start(*range(100))


async def not_begun(world: World) -> None:
    """Tasks of calls are made, and have not had their first turn."""
    await world.start()
    for number in range(10):
        world.submit(number)
    while not world.provider.asked and not world.worker.statistics().running_current:
        await asyncio.sleep(0)


async def full(world: World) -> None:
    world.provider.by = lambda _: Hang()
    await world.start()
    for number in range(3000):
        world.submit(number, tenant=f"t{number % 50}")
    assert world.worker.statistics().dropped[Dropped.OVERLOAD] > 0


async def closing_hangs(world: World) -> None:
    world.provider.by = lambda _: Hang()
    world.provider.close_hangs = True
    await world.start(*range(10))


STATES = [
    (idle, {}),
    (busy, {}),
    (hanging, {}),
    (throttled_by_itself, {"requests_per_minute": 3}),
    (throttled_by_itself, {"tokens_per_minute": 400}),
    (throttled_by_the_provider, {}),
    (broken, {}),
    (paused, {}),
    (starting, {}),
    (not_begun, {}),
    (full, {"max_queued": 1000}),
    (closing_hangs, {}),
]


@pytest.mark.parametrize(("get_there", "changed"), STATES)
async def test_stop_takes_less_than_two_seconds_and_leaves_nothing_in_every_state(
    get_there: Callable[[World], object], changed: dict[str, float]
) -> None:
    before = everything()
    world = World(limits=limits(**changed))
    reached = get_there(world)
    assert asyncio.iscoroutine(reached)
    await reached
    assert await world.stop() < 2.0
    assert everything() == before
    assert world.timers.pending == 0
    assert world.provider.under_way == 0
    assert world.provider.closed == 1
    assert world.worker.state in (WorkerState.STOPPED, WorkerState.PAUSED)
    record = world.worker.statistics()
    assert record.queued_current == record.running_current == 0
    ended = record.succeeded_total + record.failed_total + record.dropped_total
    assert record.submitted_total == ended
    assert not world.budgets._held.tenants
    assert world.worker.jobs(10) == []


async def test_a_call_in_hand_may_end_within_the_grace() -> None:
    answered = asyncio.Event()
    world = World(limits=limits(concurrency=1, grace_s=1.0))

    class Slow(FakeProvider):
        async def complete(self, prompt: Prompt) -> Completion:
            await answered.wait()
            return await super().complete(prompt)

    slow = Slow(world.clock)
    worker = remade(world, slow)
    await worker.start()
    worker.submit_nowait(job("in hand"))
    worker.submit_nowait(job("waiting"))
    await world.timers.settle()
    stopping = asyncio.create_task(worker.stop())
    await world.timers.advance(0.5)
    assert not stopping.done()
    assert not worker.submit_nowait(job("late"))
    answered.set()
    await world.timers.settle()
    assert stopping.done()
    assert world.keys == ["in hand"]
    assert worker.statistics().dropped[Dropped.STOPPED] == 2


async def test_a_call_that_does_not_let_itself_be_cancelled_ends_when_the_provider_closes() -> None:
    before = everything()
    world = World(limits=limits(concurrency=1))
    closed = asyncio.Event()

    class Stubborn(FakeProvider):
        async def complete(self, prompt: Prompt) -> Completion:
            self.asked.append((0.0, prompt))
            while not closed.is_set():
                try:
                    await closed.wait()
                except asyncio.CancelledError:
                    continue
            raise failing()

        async def close(self) -> None:
            closed.set()

    worker = remade(world, Stubborn(world.clock))
    await worker.start()
    worker.submit_nowait(job("q"))
    await world.timers.settle()
    assert await world.timers.finish(asyncio.create_task(worker.stop())) < 2.0
    assert everything() == before
    record = worker.statistics()
    assert record.submitted_total == record.failed_total + record.dropped_total == 1


def job(key: str) -> Job:
    return Job(JobKind.VERIFY, "a", key, 1.0, 1e9, key, 10)


def remade(world: World, provider: FakeProvider) -> LLMWorker:
    """A worker like the one of a world, with another provider."""
    return LLMWorker(
        provider,
        world.clock,
        limits(concurrency=1),
        Hooks(prompt_of, world._deliver, world._charge, lambda *_: None, len),
        world.budgets,
        random=Random(1),
        schedule=world.timers,
    )


def test_it_can_be_started_and_stopped_on_three_loops_in_turn() -> None:
    world = World()

    async def once(number: int) -> None:
        before = everything()
        await world.start(f"q{number}")
        assert world.keys[-1] == f"q{number}"
        await world.stop()
        assert everything() == before

    for number in range(3):
        asyncio.run(once(number))
    assert (world.provider.started, world.provider.closed) == (3, 3)
    assert world.worker.statistics().succeeded_total == 3


def test_to_make_a_worker_makes_nothing_that_belongs_to_a_loop() -> None:
    world = World()
    assert world.worker.state is WorkerState.STOPPED
    assert world.worker._run is None
    assert world.worker._main is None
    world.worker.pause()
    world.worker.resume()
    assert not world.submit("q")
    assert world.worker.statistics().dropped[Dropped.STOPPED] == 1


async def test_stop_is_idempotent_and_start_is_not() -> None:
    world = World()
    await world.worker.stop()
    await world.start()
    with pytest.raises(RuntimeError, match="started already"):
        await world.worker.start()
    await world.stop()
    await world.stop()
    assert world.provider.closed == 1


async def test_a_stop_that_is_cancelled_leaves_nothing_either() -> None:
    before = everything()
    world = World(by=lambda _: Hang())
    await world.start("q")
    stopping = asyncio.create_task(world.worker.stop())
    await world.timers.settle()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await world.timers.finish(stopping)
    assert everything() == before
    assert world.provider.closed == 1


async def test_without_a_provider_there_is_no_worker() -> None:
    before = everything()
    clock = ManualClock()
    worker = LLMWorker(
        None,
        clock,
        WorkerLimits(),
        Hooks(prompt_of, lambda *_: None, lambda *_: None, lambda *_: None, len),
        MonthlyBudgets(lambda: 1, BudgetLimits(), lambda _: BudgetLimits(), lambda *_: 0.0),
        random=Random(1),
    )
    await worker.start()
    assert everything() == before
    assert not worker.submit_nowait(job("q"))
    record = worker.statistics()
    assert (record.enabled, record.state, record.provider) == (False, WorkerState.OFF, "")
    assert record.submitted_total == 0
    await worker.stop()


@pytest.mark.parametrize("outcomes", [[Hang()], []])
async def test_by_the_system_s_clock_and_the_loop_s_timers(outcomes: list[Outcome]) -> None:
    """The real ones, with a real socket of the provider's that hangs."""
    before = everything()
    clock = SystemClock()
    world = World()

    class Connected(FakeProvider):
        async def start(self) -> None:
            self.pair = socket.socketpair()
            await super().start()

        async def close(self) -> None:
            for end in self.pair:
                end.close()
            await super().close()

    provider = Connected(ManualClock(), *outcomes)
    worker = LLMWorker(
        provider,
        clock,
        limits(grace_s=0.05, requests_per_minute=1),
        Hooks(prompt_of, world._deliver, world._charge, lambda *_: None, len),
        world.budgets,
        random=Random(1),
    )
    await worker.start()
    for number in range(50):
        worker.submit_nowait(job(f"{number}"))
    while not provider.asked:
        await asyncio.sleep(0)
    began = clock.monotonic()
    await worker.stop()
    assert clock.monotonic() - began < 2.0
    assert everything() == before
    assert provider.closed == 1
