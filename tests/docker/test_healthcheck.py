"""The container's health check, against a socket that answers as told."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docker" / "healthcheck.py"


def run_check(port: int) -> int:
    done = subprocess.run([sys.executable, SCRIPT], env={"PYROPE_PORT": str(port)}, check=False)
    return done.returncode


@contextmanager
def answering(reply: bytes) -> Iterator[Callable[[], int]]:
    """A server that takes one connection, reads a line and answers `reply`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(64)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield lambda: run_check(listener.getsockname()[1])
        thread.join()


@pytest.mark.parametrize(
    "reply",
    [b"+PONG\r\n", b"-NOAUTH Authentication required.\r\n", b"-LOADING Pyrope is loading\r\n"],
)
def test_a_server_that_answers_is_healthy(reply: bytes) -> None:
    with answering(reply) as check:
        assert check() == 0


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 400 Bad Request\r\n", b"-ERR no\r\n"])
def test_a_server_that_answers_something_else_is_not_healthy(reply: bytes) -> None:
    with answering(reply) as check:
        assert check() == 1


def test_a_port_that_nobody_listens_on_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert run_check(port) == 1
