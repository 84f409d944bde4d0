"""Commands that write and read single vectors, through redis-py."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrope.testing.clock import ManualClock
from servers import RunningServer, running_server


def blob(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


@pytest.fixture(params=["FLAT", "HNSW"])
def index(client: redis.Redis, request: pytest.FixtureRequest) -> str:
    client.execute_command("VECTOR.CREATE", "i", "DIM", 3, "TYPE", request.param)
    return "i"


def add(client: redis.Redis, id_: str | bytes, *args: Any) -> Any:
    return client.execute_command("VECTOR.ADD", "i", id_, *args)


def test_add_tells_new_from_updated(client: redis.Redis, index: str) -> None:
    assert add(client, "a", "VALUES", 3, 1, 0, 0) == 1
    assert add(client, "a", "FP32", blob(0, 1, 0)) == 0
    assert client.execute_command("VECTOR.CARD", index) == 1
    assert client.execute_command("VECTOR.SEARCH", index, "VALUES", 3, 0, 1, 0, "WITHSCORES") == [
        b"a",
        b"1",
    ]


def test_nx_and_xx_are_conditions(client: redis.Redis, index: str) -> None:
    assert add(client, "a", "VALUES", 3, 1, 0, 0, "XX") is None
    assert add(client, "a", "VALUES", 3, 1, 0, 0, "NX") == 1
    assert add(client, "a", "VALUES", 3, 0, 1, 0, "NX") is None
    assert add(client, "a", "VALUES", 3, 0, 0, 1, "XX") == 0
    got = client.execute_command("VECTOR.GET", index, "a", "WITHVECTOR", "VALUES")
    assert got[got.index(b"vector") + 1] == [b"0", b"0", b"1"]


def test_a_vector_comes_back_bit_for_bit(client: redis.Redis, index: str) -> None:
    sent = blob(0.1, -2.5e-8, 3.0e7)
    add(client, b"\x00\xff id", "FP32", sent)
    got = client.execute_command("VECTOR.GET", index, b"\x00\xff id", "WITHVECTOR", "FP32")
    assert got == [b"id", b"\x00\xff id", b"attr", None, b"vector", sent]


def test_get_of_an_id_that_is_not_there_is_null(client: redis.Redis, index: str) -> None:
    assert client.execute_command("VECTOR.GET", index, "nobody") is None


def test_yes_and_no_are_booleans_in_resp3(server: RunningServer, index: str) -> None:
    with server.client(protocol=3) as client:
        assert add(client, "a", "VALUES", 3, 1, 0, 0) is True
        assert add(client, "a", "VALUES", 3, 1, 0, 0) is False
        assert client.execute_command("VECTOR.EXISTS", index, "a") is True
        assert client.execute_command("VECTOR.SETATTR", index, "b", "{}") is False
        got = client.execute_command("VECTOR.GET", index, "a", "WITHVECTOR", "VALUES")
        assert got == {b"id": b"a", b"attr": None, b"vector": [1.0, 0.0, 0.0]}
        assert client.execute_command("VECTOR.DEL", index, "a", "a", "b") == 1
        assert client.execute_command("VECTOR.DROP", index) is True


def test_del_counts_what_was_there(client: redis.Redis, index: str) -> None:
    for name in "abc":
        add(client, name, "VALUES", 3, 1, 2, 3)
    assert client.execute_command("VECTOR.DEL", index, "a", "c", "c", "zz") == 2
    assert client.execute_command("VECTOR.EXISTS", index, "a") == 0
    assert client.execute_command("VECTOR.SEARCH", index, "VALUES", 3, 1, 2, 3) == [b"b"]


def test_attributes_are_set_kept_replaced_and_removed(client: redis.Redis, index: str) -> None:
    add(client, "a", "VALUES", 3, 1, 0, 0, "SETATTR", '{"year": 1980}')
    getattr_ = ("VECTOR.GETATTR", index, "a")
    assert client.execute_command(*getattr_) == b'{"year": 1980}'
    add(client, "a", "VALUES", 3, 0, 1, 0)  # an update leaves them
    assert client.execute_command(*getattr_) == b'{"year": 1980}'
    search = ("VECTOR.SEARCH", index, "VALUES", 3, 0, 1, 0, "FILTER", ".year == 1980")
    assert client.execute_command(*search) == [b"a"]
    assert client.execute_command("VECTOR.SETATTR", index, "a", '{"year": 2000}') == 1
    assert client.execute_command(*search) == []
    assert client.execute_command("VECTOR.SETATTR", index, "a", "") == 1
    assert client.execute_command(*getattr_) is None
    assert client.execute_command("VECTOR.SETATTR", index, "nobody", "{}") == 0


def test_what_is_not_a_json_object_is_refused_as_attributes(
    client: redis.Redis, index: str
) -> None:
    for bad in ("notjson", "[1]", "1", '{"a": NaN}', b"\xff", "{" * 100_000):
        with pytest.raises(redis.ResponseError):
            add(client, "a", "VALUES", 3, 1, 0, 0, "SETATTR", bad)
    assert client.execute_command("VECTOR.CARD", index) == 0


def test_madd_adds_all(client: redis.Redis, index: str) -> None:
    vectors = np.random.default_rng(1).standard_normal((500, 3)).astype("<f4")
    ids = [f"v{number}" for number in range(500)]
    attributes = [json.dumps({"n": number}) for number in range(500)]
    command = ("VECTOR.MADD", index, "FP32", vectors.tobytes(), "IDS", 500, *ids)
    assert client.execute_command(*command, "ATTRS", 500, *attributes) == 500
    assert client.execute_command(*command) == 0
    assert client.execute_command("VECTOR.CARD", index) == 500
    assert client.execute_command("VECTOR.GETATTR", index, "v77") == b'{"n": 77}'
    got = client.execute_command("VECTOR.GET", index, "v499", "WITHVECTOR", "FP32")
    assert got[-1] == vectors[499].tobytes()


def test_madd_takes_the_last_vector_of_an_id_that_is_given_twice(
    client: redis.Redis, index: str
) -> None:
    data = blob(1, 0, 0) + blob(0, 1, 0) + blob(0, 0, 1)
    assert client.execute_command("VECTOR.MADD", index, "FP32", data, "IDS", 3, "a", "b", "a") == 2
    got = client.execute_command("VECTOR.GET", index, "a", "WITHVECTOR", "FP32")
    assert got[-1] == blob(0, 0, 1)


@pytest.mark.parametrize(
    "args",
    [
        ("FP32", blob(1, 0, 0, float("nan"), 0, 0), "IDS", 2, "a", "b"),
        ("FP32", blob(1, 0, 0, 0, 0, 0), "IDS", 2, "a", ""),
        ("FP32", blob(1, 0, 0, 0, 0, 0), "IDS", 2, "a", "b", "ATTRS", 2, "{}", "no"),
        ("FP32", blob(1, 0, 0, 0, 0, 0), "IDS", 2, "a", "b", "ATTRS", 1, "{}"),
        ("FP32", blob(1, 0, 0, 0), "IDS", 2, "a", "b"),
        ("FP32", blob(1, 0, 0), "IDS", 2, "a", "b"),
        ("FP32", b"", "IDS", 1, "a"),
        ("FP32", blob(1, 0, 0), "IDS", 0),
        ("FP32", blob(1, 0, 0), "IDS", 5, "a"),
        ("FP32", blob(1, 0, 0), "IDS", "x", "a"),
        ("FP32", blob(1, 0, 0), "IDS", 1, "a", "IDS", 1, "b"),
        ("FP32", blob(1, 0, 0), "ATTRS", 1, "{}"),
        ("VALUES", blob(1, 0, 0), "IDS", 1, "a"),
    ],
)
def test_madd_adds_nothing_when_anything_is_wrong(
    client: redis.Redis, index: str, args: tuple[Any, ...]
) -> None:
    with pytest.raises(redis.ResponseError):
        client.execute_command("VECTOR.MADD", index, *args)
    assert client.execute_command("VECTOR.CARD", index) == 0


def test_a_scan_returns_every_id_exactly_once(client: redis.Redis, index: str) -> None:
    names = {f"v{number}".encode() for number in range(95)}
    for name in names:
        add(client, name, "VALUES", 3, 1, 0, 0)
    found: list[bytes] = []
    cursor = 0
    while True:
        answer, some = client.execute_command("VECTOR.SCAN", index, cursor, "COUNT", 10)
        assert len(some) <= 10
        found += some
        cursor = int(answer)
        if not cursor:
            break
    assert sorted(found) == sorted(names)


def test_an_expired_vector_is_gone_for_every_command(clock: ManualClock) -> None:
    with running_server(clock=clock) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
        add(client, "stays", "VALUES", 3, 1, 1, 0)
        add(client, "goes", "VALUES", 3, 1, 0, 0, "EX", 100)
        got = client.execute_command("VECTOR.GET", "i", "goes")
        assert got == [b"id", b"goes", b"attr", None, b"ttl", 100]
        clock.advance(99.9)
        assert client.execute_command("VECTOR.EXISTS", "i", "goes") == 1
        clock.advance(0.2)
        assert client.execute_command("VECTOR.SEARCH", "i", "VALUES", 3, 1, 0, 0) == [b"stays"]
        assert client.execute_command("VECTOR.EXISTS", "i", "goes") == 0
        assert client.execute_command("VECTOR.GET", "i", "goes") is None
        assert client.execute_command("VECTOR.CARD", "i") == 1
        assert client.execute_command("VECTOR.SCAN", "i", 0)[1] == [b"stays"]
        assert client.execute_command("VECTOR.DEL", "i", "goes") == 0
        assert add(client, "goes", "VALUES", 3, 1, 0, 0, "NX") == 1


def test_an_update_without_ex_lets_a_vector_live_on(clock: ManualClock) -> None:
    with running_server(clock=clock) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
        add(client, "a", "VALUES", 3, 1, 0, 0, "EX", 100)
        add(client, "a", "VALUES", 3, 1, 0, 0)
        clock.advance(101)
        assert client.execute_command("VECTOR.EXISTS", "i", "a") == 1
        add(client, "a", "VALUES", 3, 1, 0, 0, "EX", 100)
        clock.advance(50)
        add(client, "a", "VALUES", 3, 1, 0, 0, "EX", 100)
        clock.advance(60)
        assert client.execute_command("VECTOR.EXISTS", "i", "a") == 1
        client.execute_command("VECTOR.SETATTR", "i", "a", '{"k": 1}')
        clock.advance(41)
        assert client.execute_command("VECTOR.EXISTS", "i", "a") == 0


BAD_ADDS: list[tuple[str, tuple[Any, ...]]] = [
    ("ERR", ("", "VALUES", 3, 1, 0, 0)),
    ("ERR", ("x" * 65536, "VALUES", 3, 1, 0, 0)),
    ("ERR", ("a", "VALUES", 3, 1, 0)),
    ("ERR", ("a", "VALUES", 0)),
    ("ERR", ("a", "VALUES", -1, 1)),
    ("ERR", ("a", "VALUES", 10**12, 1)),
    ("ERR", ("a", "VALUES", 3, 1, "nan", 0)),
    ("ERR", ("a", "VALUES", 3, 1, "inf", 0)),
    ("ERR", ("a", "VALUES", 3, 1, "1e39", 0)),
    ("ERR", ("a", "VALUES", 3, 1, "1_0", 0)),
    ("ERR", ("a", "VALUES", 3, 1, "", 0)),
    ("ERR", ("a", "FP32", blob(1, float("nan"), 0))),
    ("ERR", ("a", "FP32", blob(1, float("-inf"), 0))),
    ("ERR", ("a", "FP32", blob(3e38, 3e38, 3e38))),
    ("DIM", ("a", "FP32", b"12345")),
    ("DIM", ("a", "FP32", b"")),
    ("DIM", ("a", "FP32", blob(1, 0))),
    ("DIM", ("a", "VALUES", 2, 1, 0)),
    ("ERR", ("a", "ELE", "a")),
    ("ERR", ("a", "TEXT", "hello")),
    ("ERR", ("a", "NONSENSE", "x")),
    ("ERR", ("a", "VALUES", 3, 1, 0, 0, "NX", "XX")),
    ("ERR", ("a", "VALUES", 3, 1, 0, 0, "NX", "NX")),
    ("ERR", ("a", "VALUES", 3, 1, 0, 0, "BOGUS")),
    ("ERR", ("a", "VALUES", 3, 1, 0, 0, "EX")),
    ("ERR", ("a", "VALUES", 3, 1, 0, 0, "EX", 0)),
    ("ERR", ("a", "VALUES", 3, 1, 0, 0, "EX", -5)),
    ("ERR", ("a", "VALUES", 3, 1, 0, 0, "EX", "x")),
    ("ERR", ("a", "VALUES", 3, 1, 0, 0, "EX", 10**18)),
    ("ERR", ("a", "VALUES", 3, 1, 0, 0, "SETATTR", "{" + " " * 70_000 + "}")),
]


@pytest.mark.parametrize(("prefix", "args"), BAD_ADDS, ids=[str(i) for i in range(len(BAD_ADDS))])
def test_a_refused_add_changes_nothing(
    client: redis.Redis, index: str, prefix: str, args: tuple[Any, ...]
) -> None:
    add(client, "before", "VALUES", 3, 1, 0, 0)
    with pytest.raises(redis.ResponseError) as refused:
        client.execute_command("VECTOR.ADD", index, *args)
    assert error_line(refused.value).split()[0] == prefix
    assert client.execute_command("VECTOR.SCAN", index, 0) == [b"0", [b"before"]]


def error_line(error: redis.ResponseError) -> str:
    """redis-py takes the prefix ERR off a message."""
    text = str(error)
    known = ("DIM ", "NOINDEX ", "EXISTS ", "BUSY ", "OOM ", "MISCONF ", "NOAUTH ", "LOADING ")
    return text if text.startswith(known) else f"ERR {text}"


def test_an_index_that_is_not_there_is_told_after_the_arguments_are_checked(
    client: redis.Redis,
) -> None:
    with pytest.raises(redis.ResponseError, match=r"^NOINDEX"):
        client.execute_command("VECTOR.ADD", "none", "a", "VALUES", 2, 1, 0)
    with pytest.raises(redis.ResponseError, match="syntax error"):
        client.execute_command("VECTOR.ADD", "none", "a", "VALUES", 2, 1, 0, "BOGUS")
    for command in ("CARD", "INFO", "BUILD"):
        with pytest.raises(redis.ResponseError, match=r"^NOINDEX"):
            client.execute_command(f"VECTOR.{command}", "none")


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "del", "attr"]), st.integers(0, 5), st.integers(-3, 3)),
        max_size=30,
    ),
    pipelined=st.booleans(),
)
def test_commands_in_one_pipeline_have_the_effects_of_one_after_another(
    shared_server: RunningServer, steps: list[tuple[str, int, int]], *, pipelined: bool
) -> None:
    model: dict[str, tuple[float, bytes | None]] = {}
    with shared_server.client() as client:
        client.execute_command("FLUSHALL")
        client.execute_command("VECTOR.CREATE", "m", "DIM", 1, "METRIC", "L2", "TYPE", "FLAT")
        batch = client.pipeline(transaction=False)
        expected: list[Any] = []
        for kind, number, value in steps:
            name = f"k{number}"
            if kind == "add":
                batch.execute_command("VECTOR.ADD", "m", name, "VALUES", 1, value)
                expected.append(0 if name in model else 1)
                model[name] = (float(value), model.get(name, (0.0, None))[1])
            elif kind == "del":
                batch.execute_command("VECTOR.DEL", "m", name)
                expected.append(1 if model.pop(name, None) is not None else 0)
            else:
                raw = json.dumps({"v": value})
                batch.execute_command("VECTOR.SETATTR", "m", name, raw)
                expected.append(1 if name in model else 0)
                if name in model:
                    model[name] = (model[name][0], raw.encode())
            batch.execute_command("VECTOR.CARD", "m")
            expected.append(len(model))
        if pipelined:
            assert batch.execute() == expected
        else:
            assert [client.execute_command(*args) for args, _ in batch.command_stack] == expected
        found = client.execute_command(
            "VECTOR.SEARCH", "m", "VALUES", 1, 0, "WITHSCORES", "WITHATTRIBS"
        )
        rows = {
            found[i].decode(): (float(found[i + 1]), found[i + 2]) for i in range(0, len(found), 3)
        }
        assert rows == {name: (abs(value), raw) for name, (value, raw) in model.items()}
