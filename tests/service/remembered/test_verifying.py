"""Near prompts that nobody is sure of: the language model is asked, and its word weighed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from in_process import Desk
from pyrope.config import Settings
from pyrope.service.advising import Advisor
from pyrope.service.service import Service
from pyrope.testing.clock import ManualClock
from pyrope.testing.openai_server import OpenAIServer
from pyrope.testing.oracle import Oracle
from service.advising_bench import options

QUESTION, SAME = "How do plants make food?", "How do plants make their own food?"
OTHER = "How do plants make seeds?"
_MEANINGS = {QUESTION: "food", SAME: "food", OTHER: "seeds"}


class World:
    """A service with an index that embeds texts, and a model that knows what they mean."""

    def __init__(self, service: Service, stand_in: OpenAIServer, clock: ManualClock) -> None:
        self.service = service
        self.oracle = Oracle(_MEANINGS.get)
        stand_in.chat = self.oracle
        self._desk = Desk(service, clock)

    @property
    def advisor(self) -> Advisor:
        assert self.service.advisor is not None
        return self.service.advisor

    async def call(self, *words: str) -> Any:
        return await self._desk.call(*[word.encode() for word in words], protocol=3)

    async def recall(self, prompt: str, *words: str) -> tuple[Any, dict[bytes, Any]]:
        response, info = await self.call(
            "VECTOR.RECALL", "i", prompt, "MAXERROR", "0.1", *words, "WITHINFO"
        )
        return response, info

    async def stats(self) -> dict[bytes, Any]:
        """Once everything is on disk."""
        await self.service.index("default", b"i").memory.keeping.drain()
        told: dict[bytes, Any] = await self.call("VECTOR.CACHE", "STATS", "i")
        found: dict[bytes, Any] = told[b"remembered"]
        return found

    async def questions(self) -> list[dict[str, Any]]:
        """Have everything asked that waits; the documents that the model was given."""
        before = len(self.oracle.asked)
        async with asyncio.timeout(20):
            while True:
                told = self.advisor.worker.statistics()
                if not (told.queued_current or told.running_current):
                    return self.oracle.asked[before:]
                await asyncio.sleep(0.002)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    stand_in = OpenAIServer()
    await stand_in.start()
    clock = ManualClock()
    values: dict[str, Any] = {"llm": options(stand_in), "http_port": 0}
    service = Service(Settings(data_dir=tmp_path / "data", **values), clock, bytes)
    await service.start()
    try:
        await service.loaded()
        made = World(service, stand_in, clock)
        await made.advisor.started()
        await made.call("VECTOR.CREATE", "i", "EMBEDDER", "wordllama")
        await made.call("VECTOR.REMEMBER", "i", QUESTION, "by photosynthesis")
        yield made
    finally:
        await service.stop()
        await stand_in.stop()


async def test_a_yes_makes_an_alias_of_a_near_prompt(world: World) -> None:
    response, info = await world.recall(SAME)
    assert response is None
    assert info[b"nearest"][b"refused_by"] is None
    (asked,) = await world.questions()
    assert asked["data"] == {"one": SAME, "other": QUESTION}
    response, info = await world.recall(SAME)
    assert (response, info[b"match"]) == (b"by photosynthesis", b"alias")
    assert info[b"estimated_error"] <= 0.1
    counted = await world.stats()
    assert (counted[b"verifications"], counted[b"verified_same"]) == (1, 1)
    assert counted[b"labels"] == 1


async def test_a_no_is_a_label_and_nothing_is_asked_again(world: World) -> None:
    await world.recall(OTHER)
    assert len(await world.questions()) == 1
    response, info = await world.recall(OTHER)
    assert response is None
    assert info[b"guard"] == b"feedback"
    # Whatever score is good enough: somebody has said that it is another question.
    words = ("VECTOR.RECALL", "i", OTHER, "THRESHOLD", "0.1")
    assert await world.call(*words) is None
    assert await world.questions() == []
    assert (await world.stats())[b"verified_different"] == 1


async def test_a_pair_is_asked_about_once_however_unsure_the_model_is(world: World) -> None:
    world.oracle._confidence = 0.1
    for _ in range(3):
        assert (await world.recall(SAME))[0] is None
    assert len(await world.questions()) == 1
    assert (await world.recall(SAME))[0] is None
    assert await world.questions() == []
    assert (await world.stats())[b"pairs"] == 0


async def test_what_is_plain_is_not_asked(world: World) -> None:
    for prompt in ("How do plants not make food?", "The price of gold in 1990", QUESTION.upper()):
        await world.recall(prompt)
    await world.call("VECTOR.RECALL", "i", SAME, "THRESHOLD", "0.999")
    await world.recall(SAME, "SCOPE", "1", "user", "a")
    assert await world.questions() == []


async def test_a_verdict_on_what_is_gone_by_then_comes_to_nothing(world: World) -> None:
    await world.recall(SAME)
    await world.call("VECTOR.FORGET", "i", "PROMPT", QUESTION)
    await world.questions()
    counted = await world.stats()
    assert (counted[b"pairs"], counted[b"entries"]) == (0, 0)


async def test_a_share_of_hits_that_nobody_has_judged_is_audited(world: World) -> None:
    near = ("VECTOR.RECALL", "i")
    world.service.settings.remember.audit_share = 0.0
    assert await world.call(*near, SAME, "THRESHOLD", "0.1") == b"by photosynthesis"
    assert await world.questions() == []
    world.service.settings.remember.audit_share = 1.0
    for prompt in (SAME, OTHER):
        assert await world.call(*near, prompt, "THRESHOLD", "0.1") == b"by photosynthesis"
    asked = await world.questions()
    assert {one["data"]["one"] for one in asked} == {SAME, OTHER}
    counted = await world.stats()
    assert [counted[b"audits"], counted[b"audited_same"], counted[b"audited_different"]] == [
        2,
        1,
        1,
    ]
    assert (counted[b"verifications"], counted[b"labels"]) == (0, 2)
    # What it has said holds: the one is an alias, the other is not served again.
    response, info = await world.recall(SAME)
    assert (response, info[b"match"]) == (b"by photosynthesis", b"alias")
    assert await world.call(*near, OTHER, "THRESHOLD", "0.1") is None
    # Neither is what stands for the very prompt audited, nor what was judged.
    assert await world.call(*near, QUESTION) == b"by photosynthesis"
    assert await world.questions() == []


async def test_it_can_be_switched_off(world: World) -> None:
    world.service.settings.remember.verify = False
    await world.recall(SAME)
    assert await world.questions() == []
