"""``pyrope ping``, for health checks: against a socket that answers as told, and a server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyrope.cli import main
from servers import RunningServer, free_port, running_server


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYROPE_PORT", raising=False)


def ping(*args: object) -> Result:
    return CliRunner().invoke(main, ["ping", *map(str, args)])


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """The port of a server that takes one connection, reads and answers `reply`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(64)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    "reply",
    [b"+PONG\r\n", b"-NOAUTH Authentication required.\r\n", b"-LOADING Pyrope is loading\r\n"],
)
def test_a_server_that_answers_is_alive(reply: bytes) -> None:
    with answering(reply) as port:
        told = ping("--port", port)
    assert (told.exit_code, told.stdout) == (0, "PONG\n")


@pytest.mark.parametrize(
    "reply", [b"", b"HTTP/1.1 400 Bad Request\r\n", b"-ERR no\r\n", b"+OK\r\n", b":1\r\n"]
)
def test_a_server_that_answers_something_else_is_not(reply: bytes) -> None:
    with answering(reply) as port:
        told = ping("--port", port)
    assert told.exit_code == 1
    assert f"127.0.0.1 port {port}" in told.stderr


@pytest.mark.parametrize("reply", [b"-LOADING Pyrope is loading\r\n", b"-NOAUTH no\r\n"])
def test_a_server_that_is_loading_is_not_ready(reply: bytes) -> None:
    with answering(reply) as port:
        assert ping("--port", port, "--ready").exit_code == 1
    with answering(b":0\r\n") as port:
        assert ping("--port", port, "--ready").exit_code == 0


def test_a_port_that_nobody_listens_on_is_not_alive() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert ping("--port", port).exit_code == 1


def test_a_server_that_says_nothing_is_not_alive_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        told = ping("--port", listener.getsockname()[1], "--timeout", "0.1")
    assert told.exit_code == 1
    assert "timed out" in told.stderr


def test_an_address_that_means_all_of_them_is_reached_by_loopback(server: RunningServer) -> None:
    assert ping("--host", "0.0.0.0", "--port", server.port).exit_code == 0  # noqa: S104


def test_a_unix_socket_is_preferred(tmp_path: Path) -> None:
    with running_server(unixsocket=tmp_path / "s"):
        assert ping("--unixsocket", tmp_path / "s", "--port", "1", "--ready").exit_code == 0


def test_a_server_with_tls_alone_is_known_by_its_own_certificate(certificates: Path) -> None:
    tls = {
        "port": free_port(),
        "cert_file": certificates / "server.crt",
        "key_file": certificates / "server.key",
    }
    with running_server(port=0, tls=tls):
        flags = ["--port", 0, "--tls-port", tls["port"], "--tls-key-file", tls["key_file"]]
        assert ping(*flags, "--tls-cert-file", tls["cert_file"], "--ready").exit_code == 0
        told = ping(*flags, "--tls-cert-file", certificates / "client.crt")
        assert told.exit_code == 1
        assert "certificate verify failed" in told.stderr


def test_a_server_that_wants_certificates_is_not_asked_without_one(certificates: Path) -> None:
    told = ping(
        "--port", 0, "--tls-port", free_port(), "--tls-auth-clients", "yes",
        "--tls-cert-file", certificates / "server.crt",
        "--tls-key-file", certificates / "server.key",
        "--tls-ca-file", certificates / "ca.crt",
    )  # fmt: skip
    assert told.exit_code == 1
    assert "asks for clients' certificates" in told.stderr
