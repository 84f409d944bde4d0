"""The parts of the benchmark harness: figures that decide things have to be right."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import hiredis
import numpy as np
import pytest
from benchmarks.harness import data, memory, report, targets, truth
from benchmarks.harness import figures as fig
from benchmarks.harness.bare import BareEngine
from benchmarks.harness.figures import Figures, Ingest, Point, Report, Round
from benchmarks.harness.generator import LoadGenerator
from benchmarks.harness.load import Job, LoadError
from benchmarks.harness.memory import Memory
from benchmarks.harness.servers import K, Pyrope, Server, ServerError
from benchmarks.harness.sweep import sweep
from benchmarks.harness.wire import Client, Field, Recipe, Template


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
        with connection:
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


# -- data, truth, recall -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    return data.generated(count=1500, queries=50, seed=3, dim=32)


def test_generated_vectors_have_unit_length_and_come_from_the_seed_alone(
    dataset: data.Dataset,
) -> None:
    again = data.generated(count=1500, queries=50, seed=3, dim=32)
    assert np.array_equal(dataset.base, again.base)
    assert dataset.base.shape == (1500, 32)
    assert dataset.base.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(dataset.base, axis=1), 1, rtol=1e-5)


def test_embeddings_are_filled_up_and_their_queries_held_out() -> None:
    rows = np.random.default_rng(1).standard_normal((300, 16)).astype(np.float16)
    made = data.from_embeddings(rows, count=500, queries=40, seed=5)
    assert made.base.shape == (500, 16)
    np.testing.assert_allclose(np.linalg.norm(made.base, axis=1), 1, rtol=1e-5)
    nearest = (made.queries @ made.base[:260].T).max(axis=1)
    assert (nearest < 0.999).all(), "no query is among the real vectors"
    # Both halves together are the embeddings given, each once.
    whole = data.normalised(rows.astype(np.float32))
    together = np.vstack([made.queries, made.base[:260]])
    assert np.array_equal(np.sort(together, axis=0), np.sort(whole, axis=0))


def test_the_truth_is_the_full_scans_and_the_cache_gives_it_again(
    dataset: data.Dataset, tmp_path: Path
) -> None:
    first = truth.exact(dataset, K, tmp_path)
    expected = np.sort(dataset.queries @ dataset.base.T, axis=1)[:, : -K - 1 : -1]
    np.testing.assert_allclose(first.scores, expected, atol=1e-6)
    assert len(list(tmp_path.iterdir())) == 1
    again = truth.exact(dataset, K, tmp_path)
    assert np.array_equal(first.ids, again.ids)
    assert truth.recall(first.ids, dataset, first) == 1.0


def test_recall_counts_what_is_found_once_and_forgives_ties() -> None:
    base = np.eye(4, dtype=np.float32)[[0, 1, 1, 2, 3]]
    query = np.array([[0.8, 0.6, 0.0, 0.0]], dtype=np.float32)
    small = data.Dataset("", base, query)
    exact = truth.exact(small, 2, cache=None)
    cases = {(0, 1): 1.0, (0, 2): 1.0, (0, 3): 0.5, (0, 0): 0.5, (0, -1): 0.5, (-1, -1): 0.0}
    for found, expected in cases.items():
        assert truth.recall(np.array([found]), small, exact) == expected, found


def test_recall_looks_only_at_answered_queries(dataset: data.Dataset) -> None:
    exact = truth.exact(dataset, K, cache=None)
    found = np.full_like(exact.ids, -1)
    found[:10] = exact.ids[:10]
    answered = np.arange(len(found)) < 10
    assert truth.recall(found, dataset, exact, answered) == 1.0
    assert truth.recall(found, dataset, exact) == 0.2


def test_the_bare_engine_finds_nearly_all_at_a_high_ef(dataset: data.Dataset) -> None:
    bare = BareEngine(dataset.base, dataset.queries)
    bare.ingest()
    exact = truth.exact(dataset, K, cache=None)
    found, rate = bare.search_all(ef=400)
    assert truth.recall(found, dataset, exact) > 0.99
    assert rate > 0
    assert bare.search_for(ef=10, seconds=0.05) > 0


# -- the search for EF ---------------------------------------------------------------------------


@pytest.mark.parametrize("needed", [5, 10, 33, 100, 1000, 2048])
def test_a_sweep_comes_close_to_the_smallest_sufficient_ef(needed: int) -> None:
    reached, points = sweep(lambda ef: Point(ef, min(1.0, ef / needed), 1.0), target=1.0)
    assert reached is not None
    assert needed <= reached <= max(10, needed + 1, needed * (1 + 1 / 16))
    assert [point.ef for point in points] == sorted({point.ef for point in points})
    assert any(point.ef > reached for point in points) or reached == 2048


def test_a_sweep_that_never_reaches_says_so() -> None:
    reached, points = sweep(lambda ef: Point(ef, 0.5, 1.0), target=0.9)
    assert reached is None
    assert points[-1].ef == 2048


# -- /proc ---------------------------------------------------------------------------------------


def test_memory_that_is_touched_is_counted_as_anonymous() -> None:
    before = memory.resident(os.getpid())
    block = np.ones(32 << 20, dtype=np.uint8)
    after = memory.resident(os.getpid())
    assert after.anonymous - before.anonymous > 0.9 * block.nbytes
    assert after.total > after.anonymous


def test_a_process_that_has_ended_has_no_memory() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as ended:
        assert ended.stdout is not None
        assert ended.stdout.read() == b""
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessLookupError):
            memory.resident(ended.pid)


def test_cpu_time_agrees_with_the_process_own_account() -> None:
    own = os.times()
    seen = memory.cpu_seconds(os.getpid())
    assert seen == pytest.approx(own.user + own.system, abs=0.1)


# -- servers -------------------------------------------------------------------------------------

SCRIPT = """
import signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
with socket.create_server(("127.0.0.1", {port})) as listener:
    for reply in [b"-LOADING wait\\r\\n", b"+PONG\\r\\n"]:
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(reply)
    signal.sigwait([signal.SIGTERM])
sys.exit({status})
"""


class ScriptedServer(Server):
    """Loading when asked first, ready when asked again, ends with `status` on SIGTERM."""

    settings = ""

    def __init__(self, folder: Path, status: int = 0, script: str = SCRIPT) -> None:
        super().__init__("scripted", folder)
        self._status = status
        self._script = script

    def command_line(self) -> list[str]:
        return [sys.executable, "-c", self._script.format(port=self.port, status=self._status)]

    def version(self) -> str:
        return ""

    def create(self, dim: int) -> None:
        raise AssertionError("not part of these tests")

    def add(self) -> Template:
        return ()

    def search(self, ef: int) -> Template:
        return ()

    def settle(self) -> None:
        raise AssertionError("not part of these tests")

    def count(self) -> int:
        return 0


def test_a_server_is_ready_when_it_no_longer_answers_loading(tmp_path: Path) -> None:
    server = ScriptedServer(tmp_path)
    try:
        assert server.start() > 0
        assert server.memory().anonymous > 0
        assert server.stop() >= 0
    finally:
        server.kill()
    with pytest.raises(ServerError, match="not running"):
        server.memory()


def test_a_server_that_ends_badly_is_reported(tmp_path: Path) -> None:
    server = ScriptedServer(tmp_path, status=3)
    try:
        server.start()
        with pytest.raises(ServerError, match="status 3"):
            server.stop()
    finally:
        server.kill()


def test_a_server_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    server = ScriptedServer(tmp_path, script="raise SystemExit('no such luck')")
    with pytest.raises(ServerError, match="no such luck"):
        server.start()


def test_removing_pyropes_graphs_leaves_its_other_files(tmp_path: Path) -> None:
    server = Pyrope("Pyrope", tmp_path)
    index = server.data / "indexes" / "1"
    index.mkdir(parents=True)
    for name in ("graph.meta", "graph-0f.bin", "vectors"):
        (index / name).touch()
    server.remove_graphs()
    assert [file.name for file in index.iterdir()] == ["vectors"]
    with pytest.raises(ServerError, match="no graph"):
        server.remove_graphs()


def test_a_killed_server_leaves_nothing_listening(tmp_path: Path) -> None:
    server = ScriptedServer(tmp_path)
    server.start()
    server.kill()
    with pytest.raises(ConnectionRefusedError):
        Client(server.port, timeout=1)


# -- targets and report --------------------------------------------------------------------------


def figures(label: str, rate: float, p99: float, grown: int, ingest: float) -> Figures:
    """Three rounds around the given figures, the middle of which is meant."""
    rounds = [
        Round(rate * factor, p99 / 2, p99 / factor, 9.0, 99.0, 0.991) for factor in (2, 1, 0.5)
    ]
    return Figures(
        label,
        version="1",
        settings="as usual",
        ingest={fig.ONE_BY_ONE: Ingest(ingest, ingest / 2, 10.0, 20.0, 5.0)},
        sweep=[Point(32, 0.95, rate * 2), Point(64, 0.991, rate), Point(96, 0.995, rate / 2)],
        ef=64,
        search={32: rounds},
        ping=rounds,
        memory={fig.EMPTY: Memory(1000, 2000), fig.SEARCHED: Memory(1000 + grown, 9000)},
        startup={fig.START_SAVED: [2.0, 9.0, 1.0], fig.START_REBUILT: [61.0]},
    )


def whole(*of: Figures) -> Report:
    return Report(
        command="python -m benchmarks.run",
        environment={"processor": "a | b"},
        dataset="made up",
        count=100_000,
        dim=384,
        queries=10,
        target_recall=0.99,
        seconds=1.0,
        rounds=3,
        figures=list(of),
    )


def test_targets_are_judged_on_medians() -> None:
    pyrope = figures("Pyrope", rate=4000, p99=8000, grown=200, ingest=1000)
    redis = figures("Redis", rate=2000, p99=9000, grown=199, ingest=251)
    found = {one.name: one.met for one in targets.verdicts(pyrope, redis, 100_000)}
    assert list(found.values()) == [True, True, False, True, False, True, False]


def test_a_server_that_missed_the_recall_wins_nothing_by_speed() -> None:
    pyrope = figures("Pyrope", rate=9000, p99=1, grown=1, ingest=1000)
    pyrope.ef = None
    redis = figures("Redis", rate=2000, p99=9000, grown=2, ingest=100)
    speed, tail, *_ = targets.verdicts(pyrope, redis, 100_000)
    assert speed.met is False
    assert tail.met is False


def test_without_redis_only_what_needs_no_redis_is_judged() -> None:
    pyrope = figures("Pyrope", rate=4000, p99=8000, grown=200, ingest=1000)
    judged = [one.met for one in targets.verdicts(pyrope, None, 100_000)]
    assert judged == [None, None, None, None, True, True, False]
    assert targets.verdicts(pyrope, None, 5_000)[4].met is None


def test_the_page_holds_the_figures_and_the_verdicts() -> None:
    pyrope = figures("Pyrope", rate=4000, p99=8000, grown=200, ingest=1000)
    redis = figures("Redis", rate=2000, p99=9000, grown=199, ingest=251)
    page = report.to_markdown(whole(pyrope, redis), plot="run.png")
    assert "2.00 × (4,000/s to 2,000/s) | at least 2 × | yes |" in page
    assert "| Pyrope | 32 | 64 | 4,000 | 4.00 | 8.00 | 0.9910 | 9.0 | 99.0 |" in page
    assert "a \\| b" in page, "what comes from the machine cannot break the table"
    assert "](run.png)" in page
    assert "Failed steps" not in page


def test_the_page_of_a_run_in_which_all_failed_says_what_failed() -> None:
    nothing = whole(Figures("Pyrope", "not started", ""))
    nothing.failures.append("start Pyrope: no such file")
    page = report.to_markdown(nothing, plot=None)
    assert "start Pyrope: no such file" in page
    assert page.count("not measured") == 7
    assert "## Search" not in page


def test_the_plot_is_written_where_there_is_something_to_see(tmp_path: Path) -> None:
    plot = pytest.importorskip("benchmarks.harness.plot", reason="needs the bench extra")
    file = tmp_path / "run.png"
    assert not plot.plot(whole(Figures("Pyrope", "", "")), file)
    assert not file.exists()
    assert plot.plot(whole(figures("Pyrope", 4000, 8000, 1, 1)), file)
    assert file.read_bytes().startswith(b"\x89PNG")
