"""What only OpenAI does, and those who speak its API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import pytest
from pydantic import BaseModel, SecretStr

from pyrope.llm.adapter import Endpoint, T
from pyrope.llm.openai_compatible import OpenAIProvider
from pyrope.llm.provider import Completion, Failure, Prompt, ProviderError
from pyrope.testing.clock import ManualClock
from pyrope.testing.provider_servers import Answer, OpenAIServer, Problem, Raw, Refused, always

Accent = Literal["openai", "vllm", "ollama"]


class Next(BaseModel):
    queries: list[str]


PROMPT = Prompt(system="Foresee.", user="bread", schema=Next, max_tokens_out=50)


async def at_once(function: Callable[[], T]) -> T:
    return function()


@pytest.fixture(params=["openai", "vllm", "ollama"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[OpenAIServer]:
    accent: Accent = request.param
    server = OpenAIServer(accent=accent)
    await server.start()
    yield server
    await server.stop()


async def complete(server: OpenAIServer, *, field: Any = None, **changes: Any) -> Completion:
    more = {} if field is None else {"max_tokens_field": field}
    endpoint = Endpoint("m1", server.base_url, SecretStr("k"), **changes)
    provider = OpenAIProvider(endpoint, clock=ManualClock(), run=at_once, **more)
    await provider.start()
    try:
        return await provider.complete(PROMPT)
    finally:
        await provider.close()


async def failure(server: OpenAIServer) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await complete(server)
    return caught.value


async def test_every_accent_is_understood(server: OpenAIServer) -> None:
    server.chat = always(Answer('{"queries": []}', 5, 3))
    assert await complete(server) == Completion('{"queries": []}', 5, 3)
    assert server.asked[0].headers["authorization"] == "Bearer k"


@pytest.mark.parametrize("form", ["json_schema", "json_object", "text"])
async def test_the_form_of_the_reply_is_asked_for_as_the_setting_says_and_never_otherwise(
    server: OpenAIServer, form: str
) -> None:
    server.chat = always(Problem(400, "response_format is not known here"))
    with pytest.raises(ProviderError):
        await complete(server, response_format=form)
    [asked] = server.asked
    found = asked.body.get("response_format", {"type": "text"})
    assert found["type"] == form
    if form == "json_schema":
        assert found["json_schema"]["name"] == "Next"
        assert found["json_schema"]["strict"] is True


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_the_bound_on_tokens_goes_by_the_name_that_the_endpoint_knows(
    server: OpenAIServer, field: str
) -> None:
    await complete(server, field=field, thinking_tokens=10)
    body = server.asked[0].body
    assert body[field] == 60
    assert len({"max_tokens", "max_completion_tokens"} & set(body)) == 1


async def test_a_refusal_in_place_of_the_content_is_refused(server: OpenAIServer) -> None:
    server.chat = always(Refused("I cannot help with that", tokens_in=9))
    error = await failure(server)
    assert (error.failure, error.tokens_in) == (Failure.REFUSED, 9)


async def test_an_account_that_has_nothing_left_is_not_merely_throttled(
    server: OpenAIServer,
) -> None:
    server.chat = always(Problem(429, code="insufficient_quota"))
    expected = Failure.UNAUTHORISED if server.accent == "openai" else Failure.THROTTLED
    assert (await failure(server)).failure is expected


async def test_content_that_a_filter_stops_before_the_model_is_refused() -> None:
    server = OpenAIServer(chat=always(Problem(400, code="content_filter")))
    await server.start()
    assert (await failure(server)).failure is Failure.REFUSED
    await server.stop()


async def test_milliseconds_to_wait_are_read_too(server: OpenAIServer) -> None:
    server.chat = always(Raw(b"{}", status=429, headers={"retry-after-ms": "1500"}))
    assert (await failure(server)).retry_after_s == 1.5


async def test_an_error_without_its_envelope_is_read_as_older_vllm_sends_it(
    server: OpenAIServer,
) -> None:
    bare = b'{"object": "error", "type": "BadRequestError", "code": 400, "message": "no"}'
    server.chat = always(Raw(bare, status=400))
    error = await failure(server)
    assert error.failure is Failure.INVALID
    assert str(error).endswith("answered 400 (BadRequestError)")


async def test_a_content_of_null_is_no_answer_but_an_empty_one_is(server: OpenAIServer) -> None:
    choice = b'{"choices": [{"message": {"content": %s}, "finish_reason": "stop"}]}'
    server.chat = always(Raw(choice % b"null"))
    assert (await failure(server)).failure is Failure.UNAVAILABLE
    server.chat = always(Raw(choice % b'""'))
    assert (await complete(server)).text == ""


@pytest.mark.parametrize("count", [b'"7"', b"true", b"[]", b"null", b"1e3"])
async def test_usage_that_is_no_number_is_no_reply(server: OpenAIServer, count: bytes) -> None:
    usage = b'{"prompt_tokens": %s}' % count
    server.chat = always(Raw(b'{"choices": [{"message": {"content": ""}}], "usage": %s}' % usage))
    assert (await failure(server)).failure is Failure.UNAVAILABLE
