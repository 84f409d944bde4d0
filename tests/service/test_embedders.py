"""Embedders by name: how they are started together, and stopped at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pyrope.clock import SystemClock
from pyrope.config import EmbedSettings
from pyrope.errors import BusyError, CommandError
from pyrope.service.embedders import Embedders
from pyrope.testing.provider_servers import (
    Delay,
    Hang,
    OpenAIServer,
    Problem,
    Script,
    Vectors,
    always,
)
from pyrope.types import IndexSpec, IndexType, Metric


async def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.to_thread(function, *args)


@asynccontextmanager
async def world(**settings: Any) -> AsyncIterator[tuple[OpenAIServer, Embedders]]:
    """A stand-in, and embedders that know it; nothing is left of them at the end."""
    server = OpenAIServer()
    await server.start()
    chosen = {"openai_model": "m", "openai_base_url": server.base_url} | settings
    embedders = Embedders(
        EmbedSettings(**chosen), SystemClock(), run=_in_thread, spawn=asyncio.create_task
    )
    try:
        yield server, embedders
    finally:
        await asyncio.wait_for(embedders.stop(), 2)
        await asyncio.wait_for(server.http.all_closed(), 2)
        await server.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}


def spec(embedder: str) -> IndexSpec:
    return IndexSpec(
        1, "acme", "t", 8, Metric.COSINE, IndexType.FLAT, 16, 200, 64, 0.0, embedder=embedder
    )


def test_those_who_need_an_embedder_at_the_same_time_start_it_once() -> None:
    async def test() -> None:
        async with world() as (server, embedders):
            server.embed = always(Delay(0.05, Vectors()))
            found = await asyncio.gather(*[embedders.describe("openai") for _ in range(5)])
            assert found == [("openai:m:8", 8)] * 5
            assert len(server.asked) == 1

    asyncio.run(test())


def test_one_who_gives_up_waiting_for_the_start_takes_it_from_nobody() -> None:
    async def test() -> None:
        async with world() as (server, embedders):
            server.embed = always(Delay(0.05, Vectors()))
            first = asyncio.create_task(embedders.describe("openai"))
            second = asyncio.create_task(embedders.describe("openai"))
            while not server.asked:
                await asyncio.sleep(0.001)
            first.cancel()
            assert await second == ("openai:m:8", 8)
            assert first.cancelled()

    asyncio.run(test())


def test_a_start_that_failed_is_tried_by_the_next_one() -> None:
    async def test() -> None:
        async with world() as (server, embedders):
            server.embed = Script(Problem(503), then=always(Vectors()))
            with pytest.raises(BusyError, match="not reachable"):
                await embedders.describe("openai")
            assert await embedders.describe("openai") == ("openai:m:8", 8)

    asyncio.run(test())


def test_the_time_that_starting_takes_is_part_of_the_time_allowed() -> None:
    async def test() -> None:
        async with world() as (server, embedders):
            server.embed = always(Hang())
            of_index = spec("openai:m:8")
            assert embedders.find(of_index, b"text", None) is None
            with pytest.raises(BusyError, match=r"^timeout$"):
                await embedders.embed(of_index, b"text", account=None, timeout_s=0.05)

    asyncio.run(test())


def test_stopping_in_the_middle_of_a_start_tells_who_waits() -> None:
    async def test() -> None:
        async with world() as (server, embedders):
            server.embed = always(Hang())
            waiting = asyncio.create_task(embedders.describe("openai"))
            while not server.asked:
                await asyncio.sleep(0.001)
            await embedders.stop()
            with pytest.raises(BusyError, match="the server is stopping"):
                await waiting
            with pytest.raises(BusyError, match="the server is stopping"):
                await embedders.describe("openai")

    asyncio.run(test())


def test_an_index_begins_with_its_embedder_and_one_without_needs_none() -> None:
    async def test() -> None:
        async with world() as (_, embedders):
            embedders.begin(spec(""))
            await asyncio.sleep(0)
            assert embedders.statistics() == {}
            embedders.begin(spec("openai:m:8"))
            while "openai:m:8" not in embedders.statistics():
                await asyncio.sleep(0.001)
            with pytest.raises(CommandError, match="has no embedder"):
                embedders.find(spec(""), b"text", None)

    asyncio.run(test())


def test_a_name_that_nobody_knows_is_an_error() -> None:
    async def test() -> None:
        async with world() as (_, embedders):
            with pytest.raises(CommandError, match="one of wordllama, gemini, openai"):
                await embedders.describe("nobody")

    asyncio.run(test())
