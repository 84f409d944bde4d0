"""OpenAI's real clients with a memory, against a stand-in of their API and a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from pyrope.client import Client
from pyrope.integrations import RememberOptions, ResponseCache, call_options
from pyrope.integrations.openai import remembering
from pyrope.integrations.questions import Question
from pyrope.integrations.response_cache import BlockingTurn
from pyrope.testing.provider_servers import (
    Answer,
    BreakOff,
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


@pytest.fixture
def plain(provider: OpenAIServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=provider.base_url, api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
def client(plain: OpenAI, cache: ResponseCache) -> OpenAI:
    return remembering(plain, cache)


@pytest.fixture
async def aclient(
    provider: OpenAIServer, memory: Client[str], server: RunningServer
) -> AsyncIterator[AsyncOpenAI]:
    assert memory.list() == [INDEX]
    async with (
        AsyncOpenAI(base_url=provider.base_url, api_key="k", max_retries=0) as client,
        ResponseCache(INDEX, RememberOptions(threshold=0.9), port=server.port) as cache,
    ):
        yield remembering(client, cache)


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def ask(client: Any, text: Any, **given: Any) -> Any:
    messages = [{"role": "system", "content": "Be kind."}, user(text)]
    return client.chat.completions.create(**{"model": "m", "messages": messages, **given})


def said(completion: Any) -> Any:
    return completion.choices[0].message.content


def streamed(chunks: Any) -> str:
    return "".join(
        choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.delta
    )


def test_what_was_asked_is_asked_once(client: OpenAI, provider: OpenAIServer) -> None:
    first, again, near = ask(client, NEAR[0]), ask(client, NEAR[0].upper()), ask(client, NEAR[1])
    assert {said(each) for each in (first, again, near)} == {f"{NEAR[0]} #1"}
    assert len(provider.asked) == 1
    assert isinstance(again, openai.types.chat.ChatCompletion)
    assert again.usage == first.usage
    assert not hasattr(first, "remembered")
    told = near.model_extra["remembered"]
    assert (told["match"], told["prompt"]) == ("near", NEAR[0])
    assert (again.model_extra or {})["remembered"]["match"] == "exact"


@pytest.mark.parametrize(
    "other",
    [
        {"model": "n"},
        {"temperature": 0.1},
        {"user": "ann"},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {"messages": [{"role": "system", "content": "Be harsh."}, user(NEAR[0])]},
        {"messages": [user(NEAR[0])]},
        {"extra_body": {"top_k": 3}},
    ],
    ids="-".join,
)
def test_whatever_an_answer_depends_on_keeps_it_apart(
    client: OpenAI, provider: OpenAIServer, other: dict[str, Any]
) -> None:
    ask(client, NEAR[0])
    assert said(ask(client, NEAR[0], **other)) == f"{NEAR[0]} #2"
    assert said(ask(client, NEAR[0], **other)) == f"{NEAR[0]} #2"
    assert len(provider.asked) == 2


def test_what_an_answer_does_not_depend_on_does_not(client: OpenAI, provider: OpenAIServer) -> None:
    ask(client, NEAR[0])
    ask(client, NEAR[0], timeout=5, metadata={"a": "b"}, tools=openai.NOT_GIVEN, stop=openai.omit)
    ask(client, [{"type": "text", "text": NEAR[0]}], seed=None)
    assert len(provider.asked) == 1


def test_another_provider_is_another_model(client: OpenAI, cache: ResponseCache) -> None:
    ask(client, NEAR[0])
    nowhere = f"http://127.0.0.1:{free_port()}/v1"
    with (
        OpenAI(base_url=nowhere, api_key="k", max_retries=0) as other,
        pytest.raises(openai.APIConnectionError),
    ):
        ask(remembering(other, cache), NEAR[0])


def test_a_conversation_is_found_with_what_was_said_before(
    client: OpenAI, provider: OpenAIServer
) -> None:
    first = ask(client, "Who wrote Faust?").choices[0].message
    talk = [user("Who wrote Faust?"), first, user("When?")]
    for _ in range(2):
        # As most programs do it: the message is handed back as it came.
        client.chat.completions.create(model="m", messages=talk)
    assert len(provider.asked) == 2
    ask(client, "When?", messages=[user("Who wrote Hamlet?"), first, user("When?")])
    assert len(provider.asked) == 3


@pytest.mark.parametrize(
    "outcome",
    [
        Answer("cut o", finish="length"),
        Answer("…", finish="safety"),
        Answer("  "),
        Refused("no"),
    ],
    ids=["length", "safety", "blank", "refused"],
)
@pytest.mark.parametrize("given", [{}, {"stream": True}], ids=["whole", "stream"])
def test_what_is_not_complete_is_not_remembered(
    client: OpenAI, provider: OpenAIServer, outcome: Outcome, given: dict[str, Any]
) -> None:
    provider.chat = Script(outcome, then=always(Answer("complete")))
    told = ask(client, NEAR[0], **given)
    if given:
        streamed(told)
    assert said(ask(client, NEAR[0])) == "complete"
    assert len(provider.asked) == 2


def test_errors_are_raised_and_not_remembered(client: OpenAI, provider: OpenAIServer) -> None:
    provider.chat = Script(Problem(500), Problem(429), then=always(Answer("at last")))
    with pytest.raises(openai.InternalServerError):
        ask(client, NEAR[0])
    with pytest.raises(openai.RateLimitError):
        ask(client, NEAR[0], stream=True)
    assert said(ask(client, NEAR[0])) == "at last"


def test_what_is_no_question_of_a_user_is_passed_on(client: OpenAI, provider: OpenAIServer) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    for content in ([{"type": "text", "text": "What is this?"}, image], "  "):
        for _ in range(2):
            provider.chat = always(Answer("a cat"))
            if isinstance(content, str):
                ask(client, content)
            else:
                # The stand-in reads text only.
                with pytest.raises(openai.APIError):
                    ask(client, content)
    tool = {"role": "tool", "tool_call_id": "1", "content": "found"}
    for _ in range(2):
        ask(client, "", messages=[user("Search!"), tool])
    assert len(provider.asked) == 4


def test_streams_are_remembered_when_they_are_through(
    client: OpenAI, provider: OpenAIServer
) -> None:
    provider.chat = always(Answer("one two  three\n"))
    assert streamed(ask(client, NEAR[0], stream=True)) == "one two  three\n"
    with ask(client, NEAR[0], stream=True, stream_options={"include_usage": True}) as again:
        chunks = list(again)
    assert streamed(chunks) == "one two  three\n"
    assert chunks[-1].choices == []
    assert [each.choices[0].finish_reason for each in chunks[:-1]] == [None, "stop"]
    assert chunks[0].model_extra["remembered"]["match"] == "exact"
    assert said(ask(client, NEAR[0])) == "one two  three\n"
    assert len(provider.asked) == 1


def test_a_whole_answer_is_streamed_to_who_wants_that(
    client: OpenAI, provider: OpenAIServer
) -> None:
    ask(client, NEAR[0])
    stream = ask(client, NEAR[0], stream=True, stream_options={"include_usage": True})
    assert next(stream).choices[0].delta.content == f"{NEAR[0]} #1"
    *_, last = stream
    assert last.usage.completion_tokens > 0
    stream.close()
    assert list(stream) == []


def test_a_stream_that_is_not_read_to_its_end_is_not_remembered(
    client: OpenAI, provider: OpenAIServer
) -> None:
    provider.chat = Script(
        Answer("left early"), BreakOff(Answer("cut off in the middle"), 0.7),
        then=always(Answer("all")),
    )  # fmt: skip
    with ask(client, NEAR[0], stream=True) as stream:
        assert stream.response.status_code == 200
        next(stream)
    with pytest.raises(openai.APIConnectionError):
        list(ask(client, NEAR[0], stream=True))
    assert said(ask(client, NEAR[0])) == "all"


def test_only_what_is_certain_is_remembered_where_that_is_wanted(
    plain: OpenAI, cache: ResponseCache, provider: OpenAIServer
) -> None:
    client = remembering(plain, cache, sampled=False)
    for given in ({}, {"temperature": 0.5}, {"temperature": 0}):
        for _ in range(2):
            ask(client, NEAR[0], **given)
    assert len(provider.asked) == 5


def test_the_client_itself_and_its_other_helpers_are_as_they_were(
    client: OpenAI, plain: OpenAI, provider: OpenAIServer
) -> None:
    ask(client, NEAR[0])
    ask(plain, NEAR[0])
    raw = client.chat.completions.with_raw_response.create(
        model="m", messages=[{"role": "user", "content": NEAR[0]}]
    )
    assert raw.parse().choices[0].message.content == f"{NEAR[0]} #3"
    with client.chat.completions.stream(
        model="m", messages=[{"role": "user", "content": NEAR[0]}]
    ) as stream:
        assert stream.get_final_completion().choices[0].message.content == f"{NEAR[0]} #4"
    assert len(provider.asked) == 4
    with pytest.raises(TypeError):
        client.chat.completions.create()  # type: ignore[call-overload]


def test_users_are_told_apart_by_options_of_calls(client: OpenAI, provider: OpenAIServer) -> None:
    for name in ("ann", "bob", "ann"):
        with call_options(scope={"user": name}):
            ask(client, "What is my name?")
    with call_options(enabled=False):
        ask(client, "What is my name?")
    assert len(provider.asked) == 3


class Recording(ResponseCache):
    """Keeps what it is asked."""

    scope: Mapping[str, str]

    def ask(self, question: Question | None) -> BlockingTurn:
        assert question is not None
        self.scope = question.scope
        return super().ask(question)


def test_what_is_no_completion_is_asked_for_anew(
    plain: OpenAI, memory: Client[str], server: RunningServer, provider: OpenAIServer
) -> None:
    with Recording(INDEX, port=server.port) as cache:
        client = remembering(plain, cache)
        ask(client, NEAR[0])
        for wrong in ("plain text", json.dumps({"choices": []}), json.dumps([1])):
            memory.responses.remember(INDEX, NEAR[0], wrong, scope=cache.scope)
            provider.chat = always(Answer(f"instead of {wrong}"))
            for _ in range(2):
                assert said(ask(client, NEAR[0])) == f"instead of {wrong}"


def test_threads_that_ask_the_same_pay_once(client: OpenAI, provider: OpenAIServer) -> None:
    provider.chat = always(Delay(0.1, Answer("slowly")))
    with ThreadPoolExecutor(20) as threads:
        told = list(threads.map(lambda _: said(ask(client, NEAR[0])), range(20)))
    assert told == ["slowly"] * 20
    assert len(provider.asked) == 1


async def test_tasks_that_ask_the_same_pay_once(
    aclient: AsyncOpenAI, provider: OpenAIServer
) -> None:
    provider.chat = always(Delay(0.1, Answer("slowly")))
    told = await asyncio.gather(*(ask(aclient, NEAR[0]) for _ in range(50)))
    assert [said(each) for each in told] == ["slowly"] * 50
    assert len(provider.asked) == 1
    assert (await ask(aclient, NEAR[1])).model_extra["remembered"]["match"] == "near"


async def test_streams_in_an_event_loop(aclient: AsyncOpenAI, provider: OpenAIServer) -> None:
    provider.chat = Script(
        BreakOff(Answer("cut off in the middle"), 0.7), Answer("left early"), Problem(500),
        then=always(Answer("one two three")),
    )  # fmt: skip
    with pytest.raises(openai.APIConnectionError):
        [chunk async for chunk in await ask(aclient, NEAR[0], stream=True)]
    async with await ask(aclient, NEAR[0], stream=True) as stream:
        assert stream.response.status_code == 200
        await anext(stream)
    with pytest.raises(openai.InternalServerError):
        await ask(aclient, NEAR[0], stream=True)
    for _ in range(2):
        chunks = [chunk async for chunk in await ask(aclient, NEAR[0], stream=True)]
        assert streamed(chunks) == "one two three"
    assert len(provider.asked) == 4
    async with await ask(aclient, NEAR[0], stream=True) as stream:
        await anext(stream)
        await stream.close()
        assert [chunk async for chunk in stream] == []
    provider.chat = always(Answer("cut o", finish="length"))
    assert said(await ask(aclient, "Why?")) == "cut o"
    assert said(await ask(aclient, "Why?")) == "cut o"
    assert len(provider.asked) == 6


def test_without_a_server_every_call_is_made(plain: OpenAI, provider: OpenAIServer) -> None:
    with ResponseCache(INDEX, port=free_port()) as cache:
        client = remembering(plain, cache)
        assert said(ask(client, NEAR[0])) == f"{NEAR[0]} #1"
        assert streamed(ask(client, NEAR[0], stream=True)) == f"{NEAR[0]} #2"
