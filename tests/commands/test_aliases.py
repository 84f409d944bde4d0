"""VECTOR.ALIAS, through redis-py."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import redis

from processes import pyrope_process
from pyrope.testing.clock import ManualClock
from servers import RunningServer, running_server


def blob(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def alias(client: redis.Redis, *args: Any) -> Any:
    return client.execute_command("VECTOR.ALIAS", *args)


def as_map(reply: Any) -> dict[bytes, Any]:
    """A map of RESP3, or the flat array that it is in RESP2."""
    if isinstance(reply, dict):
        return reply
    return dict(zip(reply[::2], reply[1::2], strict=True))


def pairs(aliases: list[dict[bytes, Any]]) -> list[tuple[Any, Any]]:
    return [(each[b"alias"], each[b"canonical"]) for each in aliases]


@pytest.fixture
def index(client: redis.Redis) -> str:
    client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
    return "i"


def test_an_alias_is_set_shown_and_removed(any_client: redis.Redis, index: str) -> None:
    assert alias(any_client, "SET", index, "How old is  Berlin?", "Age of Berlin") == b"OK"
    got = as_map(alias(any_client, "GET", index, "how OLD is berlin?"))
    assert got[b"alias"] == b"How old is  Berlin?"
    assert got[b"canonical"] == b"Age of Berlin"
    assert float(got[b"confidence"]) == 1.0
    assert got[b"source"] == b"manual"
    assert got[b"hits"] == 0
    assert got[b"suspended"] == 0
    assert got[b"ttl"] is None
    assert alias(any_client, "DEL", index, " HOW old is berlin? ") == 1
    assert alias(any_client, "DEL", index, "how old is berlin?") == 0
    assert alias(any_client, "GET", index, "how old is berlin?") is None


def test_confidence_is_a_double_in_resp3(server: RunningServer, index: str) -> None:
    with server.client(protocol=3) as client:
        alias(client, "SET", index, "a", "b", "CONFIDENCE", "0.25")
        assert alias(client, "GET", index, "a") == {
            b"alias": b"a", b"canonical": b"b", b"confidence": 0.25, b"source": b"manual",
            b"hits": 0, b"suspended": False, b"ttl": None,
        }  # fmt: skip


def test_options_come_in_any_order_and_a_set_replaces_all(clock: ManualClock) -> None:
    with running_server(clock=clock) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
        alias(client, "SET", "i", "a", "b", "ex", 100, "confidence", "0.5")
        clock.advance(40)
        got = as_map(alias(client, "GET", "i", "a"))
        assert (got[b"confidence"], got[b"ttl"]) == (b"0.5", 60)
        alias(client, "SET", "i", "A", "c", "EX", 10)
        got = as_map(alias(client, "GET", "i", "a"))
        assert (got[b"alias"], got[b"canonical"]) == (b"A", b"c")
        assert (got[b"confidence"], got[b"ttl"]) == (b"1", 10)
        clock.advance(10)
        assert alias(client, "GET", "i", "a") is None
        assert alias(client, "LIST", "i") == [b"0", []]
        assert alias(client, "DEL", "i", "a") == 0


def test_vectors_are_given_and_shown_as_fp32(client: redis.Redis, index: str) -> None:
    one, other = blob(1, 2, 3), blob(3, 2, 1)
    assert alias(client, "SET", index, "fp32", one, "FP32", other, "EX", 9) == b"OK"
    assert alias(client, "SET", index, "a text", "FP32", other) == b"OK"
    assert alias(client, "SET", index, "FP32", blob(7, 7, 7), "a canonical") == b"OK"
    got = as_map(alias(client, "GET", index, "FP32", one))
    assert (got[b"alias"], got[b"canonical"]) == ([b"FP32", one], [b"FP32", other])
    got = as_map(alias(client, "GET", index, "A Text"))
    assert (got[b"alias"], got[b"canonical"]) == (b"a text", [b"FP32", other])
    with pytest.raises(redis.ResponseError, match="the vector given is an alias itself"):
        alias(client, "SET", index, "x", "FP32", one)
    assert alias(client, "DEL", index, "FP32", one) == 1
    assert alias(client, "DEL", index, "FP32", other) == 0


def test_a_text_that_is_the_word_fp32_can_be_written(client: redis.Redis, index: str) -> None:
    assert alias(client, "SET", index, " FP32", "floating point of 32 bits") == b"OK"
    assert alias(client, "DEL", index, "fp32 ") == 1


def test_chains_and_cycles_are_refused(client: redis.Redis, index: str) -> None:
    alias(client, "SET", index, "a", "b")
    for words, told in (
        (("b", "c"), "'b' is a canonical itself, and has aliases: 1"),
        (("c", "A"), "'A' is an alias itself, of 'b'"),
        (("b", "a"), "'a' is an alias itself"),
        (("Straße", "STRASSE"), "cannot stand for itself"),
    ):
        with pytest.raises(redis.ResponseError, match=told):
            alias(client, "SET", index, *words)
    assert len(alias(client, "LIST", index)[1]) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("SET", "i", "a"), "wrong number of arguments"),
        (("SET", "i", "FP32", blob(1, 2, 3)), "the canonical is missing"),
        (("SET", "i", "a", "FP32"), "the canonical is missing: a blob is expected after FP32"),
        (("SET", "i", "", "b"), "invalid text: it is empty"),
        (("SET", "i", "a", " \t"), "invalid text: it is empty"),
        (("SET", "i", "a", b"\xff"), "UTF-8 is expected"),
        (("SET", "i", "a" * 4097, "b"), "the alias has 4097 bytes, at most 4096 are allowed"),
        (("SET", "i", "a", "b" * 4097), "the canonical has 4097 bytes"),
        (("SET", "i", "a", "b", "CONFIDENCE", "1.5"), "CONFIDENCE: a number from 0 to 1"),
        (("SET", "i", "a", "b", "CONFIDENCE", "nan"), "CONFIDENCE: a number from 0 to 1"),
        (("SET", "i", "a", "b", "EX", "0"), "invalid EX"),
        (("SET", "i", "a", "b", "EX", "1", "EX", "1"), "syntax error"),
        (("SET", "i", "a", "b", "c"), "syntax error in VECTOR.ALIAS SET"),
        (("SET", "i", "FP32", blob(1, float("nan"), 3), "b"), "NaN and infinity"),
        (("GET", "i", "a", "b"), "syntax error in VECTOR.ALIAS GET"),
        (("DEL", "i", "FP32", blob(1, 2, 3), "b"), "syntax error in VECTOR.ALIAS DEL"),
        (("LIST", "i", "x"), "invalid cursor"),
        (("LIST", "i", "-1"), "invalid cursor"),
        (("LIST", "i", "0", "1"), "syntax error in VECTOR.ALIAS LIST"),
        (("NONSENSE", "i"), "unknown subcommand"),
    ],
)
def test_what_is_wrong_is_told_and_changes_nothing(
    client: redis.Redis, index: str, words: tuple[Any, ...], told: str
) -> None:
    with pytest.raises(redis.ResponseError, match=told):
        alias(client, *words)
    assert alias(client, "LIST", index) == [b"0", []]


@pytest.mark.parametrize("words", [("SET", "i", "a", "FP32"), ("GET", "i", "FP32")])
def test_a_vector_of_another_dimension_is_refused(
    client: redis.Redis, index: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(redis.ResponseError, match=r"^DIM|dimension mismatch"):
        alias(client, *words, blob(1, 2))


def test_an_index_that_does_not_exist_is_told(client: redis.Redis) -> None:
    for words in (("SET", "n", "a", "b"), ("GET", "n", "a"), ("DEL", "n", "a"), ("LIST", "n")):
        with pytest.raises(redis.ResponseError, match="no such index"):
            alias(client, *words)
    # Arguments are looked at first.
    with pytest.raises(redis.ResponseError, match="invalid cursor"):
        alias(client, "LIST", "n", "x")


def test_the_list_comes_in_pages_of_a_hundred(any_client: redis.Redis, index: str) -> None:
    with any_client.pipeline(transaction=False) as pipe:
        for number in range(250):
            pipe.execute_command("VECTOR.ALIAS", "SET", index, f"alias {number}", "canonical")
        assert set(pipe.execute()) == {b"OK"}
    cursor, page = alias(any_client, "LIST", index)
    sizes = [len(page)]
    listed = [as_map(each)[b"alias"] for each in page]
    while cursor != b"0":
        cursor, page = alias(any_client, "LIST", index, cursor)
        sizes.append(len(page))
        listed += [as_map(each)[b"alias"] for each in page]
    assert sizes == [100, 100, 50]
    assert listed == [b"alias %d" % number for number in range(250)]


def test_bounds_are_settings_of_the_running_server(client: redis.Redis, index: str) -> None:
    before = client.config_get("aliases-*")
    assert before["aliases-threshold"] == "0.9"
    try:
        client.config_set("aliases-max-entries", 3)
        client.config_set("aliases-text-bytes", 10)
        with pytest.raises(redis.ResponseError, match="at most 10 are allowed"):
            alias(client, "SET", index, "a longer alias", "b")
        for number in range(5):
            alias(client, "SET", index, f"a{number}", "b")
        listed = [as_map(each)[b"alias"] for each in alias(client, "LIST", index)[1]]
        assert sorted(listed) == [b"a2", b"a3", b"a4"]
    finally:
        client.execute_command("CONFIG SET", *(part for each in before.items() for part in each))


def test_aliases_are_counted_in_the_memory_of_their_index_and_go_with_it(
    client: redis.Redis, index: str
) -> None:
    def used() -> int:
        told = client.execute_command("VECTOR.INFO", index)
        return int(told[told.index(b"memory_bytes") + 1])

    before = used()
    alias(client, "SET", index, "FP32", blob(1, 2, 3), "b" * 4000)
    assert used() - before > 4000
    client.execute_command("VECTOR.DROP", index)
    client.execute_command("VECTOR.CREATE", index, "DIM", 3)
    assert alias(client, "LIST", index) == [b"0", []]
    assert used() == before


def test_a_set_is_refused_where_memory_is_out_and_a_del_is_not() -> None:
    with running_server() as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
        alias(client, "SET", "i", "a", "b")
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            alias(client, "SET", "i", "c", "d")
        assert alias(client, "DEL", "i", "a") == 1


def test_flags_and_categories_are_those_of_their_kind(client: redis.Redis) -> None:
    for words in (("SET", "i", "a", "b"), ("GET", "i", "a"), ("LIST", "i")):
        assert client.execute_command("COMMAND GETKEYS", "VECTOR.ALIAS", *words) == ["i"]
    write = client.execute_command("ACL", "CAT", "write")
    read = client.execute_command("ACL", "CAT", "read")
    for word, categories in (("set", write), ("del", write), ("get", read), ("list", read)):
        assert f"vector.alias|{word}".encode() in categories


def test_every_acknowledged_alias_survives_kill_9(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pyrope_process(data) as process, process.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
        client.execute_command("VECTOR.ADD", "i", "v", "FP32", blob(1, 2, 3))
        alias(client, "SET", "i", "A text", "Its canonical", "CONFIDENCE", "0.4")
        alias(client, "SET", "i", "FP32", blob(1, 2, 3), "FP32", blob(3, 2, 1))
        alias(client, "SET", "i", "gone", "x")
        alias(client, "DEL", "i", "gone")
        process.kill()
    with pyrope_process(data) as process:
        with process.client() as client:
            cursor, page = alias(client, "LIST", "i")
            found = [as_map(each) for each in page]
            assert cursor == b"0"
            assert len(found) == 2
            assert (b"A text", b"Its canonical") in pairs(found)
            assert ([b"FP32", blob(1, 2, 3)], [b"FP32", blob(3, 2, 1)]) in pairs(found)
            assert as_map(alias(client, "GET", "i", "a text"))[b"confidence"] == b"0.4"
            assert client.execute_command("VECTOR.CARD", "i") == 1
            client.flushall()
        assert process.terminate() == 0
        assert "damaged" not in process.output()
    with pyrope_process(data) as process, process.client() as client:
        assert client.execute_command("VECTOR.LIST") == []


def test_expired_and_evicted_aliases_leave_the_disk_by_the_periodic_sweep(tmp_path: Path) -> None:
    clock = ManualClock()
    data = tmp_path / "data"
    aliases = {"max_entries": 3}
    with running_server(data, clock=clock, aliases=aliases) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
        alias(client, "SET", "i", "evicted", "x")
        alias(client, "SET", "i", "short", "x", "EX", 5)
        for name in ("a", "b"):
            alias(client, "SET", "i", name, "x")
        (index,) = server.pyrope._service.indexes()
        clock.advance(5)
        service = server.pyrope._service
        load = service._opened().load_side

        async def stored() -> set[bytes]:
            loaded = await service._storage.run(load, index.spec.uid)
            return {record.key for record in loaded.records}

        while server.run(stored()) != {b"ta", b"tb"}:
            client.ping()
