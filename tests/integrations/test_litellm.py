"""LiteLLM's real calls with a memory, against a stand-in of OpenAI's API and a real server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

# Else it asks the network for prices at import.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from litellm.caching.caching import CacheMode
from litellm.exceptions import InternalServerError

from pyrope.client import Client
from pyrope.integrations import RememberOptions, ResponseCache, call_options
from pyrope.integrations.litellm import PyropeCache
from pyrope.testing.provider_servers import (
    Answer,
    Delay,
    OpenAIServer,
    Outcome,
    Problem,
    Refused,
    Script,
    always,
)
from servers import RunningServer, free_port

INDEX = "answers"
NEAR = ("How do I reset my password?", "How can I reset my password?")

pytestmark = [
    # Of the library's own making.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """LiteLLM keeps its cache and callbacks in its module."""
    names = (
        "input_callback", "success_callback", "_async_success_callback", "failure_callback",
        "_async_failure_callback", "callbacks",
    )  # fmt: skip
    before = {name: list(getattr(litellm, name)) for name in names}
    litellm.suppress_debug_info = True
    yield
    litellm.cache = None
    for name, value in before.items():
        setattr(litellm, name, value)


@pytest.fixture
def remembering(cache: ResponseCache) -> PyropeCache:
    litellm.cache = found = PyropeCache(cache)
    return found


@pytest.fixture
async def aremembering(memory: Client[str], server: RunningServer) -> AsyncIterator[PyropeCache]:
    assert memory.list() == [INDEX]
    cache = ResponseCache(INDEX, RememberOptions(threshold=0.9), port=server.port)
    litellm.cache = found = PyropeCache(cache)
    yield found
    await found.disconnect()


def request(provider: OpenAIServer, text: Any, **given: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": text}]
    return {
        "model": "openai/m", "messages": messages, "api_base": provider.base_url, "api_key": "k",
        "max_retries": 0, **given,
    }  # fmt: skip


def ask(provider: OpenAIServer, text: Any, **given: Any) -> Any:
    return litellm.completion(**request(provider, text, **given))


def said(completion: Any) -> Any:
    return completion.choices[0].message.content


def streamed(chunks: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_what_was_asked_is_asked_once(remembering: PyropeCache, provider: OpenAIServer) -> None:
    told = [ask(provider, text) for text in (NEAR[0], NEAR[0], NEAR[1])]
    assert {said(each) for each in told} == {f"{NEAR[0]} #1"}
    assert len(provider.asked) == 1
    assert told[1]._hidden_params["cache_hit"] is True
    assert told[1].usage.prompt_tokens == told[0].usage.prompt_tokens
    assert len(remembering._turns) == 0


@pytest.mark.parametrize(
    "other",
    [
        {"model": "openai/n"},
        {"temperature": 0.1},
        {"user": "ann"},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {"messages": [{"role": "user", "content": NEAR[0]}]},
        {"top_k": 3},
        {"cache": {"namespace": "b"}},
    ],
    ids="-".join,
)
def test_whatever_an_answer_depends_on_keeps_it_apart(
    remembering: PyropeCache, provider: OpenAIServer, other: dict[str, Any]
) -> None:
    assert remembering.ttl is None
    ask(provider, NEAR[0])
    for _ in range(2):
        assert said(ask(provider, NEAR[0], **other)) == f"{NEAR[0]} #2"


@pytest.mark.parametrize(
    "outcome",
    [Answer("cut o", finish="length"), Answer("  "), Refused("no")],
    ids=["length", "blank", "refused"],
)
def test_what_is_not_complete_is_not_remembered(
    remembering: PyropeCache, provider: OpenAIServer, outcome: Outcome
) -> None:
    provider.chat = Script(outcome, then=always(Answer("complete")))
    ask(provider, NEAR[0])
    for _ in range(2):
        assert said(ask(provider, NEAR[0])) == "complete"
    assert len(provider.asked) == 2
    assert len(remembering._turns) == 0


def test_errors_are_raised_and_end_the_turn(
    remembering: PyropeCache, provider: OpenAIServer, memory: Client[str]
) -> None:
    provider.chat = Script(Problem(500), then=always(Answer("at last")))
    with pytest.raises(InternalServerError):
        ask(provider, NEAR[0])
    # Another thread need not wait until the lease is up.
    with ThreadPoolExecutor(1) as threads:
        told = threads.submit(ask, provider, NEAR[0]).result(10)
    assert said(told) == "at last"
    assert len(remembering._turns) == 0
    assert memory.cache.stats(INDEX).remembered["leases_expired"] == 0


def test_streams_are_remembered_and_recalled(
    remembering: PyropeCache, provider: OpenAIServer
) -> None:
    provider.chat = always(Answer("one two three"))
    assert remembering.mode == CacheMode.default_on
    for _ in range(2):
        assert streamed(ask(provider, NEAR[0], stream=True)) == "one two three"
    assert said(ask(provider, NEAR[0])) == "one two three"
    assert len(provider.asked) == 1


def test_a_calls_own_wishes_are_heeded(
    remembering: PyropeCache, provider: OpenAIServer, memory: Client[str]
) -> None:
    ask(provider, NEAR[0], cache={"no-store": True})
    ask(provider, NEAR[0], cache={"ttl": 500})
    assert len(provider.asked) == 2
    ask(provider, NEAR[0], cache={"s-maxage": 100})
    assert len(provider.asked) == 2
    ask(provider, NEAR[0], cache={"s-maxage": 0})
    ask(provider, NEAR[0], cache={"no-cache": True})
    with call_options(enabled=False):
        ask(provider, NEAR[0])
    assert len(provider.asked) == 5
    assert memory.cache.stats(INDEX).remembered["entries"] == 1
    remembering.mode = CacheMode.default_off
    ask(provider, NEAR[0])
    ask(provider, NEAR[0], cache={"use-cache": True})
    assert len(provider.asked) == 6


def test_threads_that_ask_the_same_pay_once(
    remembering: PyropeCache, provider: OpenAIServer
) -> None:
    provider.chat = always(Delay(0.2, Answer("slowly")))
    with ThreadPoolExecutor(10) as threads:
        told = list(threads.map(lambda _: said(ask(provider, NEAR[0])), range(10)))
    assert told == ["slowly"] * 10
    assert len(provider.asked) == 1
    assert len(remembering._turns) == 0


async def aask(provider: OpenAIServer, text: Any, **given: Any) -> Any:
    return await litellm.acompletion(**request(provider, text, **given))


async def test_tasks_that_ask_the_same_pay_once(
    aremembering: PyropeCache, provider: OpenAIServer
) -> None:
    provider.chat = always(Delay(0.2, Answer("slowly")))
    assert await aremembering.ping()
    told = await asyncio.gather(*(aask(provider, NEAR[0]) for _ in range(20)))
    assert [said(each) for each in told] == ["slowly"] * 20
    assert said(await aask(provider, NEAR[1])) == "slowly"
    assert len(provider.asked) == 1


async def test_errors_and_streams_in_an_event_loop(
    aremembering: PyropeCache, provider: OpenAIServer
) -> None:
    provider.chat = Script(
        Problem(500), Answer("cut o", finish="length"), then=always(Answer("one two"))
    )
    assert await aremembering.ping()
    with pytest.raises(InternalServerError):
        await aask(provider, NEAR[0])
    await asyncio.wait_for(asyncio.create_task(aask(provider, NEAR[0])), 10)
    for _ in range(2):
        stream = await aask(provider, NEAR[0], stream=True)
        assert streamed([chunk async for chunk in stream]) == "one two"
        # LiteLLM tells the cache in a task of its own.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others, timeout=0.5)
    assert len(provider.asked) == 3


def test_without_a_server_every_call_is_made(provider: OpenAIServer) -> None:
    with ResponseCache(INDEX, port=free_port()) as cache:
        litellm.cache = PyropeCache(cache)
        for _ in range(2):
            ask(provider, NEAR[0])
    assert len(provider.asked) == 2
