from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest

from pyrope.embed.embedder import Embedded, EmbedderError, Failure
from pyrope.embed.embedding import Embedding, EmbeddingLimits
from pyrope.embed.text_cache import TextCache
from pyrope.errors import BusyError, CommandError
from pyrope.testing.clock import ManualClock

_LIMITS = EmbeddingLimits(queued_texts=100, batch_texts=4, batch_bytes=1000, attempts=3)


class Bench:
    """An embedder whose calls are answered by hand.

    Attributes:
        calls: texts of each call, in order.
    """

    name = "bench"
    dim = 2
    batch_texts = 100
    identity = "bench:m:2"

    def __init__(self, parallel: int = 1) -> None:
        self.parallel = parallel
        self.calls: list[list[str]] = []
        self.closed = 0
        self._answers: list[asyncio.Future[Embedded]] = []

    async def start(self) -> None:
        """There is nothing to start."""

    def embed_now(self, text: str) -> Embedded | None:
        if not text.startswith("now"):
            return None
        return Embedded(np.array([vector(text[3:])], np.float32), [len(text)])

    async def embed(self, texts: Sequence[str]) -> Embedded:
        self.calls.append(list(texts))
        self._answers.append(asyncio.get_running_loop().create_future())
        return await self._answers[-1]

    async def close(self) -> None:
        self.closed += 1

    async def answer(self, call: int, failure: EmbedderError | None = None) -> None:
        """Let a call end, and what follows it happen."""
        if failure is not None:
            self._answers[call].set_exception(failure)
        else:
            texts = self.calls[call]
            rows = np.array([vector(text) for text in texts], np.float32)
            self._answers[call].set_result(Embedded(rows, [len(text) for text in texts]))
        await turns()


class World:
    """An embedding on a bench, with a clock that is moved by its pauses only."""

    def __init__(self, parallel: int = 1, limits: EmbeddingLimits = _LIMITS) -> None:
        self.clock = ManualClock()
        self.bench = Bench(parallel)
        self.pauses: list[float] = []
        self.embedding = Embedding(
            self.bench,
            limits,
            cache=TextCache(100_000),
            clock=self.clock,
            sleep=self._pause,
            random=Random(1),
        )

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)

    def submit(
        self, text: str, tenant: str = "acme", timeout_s: float = 60, **options: Any
    ) -> asyncio.Future[bytes]:
        return self.embedding.submit(tenant, text, timeout_s, **options)


def vector(text: str) -> list[float]:
    if text == "nothing":
        return [0.0, 0.0]
    return [1.0, 0.0] if len(text) % 2 else [0.0, 1.0]


def blob(text: str) -> bytes:
    return np.array(vector(text), "<f4").tobytes()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


# -- batches ---------------------------------------------------------------------------------------


@in_loop
async def test_what_comes_in_one_turn_shares_a_call() -> None:
    world = World()
    waiting = [world.submit(text) for text in ("a", "bb", "c")]
    await turns()
    assert world.bench.calls == [["a", "bb", "c"]]
    await world.bench.answer(0)
    assert [each.result() for each in waiting] == [blob("a"), blob("bb"), blob("c")]


@in_loop
async def test_what_comes_while_a_call_runs_forms_the_next_one() -> None:
    world = World()
    world.submit("a")
    await turns()
    later = [world.submit(text) for text in ("b", "c", "d", "e", "f")]
    await turns()
    assert world.bench.calls == [["a"]]
    assert world.embedding.statistics().queued_current == 5
    await world.bench.answer(0)
    assert world.bench.calls[1:] == [["b", "c", "d", "e"]]
    await world.bench.answer(1)
    assert world.bench.calls[2:] == [["f"]]
    await world.bench.answer(2)
    assert all(each.done() for each in later)
    assert world.embedding.statistics().queued_current == 0


@in_loop
async def test_as_many_calls_run_as_the_embedder_takes() -> None:
    world = World(parallel=2)
    for number in range(12):
        world.submit(f"{number}")
    await turns()
    assert len(world.bench.calls) == world.embedding.statistics().calls_running_current == 2
    await world.bench.answer(1)
    assert len(world.bench.calls) == 3


@in_loop
async def test_a_call_holds_so_many_bytes_or_one_text() -> None:
    world = World()
    for text in ("a" * 600, "b" * 500, "c" * 2000, "d", "e"):
        world.submit(text)
    for call, first in enumerate("abcd"):
        await turns()
        assert world.bench.calls[call][0][0] == first
        await world.bench.answer(call)
    assert world.bench.calls[3] == ["d", "e"]


@in_loop
async def test_tenants_take_turns() -> None:
    world = World()
    world.submit("first")
    await turns()
    for number in range(8):
        world.submit(f"greedy {number}", "greedy")
    world.submit("modest 0", "modest")
    world.submit("modest 1", "modest")
    await world.bench.answer(0)
    assert world.bench.calls[1] == ["greedy 0", "modest 0", "greedy 1", "modest 1"]


@in_loop
async def test_what_nobody_waits_for_any_more_is_not_sent() -> None:
    world = World()
    world.submit("first")
    await turns()
    gone, stays = world.submit("gone"), world.submit("stays")
    gone.cancel()
    await world.bench.answer(0)
    assert world.bench.calls[1] == ["stays"]
    await world.bench.answer(1)
    assert stays.done()
    again = world.submit("gone")
    await turns()
    await world.bench.answer(2)
    assert again.result() == blob("gone")


@in_loop
async def test_what_is_embedded_at_once_is_counted_paid_and_kept() -> None:
    world = World()
    paid: list[int] = []
    assert world.embedding.embed_now("acme", "later", paid.append) is None
    assert world.embedding.embed_now("acme", "now a", paid.append) == blob(" a")
    with pytest.raises(CommandError, match="no vector of this text"):
        world.embedding.embed_now("acme", "nownothing", paid.append)
    assert world.embedding.find("acme", b"now a") == blob(" a")
    assert world.embedding.find("acme", b"nownothing") is None
    assert paid == [5, 10]
    found = world.embedding.statistics()
    assert (found.texts_total, found.tokens_total, found.calls_total) == (2, 15, 2)
    assert world.bench.calls == []


# -- the same text ---------------------------------------------------------------------------------


@in_loop
async def test_equal_texts_of_a_tenant_are_sent_once_and_paid_once() -> None:
    world = World()
    paid: list[int] = []
    first = world.submit("same", charge=paid.append)
    second = world.submit("same", charge=paid.append)
    await turns()
    third = world.submit("same", charge=paid.append)
    other = world.submit("same", "other", charge=paid.append)
    await turns()
    assert world.bench.calls == [["same"]]
    await world.bench.answer(0)
    assert first.result() == second.result() == third.result() == blob("same")
    assert paid == [4]
    assert not other.done()
    await world.bench.answer(1)
    assert paid == [4, 4]
    assert world.embedding.statistics().shared_total == 2


@in_loop
async def test_one_who_gives_up_takes_nothing_from_the_others() -> None:
    world = World()
    first, second = world.submit("same"), world.submit("same")
    await turns()
    first.cancel()
    await world.bench.answer(0)
    assert second.result() == blob("same")


@in_loop
async def test_what_was_embedded_is_kept_even_if_nobody_waited_for_the_end() -> None:
    world = World()
    paid: list[int] = []
    waiting = world.submit("text", charge=paid.append)
    await turns()
    waiting.cancel()
    await world.bench.answer(0)
    assert world.embedding.find("acme", b"text") == blob("text")
    assert world.embedding.find("other", b"text") is None
    assert paid == [4]


# -- limits ----------------------------------------------------------------------------------------


@in_loop
async def test_one_text_more_than_may_wait_is_refused_for_that_tenant_alone() -> None:
    world = World(limits=EmbeddingLimits(2, 1, 1000, 1))
    waiting = [world.submit("a"), world.submit("b")]
    with pytest.raises(BusyError, match="2 texts wait for the embedder bench"):
        world.submit("c")
    waiting.append(world.submit("a"))  # it is under way already
    waiting.append(world.submit("c", "other"))
    for call in range(3):
        await turns()
        await world.bench.answer(call)
    assert all(each.done() for each in waiting)
    world.submit("c")
    assert world.embedding.statistics().shed_total == 1


@in_loop
async def test_nobody_waits_longer_than_they_have_said() -> None:
    world = World()
    waiting = world.submit("slow", timeout_s=0.01)
    with pytest.raises(BusyError, match=r"^timeout$"):
        await waiting
    assert world.bench.calls == [["slow"]]
    await world.bench.answer(0)
    assert world.embedding.find("acme", b"slow") == blob("slow")


# -- failures --------------------------------------------------------------------------------------


@in_loop
async def test_what_passes_is_tried_again_after_a_pause() -> None:
    world = World()
    waiting = world.submit("text")
    await turns()
    await world.bench.answer(0, EmbedderError(Failure.UNAVAILABLE, "HTTP 503"))
    await world.bench.answer(1, EmbedderError(Failure.THROTTLED, "HTTP 429", retry_after_s=7))
    await world.bench.answer(2)
    assert waiting.result() == blob("text")
    assert 0 <= world.pauses[0] <= 0.1
    assert 7 <= world.pauses[1] <= 7.2
    found = world.embedding.statistics()
    assert (found.calls_total, found.retries_total, found.last_error) == (3, 2, "HTTP 429")


@in_loop
async def test_attempts_are_counted_and_end() -> None:
    world = World()
    waiting = world.submit("text")
    await turns()
    for call in range(3):
        await world.bench.answer(call, EmbedderError(Failure.UNAVAILABLE, "HTTP 503"))
    with pytest.raises(BusyError, match=r"the embedder bench is not reachable: HTTP 503; retry"):
        waiting.result()
    assert len(world.bench.calls) == 3
    assert world.embedding.statistics().failed_total == 1


@in_loop
async def test_a_pause_that_is_longer_than_anybody_waits_is_not_begun() -> None:
    world = World()
    waiting = [world.submit("a", timeout_s=20), world.submit("b", timeout_s=10)]
    await turns()
    await world.bench.answer(
        0, EmbedderError(Failure.THROTTLED, "it is asked too often", retry_after_s=30)
    )
    for each in waiting:
        with pytest.raises(BusyError, match="retry with backoff after 30 s"):
            each.result()
    assert world.pauses == []


@in_loop
async def test_when_all_have_given_up_nothing_is_tried_again() -> None:
    world = World()
    waiting = world.submit("text")
    await turns()
    waiting.cancel()
    await world.bench.answer(0, EmbedderError(Failure.UNAVAILABLE, "HTTP 503"))
    assert len(world.bench.calls) == 1
    assert world.embedding.statistics().calls_running_current == 0


@pytest.mark.parametrize(
    "failure", [Failure.UNAUTHORISED, Failure.UNKNOWN, Failure.MALFORMED, Failure.REFUSED]
)
def test_what_does_not_pass_is_not_tried_again(failure: Failure) -> None:
    async def test() -> None:
        world = World()
        waiting = world.submit("text")
        await turns()
        await world.bench.answer(0, EmbedderError(failure, "no"))
        with pytest.raises(CommandError, match="the embedder bench cannot do this: no"):
            waiting.result()
        assert len(world.bench.calls) == 1

    asyncio.run(test())


@in_loop
async def test_a_text_that_is_refused_spoils_no_other() -> None:
    world = World()
    waiting = {text: world.submit(text) for text in ("a", "b", "bad", "d")}
    call = 0
    while not all(each.done() for each in waiting.values()):
        await turns()
        refused = "bad" in world.bench.calls[call]
        error = EmbedderError(Failure.REFUSED, "HTTP 400") if refused else None
        await world.bench.answer(call, error)
        call += 1
    assert call == 5  # four, two and two, one and one
    with pytest.raises(CommandError, match="HTTP 400"):
        waiting.pop("bad").result()
    for text, each in waiting.items():
        assert each.result() == blob(text)


@in_loop
async def test_a_text_of_which_nothing_can_be_made_is_refused_and_not_kept() -> None:
    world = World()
    waiting = [world.submit("nothing"), world.submit("text")]
    await turns()
    await world.bench.answer(0)
    with pytest.raises(CommandError, match="no vector of this text"):
        waiting[0].result()
    assert waiting[1].result() == blob("text")
    assert world.embedding.find("acme", b"nothing") is None


# -- the end ---------------------------------------------------------------------------------------


@in_loop
async def test_stopping_tells_everybody_and_leaves_no_task() -> None:
    world = World()
    running = world.submit("running")
    await turns()
    queued = [world.submit(f"{number}") for number in range(10)]
    await world.embedding.stop()
    for each in (running, *queued):
        with pytest.raises(BusyError, match="the server is stopping"):
            each.result()
    with pytest.raises(BusyError, match="the server is stopping"):
        world.submit("late")
    await world.embedding.stop()
    assert world.bench.closed == 2
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_loop
async def test_stopping_ends_a_pause() -> None:
    world = World()
    forever = asyncio.Event()
    embedding = Embedding(
        world.bench,
        _LIMITS,
        cache=TextCache(0),
        clock=world.clock,
        sleep=lambda _seconds: _forever(forever),
        random=Random(1),
    )
    waiting = embedding.submit("acme", "text", 60)
    await turns()
    await world.bench.answer(0, EmbedderError(Failure.UNAVAILABLE, "HTTP 503"))
    await asyncio.wait_for(embedding.stop(), 2)
    with pytest.raises(BusyError, match="stopping"):
        waiting.result()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def _forever(event: asyncio.Event) -> None:
    await event.wait()
