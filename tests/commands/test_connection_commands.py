"""Commands about the connection itself."""

from __future__ import annotations

import pytest
import redis

from servers import RunningServer, encode, exchange, running_server


def test_ping_and_echo(any_client: redis.Redis) -> None:
    assert any_client.ping() is True
    assert any_client.echo(b"\x00\r\n") == b"\x00\r\n"
    with pytest.raises(redis.ResponseError, match="wrong number of arguments for 'ping'"):
        any_client.execute_command("PING", "a", "b")


def test_there_is_one_database(client: redis.Redis) -> None:
    assert client.select(0)
    with pytest.raises(redis.ResponseError, match="DB index is out of range"):
        client.select(1)
    with pytest.raises(redis.ResponseError, match="not an integer"):
        client.select("x")  # type: ignore[arg-type]


def test_a_client_is_listed_with_its_name_and_library(server: RunningServer) -> None:
    with server.client(client_name="worker-7") as client:
        client.client_setinfo("LIB-NAME", "mylib")
        client.client_setinfo("LIB-VER", "1.2")
        (row,) = [row for row in client.client_list() if row["name"] == "worker-7"]
        assert row["lib-name"] == "mylib"
        assert row["lib-ver"] == "1.2"
        assert row["cmd"] == "client|list"
        assert row["user"] == "default"
        assert client.client_id() == int(row["id"])
        assert client.client_info()["id"] == int(row["id"])
        (alone,) = client.client_list(client_id=[row["id"], 10**6])
        assert alone["name"] == "worker-7"


def test_names_cannot_break_the_client_list(client: redis.Redis) -> None:
    for bad in ("a b", "a\nb", "\xff"):
        with pytest.raises(redis.ResponseError, match="cannot contain spaces"):
            client.client_setname(bad)
    with pytest.raises(redis.ResponseError, match="Unrecognized option"):
        client.execute_command("CLIENT", "SETINFO", "lib-nonsense", "x")


def test_clients_can_be_killed_by_address_and_by_id(server: RunningServer) -> None:
    with server.client() as client, server.connect() as one, server.connect() as two:
        ids = []
        for connection in (one, two):
            received = exchange(connection, encode("CLIENT", "ID"), replies=b"\r\n")
            ids.append(received[1:-2].decode())
        host, port = one.getsockname()
        assert client.client_kill(f"{host}:{port}")
        assert one.recv(10) == b""
        assert client.client_kill_filter(_id=ids[1]) == 1
        assert two.recv(10) == b""
        assert client.client_kill_filter(_id=ids[1]) == 0
        with pytest.raises(redis.ResponseError, match="No such client"):
            client.client_kill("1.2.3.4:5")


def test_a_client_is_spared_by_its_own_filter_unless_it_says_otherwise(
    server: RunningServer,
) -> None:
    with server.client() as client:
        assert client.execute_command("CLIENT", "KILL", "TYPE", "normal") == 0
        for bad in (("ID", "x"), ("ID", "0"), ("TYPE", "weird"), ("SKIPME", "maybe"), ("ID",)):
            with pytest.raises(redis.ResponseError):
                client.execute_command("CLIENT", "KILL", *bad)
    with server.connect() as connection:
        said = exchange(connection, encode("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no"))
        assert said == b":1\r\n"


def test_reset_puts_a_connection_back_into_its_first_state(server: RunningServer) -> None:
    with server.connect() as connection:
        exchange(connection, encode("HELLO", 3, "SETNAME", "x"), replies=b"modules")
        said = exchange(
            connection, encode("RESET") + encode("CLIENT", "GETNAME"), replies=b"$-1\r\n"
        )
        assert said.endswith(b"+RESET\r\n$-1\r\n")


def test_without_a_password_any_passes_for_the_known_users(client: redis.Redis) -> None:
    assert client.execute_command("AUTH", "default", "whatever")
    with pytest.raises(redis.AuthenticationError):
        client.execute_command("AUTH", "somebody", "else")
    with pytest.raises(redis.AuthenticationError, match="without any password configured"):
        client.execute_command("AUTH", "x")


def test_with_a_password_nothing_is_answered_before_it_is_given() -> None:
    with running_server(admin_password="s3cret") as server:
        with server.connect() as connection:
            for command in (
                encode("PING"),
                encode("VECTOR.LIST"),
                encode("VECTOR.INFO", "none"),
                encode("HELLO", 3),
            ):
                said = exchange(connection, command, replies=b"\r\n")
                assert said.startswith(b"-NOAUTH")
            said = exchange(connection, encode("AUTH", "wrong"), replies=b"\r\n")
            assert said.startswith(b"-WRONGPASS")
            said = exchange(connection, encode("AUTH", "nobody", "s3cret"), replies=b"\r\n")
            assert said.startswith(b"-WRONGPASS")
            assert exchange(connection, encode("AUTH", "s3cret"), replies=b"\r\n") == b"+OK\r\n"
            assert exchange(connection, encode("PING"), replies=b"\r\n") == b"+PONG\r\n"
        for protocol in (2, 3):
            with server.client(username="admin", password="s3cret", protocol=protocol) as client:
                assert client.ping()
                assert client.acl_whoami() in ("admin", b"admin")


def test_an_unauthenticated_client_cannot_make_the_server_hold_much() -> None:
    with running_server(admin_password="s3cret") as server, server.connect() as connection:
        said = exchange(connection, b"*2\r\n$4\r\nAUTH\r\n$100000000\r\n")
        assert said == b"-ERR Protocol error: unauthenticated bulk length\r\n"


def test_authenticating_lifts_the_limit_for_what_follows_in_the_same_packet() -> None:
    with running_server(admin_password="s3cret") as server, server.connect() as connection:
        big = b"x" * 100_000
        sent = encode("AUTH", "s3cret") + encode("ECHO", big)
        assert exchange(connection, sent, replies=b"xx\r\n") == (
            b"+OK\r\n$100000\r\n" + big + b"\r\n"
        )
