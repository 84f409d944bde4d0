"""A service that asks a model, and the stand-in that answers, on the loop of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pyrope.cache.query_key import text_key
from pyrope.config import Settings
from pyrope.service.advice_signals import IndexAdvisor
from pyrope.service.advising import Advisor
from pyrope.service.answers import Answer, CachedSearch, CacheMode, CacheWish, Near
from pyrope.service.audit import SERVER
from pyrope.service.definition import IndexDefinition
from pyrope.service.index import OpenIndex
from pyrope.service.search import Search
from pyrope.service.service import Service
from pyrope.service.writes import Condition, PutVectors
from pyrope.testing.clock import ManualClock
from pyrope.testing.openai_server import OpenAIServer
from pyrope.testing.oracle import Oracle
from pyrope.types import CachePolicy, IndexType, Metric

DIM = 8
ROWS = np.random.default_rng(3).standard_normal((60, DIM)).astype(np.float32)

MEANINGS = {
    "how old is berlin": "age of berlin",
    "what is the age of berlin": "age of berlin",
    "berlin's age?": "age of berlin",
    "how big is berlin": "size of berlin",
}

A, B, C, OTHER = (
    "How old is Berlin",
    "what is the age of Berlin",
    "Berlin's age?",
    "how big is Berlin",
)
"""Texts: the first three mean the same."""


def meaning(text: str) -> str | None:
    return MEANINGS.get(text.lower())


def near_to(number: int, apart: float = 0.0) -> bytes:
    """A vector that is as far from a row as is said, about."""
    moved = ROWS[number] + apart * np.roll(ROWS[number], 1)
    return np.asarray(moved, "<f4").tobytes()


class Bench:
    """All of it.

    Attributes:
        oracle: what the stand-in says unless `stand_in.chat` is set to something else.
    """

    def __init__(self, service: Service, stand_in: OpenAIServer, clock: ManualClock) -> None:
        self.service = service
        self.stand_in = stand_in
        self.clock = clock
        self.oracle = Oracle(meaning)
        self._told = 0
        stand_in.chat = self.oracle

    @property
    def advisor(self) -> Advisor:
        assert self.service.advisor is not None
        return self.service.advisor

    async def create(self, name: str = "i", tenant: str = "default", **policy: Any) -> OpenIndex:
        """An index with some vectors; and the tenant, if there is none."""
        registry = self.service.tenancy.registry
        if tenant != "default" and registry.get(tenant) is None:
            await self.service.tenancy.create(SERVER, tenant, {}, None)
        definition = IndexDefinition(
            name, DIM, Metric.COSINE, IndexType.FLAT, cache=CachePolicy(**policy)
        )
        await self.service.create_index(tenant, definition)
        index = self.service.index(tenant, name.encode())
        done = asyncio.get_running_loop().create_future()
        ids = [b"v%d" % number for number in range(len(ROWS))]
        index.write(PutVectors(ids, ROWS, None, 0, Condition.ALWAYS, done))
        await done
        return index

    async def questions(self) -> list[dict[str, Any]]:
        """Have everything asked that is worth it by now.

        Returns:
            The documents that the model was given since the last time. The service looks for
            questions by itself, too, ten times a second.
        """
        async with asyncio.timeout(20):
            while True:
                self.advisor.tick()
                told = self.advisor.worker.statistics()
                if not (told.queued_current or told.running_current or self.advisor.has_pending):
                    break
                await asyncio.sleep(0.002)
        new = self.oracle.asked[self._told :]
        self._told += len(new)
        return new

    def listener(self, index: OpenIndex) -> IndexAdvisor:
        found = self.advisor.of_index(index.spec.uid)
        assert found is not None
        return found


async def answer(
    index: OpenIndex,
    text: str | None,
    query: bytes,
    *,
    near: Near | None = None,
    session: bytes | None = None,
    asked: Search | None = None,
) -> Answer:
    wish = CacheWish(
        CacheMode.AUTO, near, None if text is None else text_key(text.encode()), session
    )
    found = index.cache.search("test", query, asked or Search(10), wish)
    return (await found if isinstance(found, CachedSearch) else found)[0]


async def ask(index: OpenIndex, text: str | None, query: bytes, **more: Any) -> str:
    """Where the answer to a search comes from."""
    return (await answer(index, text, query, **more)).source.level


def aliases(index: OpenIndex) -> dict[str, str]:
    _, found = index.aliases.scan(0)
    return {one.key.content.decode(): one.canonical.key.content.decode() for one in found}


def dispatched(bench: Bench) -> dict[str, Any]:
    """What has come of the questions."""
    return bench.advisor.describe()


def options(stand_in: OpenAIServer, **more: Any) -> dict[str, Any]:
    return {
        "provider": "openai",
        "model": "stand-in",
        "base_url": stand_in.base_url,
        "min_count": 1,
        "min_cost": 0,
        "requests_per_minute": 0,
        "tokens_per_minute": 0,
        "max_attempts": 1,
        # One after another, so that what is asked comes in a known order.
        "concurrency": 1,
        "breaker_failures": 1000,
        **more,
    }


@asynccontextmanager
async def open_bench(data_dir: Path | None = None, **llm: Any) -> AsyncIterator[Bench]:
    stand_in = OpenAIServer()
    await stand_in.start()
    try:
        clock = ManualClock()
        place: Any = {"in_memory": True} if data_dir is None else {"data_dir": data_dir}
        values: dict[str, Any] = {"llm": options(stand_in, **llm), "admin_password": "secret"}
        settings = Settings(**values, **place)
        service = Service(settings, clock, lambda id_: id_)
        await service.start()
        try:
            await service.loaded()
            bench = Bench(service, stand_in, clock)
            await bench.advisor.started()
            yield bench
        finally:
            await service.stop()
    finally:
        await stand_in.stop()
