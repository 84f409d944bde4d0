"""The embedders behind an API: the real clients against stand-ins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

from pyrope.embed.embedder import EmbedderError, Failure
from pyrope.embed.gemini import GeminiEmbedder
from pyrope.embed.openai_compatible import OpenAIEmbedder
from pyrope.embed.remote import RemoteEmbedder, RemoteOptions
from pyrope.embed.tokens import estimate
from pyrope.testing.provider_servers import (
    BreakOff,
    GeminiServer,
    Hang,
    HangUp,
    OpenAIServer,
    Outcome,
    Problem,
    ProviderServer,
    Raw,
    Vectors,
    always,
    pseudo_embedding,
)

_KEY = "sk-a-very-secret-key"
_WALL = 1_700_000_000.0
_TEXTS = ["hello", "a text that is longer than the other one", "😀\n"]

Makers = tuple[type[ProviderServer], type[RemoteEmbedder]]

_BOTH = pytest.mark.parametrize(
    "makers",
    [(OpenAIServer, OpenAIEmbedder), (GeminiServer, GeminiEmbedder)],
    ids=["openai", "gemini"],
)


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.to_thread(function, *args)


def embedder_of(makers: Makers, base_url: str | None, **options: Any) -> RemoteEmbedder:
    chosen: dict[str, Any] = {
        "model": "model-1", "api_key": _KEY, "dim": 0, "timeout_s": 10, "parallel": 2,
    }  # fmt: skip
    return makers[1](
        RemoteOptions(base_url=base_url, **(chosen | options)), in_thread, lambda: _WALL
    )


@asynccontextmanager
async def provider(
    makers: Makers, *, start: bool = True, options: dict[str, Any] | None = None, **server: Any
) -> AsyncIterator[tuple[Any, RemoteEmbedder]]:
    """A stand-in and an embedder that asks it; nothing is open between them at the end."""
    stand_in = makers[0](**server)
    await stand_in.start()
    embedder = embedder_of(makers, stand_in.base_url, **(options or {}))
    try:
        if start:
            await embedder.start()
        yield stand_in, embedder
    finally:
        await embedder.close()
        await asyncio.wait_for(stand_in.http.all_closed(), 5)
        await stand_in.stop()


def unit(row: list[float]) -> Any:
    return np.array(row) / np.linalg.norm(row)


@_BOTH
def test_texts_become_unit_vectors_in_their_order(makers: Makers) -> None:
    async def test() -> None:
        async with provider(makers, key=_KEY) as (server, embedder):
            assert embedder.dim == 8
            assert embedder.identity == f"{embedder.name}:model-1:8"
            spent = server.tokens_embedded
            embedded = await embedder.embed(_TEXTS)
            for text, vector in zip(_TEXTS, embedded.vectors, strict=True):
                np.testing.assert_allclose(vector, unit(pseudo_embedding(text, 8)), atol=1e-6)
            assert sum(embedded.tokens) == server.tokens_embedded - spent
            assert not embedded.estimated
            assert server.asked[-1].texts == tuple(_TEXTS)
            assert server.asked[-1].model == "model-1"
            assert server.asked[-1].dim is None

    asyncio.run(test())


@_BOTH
def test_a_dimension_may_be_asked_for(makers: Makers) -> None:
    async def test() -> None:
        async with provider(makers, options={"dim": 5}) as (server, embedder):
            assert embedder.identity == f"{embedder.name}:model-1:5"
            assert (await embedder.embed(_TEXTS)).vectors.shape == (3, 5)
            assert server.asked[-1].dim == 5

    asyncio.run(test())


@_BOTH
def test_a_dimension_that_is_not_the_one_asked_for_is_no_start(makers: Makers) -> None:
    async def test() -> None:
        behaviour = always(Vectors(rows=[[1.0] * 7]))
        async with provider(makers, start=False, embed=behaviour, options={"dim": 5}) as (
            _,
            embedder,
        ):
            with pytest.raises(EmbedderError, match="7 dimensions, not 5"):
                await embedder.start()
            assert embedder.dim == 0

    asyncio.run(test())


@pytest.mark.parametrize("accent", ["openai", "vllm", "ollama"])
def test_other_servers_speak_with_an_accent(accent: str) -> None:
    async def test() -> None:
        makers: Makers = (OpenAIServer, OpenAIEmbedder)
        async with provider(makers, options={"api_key": None}, accent=accent) as (_, embedder):
            assert (await embedder.embed(["hello"])).vectors.shape == (1, 8)

    asyncio.run(test())


@_BOTH
def test_tokens_that_nobody_has_counted_are_estimated(makers: Makers) -> None:
    async def test() -> None:
        async with provider(makers) as (server, embedder):
            server.embed = always(Vectors(usage=False))
            embedded = await embedder.embed(_TEXTS)
            assert embedded.estimated
            assert embedded.tokens == [estimate(text) for text in _TEXTS]

    asyncio.run(test())


def _retry_at(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(_WALL + seconds, UTC), usegmt=True)


@_BOTH
@pytest.mark.parametrize(
    ("outcome", "failure", "retry_after_s"),
    [
        (Problem(429), Failure.THROTTLED, None),
        (Problem(429, retry_after="7"), Failure.THROTTLED, 7),
        (Problem(429, retry_after=_retry_at(90)), Failure.THROTTLED, 90),
        (Problem(429, retry_after="nonsense"), Failure.THROTTLED, None),
        (Problem(503, retry_after="2.5"), Failure.UNAVAILABLE, 2.5),
        (Problem(500), Failure.UNAVAILABLE, None),
        (Problem(401), Failure.UNAUTHORISED, None),
        (Problem(403), Failure.UNAUTHORISED, None),
        (Problem(404), Failure.UNKNOWN, None),
        (Problem(400), Failure.REFUSED, None),
        (Problem(413), Failure.REFUSED, None),
        (Raw(b"", 307, {"location": "http://127.0.0.1:1/"}), Failure.UNKNOWN, None),
        (Raw(b"x" * 5_000_000), Failure.MALFORMED, None),
        (Raw(b'{"data": [' + b"{}," * 600_000), Failure.MALFORMED, None),
        (Raw(b'{"data": [{"embedding": [' + b"1," * 900_000), Failure.MALFORMED, None),
        (Raw(b"{" * 5_000_000, 503), Failure.UNAVAILABLE, None),
        (Problem(429, retry_after="9" * 30), Failure.THROTTLED, 86_400),
        (Raw(b"x", headers={"content-encoding": "gzip"}), Failure.MALFORMED, None),
        (HangUp(), Failure.UNAVAILABLE, None),
        (BreakOff(Vectors()), Failure.UNAVAILABLE, None),
        (Hang(), Failure.UNAVAILABLE, None),
        (Raw(b""), Failure.MALFORMED, None),
        (Raw(b"nonsense"), Failure.MALFORMED, None),
        (Raw(b"[]"), Failure.MALFORMED, None),
        (Raw(b"{}"), Failure.MALFORMED, None),
        (Raw(b'{"data": 5, "embeddings": 5}'), Failure.MALFORMED, None),
        (Raw(b'{"data": [5], "embeddings": [5]}'), Failure.MALFORMED, None),
        (Vectors(rows=[[1.0] * 8]), Failure.MALFORMED, None),
        (Vectors(rows=[[1.0] * 8] * 4), Failure.MALFORMED, None),
        (Vectors(rows=[[1.0] * 8, [1.0] * 8, [1.0] * 7]), Failure.MALFORMED, None),
        (Vectors(rows=[[]] * 3), Failure.MALFORMED, None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_each_failure_is_known_for_what_it_is(
    makers: Makers, outcome: Outcome, failure: Failure, retry_after_s: float | None
) -> None:
    async def test() -> None:
        async with provider(makers, options={"timeout_s": 0.3}) as (server, embedder):
            server.embed = always(outcome)
            with pytest.raises(EmbedderError) as raised:
                await embedder.embed(_TEXTS)
            assert raised.value.failure is failure
            assert raised.value.retry_after_s == retry_after_s
            assert len(server.asked) == 2  # the one by which it started, and this one
            server.embed = always(Vectors())
            assert (await embedder.embed(["again"])).vectors.any()

    asyncio.run(test())


def test_geminis_own_way_of_telling_when_to_come_back_is_understood() -> None:
    async def test() -> None:
        async with provider((GeminiServer, GeminiEmbedder)) as (server, embedder):
            server.embed = always(Problem(429, retry_info_s=3.5))
            with pytest.raises(EmbedderError) as raised:
                await embedder.embed(_TEXTS)
            assert raised.value.retry_after_s == 3.5

    asyncio.run(test())


@_BOTH
def test_a_wrong_key_is_told_without_it(makers: Makers) -> None:
    async def test() -> None:
        async with provider(makers, start=False, key="another") as (_, embedder):
            with pytest.raises(EmbedderError) as raised:
                await embedder.start()
            assert raised.value.failure is Failure.UNAUTHORISED
            assert _KEY not in str(raised.value)

    asyncio.run(test())


@_BOTH
def test_components_that_are_no_numbers_make_no_vector(makers: Makers) -> None:
    body = (
        b'{"data": [{"index": 0, "embedding": [NaN, 1.0]}, {"index": 1, "embedding": [1.0, 1e300]},'
        b' {"index": 2, "embedding": [0.0, 2.0]}], "embeddings": [{"values": [NaN, 1.0]},'
        b' {"values": [1.0, 1e300]}, {"values": [0.0, 2.0]}]}'
    )

    async def test() -> None:
        async with provider(makers, options={"dim": 2}) as (server, embedder):
            server.embed = always(Raw(body, headers={"content-type": "application/json"}))
            vectors = (await embedder.embed(_TEXTS)).vectors
            assert vectors.tolist() == [[0, 0], [0, 0], [0, 1]]

    asyncio.run(test())


def test_the_index_of_a_vector_counts_and_not_its_place() -> None:
    body = (
        b'{"data": [{"index": 1, "embedding": [0.0, 1.0]}, {"index": 0, "embedding": [1.0, 0.0]}]}'
    )

    async def test() -> None:
        makers: Makers = (OpenAIServer, OpenAIEmbedder)
        async with provider(makers, options={"dim": 2}) as (server, embedder):
            server.embed = always(Raw(body, headers={"content-type": "application/json"}))
            assert (await embedder.embed(["a", "b"])).vectors.tolist() == [[1, 0], [0, 1]]

    asyncio.run(test())


def test_a_server_that_leaves_the_index_to_the_order_is_understood() -> None:
    body = b'{"data": [{"embedding": [0.0, 1.0]}, {"embedding": [1.0, 0.0]}]}'

    async def test() -> None:
        makers: Makers = (OpenAIServer, OpenAIEmbedder)
        async with provider(makers, options={"dim": 2}) as (server, embedder):
            server.embed = always(Raw(body, headers={"content-type": "application/json"}))
            embedded = await embedder.embed(["a", "b"])
            assert embedded.vectors.tolist() == [[0, 1], [1, 0]]
            assert embedded.estimated

    asyncio.run(test())


@pytest.mark.parametrize(
    "usage",
    [b"null", b"{}", b'{"prompt_tokens": -5}', b'{"prompt_tokens": 1e300}', b'{"total_tokens": 7}'],
)
def test_usage_that_cannot_be_is_estimated(usage: bytes) -> None:
    body = b'{"data": [{"index": 0, "embedding": [0.0, 1.0]}], "usage": ' + usage + b"}"

    async def test() -> None:
        makers: Makers = (OpenAIServer, OpenAIEmbedder)
        async with provider(makers, options={"dim": 2}) as (server, embedder):
            server.embed = always(Raw(body, headers={"content-type": "application/json"}))
            embedded = await embedder.embed(["a text"])
            assert (embedded.tokens, embedded.estimated) == ([estimate("a text")], True)

    asyncio.run(test())


@_BOTH
def test_nobody_there_is_no_start_and_may_be_tried_again(makers: Makers) -> None:
    async def test() -> None:
        stand_in = makers[0]()
        await stand_in.start()
        url = stand_in.base_url
        await stand_in.stop()
        embedder = embedder_of(makers, url)
        for _ in range(2):
            with pytest.raises(EmbedderError) as raised:
                await embedder.start()
            assert raised.value.failure is Failure.UNAVAILABLE
            assert url not in str(raised.value)
        await embedder.close()
        with pytest.raises(EmbedderError, match="closed"):
            await embedder.embed(["a"])

    asyncio.run(test())


@_BOTH
def test_a_call_that_is_cancelled_leaves_no_connection(makers: Makers) -> None:
    async def test() -> None:
        async with provider(makers) as (server, embedder):
            server.embed = always(Hang())
            call = asyncio.create_task(embedder.embed(["a"]))
            while len(server.asked) < 2:
                await asyncio.sleep(0.001)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(test())
