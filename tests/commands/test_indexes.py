"""Commands that create, change and describe indexes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import redis

from pyrope.testing.clock import ManualClock
from servers import RunningServer, running_server


def test_an_index_is_described_by_what_it_was_created_with(client: redis.Redis) -> None:
    created = ("VECTOR.CREATE", "docs", "DIM", 4, "METRIC", "L2", "TYPE", "HNSW", "M", 8)
    assert client.execute_command(*created, "EFCONSTRUCTION", 50, "EF", 33) == b"OK"
    client.execute_command("VECTOR.ADD", "docs", "a", "VALUES", 4, 1, 2, 3, 4)
    flat = client.execute_command("VECTOR.INFO", "docs")
    info = dict(zip(flat[::2], flat[1::2], strict=True))
    expected = {
        b"name": b"docs", b"tenant": b"default", b"dim": 4, b"metric": b"L2", b"type": b"HNSW",
        b"count": 1, b"deleted": 0, b"head_count": 0, b"ef": 33, b"nprobe": 0, b"m": 8,
        b"nlist": 0, b"epoch": 1, b"cache_levels": b"OFF", b"cache_entries": 0,
        b"cache_bytes": 0, b"embedder": None,
    }  # fmt: skip
    assert {key: info[key] for key in expected} == expected
    assert info[b"memory_bytes"] > 0
    assert info[b"created_at"] > 1_600_000_000


def test_defaults_are_those_of_the_contract(server: RunningServer) -> None:
    with server.client(protocol=3) as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 4)
        info = client.execute_command("VECTOR.INFO", "i")
        assert (info[b"metric"], info[b"type"]) == (b"COSINE", b"HNSW")
        assert (info[b"m"], info[b"ef_construction"], info[b"ef"]) == (16, 200, 64)


def test_a_name_is_taken_once(client: redis.Redis) -> None:
    assert client.execute_command("VECTOR.CREATE", "i", "DIM", 4) == b"OK"
    with pytest.raises(redis.ResponseError, match=r"^EXISTS"):
        client.execute_command("VECTOR.CREATE", "i", "DIM", 4)
    assert client.execute_command("VECTOR.CREATE", "i", "DIM", 4, "NX") == b"OK"
    with pytest.raises(redis.ResponseError, match=r"^EXISTS .* another definition"):
        client.execute_command("VECTOR.CREATE", "i", "DIM", 5, "NX")


def test_dropping_tells_whether_there_was_anything(client: redis.Redis) -> None:
    client.execute_command("VECTOR.CREATE", "i", "DIM", 4)
    assert client.execute_command("VECTOR.LIST") == [b"i"]
    assert client.execute_command("VECTOR.DROP", "i") == 1
    assert client.execute_command("VECTOR.DROP", "i") == 0
    assert client.execute_command("VECTOR.LIST") == []
    with pytest.raises(redis.ResponseError, match=r"^NOINDEX"):
        client.execute_command("VECTOR.CARD", "i")


def test_a_dropped_name_can_be_used_again_and_is_empty(client: redis.Redis) -> None:
    for dim in (4, 2):
        client.execute_command("VECTOR.CREATE", "i", "DIM", dim)
        assert client.execute_command("VECTOR.CARD", "i") == 0
        client.execute_command("VECTOR.ADD", "i", "a", "VALUES", dim, *range(1, dim + 1))
        client.execute_command("VECTOR.DROP", "i")


def test_alter_changes_the_default_effort(client: redis.Redis) -> None:
    client.execute_command("VECTOR.CREATE", "i", "DIM", 2)
    assert client.execute_command("VECTOR.ALTER", "i", "EF", 200) == b"OK"
    flat = client.execute_command("VECTOR.INFO", "i")
    assert flat[flat.index(b"ef") + 1] == 200
    with pytest.raises(redis.ResponseError, match=r"^NOINDEX"):
        client.execute_command("VECTOR.ALTER", "none", "EF", 200)


def test_flushall_drops_every_index(client: redis.Redis) -> None:
    for name in ("a", "b", "c"):
        client.execute_command("VECTOR.CREATE", name, "DIM", 2)
    assert client.dbsize() == 3
    assert client.flushall()
    assert client.dbsize() == 0


def test_build_compacts_away_what_was_deleted_while_searches_and_writes_go_on(
    client: redis.Redis,
) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((1200, 8)).astype("<f4")
    client.execute_command("VECTOR.CREATE", "i", "DIM", 8)
    ids = [f"v{number}" for number in range(1200)]
    client.execute_command("VECTOR.MADD", "i", "FP32", vectors.tobytes(), "IDS", 1200, *ids)
    client.execute_command("VECTOR.DEL", "i", *ids[:100])

    def deleted() -> int:
        flat = client.execute_command("VECTOR.INFO", "i")
        count: int = flat[flat.index(b"deleted") + 1]
        return count

    assert deleted() == 100
    building = client.connection_pool.get_connection()
    building.send_command("VECTOR.BUILD", "i")
    client.execute_command("VECTOR.ADD", "i", "new", "FP32", vectors[0].tobytes())
    client.execute_command("VECTOR.DEL", "i", "v200")
    moved = -vectors[300]
    client.execute_command("VECTOR.ADD", "i", "v300", "FP32", moved.tobytes())
    assert building.read_response() == b"OK"
    client.connection_pool.release(building)
    assert deleted() <= 2  # at most what was written over meanwhile
    assert client.execute_command("VECTOR.CARD", "i") == 1100
    for query, best in ((vectors[0], b"new"), (moved, b"v300"), (vectors[500], b"v500")):
        found = client.execute_command("VECTOR.SEARCH", "i", "FP32", query.tobytes(), "COUNT", 1)
        assert found == [best]
    assert b"v200" not in client.execute_command(
        "VECTOR.SEARCH", "i", "FP32", vectors[200].tobytes(), "COUNT", 1100
    )


BAD_CREATES: list[tuple[Any, ...]] = [
    ("i",),
    ("i", "DIM"),
    ("i", "DIM", 0),
    ("i", "DIM", -1),
    ("i", "DIM", "x"),
    ("i", "DIM", 10**6),
    ("i", "DIM", 10**40),
    ("i", "METRIC", "L2"),
    ("i", "DIM", 4, "DIM", 4),
    ("i", "DIM", 4, "METRIC", "MANHATTAN"),
    ("i", "DIM", 4, "TYPE", "TREE"),
    ("i", "DIM", 4, "M", 1),
    ("i", "DIM", 4, "M", 10**6),
    ("i", "DIM", 4, "EF", 0),
    ("i", "DIM", 4, "EFCONSTRUCTION", 0),
    ("i", "DIM", 4, "BOGUS"),
    ("", "DIM", 4),
    ("a b", "DIM", 4),
    ("a/b", "DIM", 4),
    ("x" * 129, "DIM", 4),
    (b"\xff", "DIM", 4),
    ("i\n", "DIM", 4),
]


@pytest.mark.parametrize("args", BAD_CREATES, ids=[str(i) for i in range(len(BAD_CREATES))])
def test_a_bad_definition_is_refused_and_leaves_nothing(
    client: redis.Redis, args: tuple[Any, ...]
) -> None:
    with pytest.raises(redis.ResponseError):
        client.execute_command("VECTOR.CREATE", *args)
    assert client.execute_command("VECTOR.LIST") == []


@pytest.mark.parametrize(
    "options",
    [
        ("TYPE", "HNSW_SQ8"),
        ("TYPE", "IVF_FLAT"),
        ("TYPE", "IVF_PQ"),
        ("NLIST", 4),
        ("NPROBE", 4),
        ("PQM", 4),
        ("EMBEDDER", "wordllama"),
        ("CACHE", "OFF"),
        ("CACHETTL", 4),
    ],
    ids=str,
)
def test_what_comes_later_says_so(client: redis.Redis, options: tuple[Any, ...]) -> None:
    with pytest.raises(redis.ResponseError, match="not available yet"):
        client.execute_command("VECTOR.CREATE", "i", "DIM", 4, *options)


def test_writes_answer_oom_at_the_memory_limit_and_reads_go_on() -> None:
    clock = ManualClock()  # the estimate of the memory in use ages by the clock
    with running_server(clock=clock, maxmemory=2_000_000) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 256, "TYPE", "HNSW")
        data = np.ones((4000, 256), "<f4")
        ids = [f"v{number}" for number in range(4000)]
        with pytest.raises(redis.OutOfMemoryError):
            client.execute_command("VECTOR.MADD", "i", "FP32", data.tobytes(), "IDS", 4000, *ids)
        assert client.execute_command("VECTOR.CARD", "i") == 0
        client.execute_command("VECTOR.ADD", "i", "a", "FP32", data[0].tobytes())
        client.config_set("maxmemory", "1kb")
        clock.advance(1)
        for refused in (
            ("VECTOR.ADD", "i", "b", "FP32", data[0].tobytes()),
            ("VECTOR.CREATE", "j", "DIM", 4),
            ("VECTOR.SETATTR", "i", "a", "{}"),
        ):
            with pytest.raises(redis.OutOfMemoryError):
                client.execute_command(*refused)
        assert client.execute_command("VECTOR.SEARCH", "i", "ELE", "a") == [b"a"]
        assert client.execute_command("VECTOR.DEL", "i", "a") == 1
