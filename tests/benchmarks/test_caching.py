"""The caching benchmark: it plays traces, finds lies, and says what was met."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from benchmarks.harness import cache_report, data, oracle, randomized, traces
from benchmarks.harness.cache_report import CacheReport
from benchmarks.harness.cache_runs import Band, Playing, TraceRun, play
from benchmarks.harness.exact_hits import ExactHits, HitFigures, value_bytes
from benchmarks.harness.figures import Round
from benchmarks.harness.history import History
from benchmarks.harness.paced import LoadError
from benchmarks.harness.paraphrases import imitated
from benchmarks.harness.plain_model import FILTERS, Asked, Attributes, PlainModel
from benchmarks.harness.progress import Progress
from benchmarks.harness.randomized import Correctness
from benchmarks.harness.repair import ADDS, BEHIND, Repaired
from benchmarks.harness.replay import Policy, replay, requests
from benchmarks.harness.servers import Pyrope, ServerError
from benchmarks.harness.traces import Trace

from benchmarks import caching

PLAYING = Playing(connections=8, info_share=0.3, sessions=False, seed=1)


@pytest.fixture(scope="module")
def pyrope(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pyrope]:
    server = Pyrope("Pyrope", tmp_path_factory.mktemp("caching") / "server", None, "FLAT")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def trace() -> Trace:
    return traces.zipf(data.generated(400, 20, seed=3, dim=16), 600, 1.0, 0.1, 7)


# -- traces against a server --------------------------------------------------------------------


@pytest.mark.parametrize("policy", list(Policy))
def test_every_answer_of_a_trace_is_right_and_levels_add_up(
    pyrope: Pyrope, trace: Trace, policy: Policy, tmp_path: Path
) -> None:
    run = play(pyrope, trace, History(trace), policy, PLAYING, tmp_path / "work")
    assert (run.exact_wrong, run.dishonest, run.unproven) == (0, 0, 0), run.examples
    assert run.searches == 600
    assert pyrope.count() == 400 + int((trace.kinds == 1).sum() - (trace.kinds == 3).sum())
    assert 100 < sum(run.sampled.values()) < 260
    if policy is Policy.OFF:
        assert run.counters["uncached"] == 600
        assert set(run.sampled) == {"off"}
    else:
        assert run.counters["hits"] + run.counters["misses"] == 600
        assert run.hit_ratio == run.share("exact") > 0.1
        assert set(run.sampled) == {"exact", "miss"}
    assert not (tmp_path / "work").exists()


def test_dropping_all_at_each_write_costs_hits(
    pyrope: Pyrope, trace: Trace, tmp_path: Path
) -> None:
    history = History(trace)
    kept, dropped = (
        play(pyrope, trace, history, policy, PLAYING, tmp_path / "work").hit_ratio
        for policy in (Policy.CACHED, Policy.DROP_ALL)
    )
    assert kept > dropped > 0


def test_paraphrases_are_counted_by_band(pyrope: Pyrope, tmp_path: Path) -> None:
    pairs = imitated(400, 40, seed=3)
    asked = traces.paraphrased(pairs, (b"MINRECALL", b"1", b"CERTIFIED"), 0.1, 7)
    run = play(pyrope, asked, History(asked), Policy.CACHED, PLAYING, tmp_path / "work")
    assert (run.exact_wrong, run.dishonest, run.unproven) == (0, 0, 0), run.examples
    assert sum(run.sampled.values()) == 80, "every search says where its answer is from"
    assert sum(band.pairs for band in run.bands) == 40
    for band in run.bands:
        inside = (pairs.cosines >= band.low) & (pairs.cosines < band.high)
        assert band.pairs == inside.sum()
        assert band.near <= band.served <= band.pairs
        assert band.late_served <= band.late <= band.pairs


def test_a_server_that_serves_what_was_true_before_is_found_out(
    pyrope: Pyrope, trace: Trace, tmp_path: Path
) -> None:
    """The model is told of writes that the server never got."""
    silent = traces.zipf(data.generated(400, 20, seed=3, dim=16), 600, 1.0, 0.0, 7)
    informed = np.zeros(len(silent.kinds), np.bool_)
    play(pyrope, silent, History(silent), Policy.CACHED, PLAYING, tmp_path / "work")
    commands = requests(silent, pyrope.index, Policy.CACHED, informed, sessions=False)
    played = replay(pyrope.port, silent, commands, 4, None)
    history = History(trace)
    last = trace.writes
    wrong = 0
    for row, reply in enumerate(played.replies):
        ids, scores = [int(one) for one in reply[::2]], [float(one) for one in reply[1::2]]
        query = int(silent.what[row])
        assert history.judge(query, 0, 0, ids, scores).exact
        wrong += not history.judge(query, last, last, ids, scores).exact
    assert wrong > 100


def test_a_command_that_is_refused_ends_the_replay(pyrope: Pyrope, trace: Trace) -> None:
    with pytest.raises(LoadError, match="the server answered: NOINDEX"):
        replay(
            pyrope.port,
            trace,
            requests(trace, b"none", Policy.OFF, np.zeros(len(trace.kinds), bool), sessions=False),
            4,
            None,
        )


# -- exact hits ---------------------------------------------------------------------------------


def test_every_timed_search_is_a_hit_and_replies_have_one_size(
    pyrope: Pyrope, tmp_path: Path
) -> None:
    dataset = data.generated(300, 20, seed=3, dim=16)
    hits = ExactHits(pyrope, None, dataset.base, dataset.queries, tmp_path)
    hits.round(0.1, redis_first=False)
    assert hits.figures.reply_bytes == len(b"*10\r\n") + 10 * len(b"$7\r\n1000000\r\n")
    assert hits.figures.pyrope[0].rate > 0
    assert hits.figures.ratio is None

    with pyrope.client() as client:
        client.call(b"VECTOR.CACHE", b"POLICY", pyrope.index, b"SET", b"LEVELS", b"OFF")
    with pytest.raises(ServerError, match="were no exact hits"):
        hits.round(0.1, redis_first=True)


@pytest.mark.parametrize("size", [6, 15, 17, 135, 1000])
def test_a_value_makes_a_reply_of_just_the_size(size: int) -> None:
    value = value_bytes(size)
    assert len(b"$%d\r\n" % value) + value + 2 == size


def test_there_is_no_value_for_some_sizes() -> None:
    # Nine bytes make a reply of 15, ten one of 17.
    with pytest.raises(ServerError, match="no value makes a reply of 16 bytes"):
        value_bytes(16)


# -- randomized operations ------------------------------------------------------------------------


def test_randomized_operations_find_nothing_wrong(pyrope: Pyrope) -> None:
    found = randomized.run([pyrope], 1500, 7, Progress(), near=True)
    assert found.operations >= 1500
    assert found.operations == found.searches + found.writes
    assert found.wrong == 0, found.examples
    assert found.counters["hits_exact"] > 50
    assert found.counters["repairs"] > 10
    assert {"exact", "miss", "off"} <= set(found.by_level)


@pytest.fixture
def model() -> PlainModel:
    model = PlainModel("COSINE", 2, 10)
    vectors = np.array([[1, 0], [1, 1], [0, 2], [-1, 0]], np.float32)
    described: list[Attributes | None] = [{"n": 7}, {"n": 1, "tag": "a"}, {}, None]
    for id_, (vector, attributes) in enumerate(zip(vectors, described, strict=True)):
        model.put(id_, vector, attributes)
    return model


HERE = np.array([2, 0], np.float32)
HALF = 0.5**0.5


@pytest.mark.parametrize(
    ("asked", "ids", "scores", "right"),
    [
        (Asked(2, None, None), [0, 1], [1, HALF], True),
        (Asked(2, None, None), [1, 0], [HALF, 1], False),
        (Asked(2, None, None), [0], [1], False),
        (Asked(2, None, None), [0, 2], [1, 0], False),
        (Asked(2, None, None), [0, 0], [1, 1], False),
        (Asked(2, None, None), [0, 9], [1, HALF], False),
        (Asked(2, None, None), [0, 1], [1, 0.7], False),
        (Asked(9, None, None), [0, 1, 2, 3], [1, HALF, 0, -1], True),
        (Asked(9, None, 0.5), [0, 1], [1, HALF], True),
        (Asked(9, None, 0.5), [0], [1], False),
        (Asked(9, None, 0.5), [0, 1, 2], [1, HALF, 0], False),
        (Asked(9, ".n >= 5", None), [0], [1], True),
        (Asked(9, ".n >= 5", None), [0, 1], [1, HALF], False),
        (Asked(9, "not (.n > 3)", None), [1], [HALF], True),
    ],
)
def test_the_plain_model_knows_an_answer_when_it_sees_one(
    model: PlainModel, asked: Asked, ids: list[int], scores: list[float], *, right: bool
) -> None:
    assert model.is_answer(asked, HERE, ids, scores) is right


def test_the_plain_model_follows_writes(model: PlainModel) -> None:
    model.remove(0)
    assert model.is_answer(Asked(1, None, None), HERE, [1], [HALF])
    assert model.is_answer(Asked(9, ".n >= 5", None), HERE, [], [])
    model.describe(3, {"n": 9})
    assert model.is_answer(Asked(9, ".n >= 5", None), HERE, [3], [-1])
    model.put(3, HERE, None)
    assert model.attributes_of(3) == {"n": 9}
    assert model.is_answer(Asked(9, ".n >= 5", None), HERE, [3], [1])
    assert sorted(model.ids) == [1, 2, 3]


def test_filters_mean_what_the_server_takes_them_for(pyrope: Pyrope) -> None:
    described: list[Attributes] = [
        {},
        {"n": 5},
        {"n": 3},
        {"tag": "a"},
        {"n": 6, "tag": "b"},
        {"n": 8, "tag": "a"},
    ]
    vector = np.ones(4, "<f4").tobytes()
    with pyrope.client() as client:
        client.call(b"VECTOR.CREATE", b"filters", b"DIM", b"4", b"TYPE", b"FLAT")
        for id_, attributes in enumerate(described):
            words = (b"FP32", vector, b"SETATTR", json.dumps(attributes).encode())
            client.call(b"VECTOR.ADD", b"filters", b"%d" % id_, *words)
        for text, holds in FILTERS.items():
            found = client.call(
                b"VECTOR.SEARCH", b"filters", b"FP32", vector, b"FILTER", text.encode()
            )
            assert {int(one) for one in found} == {
                id_ for id_, attributes in enumerate(described) if holds(attributes)
            }, text


# -- what comes out -----------------------------------------------------------------------------


def run_of(trace: str, policy: Policy, hits: int, *, writes: int, bands: list[Band]) -> TraceRun:
    counters: dict[str, float] = {"hits": hits, "misses": 900 - hits, "hits_exact": hits}
    counters |= {"repairs": 0, "stale": 0, "shared": 0}
    return TraceRun(
        trace, policy.value, 900, writes, 1.0, 900.0, 1.0, 2.0, 3.0, 4.0, counters, bands=bands
    )


def report_of(*, good: bool) -> CacheReport:
    close = Band(
        0.9, 0.95, 100, 50, 85 if good else 84, 43 if good else 42, 80, 784 if good else 783
    )
    hits = HitFigures(135, 10, 1600, 40)
    hits.pyrope = [Round(70.0 if good else 69.0, 900.0, 1999.0 if good else 2000.0)]
    hits.redis = [Round(100.0, 1.0, 2.0)]
    correctness = Correctness(1_000_000, wrong=0 if good else 1)
    correctness.counters = dict.fromkeys(("hits_exact", "repairs", "shared"), 1.0)
    report = CacheReport("python", {}, hits=hits, correctness=correctness)
    report.repairs = [Repaired(ADDS, 1000, 10, 0, 199.0 if good else 200.0, 300.0, 400.0)]
    report.traces = [
        run_of("zipf", Policy.CACHED, 500 if good else 499, writes=100, bands=[]),
        run_of("zipf", Policy.DROP_ALL, 100, writes=100, bands=[]),
        run_of("MINRECALL 0.95", Policy.CACHED, 500, writes=0, bands=[Band(0.8, 0.9, 9), close]),
    ]
    if not good:
        for name in ("exact_wrong", "dishonest", "unproven"):
            setattr(report.traces[1], name, 1)
    return report


@pytest.mark.parametrize("good", [True, False])
def test_each_target_is_met_up_to_its_bar(*, good: bool) -> None:
    verdicts = cache_report.verdicts(report_of(good=good))
    assert {one.name: one.met for one in verdicts} == dict.fromkeys(
        (one.name for one in verdicts), good
    )
    assert len(verdicts) == 11
    page = cache_report.to_markdown(report_of(good=good))
    assert page.count("| **no** |") == (0 if good else 11)


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    empty = CacheReport("python", {})
    assert {one.met for one in cache_report.verdicts(empty)} == {None}
    assert "not measured" in cache_report.to_markdown(empty)
    few = CacheReport("python", {}, correctness=Correctness(999_999))
    assert cache_report.verdicts(few)[5].met is None, "it takes a million"


@pytest.mark.timeout(180)
def test_a_run_writes_its_page_and_leaves_nothing_behind(tmp_path: Path) -> None:
    arguments = ["--quick", "--only", "zipf", "repair", "correct", "--count", "300"]
    arguments += ["--queries", "20", "--searches", "200", "--operations", "200", "--writes", "0.1"]
    arguments += ["--shared", str(tmp_path), "--results", str(tmp_path), "--name", "tiny"]
    assert caching.main(arguments) == 0
    assert {one.name for one in tmp_path.iterdir()} == {"tiny.json", "tiny.md"}
    found = json.loads((tmp_path / "tiny.json").read_text())
    assert [one["policy"] for one in found["traces"]] == [one.value for one in Policy]
    assert [one["behind"] for one in found["repairs"]] == [*BEHIND, *BEHIND]
    assert found["correctness"]["wrong"] == 0
    page = (tmp_path / "tiny.md").read_text()
    for heading in ("Targets", "Traces", "Hits by level", "Answers", "Randomized operations"):
        assert f"## {heading}" in page
    assert "generated: " in page


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--count", "9"], "--count must be at least 10"),
        (["--writes", "1"], "1 is not from 0 to below 1"),
        (["--redis", "/nowhere"], "no redis-server in"),
        (["--only", "luck"], "invalid choice: 'luck'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        caching.parse(arguments)
    assert problem in capsys.readouterr().err


def test_a_model_that_knows_the_labels_links_wordings(tmp_path: Path) -> None:
    without, asking = oracle.measure(imitated(300, 10, seed=3), 150, 0.5, 7, tmp_path / "oracle")
    assert (without.model, asking.model) == (False, True)
    assert (without.questions, without.aliases, without.levels.get("alias", 0)) == (0, 0, 0)
    assert asking.questions >= asking.aliases > 0
    assert asking.tokens > 100 * asking.questions
    assert asking.levels["alias"] > 0
    assert asking.alias_recall is not None
    assert asking.alias_recall > 0.5
    assert sum(asking.levels.values()) == asking.searches == 150
    report = CacheReport("command", {}, oracle=[without, asking])
    assert "a model that knows the labels" in cache_report.to_markdown(report)
    assert json.loads(cache_report.to_json(report))["oracle"][1]["aliases"] == asking.aliases
