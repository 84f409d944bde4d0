"""What the worker does when something fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from llm_world import GOOD, Hang, Outcome, Reply, World, failing, prompt_of, throttled
from pyrope.llm.budget import BudgetLimits
from pyrope.llm.job import Dropped, Job
from pyrope.llm.provider import Completion, Failure, Prompt, ProviderError
from pyrope.llm.statistics import WorkerState
from pyrope.llm.worker_limits import WorkerLimits

Make = Callable[..., World]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[World] = []

    def build(*script: Outcome, by: Callable[[Prompt], Outcome] | None = None, **changed: float):  # type: ignore[no-untyped-def] # World
        named: dict[str, float] = {"requests_per_minute": 0, "tokens_per_minute": 0, **changed}
        limits = WorkerLimits(**named)  # type: ignore[arg-type] # as the caller says
        made.append(World(*script, by=by, limits=limits))
        return made[-1]

    yield build
    for world in made:
        await world.stop()


async def test_a_failure_that_may_pass_is_tried_again_with_growing_delays(make: Make) -> None:
    world = make(failing(), failing(), failing(), GOOD, backoff_base_s=8.0, max_attempts=5)
    await world.start("q")
    await world.timers.advance(8 + 16 + 32)
    assert world.keys == ["q"]
    first, second, third, fourth = world.provider.times
    assert second - first <= 8.0
    assert third - second <= 16.0
    assert fourth - third <= 32.0
    record = world.worker.statistics()
    assert (record.retried_total, record.succeeded_total, record.failed_total) == (3, 1, 0)
    assert record.last_error == "unavailable: it is unavailable"


async def test_attempts_are_capped(make: Make) -> None:
    world = make(by=lambda _: failing(), max_attempts=3, breaker_failures=100)
    await world.start("q")
    await world.timers.advance(1000.0)
    assert len(world.provider.asked) == 3
    record = world.worker.statistics()
    assert (record.failed_total, record.retried_total) == (1, 2)


@pytest.mark.parametrize(
    "failure", [Failure.REFUSED, Failure.INVALID, Failure.UNAUTHORISED, Failure.MALFORMED]
)
async def test_a_permanent_failure_is_not_tried_again(make: Make, failure: Failure) -> None:
    world = make(failing(failure))
    await world.start("q")
    await world.timers.advance(1000.0)
    assert len(world.provider.asked) == 1
    record = world.worker.statistics()
    assert record.failed_total == 1
    assert record.last_error == f"{failure}: it is {failure}"


async def test_others_go_on_while_one_waits_for_its_next_attempt(make: Make) -> None:
    def by(prompt: Prompt) -> Outcome:
        return failing() if "bad" in prompt.user else GOOD

    world = make(by=by, concurrency=1, breaker_failures=100, backoff_base_s=30.0)
    await world.start()
    world.submit("bad", value=9.0)
    for number in range(10):
        world.submit(number)
    await world.timers.settle()
    assert world.keys == list(range(10))
    assert len(world.provider.asked) == 11


async def test_a_throttled_provider_is_left_alone_until_it_says(make: Make) -> None:
    world = make(throttled(20.0), concurrency=1)
    await world.start(*range(5))
    assert world.worker.state is WorkerState.THROTTLED
    await world.timers.advance(19.9)
    assert len(world.provider.asked) == 1
    await world.timers.advance(5.0)
    assert sorted(map(str, world.keys)) == ["0", "1", "2", "3", "4"]
    assert world.provider.times[1] >= 20.0
    assert world.worker.statistics().rate_limited_total == 1


async def test_an_operator_need_not_wait_for_as_long_as_the_provider_says(make: Make) -> None:
    world = make(throttled(86_400.0), concurrency=1)
    await world.start("first", "second")
    await world.timers.advance(60.0)
    assert len(world.provider.asked) == 1
    world.worker.resume()
    await world.timers.settle()
    assert world.keys == ["second"]


async def test_a_provider_that_throttles_and_says_no_more_is_left_alone_longer_and_longer(
    make: Make,
) -> None:
    world = make(by=lambda _: throttled(), max_attempts=1, concurrency=1, backoff_base_s=4.0)
    await world.start(*range(200))
    await world.timers.advance(600.0)
    # Delays of up to a minute after the first few: 30 s on average, and no more than twice that.
    assert 10 <= len(world.provider.asked) <= 60
    # One timer for each call, one for each rest and a look a second at most.
    assert world.timers.set_total <= 3 * len(world.provider.asked) + 600


async def test_a_throttled_job_does_not_starve_what_is_newer_and_worth_more(make: Make) -> None:
    world = make(throttled(10.0), concurrency=1)
    await world.start("old")
    world.submit("new", value=5.0)
    await world.timers.advance(30.0)
    assert world.keys == ["new", "old"]


async def test_an_unavailable_provider_may_say_when_to_come_back_too(make: Make) -> None:
    world = make(ProviderError(Failure.UNAVAILABLE, "later", retry_after_s=50.0), concurrency=1)
    await world.start(*range(3))
    await world.timers.advance(49.0)
    assert len(world.provider.asked) == 1
    await world.timers.advance(10.0)
    assert len(world.keys) == 3


async def test_a_job_whose_next_attempt_would_be_too_late_is_dropped(make: Make) -> None:
    world = make(throttled(20.0))
    await world.start()
    world.submit("q", deadline=15.0)
    await world.timers.settle()
    record = world.worker.statistics()
    assert (record.dropped[Dropped.EXPIRED], record.retried_total) == (1, 0)


async def test_the_breaker_opens_after_failures_in_a_row_and_probes(make: Make) -> None:
    world = make(
        by=lambda _: failing(),
        breaker_failures=3,
        breaker_probe_s=10.0,
        max_attempts=1,
        concurrency=1,
    )
    await world.start(*range(10))
    assert len(world.provider.asked) == 3
    assert world.worker.state is WorkerState.OPEN
    await world.timers.advance(9.9)
    assert len(world.provider.asked) == 3
    await world.timers.advance(0.2)
    assert len(world.provider.asked) == 4
    # The pause is twice as long now.
    await world.timers.advance(19.5)
    assert len(world.provider.asked) == 4
    world.provider.by = lambda _: GOOD
    await world.timers.advance(1.0)
    assert len(world.delivered) == 6
    assert world.worker.statistics().state is WorkerState.IDLE


async def test_one_call_probes_however_many_may_go_on(make: Make) -> None:
    world = make(by=lambda _: failing(), breaker_failures=1, breaker_probe_s=10.0, concurrency=4)
    await world.start(*range(20))
    world.provider.by = lambda _: Hang()
    before = len(world.provider.asked)
    await world.timers.advance(15.0)
    assert len(world.provider.asked) == before + 1
    assert world.worker.state is WorkerState.OPEN


async def test_a_wrong_key_opens_the_breaker_at_once_and_resume_tries_again(make: Make) -> None:
    world = make(failing(Failure.UNAUTHORISED), concurrency=1)
    await world.start(*range(3))
    assert len(world.provider.asked) == 1
    assert world.worker.state is WorkerState.OPEN
    world.worker.resume()
    await world.timers.settle()
    assert world.keys == [1, 2]


async def test_a_call_that_takes_too_long_is_cancelled_and_has_failed(make: Make) -> None:
    world = make(Hang(), call_s=7.0, max_attempts=1)
    await world.start("q")
    await world.timers.advance(7.0)
    assert world.provider.under_way == 0
    record = world.worker.statistics()
    assert record.failed_total == 1
    assert record.last_error == "unavailable: there was no answer within 7 s"


async def test_what_a_failed_call_has_used_is_charged(make: Make) -> None:
    error = ProviderError(Failure.MALFORMED, "cut off", tokens_in=100, tokens_out=64)
    world = make(error)
    await world.start("q")
    assert world.ledger == {"a": 164}
    assert world.budgets.spent("a").tokens == 164


async def test_nothing_stays_reserved_of_a_budget_when_calls_have_failed(make: Make) -> None:
    world = make(by=lambda _: failing(), max_attempts=2, breaker_failures=100)
    await world.start(*range(10))
    await world.timers.advance(1000.0)
    assert not world.budgets._held.tenants
    assert world.budgets._held.everybody.tokens == 0


async def test_a_malformed_reply_is_sent_back_once_with_what_is_wrong(make: Make) -> None:
    world = make('{"answer": "many"}', GOOD)
    await world.start("q")
    assert world.delivered == [("q", Reply(answer=42))]
    first, second = (prompt for _, prompt in world.provider.asked)
    assert second.user.startswith(first.user)
    said = json.loads(second.user[len(first.user) :])
    assert said["former_reply"] == '{"answer": "many"}'
    assert said["mistakes"][0].startswith("answer: ")
    record = world.worker.statistics()
    assert (record.repaired_total, record.succeeded_total, record.calls_total) == (1, 1, 2)
    assert world.ledger == {"a": 300}


async def test_a_second_malformed_reply_fails_the_job(make: Make) -> None:
    world = make("no", "no again", GOOD)
    await world.start("q")
    await world.timers.advance(1000.0)
    assert len(world.provider.asked) == 2
    record = world.worker.statistics()
    assert record.failed_total == 1
    assert record.last_error.startswith("malformed: the reply is not what its schema says")
    assert world.ledger == {"a": 300}


async def test_a_repair_is_an_attempt_and_passes_the_limits(make: Make) -> None:
    world = make("no", "no", requests_per_minute=1)
    await world.start("q")
    await world.timers.advance(59.0)
    assert len(world.provider.asked) == 1
    assert world.worker.statistics().queued_current == 1
    await world.timers.advance(2.0)
    assert len(world.provider.asked) == 2
    capped = make("no", "no", max_attempts=1)
    await capped.start("q")
    assert len(capped.provider.asked) == 1


async def test_a_repair_beyond_the_budget_is_not_made(make: Make) -> None:
    world = make("no", "no")
    world.budgets._limits = BudgetLimits(tokens=250)
    await world.start("q")
    assert len(world.provider.asked) == 1
    assert world.worker.statistics().budget_dropped_total == 1


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "null",
        "[]" * 10,
        '{"answer": 1, "more": 2}',
        "[" * 60_000,
        '{"answer": ' + "9" * 10_000 + "}",
        '{"answer": 1}' + " " * 70_000,
        "\ud800",
        '{"answer": 1',
    ],
)
async def test_a_hostile_reply_is_a_failure_whose_text_is_not_repeated(
    make: Make, reply: str
) -> None:
    world = make(by=lambda _: Completion(reply, 10, 10))
    await world.start("q")
    record = world.worker.statistics()
    assert (record.failed_total, record.calls_total) == (1, 2)
    assert "more" not in record.last_error or "more than" in record.last_error
    assert len(record.last_error) <= 300
    assert len(world.provider.users[1]) < 5000


async def test_an_outcome_that_nobody_can_use_is_a_failure_and_the_next_one_is_not(
    make: Make,
) -> None:
    def deliver(job: Job) -> None:
        if job.key == "bad":
            raise KeyError("secret text")

    world = make(concurrency=1)
    world.deliver = deliver
    await world.start("bad", "good")
    assert world.keys == ["good"]
    record = world.worker.statistics()
    assert record.failed_total == 1
    assert "KeyError" in record.last_error
    assert "secret" not in record.last_error


async def test_a_question_that_cannot_be_put_is_a_failure_and_the_next_one_is_not(
    make: Make,
) -> None:
    def build(job: Job) -> Prompt:
        if job.key == "bad":
            raise ValueError("secret text")
        return prompt_of(job)

    world = make()
    world.prompt = build
    await world.start("bad", "good")
    assert world.keys == ["good"]
    assert world.worker.statistics().failed_total == 1


@pytest.mark.parametrize("raised", [ZeroDivisionError("secret"), asyncio.CancelledError()])
async def test_a_provider_that_raises_what_it_may_not_stops_nothing(
    make: Make, raised: BaseException
) -> None:
    world = make(raised, max_attempts=1)
    await world.start("bad", "good")
    await world.timers.settle()
    assert world.keys == ["good"]
    record = world.worker.statistics()
    assert record.failed_total == 1
    assert "secret" not in record.last_error


@pytest.mark.parametrize(
    "outcome", [ProviderError(Failure.INVALID, "no client"), OSError("disk"), Hang()]
)
async def test_a_provider_that_cannot_be_started_is_tried_again(
    make: Make, outcome: BaseException | Hang
) -> None:
    world = make(call_s=5.0, breaker_probe_s=10.0)
    world.provider.start_outcomes = [outcome]
    await world.start("q")
    await world.timers.advance(5.5)
    assert world.worker.state is WorkerState.OPEN
    assert world.worker.statistics().last_error
    await world.timers.advance(12.0)
    assert world.keys == ["q"]
    assert world.provider.started == 2
    assert world.worker.statistics().state is WorkerState.IDLE
