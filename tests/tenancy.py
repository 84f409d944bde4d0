"""Servers with tenants, for tests: the administrator, clients of tenants, what has been used."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from servers import RunningServer, running_server

PASSWORD = "the administrator's password"


@contextmanager
def tenant_server(*args: Any, **settings: Any) -> Iterator[RunningServer]:
    """A server that has an administrator, and no tenant yet; arguments as `running_server` has."""
    with running_server(*args, admin_password=PASSWORD, **settings) as server:
        yield server


def administrator(server: Any, **options: Any) -> redis.Redis:
    """A client of the administrator; of a server in this process, or in one of its own."""
    client: redis.Redis = server.client(username="admin", password=PASSWORD, **options)
    return client


def signed_in(server: Any, login: str, key: str | bytes, **options: Any) -> redis.Redis:
    """A client of a tenant or a user. It does not try again: what it is told is looked at."""
    client: redis.Redis = server.client(username=login, password=key, retry=None, **options)
    return client


def tenant(client: redis.Redis, *words: Any) -> Any:
    return client.execute_command("VECTOR.TENANT", *words)


def as_map(reply: Any) -> dict[str, Any]:
    """A map of RESP3, or the flat array that it is in RESP2; keys as text."""
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {key.decode(): value for key, value in pairs}


def usage(client: redis.Redis, name: str, *words: Any) -> dict[str, Any]:
    """What VECTOR.TENANT USAGE tells; numbers as such."""
    told = as_map(tenant(client, "USAGE", name, *words))
    answers = {key: int(value) for key, value in as_map(told.pop("answers")).items()}
    return {key: _number(value) for key, value in told.items()} | {"answers": answers}


def _number(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return float(value)
    except ValueError:
        return value.decode()


def blob(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def add(client: redis.Redis, index: str, id_: str, *values: float) -> Any:
    return client.execute_command("VECTOR.ADD", index, id_, "FP32", blob(*values))


def search(client: redis.Redis, index: str, *values: float, options: tuple[Any, ...] = ()) -> Any:
    return client.execute_command("VECTOR.SEARCH", index, "FP32", blob(*values), *options)


def searched(client: redis.Redis, index: str, *values: float, options: tuple[Any, ...] = ()) -> Any:
    """Hits, and what WITHINFO tells of them."""
    hits, info = search(client, index, *values, options=(*options, "WITHINFO"))
    return hits, as_map(info)
