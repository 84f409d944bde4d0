"""Natural batching."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from pyrope.engine.batcher import Batcher


@dataclass(eq=False)
class Request:
    client: Hashable
    value: int
    future: asyncio.Future[Any] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Harness:
    """A batcher whose batches end when the test says so."""

    def __init__(self, *, parallel: int = 1, batch_max: int = 64) -> None:
        self.batches: list[list[Request]] = []
        self.ends: list[asyncio.Future[Any]] = []
        self.batcher: Batcher[Request, int] = Batcher(
            run=self.run,
            work=self.work,
            deliver=lambda request, answer: request.future.set_result(answer),
            parallel=parallel,
            batch_max=batch_max,
        )

    def run(self, work: Callable[[list[Request]], Any], batch: list[Request]) -> Any:
        self.batches.append(batch)
        end = asyncio.get_running_loop().create_future()
        self.ends.append(end)
        return end

    def work(self, batch: list[Request]) -> Sequence[int | BaseException]:
        return [request.value * 10 for request in batch]

    def end(self, number: int) -> None:
        self.ends[number].set_result(self.work(self.batches[number]))

    def submit(self, client: str, *values: int) -> list[Request]:
        requests = [Request(client, value) for value in values]
        for request in requests:
            self.batcher.submit(request)
        return requests

    def values(self) -> list[list[int]]:
        return [[request.value for request in batch] for batch in self.batches]


async def settle() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def test_requests_of_one_turn_of_the_loop_share_a_batch() -> None:
    harness = Harness()
    requests = harness.submit("a", 1) + harness.submit("b", 2)
    await settle()
    assert harness.values() == [[1, 2]]
    harness.end(0)
    assert await asyncio.gather(*(request.future for request in requests)) == [10, 20]


async def test_requests_that_arrive_while_a_batch_is_in_flight_form_the_next_one() -> None:
    harness = Harness()
    harness.submit("a", 1)
    await settle()
    harness.submit("a", 2)
    harness.submit("b", 3)
    await settle()
    assert harness.values() == [[1]]
    harness.end(0)
    await settle()
    assert harness.values() == [[1], [2, 3]]


async def test_a_batch_is_split_evenly_over_free_threads() -> None:
    harness = Harness(parallel=2)
    harness.submit("a", *range(7))
    await settle()
    assert [len(batch) for batch in harness.batches] == [4, 3]


async def test_a_batch_never_exceeds_its_limit() -> None:
    harness = Harness(batch_max=3)
    harness.submit("a", *range(8))
    await settle()
    assert harness.values() == [[0, 1, 2]]
    harness.end(0)
    await settle()
    assert harness.values()[1] == [3, 4, 5]


async def test_clients_take_turns_so_that_a_long_pipeline_does_not_hold_up_a_single_request() -> (
    None
):
    harness = Harness(batch_max=4)
    harness.submit("flood", *range(100))
    harness.submit("single", 1000)
    await settle()
    assert harness.values() == [[0, 1000, 1, 2]]


async def test_a_cancelled_request_is_dropped_before_it_starts() -> None:
    harness = Harness()
    harness.submit("a", 1)
    await settle()
    gone, stays = harness.submit("b", 2, 3)
    gone.future.cancel()
    harness.end(0)
    await settle()
    assert harness.values() == [[1], [3]]
    harness.end(1)
    assert await stays.future == 30


async def test_a_request_cancelled_in_flight_does_not_disturb_the_others() -> None:
    harness = Harness()
    gone, stays = harness.submit("a", 1, 2)
    await settle()
    gone.future.cancel()
    harness.end(0)
    assert await stays.future == 20


async def test_a_failing_batch_fails_its_requests_and_the_next_batch_goes_on() -> None:
    harness = Harness()
    (failing,) = harness.submit("a", 1)
    await settle()
    (following,) = harness.submit("a", 2)
    harness.ends[0].set_exception(ValueError("engine"))
    with pytest.raises(ValueError, match="engine"):
        await failing.future
    await settle()
    harness.end(1)
    assert await following.future == 20


async def test_an_answer_that_is_an_exception_reaches_only_its_own_request() -> None:
    harness = Harness()
    failing, fine = harness.submit("a", 1, 2)
    await settle()
    harness.ends[0].set_result([ValueError("mine"), 20])
    with pytest.raises(ValueError, match="mine"):
        await failing.future
    assert await fine.future == 20


async def test_nothing_starts_while_a_writer_has_the_index_and_everything_after() -> None:
    harness = Harness(parallel=2)
    await harness.batcher.gate.enter_exclusive()
    harness.submit("a", 1, 2)
    await settle()
    assert harness.batches == []
    harness.batcher.gate.leave_exclusive()
    await settle()
    assert harness.values() == [[1], [2]]


async def test_failing_what_is_queued_leaves_what_is_running_alone() -> None:
    harness = Harness()
    (running,) = harness.submit("a", 1)
    await settle()
    (queued,) = harness.submit("a", 2)
    harness.batcher.fail_queued(KeyError("dropped"))
    with pytest.raises(KeyError):
        await queued.future
    harness.end(0)
    assert await running.future == 10
    assert harness.batcher.statistics().queued_current == 0


async def test_statistics_count_what_is_queued_running_and_done() -> None:
    harness = Harness()
    harness.submit("a", 1)
    await settle()
    harness.submit("a", 2, 3)
    seen = harness.batcher.statistics()
    assert (seen.queued_current, seen.batches_running_current) == (2, 1)
    assert (seen.batches_total, seen.requests_total) == (1, 1)
