"""The scaling runs: what they measure, keep, and go on with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from benchmarks.harness import scale_report
from benchmarks.harness.scale_report import Curves
from benchmarks.harness.scaling import Case, Key, Writes, case_from_json, estimate

from benchmarks import scale

TINY = ["--counts", "600", "--dims", "16", "--queries", "40", "--seconds", "0.4"]
TINY += ["--mixed-seconds", "0.3", "--write-rate", "200"]


def run(folder: Path, *more: str) -> tuple[int, Curves]:
    arguments = [*TINY, "--results", str(folder), "--name", "tiny", *more]
    status = scale.main(arguments)
    return status, scale_report.load(folder / "tiny.json")


@pytest.mark.timeout(180)
def test_a_run_measures_every_type_and_goes_on_with_what_failed(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the bench extra")
    broken = tmp_path / "broken.toml"
    broken.write_text("no_such_setting = 1\n")
    status, curves = run(tmp_path, "--types", "FLAT", "--pyrope-config", str(broken))
    assert status == 1
    assert "no_such_setting" in curves.cases[0].failure
    assert "## Failed" in (tmp_path / "tiny.md").read_text()
    broken.unlink()

    status, curves = run(tmp_path, "--types", "FLAT", "HNSW", "--append")
    assert status == 0
    flat, hnsw = curves.cases
    assert (flat.key.index_type, hnsw.key.index_type) == ("FLAT", "HNSW")
    for case in curves.cases:
        assert not case.failure
        assert case.info["count"] == 600
        assert case.levels[0].target is None
        assert case.levels[0].round.recall is not None
        assert case.levels[0].round.rate > 0
        assert case.acknowledged is not None
        assert case.merged is not None
        assert case.acknowledged >= case.merged > 0
        assert case.disk_bytes is not None
        assert case.disk_bytes > 600 * 16 * 4
        assert case.stop_seconds is not None
        assert case.first_search_seconds is not None
        assert case.merged_seconds is not None
        assert case.merged_seconds >= case.first_search_seconds > 0
        assert case.mixed is not None
        assert case.mixed.writes.sent >= 0.3 * 200
    assert flat.sweep[0].recall == 1.0
    assert [level.target for level in hnsw.levels] == [None, 0.95, 0.99]

    again = run(tmp_path, "--types", "FLAT", "HNSW", "--append")
    code, same = again
    # The date of a run is its own.
    measured = (0, curves.commands, curves.cases)
    assert (code, same.commands, same.cases) == measured, "there was nothing to measure"

    page = (tmp_path / "tiny.md").read_text()
    assert page.count("python -m benchmarks.scale") == 2
    for heading in ("Searches, 32", "Ingest", "Memory", "Restart", "Searches while writing"):
        assert f"## {heading}" in page
    assert (tmp_path / "tiny.png").read_bytes().startswith(b"\x89PNG")
    kept = {"tiny.json", "tiny.md", "tiny.png", "cache"}
    assert {file.name for file in tmp_path.iterdir()} == kept, "no data is left behind"


def test_a_case_comes_back_from_its_json_as_it_was() -> None:
    case = Case(Key("HNSW", 10, 2), info={"nlist": 0}, failure="as asked")
    saved = json.loads(json.dumps(dataclasses.asdict(case)))
    assert case_from_json(saved) == case


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--counts", "9"], "--counts must be at least 10"),
        (["--dims", "1"], "--dims must be at least 2"),
        (["--append", "--name", "none"], "does not exist"),
        (["--types", "TREE"], "invalid choice: 'TREE'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(
    arguments: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        scale.parse([*arguments, "--results", str(tmp_path)])
    assert problem in capsys.readouterr().err


def test_a_run_that_is_there_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.json").write_text("{}")
    with pytest.raises(SystemExit):
        scale.parse(["--results", str(tmp_path), "--name", "old"])
    assert "go on with it by --append" in capsys.readouterr().err


def test_more_vectors_are_expected_to_take_longer() -> None:
    writes = Writes(1000, 12.0)
    for index_type in ("FLAT", "HNSW", "IVF_PQ"):
        times = [estimate(Key(index_type, n, 384), 2.0, writes) for n in (10**4, 10**5, 10**6)]
        assert times == sorted(times)
        assert estimate(Key(index_type, 10**5, 128), 2.0, writes) < times[1]
