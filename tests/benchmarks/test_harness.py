"""The parts of the benchmark harness: figures that decide things have to be right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.harness import data, memory, report, targets, truth
from benchmarks.harness import figures as fig
from benchmarks.harness.bare import BARE_ENGINES, BATCHES, BareEngine
from benchmarks.harness.figures import Figures, Ingest, Kind, Mixed, Point, Report, Round
from benchmarks.harness.memory import Memory
from benchmarks.harness.paced import WriteResult
from benchmarks.harness.servers import TYPES, K, Pyrope, Server, ServerError
from benchmarks.harness.sweep import EF, sweep, up_to
from benchmarks.harness.wire import Client, Template

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


def test_a_newcomer_that_is_found_counts_by_its_own_score() -> None:
    base = np.eye(4, dtype=np.float32)
    small = data.Dataset("", base, base[:1])
    exact = truth.exact(small, 1, cache=None)
    late = np.array([[0, 0, 0, 1], [1, 0, 0, 0]], dtype=np.float32)
    assert truth.recall(np.array([[4]]), small, exact, newcomers=late) == 0.0
    assert truth.recall(np.array([[5]]), small, exact, newcomers=late) == 1.0
    with pytest.raises(ValueError, match="id 5 was found"):
        truth.recall(np.array([[5]]), small, exact)


def test_newcomers_are_unit_vectors_that_the_dataset_does_not_hold(dataset: data.Dataset) -> None:
    late = data.newcomers(dataset, 100, seed=1)
    np.testing.assert_allclose(np.linalg.norm(late, axis=1), 1, rtol=1e-5)
    assert (late @ dataset.base.T).max() < 1 - 1e-6
    assert np.array_equal(late, data.newcomers(dataset, 100, seed=1))


@pytest.mark.parametrize("engine", BARE_ENGINES)
def test_a_bare_engine_finds_nearly_all_at_a_high_ef(
    dataset: data.Dataset, engine: type[BareEngine]
) -> None:
    bare = engine(dataset.base, dataset.queries)
    bare.ingest()
    exact = truth.exact(dataset, K, cache=None)
    found, rate = bare.search_all(effort=400)
    assert truth.recall(found, dataset, exact) > 0.98
    assert rate > 0
    for batch in BATCHES:
        assert bare.search_for(effort=10, seconds=0.05, batch=batch) > 0


# -- the search for an effort --------------------------------------------------------------------


@pytest.mark.parametrize("needed", [5, 10, 33, 100, 1000, 2048])
def test_a_sweep_comes_close_to_the_smallest_sufficient_effort(needed: int) -> None:
    reached, points = sweep(
        lambda ef: Point(ef, min(1.0, ef / needed), 1.0), target=1.0, ladder=EF.ladder
    )
    assert reached is not None
    assert needed <= reached <= max(10, needed + 1, needed * (1 + 1 / 16))
    efforts = [point.effort for point in points if point.effort is not None]
    assert efforts == sorted(set(efforts))
    assert max(efforts) > reached or reached == 2048


def test_a_sweep_that_never_reaches_says_so() -> None:
    reached, points = sweep(lambda ef: Point(ef, 0.5, 1.0), target=0.9, ladder=EF.ladder)
    assert reached is None
    assert points[-1].effort == 2048


def test_a_sweep_measures_nothing_twice() -> None:
    probed: list[int] = []

    def probe(effort: int) -> Point:
        probed.append(effort)
        return Point(effort, min(1.0, effort / 100), 1.0)

    _, known = sweep(probe, 0.5, EF.ladder)
    reached, points = sweep(probe, 0.9, EF.ladder, known)
    assert reached is not None
    assert 90 <= reached <= 96
    assert sorted(probed) == sorted(set(probed)) == [point.effort for point in points]


def test_a_ladder_ends_with_the_number_of_lists() -> None:
    assert up_to((1, 2, 4, 8), 4) == (1, 2, 4)
    assert up_to((1, 2, 4, 8), 7) == (1, 2, 4, 7)
    assert up_to((1, 2, 4, 8), 100) == (1, 2, 4, 8, 100)


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
    effort = None

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

    def search(self, effort: int | None) -> Template:
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


def test_every_index_type_is_searched_with_its_own_effort(tmp_path: Path) -> None:
    for index_type, effort in TYPES.items():
        server = Pyrope("Pyrope", tmp_path / index_type, index_type=index_type)
        assert b"EF" not in server.search(None)
        assert b"NPROBE" not in server.search(None)
        # An answer that is remembered says nothing of a search.
        assert server.search(None)[-2:] == (b"CACHE", b"OFF")
        if effort is None:
            with pytest.raises(ServerError, match="no effort"):
                server.search(7)
        else:
            assert server.search(7)[-4:-2] == (effort.option, b"7")


def test_nobody_speaks_to_a_server_that_is_not_running(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="not running"):
        Pyrope("Pyrope", tmp_path).client()


def test_removing_pyropes_graphs_leaves_its_other_files(tmp_path: Path) -> None:
    server = Pyrope("Pyrope", tmp_path)
    index = server.data / "indexes" / "1"
    index.mkdir(parents=True)
    for name in ("graph.meta", "graph-0f.bin", "vectors"):
        (index / name).touch()
    assert server.remove_graphs() == 2
    assert [file.name for file in index.iterdir()] == ["vectors"]
    assert server.remove_graphs() == 0


def test_a_killed_server_leaves_nothing_listening(tmp_path: Path) -> None:
    server = ScriptedServer(tmp_path)
    server.start()
    server.kill()
    with pytest.raises(ConnectionRefusedError):
        Client(server.port, timeout=1)


# -- targets and report --------------------------------------------------------------------------


def figures(
    label: str,
    kind: Kind,
    rate: float,
    p99: float = 8000.0,
    ingest: float = 1000.0,
    index_type: str = "HNSW",
) -> Figures:
    """Three rounds around the given figures, the middle of which is meant."""
    rounds = [
        Round(rate * factor, p99 / 2, p99 / factor, 9.0, 99.0, 0.991) for factor in (2, 1, 0.5)
    ]
    pyrope, bare = kind is Kind.PYROPE, kind is Kind.BARE
    idle = Round(1000.0, 1000.0, 5000.0, recall=0.99)
    busy = Round(900.0, 2000.0, 9000.0, recall=0.991)
    mixed = Mixed(idle, busy, 1000.0, WriteResult(1200, 999.0, 10.0, 20.0, 30.0), 0, 123)
    return Figures(
        label,
        version="1",
        settings="as usual",
        kind=kind,
        index_type=index_type,
        ingest={fig.ONE_BY_ONE: Ingest(ingest, ingest / 2, 10.0, 20.0, 5.0)},
        sweep=[Point(32, 0.95, rate * 2), Point(64, 0.991, rate), Point(96, 0.995, rate / 2)],
        effort=64,
        reached=True,
        search={} if bare else {32: rounds},
        in_process={16: [Round(rate / 2)], 32: [Round(rate)]} if bare else {},
        ping=[] if bare else rounds,
        mixed=[mixed] if pyrope else [],
        memory={fig.EMPTY: Memory(1000, 2000), fig.SEARCHED: Memory(11_000, 19_000)},
        reported={fig.SEARCHED: 9_000} if pyrope else {},
        startup={fig.START_SAVED: [2.0, 9.0, 1.0], fig.START_REBUILT_MERGED: [61.0]},
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


def judged(*of: Figures) -> dict[str, bool | None]:
    return {one.name: one.met for one in targets.verdicts(of)}


SEARCHES = "searches/s at the same recall, 32 connections"
TAIL = "p99 of those searches, 32 connections"
CEILING = "those searches beside the bare engine's batches"
ADDED = "ingest, durable, one vector a request, acknowledged"
MERGED = "ingest, durable, one vector a request, until merged"


def test_targets_are_judged_on_medians_and_against_the_best_redis() -> None:
    pyrope = figures("Pyrope", Kind.PYROPE, rate=6000, p99=4000, ingest=10_000)
    slow = figures("Redis NOQUANT", Kind.REDIS, rate=1500, p99=20_000, ingest=400)
    quick = figures("Redis Q8", Kind.REDIS, rate=2000, p99=8000, ingest=500)
    bare = figures("bare", Kind.BARE, rate=10_000)
    met = judged(pyrope, slow, quick, bare)
    assert [met[name] for name in (SEARCHES, TAIL, CEILING, ADDED, MERGED)] == [True] * 5
    quick = figures("Redis Q8", Kind.REDIS, rate=2001, p99=7999, ingest=1001)
    bare = figures("bare", Kind.BARE, rate=10_001)
    met = judged(pyrope, slow, quick, bare)
    assert [met[name] for name in (SEARCHES, TAIL, CEILING, ADDED, MERGED)] == [False] * 5


def test_a_redis_that_missed_the_recall_is_no_bar() -> None:
    pyrope = figures("Pyrope", Kind.PYROPE, rate=6000)
    slow = figures("Redis NOQUANT", Kind.REDIS, rate=1500)
    careless = figures("Redis Q8", Kind.REDIS, rate=9000)
    careless.reached = False
    assert judged(pyrope, careless, slow)[SEARCHES] is True


def test_a_server_that_missed_the_recall_wins_nothing_by_speed() -> None:
    pyrope = figures("Pyrope", Kind.PYROPE, rate=9000, p99=1)
    pyrope.reached = False
    redis = figures("Redis", Kind.REDIS, rate=2000)
    met = judged(pyrope, redis, figures("bare", Kind.BARE, rate=9000))
    assert [met[name] for name in (SEARCHES, TAIL, CEILING)] == [False] * 3


def test_a_type_is_judged_beside_the_bare_engine_of_its_own_kind() -> None:
    pyrope = figures("Pyrope", Kind.PYROPE, rate=6000, index_type="IVF_PQ")
    assert CEILING not in judged(pyrope, figures("bare", Kind.BARE, rate=1))


def test_searches_beside_writes_prove_nothing_if_the_writes_fall_behind() -> None:
    pyrope = figures("Pyrope", Kind.PYROPE, rate=6000)
    kept = "searches/s while 1,000/s are written"
    assert judged(pyrope)[kept] is True
    assert judged(pyrope)["p99 while 1,000/s are written"] is True
    behind = WriteResult(1200, 900.0, 10.0, 20.0, 30.0)
    mixed = pyrope.mixed[0]
    pyrope.mixed = [Mixed(mixed.idle, mixed.busy, 1000.0, behind, 0, 0)]
    assert judged(pyrope)[kept] is False


def test_memory_is_judged_by_what_the_server_says_of_itself() -> None:
    pyrope = figures("Pyrope", Kind.PYROPE, rate=6000)
    name = "memory_bytes beside the anonymous memory grown by"
    assert judged(pyrope)[name] is True
    pyrope.reported[fig.SEARCHED] = 8_400
    assert judged(pyrope)[name] is False


def test_without_redis_only_what_needs_no_redis_is_judged() -> None:
    met = judged(figures("Pyrope", Kind.PYROPE, rate=6000))
    assert [met[name] for name in (SEARCHES, TAIL, ADDED, MERGED)] == [None] * 4
    assert met["restart"] is True
    assert met["restart without graph, merged"] is False


def test_the_page_holds_the_figures_and_the_verdicts() -> None:
    pyrope = figures("Pyrope HNSW", Kind.PYROPE, rate=6000, ingest=9000)
    redis = figures("Redis", Kind.REDIS, rate=2000, ingest=300)
    bare = figures("bare hnswlib", Kind.BARE, rate=10_000)
    page = report.to_markdown(whole(pyrope, redis, bare), plot="run.png")
    assert "3.00 × (6,000/s to 2,000/s) | at least 3 × Redis | yes |" in page
    assert "| Pyrope HNSW | 32 | EF 64 | 6,000 | 4.00 | 8.00 | 0.9910 | 9.0 | 99.0 |" in page
    assert "| bare hnswlib | batches of 32 | EF 64 | 10,000 |" in page
    assert "| Pyrope HNSW | 32 | 3.00 | 3.00 | 0.60 |" in page
    assert "| 9,000 | 4,500 | 0.01 | 0.02 | 30.0, 15.0 |" in page
    assert "| 1,000 → 900 | 90% | 5.00 → 9.00 | 1.80 | 0.9900 → 0.9910 | 999 of 1,000 |" in page
    assert "-10.0%" in page
    assert "a \\| b" in page, "what comes from the machine cannot break the table"
    assert "](run.png)" in page
    assert "Failed steps" not in page


def test_the_page_of_a_run_in_which_all_failed_says_what_failed() -> None:
    nothing = whole(Figures("Pyrope", "not started", "", Kind.PYROPE, "HNSW"))
    nothing.failures.append("start Pyrope: no such file")
    page = report.to_markdown(nothing, plot=None)
    assert "start Pyrope: no such file" in page
    assert page.count("not measured") == len(targets.verdicts(nothing.figures))
    assert "## Search" not in page


def test_the_plot_is_written_where_there_is_something_to_see(tmp_path: Path) -> None:
    plot = pytest.importorskip("benchmarks.harness.plot", reason="needs the bench extra")
    file = tmp_path / "run.png"
    assert not plot.plot(whole(Figures("Pyrope", "", "", Kind.PYROPE, "HNSW")), file)
    assert not file.exists()
    assert plot.plot(whole(figures("Pyrope", Kind.PYROPE, rate=4000)), file)
    assert file.read_bytes().startswith(b"\x89PNG")
