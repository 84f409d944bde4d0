"""What tests of several families of commands share."""

from __future__ import annotations

import pytest
import redis


@pytest.fixture
def index(client: redis.Redis) -> redis.Redis:
    """A client of a server with the index i."""
    client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
    return client
