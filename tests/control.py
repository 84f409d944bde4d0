"""Servers with a control plane, for tests, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from servers import RunningServer, free_port, running_server
from tenancy import PASSWORD


@contextmanager
def control_server(*args: Any, **settings: Any) -> Iterator[RunningServer]:
    """A server with a control plane; arguments as `running_server` has."""
    with running_server(*args, **{"http_port": free_port()} | settings) as server:
        yield server


def asking(server: RunningServer, login: str = "", key: str = "", **options: Any) -> httpx2.Client:
    """A client of the control plane: of somebody, or of nobody."""
    address = f"http://127.0.0.1:{server.settings.http_port}"
    auth = (login, key) if key else None
    # Certificates of authorities take 20 ms to load, and are of no use here.
    return httpx2.Client(
        base_url=address, auth=auth, timeout=30, trust_env=False, verify=False, **options
    )


def administering(server: RunningServer, **options: Any) -> httpx2.Client:
    """The administrator."""
    return asking(server, "admin", PASSWORD, **options)


def problem(response: httpx2.Response, status: int, code: str) -> str:
    """What a problem says, which has this status and this prefix of the wire."""
    told = response.json()
    assert (response.status_code, told["code"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert told["status"] == status
    assert told["type"] == "about:blank"
    assert told["request_id"] == response.headers["x-request-id"]
    detail: str = told["detail"]
    return detail
