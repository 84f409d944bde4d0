"""Functions with a memory, against a real server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyrope.client import Client
from pyrope.integrations import RememberOptions, ResponseCache
from pyrope.integrations.function import remembered
from servers import RunningServer, free_port

INDEX = "answers"
NEAR = ("How do I reset my password?", "How can I reset my password?")


@pytest.fixture
async def acache(memory: Client[str], server: RunningServer) -> AsyncIterator[ResponseCache]:
    assert memory.list() == [INDEX]
    async with ResponseCache(INDEX, RememberOptions(threshold=0.9), port=server.port) as cache:
        yield cache


def answering(cache: ResponseCache, **options: Any) -> tuple[Callable[..., Any], list[str]]:
    """A function with a memory, and what it was called with."""
    calls: list[str] = []

    @remembered(cache, "{question}", **options)
    def answer(question: str, language: str = "en", *, verbose: Any = None) -> Any:
        calls.append(question)
        return {"text": f"{language} {verbose} #{len(calls)}"}

    return answer, calls


def test_a_function_is_called_once_for_what_means_the_same(cache: ResponseCache) -> None:
    answer, calls = answering(cache)
    assert answer(NEAR[0]) == answer(NEAR[0], "en") == answer(question=NEAR[1], language="en")
    assert calls == [NEAR[0]]
    assert answer.__name__ == "answer"


def test_arguments_beside_the_prompt_keep_results_apart(cache: ResponseCache) -> None:
    answer, calls = answering(cache)
    for given in ({}, {"language": "de"}, {"verbose": ["a", {"b": 1}]}):
        for _ in range(2):
            answer(NEAR[0], **given)
    assert len(calls) == 3


def test_arguments_that_are_ignored_do_not(cache: ResponseCache) -> None:
    answer, calls = answering(cache, ignore=["verbose", "language"])
    assert answer(NEAR[0]) == answer(NEAR[0], "de", verbose=object())
    assert len(calls) == 1


def test_arguments_that_cannot_be_compared_leave_it_to_the_function(
    cache: ResponseCache, caplog: pytest.LogCaptureFixture
) -> None:
    answer, calls = answering(cache)
    for _ in range(2):
        answer(NEAR[0], verbose=object())
    assert len(calls) == 2
    assert "object in it cannot be compared" in caplog.text


def test_functions_do_not_answer_for_one_another(cache: ResponseCache) -> None:
    @remembered(cache, "{question}")
    def first(question: str) -> str:
        return f"first of {question}"

    @remembered(cache, "{question}", name="shared")
    def second(question: str) -> str:
        return f"second of {question}"

    @remembered(cache, "{question}", name="shared")
    def third(question: str) -> str:
        return f"third of {question}"

    told = [function(NEAR[0]) for function in (first, second, third)]
    assert told == [f"first of {NEAR[0]}", f"second of {NEAR[0]}", f"second of {NEAR[0]}"]


def test_prompts_are_made_of_several_arguments_and_their_parts(cache: ResponseCache) -> None:
    calls = []

    @remembered(cache, "{place.real:.0f} and {names[0]}")
    def visit(place: complex, names: list[str]) -> int:
        calls.append(place)
        return len(calls)

    assert visit(1 + 2j, ["a"]) == visit(1 + 3j, ["a", "b"]) == 1
    assert visit(5 + 2j, ["a"]) == 2
    # A template that does not fit: the function sees to it.
    assert visit(5 + 2j, []) == 3


@pytest.mark.parametrize(
    "result",
    [None, {1, 2}, (1, 2), {"of": [{3: "three"}]}],
    ids=["nothing", "no JSON", "a list in JSON", "keys that are text in JSON"],
)
def test_what_is_not_worth_it_is_not_remembered(cache: ResponseCache, result: Any) -> None:
    calls = []

    @remembered(cache, "{question}")
    def answer(question: str) -> Any:
        calls.append(question)
        return result

    for _ in range(2):
        assert answer(NEAR[0]) == result
    assert len(calls) == 2


def test_it_is_for_the_caller_to_say_what_is_worth_it(cache: ResponseCache) -> None:
    answers = iter(["cut o…", "whole", "unread"])

    @remembered(cache, "{q}", accept=lambda told: not told.endswith("…"), dumps=str, loads=str)
    def answer(q: str) -> str:
        return next(answers)

    assert [answer(NEAR[0]) for _ in range(3)] == ["cut o…", "whole", "whole"]


def test_what_cannot_be_read_is_made_anew(
    cache: ResponseCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pyrope.integrations")
    answers = iter(range(5))

    @remembered(cache, "{q}", dumps=lambda told: f"<{told}>")
    def answer(q: str) -> int:
        return next(answers)

    assert [answer(NEAR[0]) for _ in range(2)] == [0, 1]
    assert "cannot be read" in caplog.text


def test_errors_are_raised_and_not_remembered(cache: ResponseCache) -> None:
    answers: Iterator[Any] = iter([ValueError("no"), "yes"])

    @remembered(cache, "{q}")
    def answer(q: str) -> str:
        told = next(answers)
        if isinstance(told, Exception):
            raise told
        return str(told)

    with pytest.raises(ValueError, match="no"):
        answer(NEAR[0])
    assert [answer(NEAR[0]) for _ in range(2)] == ["yes", "yes"]
    with pytest.raises(TypeError, match="argument"):
        answer(NEAR[0], 3)  # type: ignore[call-arg]


def test_a_function_may_call_another_and_itself(cache: ResponseCache) -> None:
    @remembered(cache, "countdown from {n}")
    def countdown(n: int) -> list[int]:
        return [n, *countdown(n - 1)] if n else [0]

    assert countdown(3) == [3, 2, 1, 0]
    assert countdown(3) == [3, 2, 1, 0]


def test_threads_call_it_once(cache: ResponseCache) -> None:
    answer, calls = answering(cache)
    with ThreadPoolExecutor(20) as threads:
        list(threads.map(answer, [NEAR[0]] * 20))
    assert len(calls) == 1


async def test_coroutines_are_called_once(acache: ResponseCache) -> None:
    calls: list[str] = []

    @remembered(acache, "{question}", ignore=["fail"])
    async def answer(question: str, *, fail: bool = False) -> str:
        calls.append(question)
        await asyncio.sleep(0)
        if fail:
            raise ValueError("no")
        return f"#{len(calls)}"

    assert await asyncio.gather(*(answer(NEAR[0]) for _ in range(30))) == ["#1"] * 30
    assert await answer(NEAR[1]) == "#1"
    with pytest.raises(ValueError, match="no"):
        await answer("Why?", fail=True)
    assert [await answer("Why?") for _ in range(2)] == ["#3", "#3"]


async def test_what_a_function_starts_does_not_wait_for_it(acache: ResponseCache) -> None:
    @remembered(acache, "{question}", name="one for both")
    async def answer(question: str) -> list[str]:
        return [question]

    @remembered(acache, "{question}", name="one for both")
    async def plan(question: str) -> list[str]:
        found = await asyncio.gather(*(answer(each) for each in NEAR))
        return [question, *found[0], *found[1]]

    wanted = [NEAR[0], *NEAR]
    assert await asyncio.wait_for(plan(NEAR[0]), 10) == wanted
    assert await answer(NEAR[0]) == wanted


def test_without_a_server_the_function_is_called() -> None:
    with ResponseCache(INDEX, port=free_port()) as cache:
        answer, calls = answering(cache)
        for _ in range(2):
            answer(NEAR[0])
        assert len(calls) == 2


def test_what_cannot_be_remembered_is_refused_at_once(cache: ResponseCache) -> None:
    def generator(question: str) -> Iterator[str]:
        yield question

    async def agenerator(question: str) -> AsyncIterator[str]:
        yield question

    def plain(question: str) -> str:
        return question

    for function in (generator, agenerator):
        with pytest.raises(TypeError, match="a generator is not remembered"):
            remembered(cache, "{question}")(function)
    with pytest.raises(TypeError, match="no parameter 'user'"):
        remembered(cache, "{question} {user}")(plain)
    with pytest.raises(TypeError, match="no parameter 'client'"):
        remembered(cache, "{question}", ignore=["client"])(plain)
    with pytest.raises(TypeError, match="has no parameter in it"):
        remembered(cache, "question")(plain)
