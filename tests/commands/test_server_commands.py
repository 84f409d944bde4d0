"""INFO, CONFIG, SLOWLOG, LATENCY, COMMAND, ACL and their kin."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from pyrope.commands.table import build_table
from pyrope.testing.clock import ManualClock
from servers import RunningServer, running_server


def test_info_has_its_sections_and_is_text_in_both_protocols(any_client: redis.Redis) -> None:
    any_client.config_resetstat()
    any_client.execute_command("VECTOR.CREATE", "i", "DIM", 2)
    any_client.execute_command("VECTOR.ADD", "i", "a", "VALUES", 2, 1, 0)
    info = any_client.info()
    assert info["db0"] == {"keys": 1, "vectors": 1, "expires": 0}
    assert info["index0"]["name"] == "i"
    assert info["redis_mode"] == "standalone"
    assert "cmdstat_ping" not in info
    everything = any_client.info("everything")
    assert everything["cmdstat_vector.add"]["calls"] == 1
    assert everything["latency_percentiles_usec_vector.add"]["p50"] > 0
    assert next(iter(any_client.info("memory"))) == "used_memory"
    assert any_client.info("nonsense") == {}


def test_errors_are_counted_by_prefix(client: redis.Redis) -> None:
    client.config_resetstat()
    for command in (("VECTOR.CARD", "none"), ("NONSENSE",), ("ECHO",)):
        with pytest.raises(redis.ResponseError):
            client.execute_command(*command)
    info = client.info("everything")
    assert info["errorstat_NOINDEX"] == {"count": 1}
    assert info["errorstat_ERR"] == {"count": 2}
    assert info["cmdstat_vector.card"]["failed_calls"] == 1
    assert info["total_error_replies"] == 3


def test_config_tells_and_changes_settings(client: redis.Redis) -> None:
    assert client.config_get("maxclients") == {"maxclients": "10000"}
    client.config_set("maxclients", 500)
    assert client.config_get("maxcl*") == {"maxclients": "500"}
    client.config_set("maxclients", 10_000)
    with pytest.raises(redis.ResponseError, match="Unknown option"):
        client.config_set("nonsense", 1)
    with pytest.raises(redis.ResponseError, match="CONFIG SET failed"):
        client.config_set("maxclients", "many")
    with pytest.raises(redis.ResponseError, match="CONFIG SET failed"):
        client.config_set("port", 1)


def test_secrets_are_never_told() -> None:
    with (
        running_server(admin_password="hunter2") as server,
        server.client(password="hunter2") as client,
    ):
        told = repr(client.config_get("*")) + repr(client.info("everything"))
        told += repr(client.slowlog_get(100))
        assert "hunter2" not in told


def test_slow_commands_are_logged_with_shortened_arguments(client: redis.Redis) -> None:
    client.config_set("slowlog-log-slower-than", 0)
    client.slowlog_reset()
    client.echo("x" * 1000)
    client.config_set("slowlog-log-slower-than", 10_000)
    (entry,) = [e for e in client.slowlog_get(10) if e["command"].startswith(b"ECHO")]
    assert entry["command"].endswith(b"... (872 more bytes)")
    assert client.slowlog_len() >= 1
    client.slowlog_reset()
    assert client.slowlog_len() == 0


def test_latency_histograms_count_calls(client: redis.Redis) -> None:
    client.config_resetstat()
    for _ in range(5):
        client.ping()
    told = client.execute_command("LATENCY", "HISTOGRAM", "ping")
    assert told[0] == b"ping"
    assert told[1][:2] == [b"calls", 5]
    assert told[1][3][-1] == 5
    assert client.execute_command("LATENCY", "RESET", "ping") == 1
    assert client.execute_command("LATENCY", "HISTOGRAM", "ping")[1][1] == 0


def test_latency_spikes_are_kept_once_there_is_a_threshold() -> None:
    settings = {"slower_than_us": 0, "spike_threshold_ms": 20}
    with running_server(slowlog=settings) as server, server.client() as client:
        assert client.execute_command("LATENCY", "LATEST") == []
        client.execute_command("DEBUG", "SLEEP", "0.03")
        ((event, at, latest, longest),) = client.execute_command("LATENCY", "LATEST")
        assert (event, latest) == (b"command", longest)
        assert latest >= 30
        assert client.execute_command("LATENCY", "HISTORY", "command") == [[at, latest]]
        assert client.execute_command("LATENCY", "HISTORY", "none") == []
        assert client.execute_command("LATENCY", "RESET", "command") == 1
        assert client.execute_command("LATENCY", "LATEST") == []


def test_time_is_that_of_the_injected_clock() -> None:
    with running_server(clock=ManualClock(1_234_567.25)) as server, server.client() as client:
        assert client.time() == (1_234_567, 250_000)


def test_every_command_of_the_table_is_documented(any_client: redis.Redis) -> None:
    docs: Any = any_client.execute_command("COMMAND DOCS")
    if isinstance(docs, list):
        docs = dict(zip(docs[::2], docs[1::2], strict=True))
    table = build_table()
    assert set(docs) == {name.lower() for name in table}
    assert any_client.execute_command("COMMAND COUNT") == len(table)
    infos = any_client.execute_command("COMMAND INFO", *table)
    assert [row[0] for row in infos] == [name.lower() for name in table]


def test_command_docs_have_arguments_tokens_and_subcommands(server: RunningServer) -> None:
    with server.client(protocol=3) as client:
        docs = client.execute_command("COMMAND DOCS", "vector.search", "client")
        names = [argument[b"name"] for argument in docs[b"vector.search"][b"arguments"]]
        assert names[:2] == [b"index", b"vector"]
        assert b"filter" in {
            a.get(b"token", b"").lower() for a in docs[b"vector.search"][b"arguments"]
        }
        assert b"cache" not in names
        assert b"client|kill" in docs[b"client"][b"subcommands"]


def test_getkeys_finds_the_index(client: redis.Redis) -> None:
    ask = "COMMAND GETKEYS"
    assert client.execute_command(ask, "VECTOR.SEARCH", "i", "ELE", "a") == ["i"]
    for wrong in (("PING",), ("NONSENSE", "x"), ("VECTOR.SEARCH", "i")):
        with pytest.raises(redis.ResponseError):
            client.execute_command(ask, *wrong)


def test_containers_explain_themselves_and_refuse_unknown_subcommands(client: redis.Redis) -> None:
    for container in (
        "CLIENT",
        "CONFIG",
        "COMMAND",
        "ACL",
        "SLOWLOG",
        "LATENCY",
        "MEMORY",
        "DEBUG",
    ):
        lines = client.execute_command(f"{container} HELP")
        assert f"{container} <subcommand>" in str(lines[0])
        with pytest.raises(redis.ResponseError, match=f"Try {container} HELP"):
            client.execute_command(f"{container} NONSENSE")


def test_acl_tells_user_categories_and_rules(client: redis.Redis) -> None:
    assert client.acl_whoami() == "default"
    assert b"vector" in client.execute_command("ACL", "CAT")
    assert b"vector.search" in client.execute_command("ACL", "CAT", "read")
    with pytest.raises(redis.ResponseError, match="Unknown category"):
        client.execute_command("ACL", "CAT", "nonsense")
    assert client.execute_command("ACL", "LIST")[0].startswith(b"user default on nopass")


def test_arity_is_checked_for_every_command(client: redis.Redis) -> None:
    for name, command in build_table().items():
        if command.arity == -1 or command.subcommands:
            continue
        with pytest.raises(redis.ResponseError, match="wrong number of arguments"):
            client.execute_command(name, *["x"] * 40 if command.arity > 0 else [])


def test_memory_usage_is_that_of_the_index(client: redis.Redis) -> None:
    client.execute_command("VECTOR.CREATE", "i", "DIM", 2)
    assert client.execute_command("MEMORY", "USAGE", "i") > 0
    assert client.execute_command("MEMORY", "USAGE", "none") is None


def test_debug_sleep_holds_up_its_own_connection_only(client: redis.Redis) -> None:
    sleeping = client.connection_pool.get_connection()
    sleeping.send_command("DEBUG", "SLEEP", "0.2")
    sleeping.send_command("VECTOR.LIST")
    assert client.ping()
    assert not sleeping.can_read(timeout=0)
    assert sleeping.read_response() == b"OK"
    assert sleeping.read_response() == []
    client.connection_pool.release(sleeping)


def test_debug_can_be_forbidden() -> None:
    with (
        running_server(enable_debug_command="no") as server,
        server.client() as client,
        pytest.raises(redis.ResponseError, match="DEBUG command not allowed"),
    ):
        client.execute_command("DEBUG", "SLEEP", 0)
