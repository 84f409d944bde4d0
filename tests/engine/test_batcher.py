"""Natural batching."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrope.engine.batcher import Batcher, Piece


@dataclass(eq=False)
class Request:
    client: Hashable
    value: int
    weight: int = 1
    future: asyncio.Future[Any] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    answered: list[int] = field(default_factory=list)

    def done(self) -> bool:
        return self.future.done()

    def set_exception(self, error: BaseException) -> None:
        self.future.set_exception(error)


class Harness:
    """A batcher whose batches end when the test says so."""

    def __init__(
        self, *, parallel: int = 1, threads: int | None = None, batch_max: int = 64
    ) -> None:
        self.batches: list[list[Piece[Request]]] = []
        self.ends: list[Callable[[Any, BaseException | None], None]] = []
        self.batcher: Batcher[Request, int] = Batcher(
            run=self.run,
            work=self.work,
            deliver=self.deliver,
            threads=threads or parallel,
            parallel=parallel,
            room=lambda: batch_max,
        )

    def run(
        self,
        work: Callable[..., Any],
        args: tuple[Any, ...],
        done: Callable[[Any, BaseException | None], None],
    ) -> None:
        assert work == self.work
        self.batches.append(args[0])
        self.ends.append(done)

    def work(self, batch: list[Piece[Request]]) -> Sequence[int | BaseException]:
        return [piece.request.value * 10 for piece in batch]

    def deliver(self, piece: Piece[Request], answer: int) -> None:
        piece.request.answered += range(piece.start, piece.stop)
        if len(piece.request.answered) == piece.request.weight:
            piece.request.future.set_result(answer)

    def end(self, number: int) -> None:
        self.ends[number](self.work(self.batches[number]), None)

    def submit(self, client: str, *values: int, weight: int = 1) -> list[Request]:
        requests = [Request(client, value, weight) for value in values]
        for request in requests:
            self.batcher.submit(request)
        return requests

    def values(self) -> list[list[int]]:
        return [[piece.request.value for piece in batch] for batch in self.batches]

    def weights(self) -> list[int]:
        """Queries in each batch."""
        return [sum(piece.stop - piece.start for piece in batch) for batch in self.batches]


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


async def test_batches_that_only_wait_for_a_thread_do_not_make_the_others_smaller() -> None:
    harness = Harness(parallel=4, threads=2)
    harness.submit("a", *range(8))
    await settle()
    assert harness.weights() == [4, 4]
    harness.submit("a", *range(6))
    await settle()
    assert harness.weights() == [4, 4, 3, 3]


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
    harness.ends[0](None, ValueError("engine"))
    with pytest.raises(ValueError, match="engine"):
        await failing.future
    await settle()
    harness.end(1)
    assert await following.future == 20


async def test_an_answer_that_is_an_exception_reaches_only_its_own_request() -> None:
    harness = Harness()
    failing, fine = harness.submit("a", 1, 2)
    await settle()
    harness.ends[0]([ValueError("mine"), 20], None)
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


async def test_a_request_of_many_queries_goes_out_in_pieces_that_cover_it() -> None:
    harness = Harness(parallel=2, batch_max=16)
    (request,) = harness.submit("a", 7, weight=50)
    await settle()
    assert harness.weights() == [16, 16]  # in both threads at once
    for number in range(4):
        assert harness.batcher.queued == max(
            0, 50 - harness.batcher.statistics().batches_total * 16
        )
        harness.end(number)
        await settle()
    assert sorted(request.answered) == list(range(50))
    assert await request.future == 70
    assert harness.batcher.statistics().requests_total == 1


async def test_a_request_of_many_queries_leaves_room_for_the_turns_of_others() -> None:
    harness = Harness(batch_max=8)
    harness.submit("many", 1, weight=1000)
    await settle()
    singles = [request for client in "abc" for request in harness.submit(client, 2)]
    harness.end(0)
    await settle()
    assert sorted(harness.values()[1])[-3:] == [2, 2, 2]
    assert harness.weights()[1] == 8  # nothing is left empty either
    harness.end(1)
    assert all(request.future.done() for request in singles)


async def test_two_requests_of_many_queries_share_a_batch_evenly() -> None:
    harness = Harness(batch_max=8)
    harness.submit("a", 1, weight=100)
    harness.submit("b", 2, weight=100)
    await settle()
    sizes = [(piece.request.value, piece.stop - piece.start) for piece in harness.batches[0]]
    assert sizes == [(1, 4), (2, 4)]


async def test_what_has_not_started_of_a_cancelled_request_is_dropped() -> None:
    harness = Harness(batch_max=8)
    (gone,) = harness.submit("a", 1, weight=100)
    await settle()
    (stays,) = harness.submit("a", 2)
    gone.future.cancel()
    harness.end(0)
    await settle()
    assert harness.values() == [[1], [2]]
    assert harness.batcher.queued == 0
    harness.end(1)
    assert await stays.future == 20


async def test_a_request_that_fails_in_part_fails_once_and_is_not_gone_on_with() -> None:
    harness = Harness(parallel=2, batch_max=8)
    (failing,) = harness.submit("a", 1, weight=100)
    await settle()
    harness.ends[0]([ValueError("part")], None)
    await settle()
    harness.end(1)
    await settle()
    assert harness.weights() == [8, 8]
    assert harness.batcher.queued == 0
    with pytest.raises(ValueError, match="part"):
        await failing.future


async def test_failing_what_is_queued_fails_a_request_that_has_started_in_part() -> None:
    harness = Harness(batch_max=8)
    (started,) = harness.submit("a", 1, weight=100)
    await settle()
    harness.batcher.fail_queued(KeyError("dropped"))
    with pytest.raises(KeyError):
        await started.future
    harness.end(0)
    await settle()
    assert harness.weights() == [8]
    assert not harness.batcher.busy


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40)), max_size=12),
    st.integers(1, 16),
    st.integers(1, 3),
)
def test_every_query_is_answered_once_whatever_comes_in(
    arrivals: list[tuple[str, int]], batch_max: int, parallel: int
) -> None:
    async def check() -> None:
        harness = Harness(parallel=parallel, batch_max=batch_max)
        requests = [harness.submit(client, 1, weight=n)[0] for client, n in arrivals]
        await settle()
        ended = 0
        while ended < len(harness.batches):
            assert len(harness.batches) - ended <= parallel
            harness.end(ended)
            ended += 1
        assert all(sorted(r.answered) == list(range(r.weight)) for r in requests)
        assert max(harness.weights(), default=0) <= batch_max
        assert harness.batcher.statistics().requests_total == len(requests)
        assert not harness.batcher.busy

    asyncio.run(check())


async def test_the_room_of_a_batch_is_asked_for_when_it_goes_out() -> None:
    harness = Harness(batch_max=8)
    rooms = [3, 5, 2]
    harness.batcher._room = lambda: rooms.pop(0)
    harness.submit("a", *range(20))
    await settle()
    for number in range(2):
        harness.end(number)
        await settle()
    assert harness.weights() == [3, 5, 2]
