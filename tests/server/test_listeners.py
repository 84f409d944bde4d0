"""TCP, Unix socket, TLS, protected mode, and clients of every kind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import stat
from pathlib import Path

import pytest
import redis
import redis.asyncio

from pyrope.clock import SystemClock
from servers import RunningServer, encode, exchange, free_port, make_settings, running_server


def other_address() -> str | None:
    """An address of this host that is not the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # sends nothing
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return None if address.startswith("127.") else address


@pytest.mark.parametrize("protocol", [2, 3])
async def test_redis_py_with_asyncio(server: RunningServer, protocol: int) -> None:
    client = redis.asyncio.Redis(port=server.port, protocol=protocol)
    try:
        await client.execute_command("VECTOR.CREATE", "i", "DIM", 2)
        adds = [
            client.execute_command("VECTOR.ADD", "i", f"v{n}", "VALUES", 2, 1, n) for n in range(50)
        ]
        assert sum(await asyncio.gather(*adds)) == 50
        searches = [
            client.execute_command("VECTOR.SEARCH", "i", "VALUES", 2, 1, n, "COUNT", 1)
            for n in range(50)
        ]
        assert await asyncio.gather(*searches) == [[b"v%d" % n] for n in range(50)]
    finally:
        await client.aclose()


def test_a_unix_socket_serves_with_its_permissions_and_goes_with_the_server(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pyrope.sock"
    for _ in range(2):
        with running_server(unixsocket=path, unixsocket_perm="600") as server:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            with redis.Redis(unix_socket_path=str(path)) as client:
                assert client.ping()
                assert client.client_info()["addr"] == f"{path}:0"
            with server.client() as client:
                assert client.ping()
        assert not path.exists()


def test_a_socket_that_a_killed_server_left_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "pyrope.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with running_server(unixsocket=path), redis.Redis(unix_socket_path=str(path)) as client:
        assert client.ping()
        with pytest.raises(FileExistsError, match="another server"):
            RunningServer(make_settings(unixsocket=path), SystemClock())
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="no socket"):
        RunningServer(make_settings(unixsocket=path), SystemClock())
    assert path.read_text() == "precious"


def test_tls_serves_beside_plain_tcp(certificates: Path) -> None:
    tls = {
        "port": free_port(),
        "cert_file": certificates / "server.crt",
        "key_file": certificates / "server.key",
    }
    with running_server(tls=tls) as server:
        options = {"ssl": True, "ssl_ca_certs": str(certificates / "ca.crt"), "protocol": 3}
        with redis.Redis(host="127.0.0.1", port=tls["port"], **options) as client:  # type: ignore[arg-type]
            client.execute_command("VECTOR.CREATE", "i", "DIM", 2)
            client.execute_command("VECTOR.ADD", "i", "a", "VALUES", 2, 1, 0)
            assert client.echo("x" * 200_000) == b"x" * 200_000
        with server.client() as plain:
            assert plain.execute_command("VECTOR.SEARCH", "i", "ELE", "a") == [b"a"]
        with socket.create_connection(("127.0.0.1", int(str(tls["port"])))) as bare:
            bare.sendall(encode("PING"))
            assert b"PONG" not in bare.recv(100)  # an alert, or nothing


def test_tls_can_insist_on_a_clients_certificate(certificates: Path) -> None:
    tls = {
        "port": free_port(),
        "cert_file": certificates / "server.crt",
        "key_file": certificates / "server.key",
        "ca_file": certificates / "ca.crt",
        "auth_clients": "yes",
    }
    with running_server(tls=tls):
        context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))

        def ping() -> bytes:
            with (
                socket.create_connection(("127.0.0.1", int(str(tls["port"])))) as raw,
                context.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
            ):
                connection.sendall(encode("PING"))
                return connection.recv(100)

        with contextlib.suppress(OSError):
            assert ping() == b""  # in TLS 1.3 the refusal comes after the handshake
        context.load_cert_chain(certificates / "client.crt", certificates / "client.key")
        assert ping() == b"+PONG\r\n"


def test_protected_mode_turns_away_clients_that_are_not_on_the_loopback() -> None:
    address = other_address()
    if address is None:
        pytest.skip("this host has no address but the loopback")

    def greet(server: RunningServer) -> bytes:
        with socket.create_connection((address, server.port), timeout=10) as connection:
            try:
                return exchange(connection, encode("PING"), replies=b"\r\n")
            except ConnectionError:
                return b""

    with running_server(host="0.0.0.0") as server:  # noqa: S104 - that is what is tested
        assert not greet(server).startswith(b"+PONG")
        with server.client() as local:
            assert local.ping()
    with running_server(host="0.0.0.0", protected_mode=False) as server:  # noqa: S104
        assert greet(server) == b"+PONG\r\n"
    with running_server(host="0.0.0.0", admin_password="x") as server:  # noqa: S104
        assert greet(server).startswith(b"-NOAUTH")


def test_a_port_that_is_taken_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with running_server() as server:
        settings = make_settings(tmp_path / "data", port=server.port)
        with pytest.raises(OSError, match="in use"):
            RunningServer(settings, SystemClock())
    # The directory's lock has been given back.
    with running_server(tmp_path / "data"):
        pass
