"""Clients of both kinds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from calling import calling
from pyrope.client import AsyncClient, Client
from servers import RunningServer


@pytest.fixture(params=[Client, AsyncClient], ids=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def calls(server: RunningServer, kind: Any) -> Iterator[Any]:
    """A client of the shared server."""
    with calling(kind, port=server.port) as client:
        yield client
