"""Commands that create, change and describe indexes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from pyrope.testing.clock import ManualClock
from pyrope.types import IndexType
from servers import RunningServer, running_server


def info_of(client: redis.Redis, name: str) -> dict[bytes, Any]:
    flat = client.execute_command("VECTOR.INFO", name)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def test_an_index_is_described_by_what_it_was_created_with(client: redis.Redis) -> None:
    created = ("VECTOR.CREATE", "docs", "DIM", 4, "METRIC", "L2", "TYPE", "HNSW", "M", 8)
    assert client.execute_command(*created, "EFCONSTRUCTION", 50, "EF", 33) == b"OK"
    client.execute_command("VECTOR.ADD", "docs", "a", "VALUES", 4, 1, 2, 3, 4)
    info = info_of(client, "docs")
    expected = {
        b"name": b"docs", b"tenant": b"default", b"dim": 4, b"metric": b"L2", b"type": b"HNSW",
        b"count": 1, b"deleted": 0, b"head_count": 1, b"ef": 33, b"nprobe": 0, b"m": 8,
        b"nlist": 0, b"pqm": 0, b"epoch": 1, b"cache_entries": 0,
        b"cache_levels": b"EXACT,ALIAS,QUANTIZED,CLUSTER,PREFETCH",
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


@pytest.mark.parametrize("kind", list(IndexType))
def test_an_index_can_be_of_every_type(client: redis.Redis, kind: IndexType) -> None:
    assert client.execute_command("VECTOR.CREATE", "i", "DIM", 8, "TYPE", kind.lower()) == b"OK"
    assert info_of(client, "i")[b"type"] == kind.encode()
    rows = np.random.default_rng(1).standard_normal((20, 8)).astype("<f4")
    ids = [f"v{number}" for number in range(20)]
    client.execute_command("VECTOR.MADD", "i", "FP32", rows.tobytes(), "IDS", 20, *ids)
    for row, name in zip(rows, ids, strict=True):
        found = client.execute_command("VECTOR.SEARCH", "i", "FP32", row.tobytes(), "COUNT", 1)
        assert found == [name.encode()]


def test_options_of_lists_are_shown_as_they_were_given(client: redis.Redis) -> None:
    options = ("PQM", 2, "NPROBE", 3, "TYPE", "IVF_PQ", "NLIST", 3, "DIM", 8)
    assert client.execute_command("VECTOR.CREATE", "i", *options) == b"OK"
    info = info_of(client, "i")
    assert (info[b"nlist"], info[b"nprobe"], info[b"pqm"]) == (3, 3, 2)


@pytest.mark.parametrize("options", [(), ("NLIST", "AUTO", "NPROBE", "auto", "PQM", "Auto")])
def test_what_is_left_to_the_training_is_0_before_it(
    client: redis.Redis, options: tuple[str, ...]
) -> None:
    client.execute_command("VECTOR.CREATE", "i", "DIM", 8, "TYPE", "IVF_PQ", *options)
    info = info_of(client, "i")
    assert (info[b"nlist"], info[b"nprobe"], info[b"pqm"]) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["FLAT", "HNSW", "HNSW_SQ8", "AUTO"])
def test_options_of_a_graph_go_with_every_type_without_lists(
    client: redis.Redis, kind: str
) -> None:
    options = ("M", 5, "EFCONSTRUCTION", 6, "EF", 7, "TYPE", kind)
    assert client.execute_command("VECTOR.CREATE", "i", "DIM", 4, *options) == b"OK"
    info = info_of(client, "i")
    assert (info[b"m"], info[b"ef_construction"], info[b"ef"]) == (5, 6, 7)
    assert client.execute_command("VECTOR.ALTER", "i", "EF", 8) == b"OK"
    assert info_of(client, "i")[b"ef"] == 8


def test_alter_changes_the_default_effort(client: redis.Redis) -> None:
    client.execute_command("VECTOR.CREATE", "i", "DIM", 2)
    assert client.execute_command("VECTOR.ALTER", "i", "EF", 200) == b"OK"
    assert info_of(client, "i")[b"ef"] == 200
    with pytest.raises(redis.ResponseError, match=r"^NOINDEX"):
        client.execute_command("VECTOR.ALTER", "none", "EF", 200)


def test_alter_changes_the_lists_that_a_search_visits(client: redis.Redis) -> None:
    client.execute_command("VECTOR.CREATE", "i", "DIM", 2, "TYPE", "IVF_FLAT", "NLIST", 9)
    for given, shown in ((9, 9), ("AUTO", 0), (1, 1)):
        assert client.execute_command("VECTOR.ALTER", "i", "NPROBE", given) == b"OK"
        assert info_of(client, "i")[b"nprobe"] == shown


def test_an_altered_index_is_the_same_definition_still(client: redis.Redis) -> None:
    for kind, changed in (("HNSW", "EF"), ("IVF_FLAT", "NPROBE")):
        created = ("VECTOR.CREATE", kind, "DIM", 2, "TYPE", kind)
        client.execute_command(*created)
        client.execute_command("VECTOR.ALTER", kind, changed, 5)
        assert client.execute_command(*created, "NX") == b"OK"
        assert info_of(client, kind)[changed.lower().encode()] == 5
    with pytest.raises(redis.ResponseError, match=r"^EXISTS .* another definition"):
        client.execute_command(*created, "NLIST", 4, "NX")


@pytest.mark.parametrize(
    ("created", "altered", "message"),
    [
        (("TYPE", "HNSW"), ("NPROBE", 4), "^NPROBE does not go with TYPE HNSW"),
        (("TYPE", "FLAT"), ("NPROBE", 4), "^NPROBE does not go with TYPE FLAT"),
        (("TYPE", "AUTO"), ("EF", 9, "NPROBE", 4), "^NPROBE does not go with TYPE AUTO"),
        (("TYPE", "IVF_FLAT"), ("EF", 9), "^EF does not go with TYPE IVF_FLAT"),
        (("TYPE", "IVF_PQ"), ("NPROBE", 4, "EF", 9), "^EF does not go with TYPE IVF_PQ"),
        (("TYPE", "IVF_PQ", "NLIST", 7), ("NPROBE", 8), "at most NLIST is expected, which is 7"),
        (("TYPE", "IVF_PQ"), ("NPROBE", 0), "^invalid NPROBE: an integer from 1 to 65536"),
        (("TYPE", "IVF_PQ"), ("NPROBE", 65_537), "^invalid NPROBE"),
        (("TYPE", "HNSW"), ("EF", 0), "^invalid EF"),
        (("TYPE", "HNSW"), ("EF", "AUTO"), "^invalid EF"),
        (("TYPE", "HNSW"), ("EF", 9, "EF", 9), "EF is doubled"),
        (("TYPE", "HNSW"), ("M", 9), "^syntax error"),
        (("TYPE", "IVF_PQ"), ("NLIST", 9), "^syntax error"),
        (("TYPE", "IVF_PQ"), ("PQM", 2), "^syntax error"),
        (("TYPE", "HNSW"), ("EF",), "wrong number of arguments"),
        (("TYPE", "HNSW"), ("EF", 9, "NPROBE"), "^syntax error"),
        (("TYPE", "HNSW"), ("CACHE", "SOMETIMES"), "^invalid cache levels"),
        (("TYPE", "HNSW"), ("CACHE", "EXACT,EXACT"), "^invalid cache levels"),
        (("TYPE", "HNSW"), ("CACHETTL", -1), "^invalid CACHETTL"),
    ],
    ids=str,
)
def test_a_bad_change_is_refused_and_changes_nothing(
    client: redis.Redis, created: tuple[Any, ...], altered: tuple[Any, ...], message: str
) -> None:
    client.execute_command("VECTOR.CREATE", "i", "DIM", 4, *created)
    before = info_of(client, "i")
    with pytest.raises(redis.ResponseError, match=message):
        client.execute_command("VECTOR.ALTER", "i", *altered)
    assert info_of(client, "i") == before


def test_what_was_created_and_altered_survives_a_restart(tmp_path: Path) -> None:
    with running_server(data_dir=tmp_path) as server, server.client() as client:
        options = ("TYPE", "IVF_PQ", "NLIST", 30, "NPROBE", 5, "PQM", 4)
        client.execute_command("VECTOR.CREATE", "lists", "DIM", 8, *options)
        client.execute_command("VECTOR.ALTER", "lists", "NPROBE", 6)
        client.execute_command("VECTOR.CREATE", "graph", "DIM", 8, "TYPE", "HNSW_SQ8")
        client.execute_command("VECTOR.ALTER", "graph", "EF", 99)
        before = [info_of(client, name) for name in ("lists", "graph")]
    with running_server(data_dir=tmp_path) as server, server.client() as client:
        after = [info_of(client, name) for name in ("lists", "graph")]
    for one, other in zip(before, after, strict=True):
        for field in (b"type", b"ef", b"nlist", b"nprobe", b"pqm", b"created_at"):
            assert one[field] == other[field]
    assert (after[0][b"nprobe"], after[1][b"ef"]) == (6, 99)


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
    # Only what is in the graph leaves a tombstone.
    client.execute_command("VECTOR.BUILD", "i")
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
    ("i", "DIM", 4, "TYPE", "IVF_FLAT", "NLIST"),
    ("i", "DIM", 4, "TYPE", "IVF_FLAT", "NLIST", 0),
    ("i", "DIM", 4, "TYPE", "IVF_FLAT", "NLIST", -1),
    ("i", "DIM", 4, "TYPE", "IVF_FLAT", "NLIST", 65_537),
    ("i", "DIM", 4, "TYPE", "IVF_FLAT", "NLIST", "many"),
    ("i", "DIM", 4, "TYPE", "IVF_FLAT", "NPROBE", 0),
    ("i", "DIM", 4, "TYPE", "IVF_FLAT", "NPROBE", 65_537),
    ("i", "DIM", 4, "TYPE", "IVF_FLAT", "NPROBE", 1.5),
    ("i", "DIM", 4, "TYPE", "IVF_PQ", "PQM", 0),
    ("i", "DIM", 4, "TYPE", "IVF_PQ", "PQM", "x"),
    ("i", "DIM", 4, "TYPE", "IVF_PQ", "NLIST", 2, "NLIST", 2),
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
    ("options", "message"),
    [
        (("NLIST", 4), "^NLIST does not go with TYPE HNSW: it is an option of IVF_FLAT and IVF_PQ"),
        (("TYPE", "HNSW", "NLIST", 4), "^NLIST does not go with TYPE HNSW"),
        (("NLIST", "AUTO", "TYPE", "FLAT"), "^NLIST does not go with TYPE FLAT"),
        (("NPROBE", 4, "TYPE", "HNSW_SQ8"), "^NPROBE does not go with TYPE HNSW_SQ8"),
        (("PQM", 2, "TYPE", "AUTO"), "^PQM does not go with TYPE AUTO"),
        (("TYPE", "IVF_FLAT", "PQM", 2), "^PQM does not go with TYPE IVF_FLAT: .* of IVF_PQ$"),
        (("TYPE", "IVF_FLAT", "M", 16), "^M does not go with TYPE IVF_FLAT: .* of FLAT, HNSW, "),
        (("EF", 64, "TYPE", "IVF_PQ"), "^EF does not go with TYPE IVF_PQ"),
        (("TYPE", "IVF_PQ", "EFCONSTRUCTION", 99), "^EFCONSTRUCTION does not go with TYPE IVF_PQ"),
        (("TYPE", "IVF_PQ", "PQM", 5), "^PQM must divide the dimension: 12 is no multiple of 5"),
        (("PQM", 24, "TYPE", "IVF_PQ"), "^PQM must divide the dimension"),
        (("NPROBE", 9, "TYPE", "IVF_FLAT", "NLIST", 8), "^invalid NPROBE: .* NLIST .* is 8$"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_refused_in_any_order(
    client: redis.Redis, options: tuple[Any, ...], message: str
) -> None:
    for args in (("DIM", 12, *options), (*options, "DIM", 12)):
        with pytest.raises(redis.ResponseError, match=message):
            client.execute_command("VECTOR.CREATE", "i", *args)
        assert client.execute_command("VECTOR.LIST") == []


def test_limits_of_lists_are_settings(server: RunningServer) -> None:
    with server.client() as client:
        before = {name: client.config_get(name)[name] for name in ("limits-nlist", "limits-nprobe")}
        try:
            client.config_set("limits-nlist", 10)
            client.config_set("limits-nprobe", 5)
            created = ("VECTOR.CREATE", "i", "DIM", 4, "TYPE", "IVF_FLAT")
            for option, beyond in (("NLIST", 11), ("NPROBE", 6)):
                with pytest.raises(redis.ResponseError, match=f"from 1 to {beyond - 1}, or AUTO,"):
                    client.execute_command(*created, option, beyond)
            assert client.execute_command(*created, "NLIST", 10, "NPROBE", 5) == b"OK"
        finally:
            for name, value in before.items():
                client.config_set(name, value)


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
