"""VECTOR.SEARCH and VECTOR.MSEARCH, through redis-py, against a NumPy scan."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import redis
from numpy.typing import NDArray

from pyrope.service.index import OpenIndex
from servers import RunningServer, encode, exchange

DIM = 8
RNG = np.random.default_rng(7)
VECTORS: NDArray[np.float32] = RNG.standard_normal((300, DIM)).astype("<f4")


def fill(client: redis.Redis, name: str, *options: Any) -> None:
    client.execute_command("VECTOR.CREATE", name, "DIM", DIM, *options)
    ids = [f"v{number}" for number in range(len(VECTORS))]
    attributes = [
        json.dumps({"n": n, "even": n % 2 == 0, "genre": "sf"}) for n in range(len(VECTORS))
    ]
    count = len(ids)
    client.execute_command(
        "VECTOR.MADD", name, "FP32", VECTORS.tobytes(), "IDS", count, *ids, "ATTRS", count,
        *attributes,
    )  # fmt: skip


def oracle(query: NDArray[np.float32], metric: str, k: int) -> list[tuple[bytes, float]]:
    x, q = VECTORS.astype(np.float64), query.astype(np.float64)
    if metric == "L2":
        scores = np.sqrt(((x - q) ** 2).sum(1))
        order = np.argsort(scores, kind="stable")
    else:
        scores = x @ q
        if metric == "COSINE":
            scores = scores / np.linalg.norm(x, axis=1) / np.linalg.norm(q)
        order = np.argsort(-scores, kind="stable")
    return [(b"v%d" % n, float(scores[n])) for n in order[:k]]


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
@pytest.mark.parametrize("type_", ["FLAT", "HNSW"])
def test_hits_and_scores_are_those_of_a_scan(
    any_client: redis.Redis, type_: str, metric: str
) -> None:
    fill(any_client, "i", "TYPE", type_, "METRIC", metric)
    for query in RNG.standard_normal((10, DIM)).astype("<f4"):
        for effort in (("TRUTH",), ("EF", 300)):
            found = any_client.execute_command(
                "VECTOR.SEARCH", "i", "FP32", query.tobytes(), "COUNT", 7, "WITHSCORES", *effort
            )
            pairs = (
                list(found.items())
                if isinstance(found, dict)
                else [(found[i], float(found[i + 1])) for i in range(0, len(found), 2)]
            )
            expected = oracle(query, metric, 7)
            assert [id_ for id_, _ in pairs] == [id_ for id_, _ in expected]
            assert np.allclose([s for _, s in pairs], [s for _, s in expected], atol=1e-5)


def test_count_defaults_to_ten_and_topk_is_its_other_name(client: redis.Redis) -> None:
    fill(client, "i")
    base = ("VECTOR.SEARCH", "i", "FP32", VECTORS[0].tobytes())
    assert len(client.execute_command(*base)) == 10
    assert len(client.execute_command(*base, "COUNT", 3)) == 3
    assert client.execute_command(*base, "TOPK", 3) == client.execute_command(*base, "count", 3)
    assert len(client.execute_command(*base, "COUNT", 100_000)) == 300


def test_an_empty_index_answers_an_empty_array(client: redis.Redis) -> None:
    client.execute_command("VECTOR.CREATE", "i", "DIM", DIM)
    assert client.execute_command("VECTOR.SEARCH", "i", "FP32", VECTORS[0].tobytes()) == []


def test_reply_shapes_in_both_protocols(server: RunningServer) -> None:
    with server.connect() as connection:
        setup = [
            encode("VECTOR.CREATE", "i", "DIM", 2, "TYPE", "FLAT"),
            encode("VECTOR.ADD", "i", "a", "VALUES", 2, 1, 0, "SETATTR", '{"y":1}'),
            encode("VECTOR.ADD", "i", "b", "VALUES", 2, 0, 1),
            encode("ECHO", "done"),
        ]
        exchange(connection, b"".join(setup), replies=b"done\r\n")

        def ask(*options: str) -> bytes:
            search = encode("VECTOR.SEARCH", "i", "VALUES", 2, 1, 0, *options)
            received = exchange(connection, search + encode("PING"), replies=b"+PONG\r\n")
            return received.removesuffix(b"+PONG\r\n")

        assert ask() == b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"
        assert ask("WITHSCORES") == b"*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n0\r\n"
        assert ask("WITHATTRIBS") == b'*4\r\n$1\r\na\r\n$7\r\n{"y":1}\r\n$1\r\nb\r\n$-1\r\n'
        assert ask("WITHATTRIBS", "WITHSCORES") == (
            b'*6\r\n$1\r\na\r\n$1\r\n1\r\n$7\r\n{"y":1}\r\n$1\r\nb\r\n$1\r\n0\r\n$-1\r\n'
        )
        exchange(connection, encode("HELLO", 3) + encode("ECHO", "done"), replies=b"done\r\n")
        assert ask() == b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"
        assert ask("WITHSCORES") == b"%2\r\n$1\r\na\r\n,1\r\n$1\r\nb\r\n,0\r\n"
        assert ask("WITHATTRIBS") == b'%2\r\n$1\r\na\r\n$7\r\n{"y":1}\r\n$1\r\nb\r\n_\r\n'
        assert ask("WITHSCORES", "WITHATTRIBS") == (
            b'%2\r\n$1\r\na\r\n*2\r\n,1\r\n$7\r\n{"y":1}\r\n$1\r\nb\r\n*2\r\n,0\r\n_\r\n'
        )


def test_a_stored_vector_can_be_the_query(client: redis.Redis) -> None:
    fill(client, "i")
    assert client.execute_command("VECTOR.SEARCH", "i", "ELE", "v5", "COUNT", 1) == [b"v5"]
    with pytest.raises(redis.ResponseError, match="element not found"):
        client.execute_command("VECTOR.SEARCH", "i", "ELE", "nobody")


@pytest.mark.parametrize("type_", ["FLAT", "HNSW"])
def test_a_filter_keeps_what_matches_nearest_first(client: redis.Redis, type_: str) -> None:
    fill(client, "i", "TYPE", type_)
    query = VECTORS[3]
    found = client.execute_command(
        "VECTOR.SEARCH", "i", "FP32", query.tobytes(), "COUNT", 5, "FILTER",
        '.n >= 100 and not .even and .genre in ["sf", "noir"]',
    )  # fmt: skip
    ranked = [id_ for id_, _ in oracle(query, "COSINE", 300)]
    assert found == [id_ for id_ in ranked if int(id_[1:]) >= 100 and int(id_[1:]) % 2][:5]
    nothing = ("VECTOR.SEARCH", "i", "FP32", query.tobytes(), "FILTER", ".absent == 1")
    assert client.execute_command(*nothing) == []


@pytest.mark.parametrize(
    ("metric", "query", "epsilon", "expected"),
    [
        ("COSINE", (1, 0), 0.5, [b"x", b"xy"]),
        ("IP", (1, 0), 0.5, [b"xy", b"x"]),
        ("L2", (1, 0), 2.0, [b"x", b"y"]),
        ("L2", (1, 0), 0, [b"x"]),
    ],
)
def test_epsilon_bounds_the_distance(
    client: redis.Redis, metric: str, query: tuple[int, int], epsilon: float, expected: list[bytes]
) -> None:
    client.execute_command("VECTOR.CREATE", "i", "DIM", 2, "METRIC", metric)
    for name, vector in (("x", (1, 0)), ("y", (0, 1)), ("xy", (3, 3))):
        client.execute_command("VECTOR.ADD", "i", name, "VALUES", 2, *vector)
    command = ("VECTOR.SEARCH", "i", "VALUES", 2, *query, "EPSILON", epsilon)
    assert client.execute_command(*command) == expected


def test_msearch_answers_each_vector_like_a_search(any_client: redis.Redis) -> None:
    fill(any_client, "i")
    queries = VECTORS[:20]
    options = ("COUNT", 4, "WITHSCORES", "WITHATTRIBS", "FILTER", ".even")
    together = any_client.execute_command(
        "VECTOR.MSEARCH", "i", "FP32", queries.tobytes(), *options
    )
    one_by_one = [
        any_client.execute_command("VECTOR.SEARCH", "i", "FP32", query.tobytes(), *options)
        for query in queries
    ]
    assert together == one_by_one


def test_withinfo_tells_how_the_answer_came_about(server: RunningServer) -> None:
    with server.client(protocol=3) as client:
        fill(client, "i")
        client.execute_command("VECTOR.BUILD", "i")
        command = ("VECTOR.SEARCH", "i", "FP32", VECTORS[0].tobytes(), "WITHINFO")
        hits, info = client.execute_command(*command, "EF", 99)
        assert len(hits) == 10
        assert info[b"cache"] == b"miss"
        assert info[b"repaired"] == 0
        assert info[b"metric"] == b"COSINE"
        assert info[b"direction"] == b"higher"
        assert info[b"ef"] == 99
        assert info[b"certified_recall"] == 0
        assert info[b"latency_us"].keys() == {
            b"total", b"cache", b"queue", b"search", b"attributes",
        }  # fmt: skip
        parts = info[b"latency_us"]
        assert parts[b"total"] >= parts[b"queue"] + parts[b"search"] > 0
        _, exact = client.execute_command(*command, "TRUTH")
        assert exact[b"certified_recall"] == 1
        assert exact[b"request_id"] != info[b"request_id"]


def info_of(client: redis.Redis, *options: Any) -> dict[bytes, Any]:
    command = ("VECTOR.SEARCH", "i", "FP32", VECTORS[0].tobytes(), "WITHINFO")
    info: dict[bytes, Any] = client.execute_command(*command, *options)[1]
    return info


@pytest.mark.parametrize(
    ("type_", "options", "expected"),
    [
        ("FLAT", ("EF", 50), (None, None, None)),
        ("FLAT", ("MAXSCANS", 50), (None, None, 50)),
        ("HNSW", (), (64, None, None)),
        ("HNSW", ("EF", 50, "MAXSCANS", 10_000), (50, None, 10_000)),
        ("HNSW_SQ8", ("EF", 50), (50, None, None)),
        ("IVF_FLAT", ("NPROBE", 7, "MAXSCANS", 100), (None, None, 100)),  # not trained yet
        ("AUTO", ("EF", 50), (None, None, None)),
        ("HNSW", ("EF", 50, "TRUTH"), (None, None, None)),
    ],
    ids=str,
)
def test_the_effort_in_force_is_told_where_the_type_has_such_a_thing(
    server: RunningServer, type_: str, options: tuple[Any, ...], expected: tuple[Any, ...]
) -> None:
    with server.client(protocol=3) as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", DIM, "TYPE", type_)
        client.execute_command("VECTOR.ADD", "i", "a", "FP32", VECTORS[0].tobytes())
        info = info_of(client, *options)
        assert (info[b"ef"], info[b"nprobe"], info[b"max_scans"]) == expected


@pytest.mark.parametrize("type_", ["IVF_FLAT", "IVF_PQ"])
def test_lists_that_there_are_not_are_not_told_to_be_visited(
    server: RunningServer, type_: str
) -> None:
    with server.client(protocol=3) as client:
        fill(client, "i", "TYPE", type_, "NLIST", 20)
        client.execute_command("VECTOR.BUILD", "i")
        assert info_of(client, "NPROBE", 7)[b"nprobe"] == 7
        assert info_of(client, "NPROBE", 21)[b"nprobe"] == 20
        assert info_of(client)[b"nprobe"] == 13


def test_an_answer_is_certified_unless_it_may_have_missed_something(server: RunningServer) -> None:
    with server.client(protocol=3) as client:
        fill(client, "i", "TYPE", "FLAT")
        assert info_of(client)[b"certified_recall"] == 1
        assert info_of(client, "MAXSCANS", 300)[b"certified_recall"] == 1
        assert info_of(client, "MAXSCANS", 299)[b"certified_recall"] == 0
        assert info_of(client, "MAXSCANS", 299)[b"estimated_recall"] is None


def test_a_wish_for_the_effort_of_another_type_changes_nothing(server: RunningServer) -> None:
    with server.client(protocol=3) as client:
        fill(client, "i", "TYPE", "FLAT")
        assert info_of(client, "NPROBE", 4, "EF", 9)[b"nprobe"] is None
        client.execute_command("VECTOR.DROP", "i")
        fill(client, "i", "TYPE", "HNSW")
        told = info_of(client, "NPROBE", 4, "EF", 9)
        assert (told[b"ef"], told[b"nprobe"]) == (9, None)


def test_truth_and_maxscans_contradict_one_another(client: redis.Redis) -> None:
    client.execute_command("VECTOR.CREATE", "i", "DIM", DIM)
    search = ("VECTOR.SEARCH", "i", "FP32", VECTORS[0].tobytes())
    for options in (("TRUTH", "MAXSCANS", 5), ("MAXSCANS", 5, "TRUTH")):
        with pytest.raises(redis.ResponseError, match="TRUTH and MAXSCANS contradict"):
            client.execute_command(*search, *options)


def test_a_failing_search_has_no_info(client: redis.Redis) -> None:
    with pytest.raises(redis.ResponseError, match=r"^NOINDEX"):
        client.execute_command("VECTOR.SEARCH", "none", "VALUES", 1, 1, "WITHINFO")


BAD_SEARCHES: list[tuple[Any, ...]] = [
    ("COUNT", 0),
    ("COUNT", -1),
    ("COUNT", "x"),
    ("COUNT", 10**9),
    ("COUNT", 10**30),
    ("COUNT",),
    ("COUNT", 5, "COUNT", 5),
    ("COUNT", 5, "TOPK", 5),
    ("EF", 0),
    ("EF", 10**9),
    ("EPSILON", -1),
    ("EPSILON", "nan"),
    ("TIMEOUT", 0),
    ("TIMEOUT", "soon"),
    ("FILTER", ".y >"),
    ("FILTER", ""),
    ("FILTER", b"\xff\xfe"),
    ("FILTER", "(" * 5000),
    ("FILTER", "." + "y" * 10_000),
    ("WITHSCORES", "WITHSCORES"),
    ("BOGUS",),
    ("CACHE", "ALWAYS"),
    ("CACHE",),
    ("MINRECALL", 1.1),
    ("MINRECALL", -0.1),
    ("CERTIFIED",),
    ("MINRECALL", 0.9, "CERTIFIED", "ESTIMATED"),
    ("QUERY", " "),
    ("QUERY", b"\xff"),
    ("QUERY", "x" * 65_537),
    ("SESSION", ""),
    ("SESSION", "x" * 257),
    ("NPROBE", 0),
    ("NPROBE", 65_537),
    ("NPROBE", "AUTO"),
    ("MAXSCANS", 0),
    ("MAXSCANS", -1),
    ("MAXSCANS", 2**31),
    ("MAXSCANS", "all"),
    ("MAXSCANS", 5, "MAXSCANS", 5),
    ("TRUTH", "MAXSCANS", 5),
]


@pytest.mark.parametrize("options", BAD_SEARCHES, ids=str)
def test_a_bad_option_is_an_error(client: redis.Redis, options: tuple[Any, ...]) -> None:
    client.execute_command("VECTOR.CREATE", "i", "DIM", 2)
    for command in (
        ("VECTOR.SEARCH", "i", "VALUES", 2, 1, 0),
        ("VECTOR.MSEARCH", "i", "FP32", bytes(8)),
    ):
        with pytest.raises(redis.ResponseError):
            client.execute_command(*command, *options)


def test_a_search_that_cannot_start_in_time_gives_up(server: RunningServer) -> None:
    with server.client() as client, server.connect() as connection:
        fill(client, "i")
        index = server.pyrope.server.service.index("default", b"i")
        server.run(index.gate.enter_exclusive())  # nothing can start

        async def leave() -> None:
            index.gate.leave_exclusive()

        try:
            search = encode("VECTOR.SEARCH", "i", "FP32", VECTORS[0].tobytes(), "TIMEOUT", 20)
            assert exchange(connection, search, replies=b"\r\n") == b"-BUSY timeout\r\n"
        finally:
            server.run(leave())
        assert index.batcher.statistics().requests_total == 0
        assert exchange(connection, search, replies=b"\r\n").startswith(b"*10\r\n")
        assert index.batcher.statistics().requests_total == 1


def test_a_client_that_goes_away_cancels_what_has_not_started(server: RunningServer) -> None:
    with server.client() as client:
        fill(client, "i")
        index = server.pyrope.server.service.index("default", b"i")
        before = index.batcher.statistics().requests_total
        server.run(index.gate.enter_exclusive())

        async def leave() -> None:
            index.gate.leave_exclusive()

        search = encode("VECTOR.SEARCH", "i", "FP32", VECTORS[0].tobytes(), "CACHE", "OFF")
        with server.connect() as gone:
            gone.sendall(search * 50)
            while index.batcher.queued < 50:
                client.ping()
            gone.shutdown(socket.SHUT_RDWR)
        while len(server.pyrope.server.clients) > 1:
            client.ping()
        server.run(leave())
        client.execute_command("VECTOR.SEARCH", "i", "FP32", VECTORS[0].tobytes())
        assert index.batcher.statistics().requests_total == before + 1


@contextmanager
def held(server: RunningServer, name: bytes) -> Iterator[OpenIndex]:
    """An index in which no search begins until the end of the block."""
    index = server.pyrope.server.service.index("default", name)

    async def leave() -> None:
        index.gate.leave_exclusive()

    server.run(index.gate.enter_exclusive())
    try:
        yield index
    finally:
        server.run(leave())


def wait_for_queue(client: redis.Redis, index: OpenIndex, queries: int) -> None:
    while index.batcher.queued < queries:
        client.ping()


def test_pipelined_searches_of_one_connection_share_native_calls(server: RunningServer) -> None:
    with server.client() as client, server.connect() as connection:
        fill(client, "i")
        words = ("VECTOR.SEARCH", "i", "FP32", VECTORS[0].tobytes(), "COUNT", 1, "CACHE", "OFF")
        search = encode(*words)
        with held(server, b"i") as index:
            before = index.batcher.statistics()
            connection.sendall(search * 100 + encode("PING"))
            wait_for_queue(client, index, 100)
        assert exchange(connection, b"", replies=b"+PONG\r\n").count(b"v0") == 100
        after = index.batcher.statistics()
        assert after.requests_total - before.requests_total == 100
        # As few batches as their limit and the even split over threads allow.
        batch_max, threads = server.settings.engine.batch_max, server.settings.thread_count
        assert after.batches_total - before.batches_total <= max(threads, -(-100 // batch_max)) + 1


def test_efforts_that_differ_inside_one_batch_each_have_their_effect(server: RunningServer) -> None:
    with server.client() as client, server.connect() as connection:
        fill(client, "i", "TYPE", "FLAT")
        query = VECTORS[299].tobytes()
        best, bounded, counted = (
            encode("VECTOR.SEARCH", "i", "FP32", query, *options, "CACHE", "OFF")
            for options in (("COUNT", 1), ("COUNT", 1, "MAXSCANS", 1), ("COUNT", 3))
        )
        with held(server, b"i") as index:
            connection.sendall((best + bounded + counted) * 4 + encode("PING"))
            wait_for_queue(client, index, 12)
        received = exchange(connection, b"", replies=b"+PONG\r\n")
        three = [b"$%d\r\n%b\r\n" % (len(i), i) for i, _ in oracle(VECTORS[299], "COSINE", 3)]
        each = b"*1\r\n$4\r\nv299\r\n" + b"*1\r\n$2\r\nv0\r\n" + b"*3\r\n" + b"".join(three)
        assert received == each * 4 + b"+PONG\r\n"


def test_msearch_is_one_request_that_is_served_in_pieces(server: RunningServer) -> None:
    with server.client() as client:
        fill(client, "i", "TYPE", "FLAT")
        index = server.pyrope.server.service.index("default", b"i")
        before = index.batcher.statistics()
        queries = np.tile(VECTORS, (4, 1))
        command = ("VECTOR.MSEARCH", "i", "FP32", queries.tobytes(), "COUNT", 1, "CACHE", "OFF")
        assert client.execute_command(*command) == [[b"v%d" % n] for n in range(300)] * 4
        after = index.batcher.statistics()
        assert after.requests_total - before.requests_total == 1
        pieces = -(-1200 // server.settings.engine.batch_max)
        assert pieces <= after.batches_total - before.batches_total <= pieces + 8


def test_an_msearch_that_cannot_start_in_time_gives_up_as_a_whole(server: RunningServer) -> None:
    with server.client() as client, server.connect() as connection:
        fill(client, "i")
        command = ("VECTOR.MSEARCH", "i", "FP32", VECTORS[:50].tobytes(), "COUNT", 1, "TIMEOUT", 20)
        with held(server, b"i") as index:
            refused = exchange(connection, encode(*command), replies=b"\r\n")
            assert refused == b"-BUSY timeout\r\n"
        assert index.batcher.statistics().requests_total == 0
        client.execute_command(*command[:-2])
        assert index.batcher.statistics().requests_total == 1
        assert index.batcher.queued == 0


def test_an_msearch_whose_index_is_dropped_answers_one_error(server: RunningServer) -> None:
    with server.client() as client, server.connect() as connection:
        fill(client, "i")
        with held(server, b"i") as index:
            connection.sendall(encode("VECTOR.MSEARCH", "i", "FP32", VECTORS[:50].tobytes()))
            wait_for_queue(client, index, 50)

            async def refuse() -> None:
                index.refuse_queued()

            server.run(refuse())
        received = exchange(connection, encode("PING"), replies=b"+PONG\r\n")
        assert received.startswith(b"-NOINDEX ")
        assert received.count(b"\r\n") == 2
