"""What the worker does when nothing fails."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from llm_world import (
    GOOD,
    TOKENS_IN,
    TOKENS_OUT,
    UNLIMITED,
    Hang,
    Reply,
    World,
    prompt_of,
)
from pyrope.llm.budget import BudgetLimits, Refusal
from pyrope.llm.job import Dropped, Job, JobKind
from pyrope.llm.provider import Prompt
from pyrope.llm.statistics import WorkerState
from pyrope.llm.worker import JobState
from pyrope.llm.worker_limits import WorkerLimits

Make = Callable[..., World]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[World] = []

    def build(*args: object, **options: object) -> World:
        made.append(World(*args, **options))  # type: ignore[arg-type] # as the caller says
        return made[-1]

    yield build
    for world in made:
        await world.stop()


def limits(**changed: float) -> WorkerLimits:
    """Without limits, but for those named."""
    named: dict[str, float] = {"requests_per_minute": 0, "tokens_per_minute": 0, **changed}
    return WorkerLimits(**named)  # type: ignore[arg-type] # as the caller says


async def test_a_job_is_asked_validated_delivered_and_charged(make: Make) -> None:
    world = make()
    await world.start("q")
    assert world.delivered == [("q", Reply(answer=42))]
    assert world.ledger == {"a": TOKENS_IN + TOKENS_OUT}
    record = world.worker.statistics()
    assert (record.provider, record.model, record.enabled) == ("fake", "model-1", True)
    assert record.state is WorkerState.IDLE
    assert (record.tokens_in_total, record.tokens_out_total) == (TOKENS_IN, TOKENS_OUT)
    assert record.cost_total == pytest.approx((TOKENS_IN + 2 * TOKENS_OUT) / 1000)
    assert record.by_kind[JobKind.CANONICAL].succeeded_total == record.succeeded_total == 1
    assert record.by_kind[JobKind.VERIFY].submitted_total == 0
    assert not record.last_error


async def test_jobs_go_by_value_and_tenants_take_turns(make: Make) -> None:
    world = make(limits=limits(concurrency=1))
    world.worker.pause()
    await world.start()
    for value in range(20):
        world.submit(f"flood {value}", tenant="flood", value=value)
    world.submit("few", tenant="few", value=0.1)
    world.worker.resume()
    await world.timers.advance(0)
    assert world.keys[:3] == ["flood 19", "few", "flood 18"]
    assert len(world.keys) == 21


@pytest.mark.parametrize("concurrency", [1, 2, 5])
async def test_as_many_calls_go_on_at_a_time_as_may(make: Make, concurrency: int) -> None:
    world = make(limits=limits(concurrency=concurrency))
    await world.start(*range(20))
    await world.timers.advance(0)
    assert world.provider.most == concurrency
    assert len(world.delivered) == 20


async def test_a_call_that_hangs_does_not_hold_up_another(make: Make) -> None:
    world = make(by=lambda prompt: Hang() if "slow" in prompt.user else GOOD)
    await world.start("slow", 1, 2, 3)
    await world.timers.settle()
    assert world.keys == [1, 2, 3]
    assert world.worker.state is WorkerState.RUNNING


async def test_nothing_begins_in_a_pause_and_everything_after_it(make: Make) -> None:
    world = make()
    await world.start()
    world.worker.pause()
    assert world.submit("q")
    await world.timers.advance(100)
    assert not world.provider.asked
    assert world.worker.state is WorkerState.PAUSED
    world.worker.resume()
    await world.timers.settle()
    assert world.keys == ["q"]


async def test_a_worker_paused_before_it_starts_is_paused_when_it_has(make: Make) -> None:
    world = make()
    world.worker.pause()
    await world.start("q")
    assert world.worker.state is WorkerState.PAUSED
    assert not world.provider.started


async def test_what_is_late_is_dropped_in_a_pause_too(make: Make) -> None:
    world = make()
    await world.start()
    world.worker.pause()
    for number in range(300):
        world.submit(number, deadline=5.0 + number / 100)
    await world.timers.advance(10.0)
    record = world.worker.statistics()
    assert record.queued_current == record.queued_bytes_current == 0
    assert record.dropped[Dropped.EXPIRED] == 300
    # At most one look a second.
    assert world.timers.set_total < 30


async def test_no_more_requests_a_minute_than_may_and_no_spinning(make: Make) -> None:
    world = make(limits=limits(requests_per_minute=10))
    await world.start(*range(35))
    await world.timers.advance(30.0)
    assert len(world.provider.asked) == 10
    assert world.worker.state is WorkerState.THROTTLED
    set_before = world.timers.set_total
    await world.timers.advance(29.0)
    assert len(world.provider.asked) == 10
    assert world.timers.set_total - set_before <= 1
    await world.timers.advance(150.0)
    times = world.provider.times
    assert len(times) == 35
    assert all(later - earlier >= 60.0 for earlier, later in zip(times, times[10:], strict=False))
    assert times[-1] <= 180.001


async def test_tokens_a_minute_are_reserved_before_and_settled_after_a_call(make: Make) -> None:
    world = make(limits=limits(tokens_per_minute=1000, concurrency=1))
    await world.start(*range(12))
    await world.timers.settle()
    # Six use 900 by the provider's count; a seventh would have reserved more than the rest.
    assert len(world.provider.asked) == 6
    await world.timers.advance(200.0)
    times = world.provider.times
    assert len(times) == 12
    for at in times:
        used = 150 * sum(at - 60.0 < other <= at for other in times)
        assert used <= 1000


async def test_jobs_that_come_while_it_is_throttled_do_not_wake_it(make: Make) -> None:
    world = make(limits=limits(requests_per_minute=1))
    await world.start("first", "second")
    await world.timers.advance(10.0)
    before = world.timers.set_total
    for number in range(500):
        world.submit(number)
    await world.timers.advance(10.0)
    assert world.timers.set_total == before


async def test_while_one_waits_for_tokens_the_most_valuable_of_the_rest_is_next(
    make: Make,
) -> None:
    world = make(limits=limits(tokens_per_minute=250, concurrency=1))
    await world.start("first", "held")
    await world.timers.advance(1.0)
    assert [info.state for info in world.worker.jobs(10)] == [JobState.READY]
    world.submit("low", value=0.0)
    world.submit("new", value=9.0)
    await world.timers.advance(200.0)
    assert world.keys == ["first", "held", "new", "low"]


async def test_a_job_that_expires_while_it_waits_for_tokens_is_dropped(make: Make) -> None:
    world = make(limits=limits(tokens_per_minute=250, concurrency=1))
    await world.start("first")
    world.submit("held", deadline=20.0)
    await world.timers.advance(100.0)
    assert world.keys == ["first"]
    assert world.worker.statistics().dropped[Dropped.EXPIRED] == 1


async def test_what_needs_more_tokens_than_a_minute_has_is_dropped_and_said(make: Make) -> None:
    world = make(limits=limits(tokens_per_minute=60))
    await world.start("q")
    record = world.worker.statistics()
    assert record.dropped[Dropped.TOO_LARGE] == 1
    assert "only 60 may be used in a minute" in record.last_error
    assert not world.provider.asked


async def test_a_budget_is_checked_before_each_call_and_charged_with_what_was_used(
    make: Make,
) -> None:
    world = make(budget=BudgetLimits(tokens=500), limits=limits(concurrency=4))
    await world.start(*range(20))
    await world.timers.settle()
    record = world.worker.statistics()
    assert record.budget_dropped_total == record.refusals[Refusal.TOKENS] > 0
    assert record.succeeded_total + record.budget_dropped_total == 20
    assert world.budgets.spent().tokens == 150 * record.succeeded_total <= 500
    world.month = "2026-02"
    world.submit("new month")
    await world.timers.settle()
    assert world.keys[-1] == "new month"


async def test_a_tenant_without_budget_gets_nothing_and_the_others_everything(
    make: Make,
) -> None:
    world = make(tenant_budget=BudgetLimits(cost=0.3), limits=limits(concurrency=1))
    await world.start()
    for number in range(5):
        world.submit(f"a{number}", tenant="a")
        await world.timers.settle()
    world.submit("b", tenant="b")
    await world.timers.settle()
    record = world.worker.statistics()
    assert world.keys == ["a0", "b"]
    assert record.refusals[Refusal.TENANT_COST] == 4
    assert world.ledger == {"a": 150, "b": 150}


async def test_what_the_tenant_s_own_budget_refuses_is_not_even_queued(make: Make) -> None:
    world = make()
    world.refused.add("broke")
    await world.start()
    assert not world.submit("q", tenant="broke")
    assert world.worker.statistics().refusals[Refusal.TENANT] == 1
    assert world.worker.statistics().queued_current == 0


async def test_a_budget_that_ends_while_jobs_wait_drops_them_without_their_prompts(
    make: Make,
) -> None:
    world = make()
    await world.start()
    world.worker.pause()
    for number in range(200):
        world.submit(number)
    built: list[object] = []

    def build(job: Job) -> Prompt:
        built.append(job)
        return prompt_of(job)

    world.prompt = build
    world.refused.add("a")
    world.worker.resume()
    await world.timers.settle()
    assert not built
    assert world.worker.statistics().budget_dropped_total == 200


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"limits": WorkerLimits(tokens_per_minute=500)}, Dropped.TOO_LARGE),
        ({"limits": UNLIMITED, "tenant_budget": BudgetLimits(tokens=500)}, Dropped.BUDGET),
    ],
)
async def test_the_loop_goes_on_while_prompts_are_made_in_vain(
    make: Make, options: dict[str, Any], reason: Dropped
) -> None:
    world = make(**options)
    made: list[int] = []
    turns = 0

    def prompt(job: Job) -> Prompt:
        made.append(turns)
        return Prompt("Answer.", "x" * 4000, Reply, 64)

    world.prompt = prompt
    world.worker.pause()
    await world.start(*range(60))
    world.worker.resume()
    while world.worker.statistics().queued_current:
        await asyncio.sleep(0)
        turns += 1
    assert world.worker.statistics().dropped[reason] == 60
    # A prompt of 4,000 characters takes up to a millisecond to make and to count.
    assert max(Counter(made).values()) <= 2


async def test_a_job_that_has_nothing_left_to_ask_is_withdrawn(make: Make) -> None:
    world = make()
    world.prompt = lambda job: None if job.key == "gone" else prompt_of(job)
    await world.start("gone", "here")
    assert world.keys == ["here"]
    assert world.worker.statistics().dropped[Dropped.WITHDRAWN] == 1


async def test_overload_and_duplicates_are_counted_and_nothing_is_raised(make: Make) -> None:
    world = make(limits=limits(max_queued=10))
    await world.start()
    world.worker.pause()
    accepted = [world.submit(number % 30, value=number) for number in range(60)]
    record = world.worker.statistics()
    assert accepted.count(True) >= 10
    assert record.queued_current == 10
    assert record.submitted_total == 60 == record.queued_current + record.dropped_total
    assert record.dropped[Dropped.OVERLOAD] > 0


async def test_jobs_are_listed_without_what_they_ask(make: Make) -> None:
    world = make(Hang(), limits=limits(concurrency=1))
    await world.start("running")
    world.clock.advance(2.0)
    world.submit("low", tenant="b", value=1.0)
    world.submit("high", tenant="c", value=5.0, kind=JobKind.VERIFY)
    world.clock.advance(1.0)
    infos = world.worker.jobs(10)
    assert [(info.state, info.tenant, info.age_s, info.attempts) for info in infos] == [
        (JobState.RUNNING, "a", 3.0, 1),
        (JobState.WAITING, "c", 1.0, 0),
        (JobState.WAITING, "b", 1.0, 0),
    ]
    assert infos[1].kind is JobKind.VERIFY
    assert "high" not in repr(infos)
    assert len(world.worker.jobs(2)) == 2
    assert world.worker.jobs(0) == []


async def test_an_impossible_job_is_refused_wherever_it_stands(make: Make) -> None:
    world = make()
    await world.start()
    with pytest.raises(ValueError, match="no job is worth"):
        world.submit("q", value=math.nan)


async def test_what_thinking_takes_is_reserved_too(make: Make) -> None:
    world = make(limits=limits(tokens_per_minute=2000, thinking_tokens=5000))
    await world.start("q")
    assert world.worker.statistics().dropped[Dropped.TOO_LARGE] == 1


async def test_statistics_account_for_every_job_submitted(make: Make) -> None:
    world = make(limits=limits(requests_per_minute=7, max_queued=20, concurrency=3))
    await world.start()
    for number in range(100):
        world.submit(number % 70, tenant=f"t{number % 5}", deadline=3.0 + number)
        if number % 10 == 0:
            await world.timers.advance(5.0)
        record = world.worker.statistics()
        ended = record.succeeded_total + record.failed_total + record.dropped_total
        assert record.submitted_total == number + 1
        assert record.submitted_total == ended + record.queued_current + record.running_current
    await world.timers.advance(1000.0)
    by_kind = world.worker.statistics().by_kind[JobKind.CANONICAL]
    assert by_kind.submitted_total == by_kind.succeeded_total + by_kind.dropped_total == 100


async def test_the_defaults_are_a_worker_too(make: Make) -> None:
    world = make(limits=WorkerLimits())
    await world.start("q")
    assert world.keys == ["q"]
