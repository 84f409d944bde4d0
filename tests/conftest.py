"""What every test shares."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, settings

from pyrope.testing.clock import ManualClock
from servers import RunningServer, running_server

# In CI the examples are the same in every run, and a busy machine fails no test for being slow.
settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("default", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only when the test moves it."""
    return ManualClock()


@pytest.fixture(scope="session")
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
