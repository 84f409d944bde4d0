"""The load generator: what it sends, when, and what it says about the answers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import hiredis
import numpy as np
import pytest
from benchmarks.harness.generator import LoadGenerator
from benchmarks.harness.load import Job
from benchmarks.harness.paced import LoadError, Pace
from benchmarks.harness.wire import Field, Recipe, Template


class EchoServer:
    """Answers each command with an array of its first argument's number and the one after it.

    ``FAIL`` is answered with an error, and ``CLOSE`` by closing the connection.
    """

    def __init__(self) -> None:
        self.commands: list[list[bytes]] = []
        self._closing = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing:
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        reader = hiredis.Reader()
        # A job that has failed leaves without waiting for what it asked.
        with connection, contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                reader.feed(chunk)
                while (command := reader.gets()) is not False:
                    self.commands.append(command)
                    if command[0] == b"CLOSE":
                        return
                    connection.sendall(self._reply(command))

    def _reply(self, command: list[bytes]) -> bytes:
        if command[0] == b"FAIL":
            return b"-ERR as asked\r\n"
        number = int(command[1]) if len(command) > 1 else 0
        return b"*2\r\n$%d\r\n%d\r\n:%d\r\n" % (len(str(number)), number, number + 1)

    def close(self) -> None:
        self._closing = True
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self._threads:
            thread.join()
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def generator() -> Iterator[LoadGenerator]:
    with LoadGenerator() as running:
        yield running


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    file = tmp_path / "vectors.npy"
    np.save(file, np.arange(21, dtype=np.float32).reshape(7, 3))
    return file


# -- requests ------------------------------------------------------------------------------------


def parsed(request: bytes) -> list[bytes]:
    reader = hiredis.Reader()
    reader.feed(request)
    command: list[bytes] = reader.gets()
    assert reader.gets() is False, "one request, and nothing after it"
    return command


def test_a_recipe_fills_its_template_from_each_row(vectors: Path) -> None:
    requests = Recipe((b"ADD", Field.ID, b"FP32", Field.VECTORS), vectors).encode()
    assert len(requests) == 7
    row = np.array([6, 7, 8], dtype="<f4").tobytes()
    assert parsed(requests[2]) == [b"ADD", b"2", b"FP32", row]


def test_a_recipe_in_batches_ends_with_a_smaller_one(vectors: Path) -> None:
    template: Template = (b"MADD", Field.VECTORS, b"IDS", Field.IDS)
    requests = Recipe(template, vectors, rows_per_request=3).encode()
    assert [parsed(request)[3:] for request in requests] == [
        [b"3", b"0", b"1", b"2"],
        [b"3", b"3", b"4", b"5"],
        [b"1", b"6"],
    ]
    assert len(parsed(requests[0])[1]) == 3 * 3 * 4


def test_a_recipe_of_some_rows_counts_its_ids_from_anywhere(vectors: Path) -> None:
    template: Template = (b"MADD", Field.VECTORS, b"IDS", Field.IDS)
    requests = Recipe(template, vectors, rows_per_request=2, rows=3, first_id=70).encode()
    assert [parsed(request)[3:] for request in requests] == [[b"2", b"70", b"71"], [b"1", b"72"]]


def test_requests_encoded_one_by_one_are_those_encoded_ahead(vectors: Path) -> None:
    template: Template = (b"MADD", Field.VECTORS, b"IDS", Field.IDS)
    ahead = Recipe(template, vectors, rows_per_request=3).encode()
    later = Recipe(template, vectors, rows_per_request=3, ahead=False).encode()
    assert list(later) == list(ahead)
    assert later[1:] == ahead[1:]
    assert not isinstance(later, list)


# -- the load generator --------------------------------------------------------------------------


def test_a_job_without_a_time_sends_each_request_once(
    echo: EchoServer, generator: LoadGenerator, vectors: Path
) -> None:
    job = Job(echo.port, Recipe((b"X", Field.ID), vectors), connections=3, ids_per_reply=3)
    result = generator.run(job)
    assert sorted(int(command[1]) for command in echo.commands) == list(range(7))
    assert result.requests == result.total_requests == 7
    assert result.answered.all()
    assert result.found.tolist() == [[row, row + 1, -1] for row in range(7)]
    assert 0 < result.p50_us <= result.p99_us <= result.max_us <= result.seconds * 1e6


def test_a_timed_job_goes_round_and_leaves_the_warm_up_out(
    echo: EchoServer, generator: LoadGenerator, vectors: Path
) -> None:
    recipe = Recipe((b"X", Field.ID), vectors)
    result = generator.run(Job(echo.port, recipe, connections=2, seconds=0.2, warmup=0.1))
    assert result.total_requests == len(echo.commands)
    assert 7 < result.requests < result.total_requests
    assert result.seconds == 0.2
    assert result.rate == pytest.approx(result.requests / 0.2)


def test_a_request_larger_than_the_sockets_buffers_arrives_whole(
    echo: EchoServer, generator: LoadGenerator, tmp_path: Path
) -> None:
    file = tmp_path / "large.npy"
    rows = np.random.default_rng(0).random((2, 4_000_000), dtype=np.float32)
    np.save(file, rows)
    job = Job(echo.port, Recipe((b"X", Field.ID, Field.VECTORS), file), connections=2)
    assert generator.run(job).requests == 2
    arrived = {int(command[1]): command[2] for command in echo.commands}
    assert arrived == {number: row.tobytes() for number, row in enumerate(rows)}


def test_an_error_reply_ends_the_job_and_not_the_generator(
    echo: EchoServer, generator: LoadGenerator
) -> None:
    with pytest.raises(LoadError, match="ERR as asked"):
        generator.run(Job(echo.port, Recipe((b"FAIL",)), connections=2))
    assert generator.run(Job(echo.port, Recipe((b"X",)), connections=2)).requests == 1


def test_a_closed_connection_ends_the_job(echo: EchoServer, generator: LoadGenerator) -> None:
    with pytest.raises(LoadError, match="closed a connection"):
        generator.run(Job(echo.port, Recipe((b"CLOSE",)), connections=1))


def test_nobody_listening_is_an_os_error(generator: LoadGenerator) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            generator.run(Job(unused.getsockname()[1], Recipe((b"X",)), connections=1))


# -- writes at a steady pace ---------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path) -> Path:
    file = tmp_path / "many.npy"
    np.save(file, np.zeros((2000, 3), dtype=np.float32))
    return file


def mixed_job(port: int, vectors: Path, many: Path, rate: float = 500) -> Job:
    return Job(
        port,
        Recipe((b"X", Field.ID), vectors),
        connections=2,
        seconds=0.4,
        warmup=0.1,
        writes=Pace(Recipe((b"W", Field.ID, Field.VECTORS), many, first_id=7), rate, 3),
    )


def test_writes_go_out_at_their_pace_beside_the_searches(
    echo: EchoServer, generator: LoadGenerator, vectors: Path, many: Path
) -> None:
    result = generator.run(mixed_job(echo.port, vectors, many))
    written = [int(command[1]) for command in echo.commands if command[0] == b"W"]
    assert result.writes is not None
    assert result.writes.sent == len(written)
    assert sorted(written) == list(range(7, 7 + len(written)))
    # Half a second at 500 a second, less what a busy machine's last moment cuts off.
    assert 150 <= len(written) <= 250
    assert 250 <= result.writes.rate <= 250 / 0.4
    assert 0 < result.writes.p50_us <= result.writes.p99_us <= result.writes.max_us
    searches = len(echo.commands) - len(written)
    assert result.total_requests == searches
    assert result.requests > 0


def test_a_job_without_writes_says_nothing_of_any(
    echo: EchoServer, generator: LoadGenerator, vectors: Path
) -> None:
    job = Job(echo.port, Recipe((b"X", Field.ID), vectors), connections=1)
    assert generator.run(job).writes is None


def test_a_pace_without_enough_writes_ends_the_job(
    echo: EchoServer, generator: LoadGenerator, vectors: Path, many: Path
) -> None:
    with pytest.raises(LoadError, match="more than 2000 writes"):
        generator.run(mixed_job(echo.port, vectors, many, rate=1e6))


def test_a_refused_write_ends_the_job(
    echo: EchoServer, generator: LoadGenerator, vectors: Path
) -> None:
    pace = Pace(Recipe((b"FAIL",)), rate=10, connections=1)
    job = Job(echo.port, Recipe((b"X", Field.ID), vectors), 1, seconds=0.5, writes=pace)
    with pytest.raises(LoadError, match="answered a write: ERR as asked"):
        generator.run(job)


def test_a_write_is_as_late_as_the_server_left_it_waiting() -> None:
    """A server that answers a write only after it has answered many searches."""
    patience = 50
    searched = threading.Semaphore(0)
    commands: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        reader = hiredis.Reader()
        while chunk := connection.recv(65536):
            reader.feed(chunk)
            while (command := reader.gets()) is not False:
                commands.append(command[0])
                for _ in range(patience if command[0] == b"W" else 0):
                    searched.acquire()
                connection.sendall(b"*0\r\n")
                searched.release()

    with socket.create_server(("127.0.0.1", 0)) as listener, LoadGenerator() as generator:

        def serve() -> None:
            with listener.accept()[0] as searches, listener.accept()[0] as writes:
                other = threading.Thread(target=answer, args=(writes,))
                other.start()
                answer(searches)
                other.join()

        server = threading.Thread(target=serve)
        server.start()
        port = listener.getsockname()[1]
        pace = Pace(Recipe((b"W",)), rate=2, connections=1)
        result = generator.run(Job(port, Recipe((b"X",)), 1, seconds=0.4, writes=pace))
        server.join()
    assert commands.count(b"W") == 1
    assert result.writes is not None
    assert result.writes.max_us > patience / 10 * result.p50_us
