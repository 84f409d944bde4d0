"""``pyrope bench``, as it is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyrope.cli import main
from servers import RunningServer, running_server


def bench(*args: object, env: dict[str, str] | None = None) -> Result:
    quick = ["--seconds", "0.2", "--warmup", "0", "--connections", "2", "--dim", "8"]
    return CliRunner().invoke(main, ["bench", *quick, *map(str, args)], env=env)


@pytest.mark.parametrize("workload", ["ping", "search", "hit", "add"])
@pytest.mark.parametrize("pipeline", [1, 5])
def test_each_workload_is_measured_and_leaves_nothing_behind(
    server: RunningServer, workload: str, pipeline: int
) -> None:
    told = bench(
        "--port", server.port, "--workload", workload, "--pipeline", pipeline, "--vectors", 300,
        "--count", 3, "--json",
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    # The server of the tests logs to the same standard output.
    found, _ = json.JSONDecoder().raw_decode(told.stdout, told.stdout.index("{\n"))
    assert found["workload"] == workload
    assert found["errors"] == {}
    assert found["requests"] > 0
    assert found["requests_per_second"] > 0
    assert 0 < found["p50_us"] <= found["p99_us"] <= found["max_us"]
    assert ("dim" in found) == (workload != "ping")
    with server.client() as client:
        assert client.execute_command("VECTOR.LIST") == []


def test_hits_come_from_the_cache_and_searches_do_not(server: RunningServer) -> None:
    def hits() -> int:
        with server.client() as client:
            return int(client.info("cache")["cache_hits"])

    before = hits()
    assert bench("--port", server.port, "--workload", "search", "--vectors", 100).exit_code == 0
    assert hits() == before
    assert bench("--port", server.port, "--workload", "hit", "--vectors", 100).exit_code == 0
    assert hits() > before


def test_the_table_is_for_people(server: RunningServer) -> None:
    told = bench("--port", server.port, "--workload", "ping")
    lines = dict(line.split(None, 1) for line in told.stdout.splitlines() if line[0] == "p")
    assert set(lines) >= {"pipeline", "p50", "p90", "p99", "p99.9"}
    assert lines["p50"].endswith(" ms")
    assert "errors" in told.stdout
    assert "generator's own CPU" in told.stdout
    assert "Measuring" in told.stderr


def test_signing_in_and_a_unix_socket(tmp_path: Path) -> None:
    with running_server(unixsocket=tmp_path / "s", admin_password="secret") as server:
        refused = bench("--port", server.port)
        assert refused.exit_code == 1
        assert "NOAUTH" in refused.stderr
        for auth in ("admin:secret", ":secret"):
            told = bench("--unixsocket", tmp_path / "s", "--workload", "ping", "--auth", auth)
            assert told.exit_code == 0, told.output
        env = {"PYROPE_BENCH_AUTH": "admin:secret"}
        assert bench("--port", server.port, "--workload", "ping", env=env).exit_code == 0
        assert "WRONGPASS" in bench("--port", server.port, "--auth", "admin:no").stderr


def test_a_server_that_is_not_there_exits_with_1() -> None:
    told = bench("--port", 1)
    assert told.exit_code == 1
    assert told.stderr.startswith("pyrope: 127.0.0.1:1: ")


@pytest.mark.parametrize(
    "args", [("--workload", "x"), ("--pipeline", 0), ("--port", 70_000), ("--seconds", 0)]
)
def test_wrong_options_exit_with_2(args: tuple[object, ...]) -> None:
    assert bench(*args).exit_code == 2
