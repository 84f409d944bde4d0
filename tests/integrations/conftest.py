"""A server that embeds and remembers, and a stand-in of a provider whose answers are counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pyrope.client import Client
from pyrope.integrations import RememberOptions, ResponseCache
from pyrope.testing.provider_servers import Answer, OpenAIServer
from servers import RunningServer
from stand_ins import on_its_own_loop

INDEX = "answers"


@pytest.fixture
def memory(server: RunningServer) -> Iterator[Client[str]]:
    """A client of the shared server, where there is an empty index."""
    with Client(port=server.port) as client:
        client.create(INDEX, embedder="wordllama")
        yield client


@pytest.fixture
def cache(memory: Client[str], server: RunningServer) -> Iterator[ResponseCache]:
    assert memory.list() == [INDEX]
    options = RememberOptions(threshold=0.9, lease_s=20)
    with ResponseCache(INDEX, options, port=server.port) as cache:
        yield cache


@pytest.fixture
def provider() -> Iterator[OpenAIServer]:
    """Answers a question with itself and how many were put before it."""
    server = OpenAIServer()
    server.chat = lambda asked: Answer(f"{asked.user} #{len(server.asked)}")
    with on_its_own_loop(server):
        yield server
