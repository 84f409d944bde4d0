"""What a bare socket sees."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

import hiredis
import pytest

from pyrope.server.lifecycle import PyropeServer
from servers import RunningServer, encode, exchange, make_settings, running_server


def test_a_pipeline_is_answered_in_order_whatever_finishes_first(server: RunningServer) -> None:
    with server.connect() as connection:
        commands = [
            encode("VECTOR.CREATE", "i", "DIM", 2, "TYPE", "FLAT"),
            encode("VECTOR.ADD", "i", "a", "VALUES", 2, 1, 0),
            encode("VECTOR.SEARCH", "i", "VALUES", 2, 1, 0),
            encode("PING"),
            encode("VECTOR.ADD", "i", "b", "VALUES", 2, 0, 1),
            encode("VECTOR.CARD", "i"),
            encode("NONSENSE"),
            encode("ECHO", "end"),
        ]
        received = exchange(connection, b"".join(commands), replies=b"end\r\n")
    assert received == (
        b"+OK\r\n:1\r\n*1\r\n$1\r\na\r\n+PONG\r\n:1\r\n:2\r\n"
        b"-ERR unknown command 'NONSENSE', with args beginning with: \r\n$3\r\nend\r\n"
    )


def test_a_read_behind_a_write_in_one_pipeline_sees_it(server: RunningServer) -> None:
    with server.connect() as connection:
        exchange(connection, encode("VECTOR.CREATE", "i", "DIM", 2), replies=b"\r\n")
        for number in range(30):
            pair = encode("VECTOR.ADD", "i", f"v{number}", "VALUES", 2, 1, number) + encode(
                "VECTOR.EXISTS", "i", f"v{number}"
            )
            assert exchange(connection, pair, replies=b":1\r\n:1\r\n") == b":1\r\n:1\r\n"


def test_a_command_sent_byte_by_byte_is_one_command(server: RunningServer) -> None:
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in encode("ECHO", b"\r\n*1\r\n$\x00"):
            connection.sendall(bytes([byte]))
        assert exchange(connection, b"", replies=b"$\x00\r\n") == b"$8\r\n\r\n*1\r\n$\x00\r\n"


def test_a_line_typed_into_nc_is_a_command(server: RunningServer) -> None:
    with server.connect() as connection:
        assert exchange(connection, b"PING\r\n", replies=b"\r\n") == b"+PONG\r\n"
        assert exchange(connection, b'echo "a b"\n', replies=b"a b\r\n") == b"$3\r\na b\r\n"
        assert exchange(connection, b"\r\n\r\nPING\r\n", replies=b"\r\n") == b"+PONG\r\n"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"*abc\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1000000000\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\n$1073741824\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$-1\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n*1000000000\r\n", b"-ERR Protocol error: expected '$', got '*'\r\n"),
        (b"*1\r\n:5\r\n", b"-ERR Protocol error: expected '$', got ':'\r\n"),
        (b'echo "open\r\n', b"-ERR Protocol error: unbalanced quotes in request\r\n"),
    ],
)
def test_a_protocol_error_is_told_and_closes_that_connection_only(
    server: RunningServer, sent: bytes, said: bytes
) -> None:
    with server.connect() as other, server.connect() as connection:
        # The command before the bad bytes is answered, and nothing after them is looked at.
        assert exchange(connection, encode("PING") + sent + encode("PING")) == b"+PONG\r\n" + said
        assert exchange(other, encode("PING"), replies=b"\r\n") == b"+PONG\r\n"


def test_a_half_sent_command_and_a_closed_socket_leave_nothing_behind(
    server: RunningServer,
) -> None:
    with server.connect() as watcher:
        for partial in (b"*3\r\n$10\r\nVECTOR", b"*", b"PIN", encode("VECTOR.LIST")[:-1]):
            with server.connect() as connection:
                connection.sendall(partial)
        received = exchange(watcher, encode("CLIENT", "LIST"), replies=b"\n\r\n")
        while received.count(b" addr=") > 1:
            received = exchange(watcher, encode("CLIENT", "LIST"), replies=b"\n\r\n")
    assert b"qbuf=0" in received


def test_hello_switches_between_protocols(server: RunningServer) -> None:
    with server.connect() as connection:
        reader = hiredis.Reader()

        def ask(*args: object) -> object:
            connection.sendall(encode(*args))  # type: ignore[arg-type]
            while (reply := reader.gets()) is False:
                reader.feed(connection.recv(65536))
            return reply

        hello = ask("HELLO", 3)
        assert isinstance(hello, dict)
        assert list(hello) == [b"server", b"version", b"proto", b"id", b"mode", b"role", b"modules"]
        assert hello[b"proto"] == 3
        assert ask("CLIENT", "GETNAME") is None
        flat = ask("HELLO", 2, "SETNAME", "me")
        assert isinstance(flat, list)
        assert flat[:2] == [b"server", b"pyrope"]
        assert ask("CLIENT", "GETNAME") == b"me"
        refused = ask("HELLO", 4)
        assert isinstance(refused, hiredis.ReplyError)
        assert str(refused) == "NOPROTO unsupported protocol version"
        assert ask("CLIENT", "GETNAME") == b"me"


def test_errors_never_echo_a_line_break(server: RunningServer) -> None:
    with server.connect() as connection:
        received = exchange(
            connection, encode(b"a\r\n+OK", b"b\r\nc") + encode("PING"), replies=b"+PONG\r\n"
        )
    assert received.count(b"\r\n") == 2


def test_replies_can_be_turned_off_and_skipped(server: RunningServer) -> None:
    with server.connect() as connection:
        sent = (
            encode("CLIENT", "REPLY", "SKIP")
            + encode("ECHO", "skipped")
            + encode("ECHO", "one")
            + encode("CLIENT", "REPLY", "OFF")
            + encode("ECHO", "silent")
            + encode("NONSENSE")
            + encode("CLIENT", "REPLY", "ON")
            + encode("ECHO", "two")
        )
        assert exchange(connection, sent, replies=b"two\r\n") == (
            b"$3\r\none\r\n+OK\r\n$3\r\ntwo\r\n"
        )


def test_quit_answers_what_came_before_it_and_closes(server: RunningServer) -> None:
    with server.connect() as connection:
        sent = encode("PING") + encode("QUIT") + encode("PING")
        assert exchange(connection, sent) == b"+PONG\r\n+OK\r\n"


def test_a_client_over_the_limit_is_told_so_and_closed() -> None:
    with (
        running_server(limits={"max_clients": 2}) as server,
        server.connect() as one,
        server.connect() as two,
    ):
        for connection in (one, two):
            exchange(connection, encode("PING"), replies=b"\r\n")
        with server.connect() as third:
            assert exchange(third, b"") == b"-ERR max number of clients reached\r\n"
        assert exchange(one, encode("PING"), replies=b"\r\n") == b"+PONG\r\n"


def test_a_client_that_does_not_read_is_slowed_down_to_what_it_reads() -> None:
    limits = {"output_high_water_bytes": 4096, "output_buffer_bytes": 65536}
    with running_server(limits=limits) as server, server.connect() as connection:
        # Far more than the socket buffers of both sides hold: the server stops reading instead of
        # piling up replies, so that sending stalls...
        request = encode("ECHO", b"x" * 30_000)
        connection.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                connection.sendall(request)
        with server.client() as watcher:
            (stalled,) = [row for row in watcher.client_list() if row["cmd"] == "echo"]
            # ... within the high water mark and one reply.
            assert int(stalled["obl"]) <= 4096 + 30_010
        # Once it reads, everything goes on.
        connection.settimeout(30)
        received = connection.recv(65536)
        assert received.startswith(b"$30000\r\nxxx")
    assert server.pyrope.server.counters.output_limit_disconnections_total == 0


def test_a_client_whose_replies_exceed_the_output_limit_is_closed() -> None:
    limits = {"output_high_water_bytes": 4096, "output_buffer_bytes": 65536}
    with running_server(limits=limits) as server, server.connect() as connection:
        with contextlib.suppress(ConnectionError):
            # One reply of 30 MB is more than the sockets and the limit hold together.
            connection.sendall(encode("ECHO", b"x" * 30_000_000))
            while connection.recv(1 << 20):
                pass
        assert server.pyrope.server.counters.output_limit_disconnections_total == 1
        with server.client() as other:
            assert other.ping()


def test_idle_and_slow_clients_are_closed(clock_server: RunningServer) -> None:
    clock = clock_server._clock
    with clock_server.connect() as idle, clock_server.connect() as slow:
        for connection in (idle, slow):
            exchange(connection, encode("PING"), replies=b"\r\n")
        clock.advance(50)  # type: ignore[attr-defined]
        exchange(idle, encode("PING"), replies=b"\r\n")
        slow.sendall(b"*2\r\n$4\r\nECHO\r\n")
        with clock_server.client() as watcher:
            while True:
                rows = {row["addr"]: row for row in watcher.client_list()}
                row = rows[f"127.0.0.1:{slow.getsockname()[1]}"]
                if int(row["qbuf"]):
                    break
            clock.advance(61)  # type: ignore[attr-defined]
            close_silent(clock_server)
            assert slow.recv(10) == b""
            # The idle one has 100 seconds.
            assert exchange(idle, encode("PING"), replies=b"\r\n") == b"+PONG\r\n"
            clock.advance(101)  # type: ignore[attr-defined]
            close_silent(clock_server)
            assert idle.recv(10) == b""


def close_silent(server: RunningServer) -> None:
    async def close() -> None:
        server.pyrope._listener.close_silent()

    server.run(close())


@pytest.mark.parametrize(
    ("words", "answered"),
    [
        # As Redis answers them.
        ("SKIP OFF", ""),
        ("OFF SKIP ON", "OK 1 2"),
        ("SKIP SKIP", "2"),
        ("SKIP ON", "OK 1 2"),
    ],
)
def test_the_ways_of_silencing_replies_combine_as_in_redis(
    server: RunningServer, words: str, answered: str
) -> None:
    with server.connect() as connection:
        sent = b"".join(encode("CLIENT", "REPLY", word) for word in words.split())
        received = exchange(
            connection, sent + encode("ECHO", 1) + encode("ECHO", 2) + encode("QUIT")
        )
    told = [line.lstrip(b"+") for line in received.split(b"\r\n") if not line.startswith(b"$")]
    last = "" if words.endswith("OFF") else " OK"
    assert b" ".join(told).decode().rstrip() == (answered + last).strip()


def test_a_connection_that_is_reset_before_it_is_accepted_leaves_nothing(
    server: RunningServer,
) -> None:
    for _ in range(50):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.connect(("127.0.0.1", server.port))
        connection.close()
    with server.client() as client:
        while client.info("stats")["total_connections_received"] < 50:
            client.ping()
        while len(server.pyrope._listener._connections) > 1:
            client.ping()


def test_a_client_that_goes_away_during_a_long_command_does_no_harm(
    server: RunningServer,
) -> None:
    with server.client() as client:
        with server.connect() as connection:
            connection.sendall(encode("DEBUG", "SLEEP", "0.05") + encode("PING"))
            while len(client.client_list()) < 2:
                client.ping()
        sleeping = client.connection_pool.get_connection()
        sleeping.send_command("DEBUG", "SLEEP", "0.1")
        assert sleeping.read_response() == b"OK"
        client.connection_pool.release(sleeping)


def test_a_web_page_cannot_make_a_browser_run_commands(server: RunningServer) -> None:
    with server.connect() as connection:
        sent = b"POST / HTTP/1.1\r\nHost: x\r\n\r\nVECTOR.CREATE pwn DIM 3\r\n"
        with contextlib.suppress(ConnectionError):
            assert exchange(connection, sent) == b""
    with server.client() as client:
        assert client.execute_command("VECTOR.LIST") == []


class TickingClock:
    """Each look at it takes a millisecond."""

    def __init__(self) -> None:
        self._now = 0.0

    def wall(self) -> float:
        return 1_700_000_000.0

    def monotonic(self) -> float:
        self._now += 0.001
        return self._now


class Written(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no limit to keep."""

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing is read."""

    def abort(self) -> None:
        """There is nothing to close."""


async def test_a_long_pipeline_lets_others_have_their_turn() -> None:
    server = PyropeServer(make_settings(), TickingClock())
    await server.start()
    await server.loaded()
    connection, transport = server._listener._new_connection(), Written()
    connection.connection_made(transport)
    connection.data_received(encode("PING") * 50)
    # A turn is two milliseconds, and each command takes one.
    turns = 0
    while (answered := transport.data.count(b"PONG")) < 50:
        assert answered <= 3 * (turns + 1)
        turns += 1
        await asyncio.sleep(0)
    assert turns > 10
    connection.connection_lost(None)
    await server.stop()


def test_a_ready_reply_does_not_wait_for_a_slow_command_behind_it(server: RunningServer) -> None:
    with server.connect() as connection:
        exchange(connection, encode("VECTOR.CREATE", "i", "DIM", 1), replies=b"\r\n")
        sent = (
            encode("VECTOR.ADD", "i", "a", "VALUES", 1, 1)
            + encode("VECTOR.CARD", "i")
            + encode("DEBUG", "SLEEP", "30")
        )
        assert exchange(connection, sent, replies=b":1\r\n:1\r\n") == b":1\r\n:1\r\n"


def test_commands_behind_a_shutdown_are_not_run() -> None:
    with running_server() as server, server.connect() as connection:
        sent = encode("SHUTDOWN") + encode("VECTOR.CREATE", "i", "DIM", 1)
        assert exchange(connection, sent) == b""


def test_a_client_is_not_called_slow_while_the_server_does_not_read(
    clock_server: RunningServer,
) -> None:
    with clock_server.connect() as connection, clock_server.client() as watcher:
        exchange(connection, encode("PING"), replies=b"\r\n")
        connection.sendall(
            encode("DEBUG", "SLEEP", "0.3") + encode("VECTOR.LIST") + b"*1\r\n$4\r\n"
        )
        while not any(row["cmd"] == "debug|sleep" for row in watcher.client_list()):
            watcher.ping()
        clock_server._clock.advance(70)  # type: ignore[attr-defined]
        close_silent(clock_server)
        assert exchange(connection, b"PING\r\n", replies=b"+PONG\r\n") == b"+OK\r\n*0\r\n+PONG\r\n"
