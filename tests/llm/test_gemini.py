"""What only Gemini does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from pydantic import BaseModel, SecretStr

from pyrope.llm.adapter import Endpoint, T
from pyrope.llm.gemini import GeminiProvider
from pyrope.llm.provider import Failure, Prompt, ProviderError
from pyrope.retry_after import MOST_RETRY_AFTER_S
from pyrope.testing.clock import ManualClock
from pyrope.testing.provider_servers import GeminiServer, Problem, Raw, always


class Next(BaseModel):
    queries: list[str]


PROMPT = Prompt(system="Foresee.", user="bread", schema=Next, max_tokens_out=50)


async def at_once(function: Callable[[], T]) -> T:
    return function()


@pytest.fixture
async def server() -> AsyncIterator[GeminiServer]:
    server = GeminiServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def provider(server: GeminiServer) -> AsyncIterator[GeminiProvider]:
    endpoint = Endpoint("gemini-x", server.base_url, SecretStr("k"))
    provider = GeminiProvider(endpoint, clock=ManualClock(), run=at_once)
    await provider.start()
    yield provider
    await provider.close()


async def failure(provider: GeminiProvider) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.complete(PROMPT)
    return caught.value


async def test_the_request_is_one_of_generate_content(
    provider: GeminiProvider, server: GeminiServer
) -> None:
    await provider.complete(PROMPT)
    [asked] = server.asked
    assert asked.path.endswith("/models/gemini-x:generateContent")
    assert asked.headers["x-goog-api-key"] == "k"
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.headers["x-server-timeout"] == "30"
    assert asked.body["generationConfig"]["responseMimeType"] == "application/json"
    assert set(asked.body) == {"contents", "generationConfig", "systemInstruction"}


@pytest.mark.parametrize(
    ("header", "info", "seconds"),
    [
        (None, 39.5, 39.5),
        ("10", 39.0, 39.0),
        ("50", 39.0, 50.0),
        (None, 1e9, MOST_RETRY_AFTER_S),
    ],
)
async def test_the_retry_info_of_a_throttled_call_counts_like_retry_after(
    provider: GeminiProvider,
    server: GeminiServer,
    header: str | None,
    info: float,
    seconds: float,
) -> None:
    server.chat = always(Problem(429, retry_after=header, retry_info_s=info))
    throttled = await failure(provider)
    assert (throttled.failure, throttled.retry_after_s) == (Failure.THROTTLED, seconds)


@pytest.mark.parametrize("delay", ["nan", "soon", 7, "infs", "-3s", None])
async def test_a_retry_info_that_is_none_is_bounded_or_ignored(
    provider: GeminiProvider, server: GeminiServer, delay: object
) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
    body = Raw(
        b'{"error": {"code": 429, "details": %s}}' % str(details).replace("'", '"').encode()
        if delay is not None
        else b'{"error": {"code": 429, "details": "none"}}',
        status=429,
    )
    server.chat = always(body)
    throttled = await failure(provider)
    assert throttled.retry_after_s in {None, 0.0, MOST_RETRY_AFTER_S}


async def test_a_wrong_key_is_unauthorised_though_it_is_a_400(
    provider: GeminiProvider, server: GeminiServer
) -> None:
    server.key = "another"
    error = await failure(provider)
    assert error.failure is Failure.UNAUTHORISED
    assert str(error).endswith("answered 400 (API_KEY_INVALID)")


async def test_a_model_that_is_not_there_is_named_by_its_status(
    provider: GeminiProvider, server: GeminiServer
) -> None:
    server.chat = always(Problem(404, "models/gemini-x is not found"))
    assert str(await failure(provider)).endswith("answered 404 (NOT_FOUND)")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("SAFETY", Failure.REFUSED),
        ("PROHIBITED_CONTENT", Failure.REFUSED),
        ("RECITATION", Failure.REFUSED),
        ("MAX_TOKENS", Failure.MALFORMED),
        ("OTHER", Failure.UNAVAILABLE),
        ("MALFORMED_RESPONSE", Failure.UNAVAILABLE),
        ("SOMETHING_NEW", Failure.UNAVAILABLE),
    ],
)
async def test_a_reason_to_finish_other_than_stop_is_a_failure(
    provider: GeminiProvider, server: GeminiServer, reason: str, expected: Failure
) -> None:
    server.chat = always(Raw(b'{"candidates": [{"finishReason": "%s"}]}' % reason.encode()))
    assert (await failure(provider)).failure is expected


async def test_thoughts_are_no_part_of_the_answer(
    provider: GeminiProvider, server: GeminiServer
) -> None:
    parts = b'[{"text": "hm", "thought": true}, {"text": "{"}, {"text": "}"}]'
    server.chat = always(Raw(b'{"candidates": [{"content": {"parts": %s}}]}' % parts))
    assert (await provider.complete(PROMPT)).text == "{}"


@pytest.mark.parametrize("count", [b'"7"', b"true", b"[]", b"null", b"1e3"])
async def test_usage_that_is_no_number_is_no_reply(
    provider: GeminiProvider, server: GeminiServer, count: bytes
) -> None:
    usage = b'{"promptTokenCount": %s}' % count
    server.chat = always(Raw(b'{"candidates": [{}], "usageMetadata": %s}' % usage))
    assert (await failure(provider)).failure is Failure.UNAVAILABLE
