"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
import redis

from control import administering, control_server
from servers import RunningServer
from tenancy import PASSWORD, administrator


@pytest.fixture(scope="package")
def shared_control() -> Iterator[RunningServer]:
    with control_server(admin_password=PASSWORD, http={"requests_per_s": 0}) as server:
        yield server


@pytest.fixture
def control(shared_control: RunningServer) -> Iterator[RunningServer]:
    """A server with an administrator and a control plane, empty."""
    yield shared_control
    with administrator(shared_control) as admin:
        for name in admin.execute_command("VECTOR.TENANT", "LIST"):
            admin.execute_command("VECTOR.TENANT", "DROP", name)
        admin.flushall()


@pytest.fixture
def admin(control: RunningServer) -> Iterator[httpx2.Client]:
    """The administrator, over HTTP."""
    with administering(control) as client:
        yield client


@pytest.fixture
def wire(control: RunningServer) -> Iterator[redis.Redis]:
    """The administrator, over RESP."""
    with administrator(control) as client:
        yield client
