"""SLOWLOG: what Redis has of it, and what made a search slow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
import structlog

from control import administering, control_server
from servers import RunningServer, exchange, running_server
from tenancy import PASSWORD, add, administrator, as_map, blob, search, searched, tenant_server


@pytest.fixture
def server() -> Iterator[RunningServer]:
    """All commands are slow."""
    with running_server(slowlog={"slower_than_us": 0}) as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 2, "TYPE", "FLAT", "CACHE", "EXACT")
        add(client, "i", "a", 1, 0)
        client.slowlog_reset()
        yield client


def entries(client: redis.Redis, count: int = -1) -> list[list[Any]]:
    """As they come, the latest first; not as redis-py shows them."""
    with_callback = client.response_callbacks.pop("SLOWLOG GET", None)
    try:
        found: list[list[Any]] = client.execute_command("SLOWLOG GET", count)
    finally:
        if with_callback is not None:
            client.response_callbacks["SLOWLOG GET"] = with_callback
    return found


def details(client: redis.Redis, word: str) -> dict[str, Any]:
    """Of the latest entry of a command."""
    found = [entry for entry in entries(client) if entry[3][0] == word.encode()]
    return as_map(found[0][6])


def test_an_entry_is_that_of_redis_and_a_map(client: redis.Redis) -> None:
    client.client_setname("me")
    client.slowlog_reset()
    client.echo("hello")
    (entry,) = [one for one in entries(client) if one[3] == [b"ECHO", b"hello"]]
    number, at, microseconds, _, address, name, more = entry
    assert isinstance(number, int)
    assert 0 <= client.time()[0] - at <= 5
    assert 0 <= microseconds < 1_000_000
    assert address.startswith(b"127.0.0.1:")
    assert name == b"me"
    assert set(as_map(more)) == {"request_id", "user", "tenant"}
    # redis-py reads what it knows.
    assert client.slowlog_get(1)[0]["client_address"] == address


def test_what_made_a_search_slow_adds_up_to_what_it_took(client: redis.Redis) -> None:
    _, info = searched(client, "i", 1, 0.5)
    found = details(client, "VECTOR.SEARCH")
    assert found["request_id"] == info["request_id"]
    assert (found["cache"], found["index"], found["tenant"]) == (b"miss", b"i", b"default")
    latency = as_map(info["latency_us"])
    assert found["queue_us"] == latency["queue"]
    assert found["search_us"] == latency["search"]
    (entry,) = [one for one in entries(client) if one[3][0] == b"VECTOR.SEARCH"]
    parts = found["cache_us"] + found["queue_us"] + found["search_us"]
    assert 0 < parts <= entry[2] + 3  # each is rounded


def test_a_hit_is_told_as_such(client: redis.Redis) -> None:
    for _ in range(2):
        searched(client, "i", 1, 0)
    found = details(client, "VECTOR.SEARCH")
    assert found["cache"] == b"exact"
    assert (found["queue_us"], found["search_us"]) == (0, 0)


def test_each_request_has_an_id_of_its_own(client: redis.Redis) -> None:
    for _ in range(5):
        client.ping()
    ids = [as_map(entry[6])["request_id"] for entry in entries(client)]
    assert len(set(ids)) == len(ids)


def test_a_search_that_failed_is_not_told_by_the_one_before_it(client: redis.Redis) -> None:
    searched(client, "i", 1, 0)
    with pytest.raises(redis.ResponseError):
        search(client, "i", 1, 0, 0)
    assert "cache" not in details(client, "VECTOR.SEARCH")


def test_a_shorter_log_keeps_the_latest_and_none_keeps_nothing(client: redis.Redis) -> None:
    client.config_set("slowlog-max-len", 3)
    for number in range(6):
        client.echo(str(number))
    words = [entry[3][-1] for entry in entries(client, 10)]
    assert words == [b"5", b"4", b"3"]
    assert client.slowlog_len() == 3
    assert len(entries(client, 2)) == 2
    client.config_set("slowlog-max-len", 0)
    client.ping()
    assert client.slowlog_len() == 0


def test_a_threshold_below_zero_logs_nothing(client: redis.Redis) -> None:
    client.config_set("slowlog-log-slower-than", -1)
    client.slowlog_reset()
    client.ping()
    search(client, "i", 1, 0)
    assert client.slowlog_len() == 0


def test_commands_with_keys_are_not_shown() -> None:
    with tenant_server(slowlog={"slower_than_us": 0}) as server, administrator(server) as client:
        client.execute_command("VECTOR.TENANT", "CREATE", "acme", "KEY", "very secret indeed")
        assert b"very secret indeed" not in repr(entries(client)).encode()


@pytest.mark.parametrize("words", [("GET", "x"), ("GET", "-2"), ("GET", 1, 2), ("NOSUCH",)])
def test_what_makes_no_sense_is_refused(client: redis.Redis, words: tuple[Any, ...]) -> None:
    with pytest.raises(redis.ResponseError):
        client.execute_command("SLOWLOG", *words)


def test_help_names_every_subcommand(client: redis.Redis) -> None:
    told = b" ".join(client.execute_command("SLOWLOG", "HELP"))
    assert all(word in told for word in (b"GET", b"LEN", b"RESET", b"HELP"))


def test_a_request_over_http_keeps_the_id_that_it_came_with() -> None:
    settings = {"admin_password": PASSWORD, "slowlog": {"slower_than_us": 0}}
    with (
        control_server(**settings) as server,
        administrator(server) as wire,
        administering(server) as client,
    ):
        wire.execute_command("VECTOR.CREATE", "i", "DIM", 2, "TYPE", "FLAT")
        add(wire, "i", "a", 1, 0)
        asked = {"index": "i", "vector": [1.0, 0.0]}
        response = client.post("/v1/search", json=asked, headers={"X-Request-Id": "trace-me"})
        assert response.status_code == 200
        assert response.json()["info"]["request_id"] == "trace-me"
        assert details(wire, "VECTOR.SEARCH")["request_id"] == b"trace-me"


def test_a_defect_is_logged_with_the_id_that_the_client_is_told() -> None:
    with running_server() as server:
        entry = server.pyrope._listener._dispatcher.entries[b"PING"]
        kept = entry.run
        with structlog.testing.capture_logs() as lines, server.connect() as connection:
            entry.run = lambda context, args: int("x")
            try:
                told = exchange(connection, b"PING\r\n", replies=b"\r\n")
            finally:
                entry.run = kept
    (line,) = [one for one in lines if one["event"] == "a command failed unexpectedly"]
    assert line["request_id"].encode() in told
    assert told.startswith(b"-ERR internal error in 'ping' (ValueError)")


def test_searches_of_many_vectors_tell_of_the_last(client: redis.Redis) -> None:
    client.execute_command("VECTOR.MSEARCH", "i", "FP32", blob(1, 0, 0, 1), "CACHE", "OFF")
    assert details(client, "VECTOR.MSEARCH")["cache"] == b"off"
