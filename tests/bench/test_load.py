"""The load generator's loop: against replies cut anywhere, errors, and servers that fail."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.bench.load import LoadError, LoadResult, end_of_reply, run_load
from pyrope.clock import SystemClock
from pyrope.console.connection import Connection
from pyrope.resp.writer import encode

values = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@given(first=values, second=values)
def test_the_end_of_a_reply_is_found_once_it_is_all_there(first: object, second: object) -> None:
    data = encode(first, 2)
    for length in range(len(data)):
        assert end_of_reply(data[:length], 0) == -1
    more = data + encode(second, 2)
    assert end_of_reply(more, 0) == len(data)
    assert end_of_reply(more, len(data)) == len(more)


@pytest.mark.parametrize("data", [b"*x\r\n", b"$1.5\r\n"])
def test_what_is_no_reply_is_told_of(data: bytes) -> None:
    with pytest.raises(LoadError, match="is no reply"):
        end_of_reply(data, 0)


@contextmanager
def serving(answer: Callable[[socket.socket, bytes], None]) -> Iterator[Callable[[], Connection]]:
    """A server that has `answer` called for whatever comes, in a thread for each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads: list[threading.Thread] = []

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                while data := connection.recv(65536):
                    answer(connection, data)

        def connect() -> Connection:
            made = Connection(socket.create_connection(listener.getsockname()))
            taken, _ = listener.accept()
            threads.append(threading.Thread(target=serve, args=(taken,)))
            threads[-1].start()
            return made

        yield connect
        for thread in threads:
            thread.join()


def load(
    connect: Callable[[], Connection], request: bytes, depth: int, *, connections: int = 3
) -> LoadResult:
    made = [connect() for _ in range(connections)]
    try:
        return run_load(
            made,
            itertools.repeat(request * depth),
            depth,
            warmup=0.05,
            seconds=0.2,
            clock=SystemClock(),
            tick=lambda passed: None,
        )
    finally:
        for connection in made:
            connection.close()


@pytest.mark.parametrize("depth", [1, 7])
def test_every_reply_counts_once_however_it_comes(depth: int) -> None:
    answered = itertools.count()

    def in_pieces(connection: socket.socket, data: bytes) -> None:
        for _ in range(data.count(b"\n")):
            next(answered)
            for piece in (b"*2\r", b"\n$3\r\nab", b"c\r\n:1", b"\r\n"):
                connection.sendall(piece)

    with serving(in_pieces) as connect:
        result = load(connect, b"PING\r\n", depth)
    assert 0 < result.requests == result.latencies.count <= next(answered)
    assert result.rate == pytest.approx(result.requests / result.seconds)
    assert not result.errors
    assert 0 <= result.cpu_share < 2


def test_errors_are_counted_by_prefix_and_not_among_the_latencies() -> None:
    def refuse(connection: socket.socket, data: bytes) -> None:
        connection.sendall(b"-QUOTA wait\r\n-BUSY later\r\n+OK\r\n" * (data.count(b"\n") // 3))

    with serving(refuse) as connect:
        result = load(connect, b"PING\r\n", 3)
    assert result.errors["QUOTA"] == result.errors["BUSY"] == result.latencies.count > 0
    assert result.requests == 3 * result.latencies.count


def test_a_request_larger_than_the_sockets_buffer_is_sent_to_its_end() -> None:
    request = b"x" * 20_000_000 + b"\n"
    received = threading.local()

    def at_the_end(connection: socket.socket, data: bytes) -> None:
        received.total = getattr(received, "total", 0) + len(data)
        if received.total == len(request):
            received.total = 0
            connection.sendall(b"+OK\r\n")

    with serving(at_the_end) as connect:
        result = load(connect, request, 1, connections=1)
    assert result.requests > 0


def test_a_server_that_closes_or_answers_too_much_ends_it() -> None:
    with (
        serving(lambda connection, data: connection.shutdown(socket.SHUT_RDWR)) as connect,
        pytest.raises(LoadError, match="has closed a connection"),
    ):
        load(connect, b"PING\r\n", 1)
    with (
        serving(lambda connection, data: connection.sendall(b"+OK\r\n+OK\r\n")) as connect,
        pytest.raises(LoadError, match="more than it was asked"),
    ):
        load(connect, b"PING\r\n", 1)
