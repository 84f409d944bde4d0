"""The stand-ins, driven by the official clients as a test of them would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
from google import genai
from google.genai import errors, types

from pyrope.testing.provider_servers import (
    Answer,
    BreakOff,
    Delay,
    GeminiServer,
    NoCandidates,
    OpenAIServer,
    Outcome,
    Problem,
    ProviderServer,
    Raw,
    Refused,
    Script,
    Vectors,
    always,
    answer_json,
    approximate_tokens,
    pseudo_embedding,
)


@pytest.fixture
async def gemini() -> AsyncIterator[GeminiServer]:
    server = GeminiServer(key="k", dim=4)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def google(gemini: GeminiServer) -> AsyncIterator[genai.client.AsyncClient]:
    # Told, so that it is the same where aiohttp is installed, which it takes if it may.
    async with httpx2.AsyncClient() as http:
        options = types.HttpOptions(base_url=gemini.base_url, httpx_async_client=http)
        with genai.Client(vertexai=False, api_key="k", http_options=options) as client:
            yield client.aio


@pytest.fixture
async def openai_server() -> AsyncIterator[OpenAIServer]:
    server = OpenAIServer(key="k", dim=4)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(openai_server: OpenAIServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key="k", base_url=openai_server.base_url, max_retries=0
    ) as client:
        yield client


async def ask(client: openai.AsyncOpenAI, text: str = "hello") -> Any:
    return await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": text}]
    )


# -- Gemini -------------------------------------------------------------------------------------


async def test_gemini_answers_and_reports_what_it_sums(
    gemini: GeminiServer, google: genai.client.AsyncClient
) -> None:
    gemini.chat = lambda asked: Answer(asked.user.upper(), tokens_thought=2)
    reply = await google.models.generate_content(
        model="m",
        contents="hello",
        config=types.GenerateContentConfig(system_instruction="be loud", max_output_tokens=5),
    )
    assert reply.text == "HELLO"
    usage = reply.usage_metadata
    assert usage is not None
    assert (usage.prompt_token_count, usage.candidates_token_count) == (4, 2)
    assert usage.thoughts_token_count == 2
    assert (gemini.tokens_in, gemini.tokens_out) == (4, 4)
    [asked] = gemini.asked
    assert (asked.model, asked.system, asked.max_tokens_out) == ("m", "be loud", 5)


async def test_gemini_embeds_equal_texts_equally(
    gemini: GeminiServer, google: genai.client.AsyncClient
) -> None:
    contents = [types.Content(parts=[types.Part(text=text)]) for text in ("a", "bb", "a")]
    reply = await google.models.embed_content(model="e", contents=contents)
    rows = [each.values for each in reply.embeddings or ()]
    assert rows == [pseudo_embedding(text, 4) for text in ("a", "bb", "a")]
    assert gemini.asked[0].texts == ("a", "bb", "a")
    assert gemini.tokens_embedded == 3
    config = types.EmbedContentConfig(output_dimensionality=9)
    reply = await google.models.embed_content(model="e", contents="a", config=config)
    assert [len(each.values or ()) for each in reply.embeddings or ()] == [9]


async def test_gemini_embeds_a_single_content_too(gemini: GeminiServer) -> None:
    async with httpx2.AsyncClient(headers={"x-goog-api-key": "k"}) as http:
        url = f"{gemini.base_url}/v1beta/models/e:embedContent"
        reply = await http.post(url, json={"content": {"parts": [{"text": "a"}]}})
    assert reply.json()["embedding"]["values"] == pseudo_embedding("a", 4)


async def test_gemini_refuses_in_its_own_words(
    gemini: GeminiServer, google: genai.client.AsyncClient
) -> None:
    gemini.chat = Script(
        Refused("PROHIBITED_CONTENT"), NoCandidates(), Answer("x", finish="safety")
    )
    blocked = await google.models.generate_content(model="m", contents="x")
    assert blocked.prompt_feedback is not None
    assert blocked.prompt_feedback.block_reason == types.BlockedReason.PROHIBITED_CONTENT
    empty = await google.models.generate_content(model="m", contents="x")
    assert (empty.candidates, empty.prompt_feedback) == (None, None)
    stopped = await google.models.generate_content(model="m", contents="x")
    assert stopped.candidates is not None
    assert stopped.candidates[0].finish_reason == types.FinishReason.SAFETY


async def test_gemini_says_how_long_to_wait(
    gemini: GeminiServer, google: genai.client.AsyncClient
) -> None:
    gemini.chat = always(Problem(429, "slow down", retry_after="7", retry_info_s=39.5))
    with pytest.raises(errors.ClientError) as caught:
        await google.models.generate_content(model="m", contents="x")
    error = caught.value
    assert (error.code, error.status) == (429, "RESOURCE_EXHAUSTED")
    assert error.response.headers["retry-after"] == "7"
    assert error.details["error"]["details"][0]["retryDelay"] == "39.5s"


@pytest.mark.parametrize(
    ("path", "body", "key", "status"),
    [
        ("/v1/models/m:generateContent", {"contents": [{}]}, "wrong", 400),
        ("/v1/models/m:generateContent", {"contents": [{}]}, None, 403),
        ("/v1/models/m:generateContent", {}, "k", 400),
        ("/v1/models/m:generateContent", [], "k", 400),
        ("/v1/models/m:countTokens", {}, "k", 404),
        ("/models/m:generateContent", {}, "k", 404),
        ("/v1/models/m:batchEmbedContents", {"requests": []}, "k", 400),
        (
            "/v1/models/m:generateContent",
            {"contents": [{}], "generationConfig": {"responseSchema": {"type": "OBJECT"}}},
            "k",
            400,
        ),
    ],
)
async def test_gemini_does_not_understand_what_the_real_one_would_not(
    gemini: GeminiServer, path: str, body: object, key: str | None, status: int
) -> None:
    headers = {} if key is None else {"x-goog-api-key": key}
    async with httpx2.AsyncClient(headers=headers) as http:
        reply = await http.post(gemini.base_url + path, json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, status)
    assert gemini.asked == []


# -- OpenAI -------------------------------------------------------------------------------------


async def test_openai_answers_and_reports_what_it_sums(
    openai_server: OpenAIServer, client: openai.AsyncOpenAI
) -> None:
    openai_server.chat = lambda asked: Answer(asked.user.upper(), tokens_thought=2)
    reply = await ask(client)
    assert reply.choices[0].message.content == "HELLO"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (2, 4)
    assert (openai_server.tokens_in, openai_server.tokens_out) == (2, 4)


async def test_openai_streams_word_by_word(
    openai_server: OpenAIServer, client: openai.AsyncOpenAI
) -> None:
    openai_server.chat = Script(Answer(" one\ntwo "), Refused("no"), BreakOff(Answer("x y z")))
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "?"}], "stream": True}
    stream = await client.chat.completions.create(**asked, stream_options={"include_usage": True})
    *chunks, last = [chunk async for chunk in stream]
    assert [each.choices[0].delta.content for each in chunks] == ["", " one", "\ntwo ", None]
    assert [each.choices[0].finish_reason for each in chunks] == [None, None, None, "stop"]
    assert (last.choices, last.usage.completion_tokens) == ([], openai_server.tokens_out)
    chunks = [chunk async for chunk in await client.chat.completions.create(**asked)]
    assert [each.choices[0].delta.refusal for each in chunks] == [None, "no", None]
    assert chunks[-1].usage is None
    with pytest.raises(openai.APIConnectionError):
        [chunk async for chunk in await client.chat.completions.create(**asked)]


async def test_openai_embeds_as_floats_and_as_base64(
    openai_server: OpenAIServer, client: openai.AsyncOpenAI
) -> None:
    expected = pseudo_embedding("a", 4)
    packed = await client.embeddings.create(model="e", input="a")
    floats = await client.embeddings.create(model="e", input=["a"], encoding_format="float")
    assert packed.data[0].embedding == pytest.approx(expected)
    assert floats.data[0].embedding == expected
    assert openai_server.tokens_embedded == 2 == packed.usage.total_tokens + 1
    short = await client.embeddings.create(model="e", input=["a", "b"], dimensions=2)
    assert [len(row.embedding) for row in short.data] == [2, 2]


async def test_openai_refuses_in_its_own_words(
    openai_server: OpenAIServer, client: openai.AsyncOpenAI
) -> None:
    openai_server.chat = Script(
        Refused("not that"), NoCandidates(), Answer("x", finish="length"), answer_json([1])
    )
    message = (await ask(client)).choices[0].message
    assert (message.content, message.refusal) == (None, "not that")
    assert (await ask(client)).choices == []
    assert (await ask(client)).choices[0].finish_reason == "length"
    assert json.loads((await ask(client)).choices[0].message.content) == [1]


@pytest.mark.parametrize(
    ("accent", "kind", "code"),
    [
        ("openai", "requests", "rate_limit_exceeded"),
        ("vllm", "InternalServerError", 429),
        ("ollama", "api_error", None),
    ],
)
async def test_errors_have_the_accent_of_the_server(
    openai_server: OpenAIServer, client: openai.AsyncOpenAI, accent: Any, kind: str, code: object
) -> None:
    openai_server.accent = accent
    openai_server.chat = always(Problem(429, retry_after="3"))
    with pytest.raises(openai.RateLimitError) as caught:
        await ask(client)
    assert caught.value.response.headers["retry-after"] == "3"
    body: Any = caught.value.body
    assert (body["type"], body["code"]) == (kind, code)


@pytest.mark.parametrize(
    ("path", "body", "key", "status"),
    [
        ("/chat/completions", {"model": "m", "messages": [{}]}, "wrong", 401),
        ("/chat/completions", {"messages": [{}]}, "k", 400),
        ("/chat/completions", {"model": "m"}, "k", 400),
        ("/embeddings", {"model": "m", "input": []}, "k", 400),
        ("/completions", {"model": "m"}, "k", 404),
    ],
)
async def test_openai_does_not_understand_what_the_real_one_would_not(
    openai_server: OpenAIServer, path: str, body: object, key: str, status: int
) -> None:
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}) as http:
        reply = await http.post(openai_server.base_url + path, json=body)
    assert reply.status_code == status
    assert openai_server.asked == []


# -- behaviour ----------------------------------------------------------------------------------


async def test_a_script_goes_on_with_its_rest_and_ends_with_an_error(
    openai_server: OpenAIServer, client: openai.AsyncOpenAI
) -> None:
    script = openai_server.chat = Script(Answer("1"), Answer("2"), then=always(Answer("rest")))
    seen = [(await ask(client)).choices[0].message.content for _ in range(4)]
    assert (seen, script.left) == (["1", "2", "rest", "rest"], 0)
    openai_server.chat = Script()
    with pytest.raises(openai.InternalServerError):
        await ask(client)


async def test_a_behaviour_may_wait_for_the_test(
    openai_server: OpenAIServer, client: openai.AsyncOpenAI
) -> None:
    gate = asyncio.Event()

    async def slow(_asked: object) -> Outcome:
        await gate.wait()
        return Delay(0.001, Answer("late"))

    openai_server.chat = slow
    call = asyncio.create_task(ask(client))
    while not openai_server.asked:
        await asyncio.sleep(0)
    assert not call.done()
    gate.set()
    assert (await call).choices[0].message.content == "late"


async def test_usage_of_a_reply_that_is_broken_off_is_not_summed(
    openai_server: OpenAIServer, client: openai.AsyncOpenAI
) -> None:
    openai_server.chat = Script(BreakOff(Answer("x", 5, 5)), Answer("x", 7, 8))
    with pytest.raises(openai.APIConnectionError):
        await ask(client)
    await ask(client)
    assert (openai_server.tokens_in, openai_server.tokens_out) == (7, 8)


@pytest.mark.parametrize("server", [GeminiServer(), OpenAIServer()], ids=["gemini", "openai"])
async def test_an_outcome_for_the_other_kind_of_request_is_a_mistake_of_the_test(
    server: ProviderServer,
) -> None:
    server.embed = always(Answer("x"))
    server.chat = always(Vectors())
    await server.start()
    path = "v1/models/m:generateContent" if isinstance(server, GeminiServer) else "chat/completions"
    body = {"contents": [{}], "model": "m", "messages": [{"role": "user", "content": ""}]}
    async with httpx2.AsyncClient() as http:
        reply = await http.post(f"{server.base_url}/{path}", json=body)
    assert reply.status_code == 500
    with pytest.raises(TypeError, match="is no answer to chat"):
        await server.stop()
    await server.stop()


async def test_raw_bytes_are_sent_as_they_are(
    openai_server: OpenAIServer, client: openai.AsyncOpenAI
) -> None:
    openai_server.chat = always(Raw(b"\xff", headers={"Content-Type": "text/plain"}))
    raw = await client.chat.completions.with_raw_response.create(
        model="m", messages=[{"role": "user", "content": "x"}]
    )
    assert raw.content == b"\xff"


def test_tokens_are_a_quarter_of_the_bytes_and_embeddings_depend_on_the_text_alone() -> None:
    assert [approximate_tokens(text) for text in ("", "a", "abcd", "abcde", "üüü")] == [
        0,
        1,
        1,
        2,
        2,
    ]
    assert pseudo_embedding("a", 3) == pseudo_embedding("a", 100)[:3]
    assert pseudo_embedding("a", 3) != pseudo_embedding("b", 3)
    assert all(-1 <= value <= 1 for value in pseudo_embedding("a", 100))
