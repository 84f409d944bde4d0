"""A server in memory that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from servers import RunningServer, running_server


@pytest.fixture(scope="package")
def shared_server() -> Iterator[RunningServer]:
    with running_server() as server:
        yield server


@pytest.fixture
def server(shared_server: RunningServer) -> Iterator[RunningServer]:
    """The shared server, empty."""
    yield shared_server
    with shared_server.client() as client:
        client.flushall()


@pytest.fixture
def client(server: RunningServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def any_client(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """A client of either protocol."""
    with server.client(protocol=request.param) as client:
        yield client
