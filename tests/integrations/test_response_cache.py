"""What all integrations share, against a real server, by threads and by tasks."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyrope.client import Client
from pyrope.integrations import RememberOptions, ResponseCache, Spent, call_options
from pyrope.integrations.questions import Question, question
from servers import RunningServer, free_port, running_server

INDEX = "answers"


def asked(prompt: str, given: object = None, **scope: str) -> Question:
    found = question(prompt, "tests", given, scope)
    assert found is not None
    return found


@pytest.fixture
def other(memory: Client[str], server: RunningServer) -> Iterator[ResponseCache]:
    """Another process's, as far as the server can tell."""
    assert memory.list() == [INDEX]
    with ResponseCache(INDEX, RememberOptions(threshold=0.9), port=server.port) as cache:
        yield cache


def test_what_was_said_is_said_again(cache: ResponseCache) -> None:
    turn = cache.ask(asked("What is a monoid?"))
    assert (turn.response, turn.is_over) == (None, False)
    cache.remember(turn, "A set …")
    assert turn.is_over
    again = cache.ask(asked("what is  a monoid?"))
    assert (again.response, again.is_over) == ("A set …", True)
    assert again.info is not None
    assert again.info.match == "exact"
    near = cache.ask(asked("What's a monoid?"))
    assert near.response == "A set …"
    assert near.info is not None
    assert near.info.match == "near"


def test_who_gave_something_else_is_answered_otherwise(cache: ResponseCache) -> None:
    cache.remember(cache.ask(asked("Who am I?", {"user": "ann"})), "Ann")
    for one in (asked("Who am I?", {"user": "bob"}), asked("Who am I?", {"user": "ann"}, v="2")):
        turn = cache.ask(one)
        assert turn.response is None
        cache.give_up(turn)
    assert cache.ask(asked("Who am I?", {"user": "ann"})).response == "Ann"


def test_options_of_a_call_are_those_around_it(memory: Client[str], cache: ResponseCache) -> None:
    memory.add(INDEX, "doc", text="a document")
    with call_options(scope={"user": "ann"}, depends_on=(INDEX, ["doc"])):
        with call_options(scope={"app": "faq"}):
            one = asked("Who am I?")
        assert one.scope == asked("Who am I?", app="faq").scope
        cache.remember(cache.ask(one), "Ann")
    assert cache.ask(one).response == "Ann"
    with call_options(enabled=False):
        assert question("Who am I?", "tests", None, {}) is None
    memory.delete(INDEX, "doc")
    turn = cache.ask(one)
    assert turn.response is None
    cache.give_up(turn)
    with pytest.raises(ValueError, match="'via' is taken"), call_options(scope={"via": "x"}):
        raise AssertionError("not reached")
    with pytest.raises(ValueError, match="'request' is taken"):
        RememberOptions(scope={"request": "x"})


def test_blank_prompts_and_no_question_are_left_to_the_model(cache: ResponseCache) -> None:
    assert question(" \n", "tests", None, {}) is None
    turn = cache.ask(None)
    assert (turn.response, turn.is_over) == (None, True)
    cache.remember(turn, "something")
    cache.give_up(turn)


def test_a_cost_is_remembered(memory: Client[str], server: RunningServer) -> None:
    options = RememberOptions(cost=lambda spent: 2.0 * spent.tokens_in + 3.0 * spent.tokens_out)
    with ResponseCache(INDEX, options, port=server.port) as cache:
        cache.remember(cache.ask(asked("a question")), "an answer", Spent("m", 10, 100))
        found = cache.ask(asked("a question")).info
        assert found is not None
        assert found.cost_saved == 320.0
    assert memory.cache.stats(INDEX).remembered["cost_saved"] == 320.0


def test_threads_that_ask_the_same_ask_the_model_once(cache: ResponseCache) -> None:
    calls: list[int] = []
    all_wait = threading.Barrier(40)

    def ask(number: int) -> str:
        all_wait.wait(20)
        with cache.asking(asked("What is a monad?")) as turn:
            if turn.response is None:
                calls.append(number)
                cache.remember(turn, f"by {number}")
                return f"by {number}"
            return turn.response

    with ThreadPoolExecutor(40) as threads:
        told = set(threads.map(ask, range(40)))
    assert len(calls) == 1
    assert told == {f"by {calls[0]}"}


async def test_tasks_that_ask_the_same_ask_the_model_once(
    memory: Client[str], server: RunningServer
) -> None:
    calls: list[int] = []
    assert memory.list() == [INDEX]

    async def ask(cache: ResponseCache, number: int) -> str:
        async with cache.asking_async(asked("What is a monad?")) as turn:
            if turn.response is None:
                calls.append(number)
                await asyncio.sleep(0)
                await cache.remember_async(turn, f"by {number}")
                return f"by {number}"
            return turn.response

    async with ResponseCache(INDEX, port=server.port) as cache:
        told = await asyncio.gather(*(ask(cache, number) for number in range(100)))
    assert len(calls) == 1
    assert set(told) == {f"by {calls[0]}"}


def test_another_process_waits_for_what_this_one_remembers(
    memory: Client[str], cache: ResponseCache, other: ResponseCache
) -> None:
    turn = cache.ask(asked("What is a functor?"))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(other.ask, asked("What's a functor?"))
        wait_until(lambda: memory.cache.stats(INDEX).remembered["lease_callers"] == 1)
        cache.remember(turn, "A map …")
        assert waiting.result(20).response == "A map …"


def test_who_fails_gives_its_turn_to_the_next(
    memory: Client[str], cache: ResponseCache, other: ResponseCache
) -> None:
    turn = cache.ask(asked("What is a functor?"))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(other.ask, asked("What is a functor?"))
        wait_until(lambda: memory.cache.stats(INDEX).remembered["lease_callers"] == 1)
        cache.give_up(turn)
        cache.give_up(turn)
        theirs = waiting.result(20)
    assert (theirs.response, theirs.is_over) == (None, False)
    assert theirs.lease is not None
    other.remember(theirs, "A map …")
    assert cache.ask(asked("What is a functor?")).response == "A map …"
    stats = memory.cache.stats(INDEX).remembered
    assert (stats["leases"], stats["leases_abandoned"], stats["leases_expired"]) == (0, 1, 0)


def test_who_has_a_turn_waits_for_nobody(cache: ResponseCache, other: ResponseCache) -> None:
    first = cache.ask(asked("What is a functor?"))
    # The same caller again: it would wait for itself.
    assert cache.ask(asked("What is a functor?")).is_over
    # And two with a turn each could wait for one another.
    with ThreadPoolExecutor(1) as threads:
        second = threads.submit(other.ask, asked("What is a group?")).result(20)
    third = cache.ask(asked("What is a group?"))
    assert (third.response, third.is_over, third.lease) == (None, True, None)
    cache.remember(third, "A group is …")
    cache.remember(first, "A functor is …")
    other.give_up(second)
    assert other.ask(asked("What is a group?")).response == "A group is …"


def test_without_leases_nobody_waits(memory: Client[str], server: RunningServer) -> None:
    options = RememberOptions(lease_s=0)
    with ResponseCache(INDEX, options, port=server.port) as cache:
        with ThreadPoolExecutor(2) as threads:
            turns = list(threads.map(cache.ask, [asked("a question")] * 2))
        assert [(turn.response, turn.is_over) for turn in turns] == [(None, True)] * 2
        cache.remember(turns[1], "an answer")
        assert cache.ask(asked("a question")).response == "an answer"
    assert memory.cache.stats(INDEX).remembered["leases_granted"] == 0


def test_without_a_server_the_model_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "pyrope.integrations")
    with ResponseCache(INDEX, port=free_port()) as cache:
        for _ in range(3):
            turn = cache.ask(asked("What is a monoid?"))
            assert (turn.response, turn.is_over) == (None, True)
            cache.remember(turn, "A set …")
    # Once it has failed, it is left alone for a while.
    assert len(caplog.records) == 1
    assert "cannot be reached" in caplog.text


async def test_without_a_server_the_model_is_asked_in_an_event_loop() -> None:
    async with ResponseCache(INDEX, port=free_port()) as cache:
        turn = await cache.ask_async(asked("What is a monoid?"))
        assert (turn.response, turn.is_over) == (None, True)
        await cache.remember_async(turn, "A set …")


def test_a_server_that_has_gone_meanwhile_breaks_nothing() -> None:
    with running_server() as server, Client(port=server.port) as client:
        client.create(INDEX, embedder="wordllama")
        cache = ResponseCache(INDEX, port=server.port)
        turn = cache.ask(asked("What is a monoid?"))
        before = turn.is_over
    cache.remember(turn, "A set …")
    assert (before, turn.is_over) == (False, True)
    assert cache.ask(asked("What is a monoid?")).response is None
    cache.close()


def test_what_the_server_refuses_is_logged_and_the_model_asked(
    cache: ResponseCache, server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    with ResponseCache("none", port=server.port) as lost:
        turn = lost.ask(asked("What is a monoid?"))
        assert (turn.response, turn.is_over) == (None, True)
        lost.remember(turn, "A set …")
    assert caplog.text.count("no such index 'none'") == 2
    with call_options(depends_on=(INDEX, ["not there"])):
        one = asked("What is a monoid?")
    turn = cache.ask(one)
    cache.remember(turn, "A set …")
    assert turn.is_over
    turn = cache.ask(one)
    assert turn.response is None
    cache.give_up(turn)
    wrong: Any = {"user": object()}
    turn = cache.ask(asked("What is a monoid?", **wrong))
    assert (turn.response, turn.is_over) == (None, True)


def test_feedback_and_forgetting(cache: ResponseCache) -> None:
    cache.remember(cache.ask(asked("What is a monoid?")), "wrong")
    found = cache.ask(asked("What is a monoid?")).info
    assert found is not None
    assert found.id is not None
    cache.feedback(found.id, good=False)
    turn = cache.ask(asked("What is a monoid?"))
    assert turn.response is None
    cache.remember(turn, "right")
    assert cache.forget(scope={"via": "tests"}) == 1


async def test_feedback_and_forgetting_in_an_event_loop(
    memory: Client[str], server: RunningServer
) -> None:
    assert memory.list() == [INDEX]
    async with ResponseCache(INDEX, port=server.port) as cache:
        await cache.ping_async()
        await cache.remember_async(await cache.ask_async(asked("What is a monoid?")), "wrong")
        found = (await cache.ask_async(asked("What is a monoid?"))).info
        assert found is not None
        assert found.id is not None
        await cache.feedback_async(found.id, good=False)
        turn = await cache.ask_async(asked("What is a monoid?"))
        assert turn.response is None
        await cache.remember_async(turn, "right")
        assert await cache.forget_async(prompt="what is a monoid?") == 1


async def test_a_caller_that_is_cancelled_gives_its_turn_up(
    memory: Client[str], server: RunningServer
) -> None:
    async with ResponseCache(INDEX, port=server.port) as cache:

        async def ask() -> None:
            async with cache.asking_async(asked("What is a monoid?")) as turn:
                assert not turn.is_over
                began.set()
                await asyncio.Event().wait()

        began = asyncio.Event()
        task = asyncio.create_task(ask())
        await began.wait()
        waiting = asyncio.create_task(cache.ask_async(asked("What is a monoid?")))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        turn = await asyncio.wait_for(waiting, 10)
        assert (turn.response, turn.is_over) == (None, False)
        await cache.give_up_async(turn)
        assert memory.cache.stats(INDEX).remembered["lease_callers"] == 0


def test_arguments_that_contradict_one_another_are_refused() -> None:
    with pytest.raises(ValueError, match="timeout_s means nothing here"):
        ResponseCache(INDEX, timeout_s=3)
    with pytest.raises(ValueError, match="mean nothing"):
        ResponseCache(INDEX, url="redis://127.0.0.1", port=3)
    for wrong in (
        {"threshold": 0.9, "max_error": 0.1}, {"threshold": 2.0}, {"max_error": -0.1},
        {"lease_s": -1.0}, {"timeout_s": 0.0}, {"leases": -1}, {"expires_s": 0},
    ):  # fmt: skip
        options: Any = wrong
        with pytest.raises(ValueError, match=r"expected|is a|are not|is 1"):
            RememberOptions(**options)


def wait_until(is_so: Any) -> None:
    """Wait for a state of the server, which has no event for it."""
    waited = threading.Event()
    for _ in range(1000):
        if is_so():
            return
        waited.wait(0.01)
    raise AssertionError("it did not come to that")
