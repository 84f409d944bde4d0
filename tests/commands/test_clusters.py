"""VECTOR.CLUSTER over a socket."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from in_process import Desk
from pyrope.config import Settings
from pyrope.semantic.advice import Advice, Nature
from pyrope.service.service import Service
from pyrope.testing.clock import ManualClock
from servers import RunningServer, running_server

DIM = 4
POINTS = np.eye(DIM, dtype="<f4")


def blob(*rows: Any) -> bytes:
    return np.asarray(rows, "<f4").tobytes()


def create(client: redis.Redis, metric: str = "L2", **options: Any) -> None:
    words = [str(word) for option in options.items() for word in option]
    client.execute_command("VECTOR.CREATE", "i", "DIM", DIM, "METRIC", metric, *words)


def cluster(client: redis.Redis, word: str, *args: Any) -> Any:
    return client.execute_command("VECTOR.CLUSTER", word, "i", *args)


def test_an_index_without_centroids_is_one_cluster(any_client: redis.Redis) -> None:
    create(any_client)
    any_client.execute_command("VECTOR.ADD", "i", "a", "FP32", blob(POINTS[0]))
    assert cluster(any_client, "NEAREST", "FP32", blob(POINTS[2])) == [0, None]
    (listed,) = cluster(any_client, "LIST")
    if not isinstance(listed, dict):
        listed = dict(zip(listed[::2], listed[1::2], strict=True))
    assert listed.pop(b"advice") is None
    numbers = {key.decode(): float(value) for key, value in listed.items()}
    assert numbers["ttl"] == pytest.approx(3600 * 2, rel=0.5)
    assert {key: numbers[key] for key in ("id", "size", "writes", "threshold")} == {
        "id": 0, "size": 1, "writes": 1, "threshold": 16,
    }  # fmt: skip


def test_doubles_are_doubles_in_resp3(server: RunningServer) -> None:
    with server.client(protocol=3) as client:
        create(client)
        cluster(client, "SET", "FP32", blob(*POINTS))
        number, score = cluster(client, "NEAREST", "FP32", blob([0, 3, 0, 0]))
        assert (number, score) == (1, 2.0)
        assert isinstance(score, float)
        told = cluster(client, "TTL", "FP32", blob(POINTS[1]))
        assert told == [1, 3600.0, 7200.0, 0, 16.0]


@pytest.mark.parametrize(
    ("metric", "score"), [("COSINE", 0.8), ("L2", math.sqrt(18)), ("IP", math.sqrt(18))]
)
def test_nearest_tells_cluster_and_score(client: redis.Redis, metric: str, score: float) -> None:
    create(client, metric)
    cluster(client, "SET", "FP32", blob(*POINTS))
    found = cluster(client, "NEAREST", "VALUES", DIM, 3, 4, 0, 0)
    assert found[0] == 1
    assert float(found[1]) == pytest.approx(score)


def test_the_vector_of_an_id_does_too(client: redis.Redis) -> None:
    create(client)
    cluster(client, "SET", "FP32", blob(*POINTS))
    client.execute_command("VECTOR.ADD", "i", "a", "FP32", blob(POINTS[3]))
    assert cluster(client, "NEAREST", "ELE", "a")[0] == 3
    assert cluster(client, "TTL", "ELE", "a")[0] == 3
    with pytest.raises(redis.ResponseError, match="element not found"):
        cluster(client, "NEAREST", "ELE", "b")


def test_ttl_falls_with_writes_and_recovers_with_time() -> None:
    clock = ManualClock()
    with running_server(clock=clock) as server, server.client(protocol=3) as client:
        create(client, CACHETTL=100)
        cluster(client, "SET", "FP32", blob(*POINTS))
        rows = blob(*[POINTS[0]] * 50, POINTS[1])
        ids = [f"v{number}" for number in range(51)]
        client.execute_command("VECTOR.MADD", "i", "FP32", rows, "IDS", 51, *ids)
        hot = cluster(client, "TTL", "FP32", blob(POINTS[0]))
        cold = cluster(client, "TTL", "FP32", blob(POINTS[2]))
        # Four times the mean of 51 writes to four clusters is their sum.
        assert (hot[0], hot[1], hot[3], hot[4]) == (0, 100.0, 50, 51.0)
        assert hot[2] == pytest.approx(57, abs=2)
        assert cold == [2, 100.0, 200.0, 0, 51.0]
        client.execute_command("VECTOR.DEL", "i", "v0", "v1")
        listed = cluster(client, "LIST")
        assert [one["writes"] for one in map(decoded, listed)] == [52, 1, 0, 0]
        clock.advance(300)
        assert cluster(client, "TTL", "FP32", blob(POINTS[0])) == [0, 100.0, 200.0, 0, 16.0]


def decoded(told: dict[bytes, Any]) -> dict[str, Any]:
    return {key.decode(): value for key, value in told.items()}


def test_the_policy_has_the_threshold(server: RunningServer) -> None:
    with server.client(protocol=3) as client:
        create(client)
        client.execute_command("VECTOR.CACHE", "POLICY", "i", "SET", "HOTWRITES", "2")
        assert cluster(client, "TTL", "FP32", blob(POINTS[0]))[4] == 2.0


def test_a_rebuild_learns_clusters_of_what_there_is(server: RunningServer) -> None:
    with server.client(protocol=3) as client:
        create(client)
        random = np.random.default_rng(1)
        rows = 10 * POINTS[np.arange(100) % DIM] + 0.1 * random.standard_normal((100, DIM))
        ids = [f"v{number}" for number in range(100)]
        client.execute_command("VECTOR.MADD", "i", "FP32", blob(*rows), "IDS", 100, *ids)
        assert cluster(client, "REBUILD") == b"OK"
        told = [decoded(one) for one in cluster(client, "LIST")]
        assert [one["id"] for one in told] == list(range(10))
        assert sum(one["size"] for one in told) == pytest.approx(100, abs=5)
        assert sum(one["writes"] for one in told) == pytest.approx(100, abs=5)
        near = [cluster(client, "NEAREST", "ELE", f"v{number}") for number in range(100)]
        assert max(distance for _, distance in near) < 1
        of_one_place = [{near[number][0] for number in range(first, 100, 4)} for first in range(4)]
        assert sum(map(len, of_one_place)) == len(set().union(*of_one_place))


def test_pushed_centroids_are_there_after_a_restart(tmp_path: Path) -> None:
    for first in (True, False):
        with running_server(tmp_path / "data") as server, server.client() as client:
            if first:
                create(client, "COSINE")
                cluster(client, "SET", "FP32", blob(2 * POINTS[1], POINTS[0]))
            number, score = cluster(client, "NEAREST", "FP32", blob([9, 0, 0, 0]))
            assert (number, float(score)) == (1, 1.0)
            assert len(cluster(client, "LIST")) == 2


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (("SET", "i", "FP32", b""), "^DIM"),
        (("SET", "i", "FP32", b"x" * 17), "multiple of 16"),
        (("SET", "i", "FP32", blob([1, 2, 3, math.nan])), "NaN and infinity"),
        (("SET", "i", "FP32", blob([1, 2, 3, math.inf])), "NaN and infinity"),
        (("SET", "i", "FP32", bytes(4 * DIM * 257)), "at most 256 centroids"),
        (("SET", "i", "FP32", blob(POINTS[0], [0, 0, 0, 0])), "no direction"),
        (("SET", "i", "VALUES", b"1"), "FP32 is expected"),
        (("SET", "i", "FP32"), "wrong number of arguments"),
        (("NEAREST", "i", "FP32", blob([1, 2])), "dimension mismatch"),
        (("NEAREST", "i", "FP32", blob(POINTS[0]), "more"), "syntax error"),
        (("TTL", "i", "FP32", blob(POINTS[0]), "more"), "syntax error"),
        (("LIST", "other"), "no such index"),
        (("REBUILD", "other"), "no such index"),
        (("SET", "other", "FP32", blob(POINTS[0])), "no such index"),
        (("FORGET", "i", "1"), "no such cluster"),
        (("FORGET", "i", "one"), "no such cluster"),
        (("FORGET", "other"), "no such index"),
        (("FORGET", "i", "0", "1"), "syntax error"),
        (("REMEMBER", "i"), "unknown subcommand"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    client: redis.Redis, args: tuple[Any, ...], error: str
) -> None:
    create(client, "COSINE")
    with pytest.raises(redis.ResponseError, match=error):
        client.execute_command("VECTOR.CLUSTER", *args)
    assert cluster(client, "NEAREST", "FP32", blob(POINTS[0])) == [0, None]


def test_keys_and_help_are_known(client: redis.Redis) -> None:
    keys = ("COMMAND GETKEYS", "VECTOR.CLUSTER", "TTL", "i", "FP32", "x")
    assert client.execute_command(*keys) == ["i"]
    lines = client.execute_command("VECTOR.CLUSTER", "HELP")
    assert {b"LIST", b"NEAREST", b"SET", b"REBUILD", b"TTL"} <= set(lines)


async def test_advice_is_listed_and_taken_back(clock: ManualClock) -> None:
    service = Service(Settings(in_memory=True), clock, lambda id_: id_)
    await service.start()
    try:
        await service.loaded()
        desk = Desk(service, clock)
        await desk.call(b"VECTOR.CREATE", b"i", b"DIM", b"4")
        advice = Advice(Nature.LASTING, 1.5, 2.0, 0.9, clock.monotonic() + 60)
        service.index("default", b"i").clusters.registry.advice.set(0, advice)
        (listed,) = await desk.call(b"VECTOR.CLUSTER", b"LIST", b"i")
        told = dict(zip(listed[::2], listed[1::2], strict=True))[b"advice"]
        assert dict(zip(told[::2], told[1::2], strict=True)) == {
            b"nature": b"lasting", b"ttl_factor": b"1.5", b"value_factor": b"2",
            b"confidence": b"0.9", b"expires": b"60",
        }  # fmt: skip
        assert await desk.call(b"VECTOR.CLUSTER", b"FORGET", b"i", b"0") == 1
        assert await desk.call(b"VECTOR.CLUSTER", b"FORGET", b"i") == 0
    finally:
        await service.stop()
