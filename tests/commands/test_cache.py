"""VECTOR.CACHE, and the cache options of searches, over a real socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from servers import RunningServer, running_server

DIM = 8
ROWS = np.random.default_rng(5).standard_normal((200, DIM)).astype("<f4")


def fill(client: redis.Redis, *options: Any) -> None:
    client.execute_command("VECTOR.CREATE", "i", "DIM", DIM, "TYPE", "FLAT", *options)
    names = [f"v{n}" for n in range(len(ROWS))]
    client.execute_command("VECTOR.MADD", "i", "FP32", ROWS.tobytes(), "IDS", len(ROWS), *names)


def near(row: int, distance: float) -> bytes:
    """A query near a row."""
    noise = np.random.default_rng(row).standard_normal(DIM)
    noise *= distance * np.linalg.norm(ROWS[row]) / np.linalg.norm(noise)
    query: bytes = (ROWS[row] + noise).astype("<f4").tobytes()
    return query


def search(
    client: redis.Redis, query: bytes, *options: Any
) -> tuple[list[bytes], dict[bytes, Any]]:
    words = ("VECTOR.SEARCH", "i", "FP32", query, "COUNT", 5, *options)
    hits, info = client.execute_command(*words, "WITHINFO")
    return hits, info


def stats(client: redis.Redis) -> dict[bytes, Any]:
    found: dict[bytes, Any] = client.execute_command("VECTOR.CACHE", "STATS", "i")
    return found


@pytest.fixture
def client(server: RunningServer) -> Any:
    with server.client(protocol=3) as connected:
        yield connected


def test_a_repeated_search_is_a_hit_and_replies_the_same(client: redis.Redis) -> None:
    fill(client)
    words = ("VECTOR.SEARCH", "i", "FP32", ROWS[3].tobytes(), "WITHSCORES")
    replies = [client.execute_command(*words) for _ in range(4)]
    assert all(reply == replies[0] for reply in replies)
    counted = stats(client)
    assert (counted[b"hits_exact"], counted[b"misses"], counted[b"entries"]) == (3, 1, 1)
    assert counted[b"bytes"] > 4 * DIM


def test_a_write_shows_in_the_next_reply_to_the_same_words(client: redis.Redis) -> None:
    fill(client)
    words = ("VECTOR.SEARCH", "i", "FP32", ROWS[3].tobytes(), "COUNT", 2)
    first = client.execute_command(*words)
    assert client.execute_command(*words) == first
    client.execute_command("VECTOR.ADD", "i", "twin", "FP32", ROWS[3].tobytes())
    assert set(client.execute_command(*words)) == {b"v3", b"twin"}
    client.execute_command("VECTOR.DEL", "i", "v3")
    assert client.execute_command(*words)[0] == b"twin"
    client.execute_command("VECTOR.ADD", "i", "twin", "FP32", (-ROWS[3]).tobytes())
    assert b"twin" not in client.execute_command(*words)


def test_a_search_by_id_follows_what_the_id_stands_for(client: redis.Redis) -> None:
    fill(client)
    words = ("VECTOR.SEARCH", "i", "ELE", "v3", "COUNT", 2)
    before = client.execute_command(*words)
    assert client.execute_command(*words) == before
    client.execute_command("VECTOR.ADD", "i", "v3", "FP32", ROWS[9].tobytes())
    assert set(client.execute_command(*words)) == {b"v3", b"v9"}


def test_cache_only_is_busy_on_a_miss(client: redis.Redis) -> None:
    fill(client)
    with pytest.raises(redis.ResponseError, match=r"^BUSY"):
        search(client, ROWS[0].tobytes(), "CACHE", "ONLY")
    search(client, ROWS[0].tobytes())
    assert search(client, ROWS[0].tobytes(), "CACHE", "ONLY")[1][b"cache"] == b"exact"


def test_near_hits_are_proven_where_that_is_asked_for(client: redis.Redis) -> None:
    fill(client)
    search(client, ROWS[0].tobytes(), "MINRECALL", 1)
    query = near(0, 0.01)
    hits, info = search(client, query, "MINRECALL", 1, "CERTIFIED")
    assert info[b"cache"] in (b"quantized", b"cluster")
    assert info[b"certified_recall"] == info[b"estimated_recall"] == 1
    assert list(hits) == list(search(client, query, "TRUTH", "CACHE", "OFF")[0])


def test_without_a_wish_for_them_there_are_no_near_hits(client: redis.Redis) -> None:
    fill(client)
    search(client, ROWS[0].tobytes(), "MINRECALL", 1)
    assert search(client, near(0, 0.001))[1][b"cache"] == b"miss"


def test_a_near_hit_has_the_scores_of_its_own_query(client: redis.Redis) -> None:
    fill(client)
    search(client, ROWS[0].tobytes(), "MINRECALL", 0.5)
    query = near(0, 0.02)
    words = ("VECTOR.SEARCH", "i", "FP32", query, "COUNT", 5, "WITHSCORES")
    served = client.execute_command(*words, "MINRECALL", 0.5, "CERTIFIED")
    assert served == client.execute_command(*words, "TRUTH", "CACHE", "OFF")
    assert stats(client)[b"hits_quantized"] + stats(client)[b"hits_cluster"] == 1


def test_a_near_hit_knows_of_writes(client: redis.Redis) -> None:
    fill(client)
    search(client, ROWS[0].tobytes(), "MINRECALL", 1)
    client.execute_command("VECTOR.ADD", "i", "new", "FP32", near(0, 0.005))
    hits, info = search(client, near(0, 0.01), "MINRECALL", 1, "CERTIFIED")
    assert b"new" in hits
    assert info[b"repaired"] == 1


def test_far_queries_are_searched_for(client: redis.Redis) -> None:
    fill(client)
    search(client, ROWS[0].tobytes(), "MINRECALL", 0.9)
    assert search(client, ROWS[1].tobytes(), "MINRECALL", 0.9)[1][b"cache"] == b"miss"


def test_near_hits_keep_to_the_filter(client: redis.Redis) -> None:
    fill(client)
    for number in range(0, 200, 2):
        client.execute_command("VECTOR.SETATTR", "i", f"v{number}", '{"even": 1}')
    search(client, ROWS[0].tobytes(), "MINRECALL", 1)
    even = ("MINRECALL", 1, "CERTIFIED", "FILTER", ".even == 1")
    hits, info = search(client, near(0, 0.01), *even)
    assert info[b"cache"] == b"miss"
    hits, info = search(client, near(0, 0.011), *even)
    assert info[b"cache"] != b"miss"
    assert all(int(hit[1:]) % 2 == 0 for hit in hits)


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_near_hits_go_with_every_metric(client: redis.Redis, metric: str) -> None:
    fill(client, "METRIC", metric)
    client.execute_command("VECTOR.CACHE", "POLICY", "i", "SET", "MINRECALL", 0.2)
    search(client, ROWS[0].tobytes())
    query = near(0, 0.001)
    hits, info = search(client, query, "MINRECALL", 0.2, "CERTIFIED")
    assert info[b"cache"] in (b"quantized", b"cluster")
    proven = round(5 * info[b"certified_recall"])
    assert proven >= 1
    assert hits[:proven] == search(client, query, "TRUTH", "CACHE", "OFF")[0][:proven]


def test_near_hits_of_inner_products_need_norms_that_are_bounded(client: redis.Redis) -> None:
    fill(client, "METRIC", "IP")
    client.execute_command("VECTOR.ADD", "i", "long", "FP32", (100 * ROWS[0]).tobytes())
    policy = ("VECTOR.CACHE", "POLICY", "i", "SET", "MINRECALL", 0.9)
    with pytest.raises(redis.ResponseError, match="METRIC IP needs vectors whose norms are"):
        client.execute_command(*policy)
    client.execute_command("VECTOR.DEL", "i", "long")
    assert client.execute_command(*policy) == b"OK"


def test_statistics_tell_what_audits_saw(client: redis.Redis) -> None:
    fill(client)
    client.execute_command("VECTOR.CACHE", "POLICY", "i", "SET", "CANDIDATES", 10)
    client.execute_command("VECTOR.ALIAS", "SET", "i", "other", "words")
    search(client, ROWS[0].tobytes(), "QUERY", "words", "MINRECALL", 0.9)
    search(client, near(0, 0.1), "QUERY", "other")
    for _ in range(1000):
        if stats(client)[b"audits_alias"]:
            break
    noise = np.random.default_rng(1).standard_normal((20, DIM)) * 0.4
    for query in (ROWS[0] + noise).astype("<f4"):
        search(client, query.tobytes(), "MINRECALL", 0.9)
    counted = stats(client)
    assert counted[b"audits_alias"] == 1
    assert 0 <= counted[b"recall_alias_bound"] < counted[b"recall_alias"] <= 1
    level = counted[b"near"][b"quantized"]
    bins = level[b"strain"][b"4"]
    assert sum(answers for _, answers, _, _ in bins) > 5
    assert all(0 <= bound <= recall <= 1 for _, _, recall, bound in bins)
    assert all(band[b"state"] == b"on" for band in level[b"minrecall"].values())


def test_an_alias_answers_by_what_it_stands_for(client: redis.Redis) -> None:
    fill(client)
    client.execute_command("VECTOR.ALIAS", "SET", "i", "the  OTHER words", "some words")
    search(client, ROWS[0].tobytes(), "QUERY", "Some Words")
    query = near(0, 0.01)
    hits, info = search(client, query, "QUERY", "The other words")
    assert info[b"cache"] == b"alias"
    assert hits[0] == b"v0"
    assert search(client, query, "QUERY", "neither of them")[1][b"cache"] == b"miss"
    assert stats(client)[b"hits_alias"] == 1


def test_an_alias_works_with_any_metric(client: redis.Redis) -> None:
    fill(client, "METRIC", "IP")
    client.execute_command("VECTOR.ALIAS", "SET", "i", "other", "words")
    search(client, ROWS[0].tobytes(), "QUERY", "words")
    info = search(client, near(0, 0.01), "QUERY", "other")[1]
    assert info[b"cache"] == b"alias"
    assert 0 <= info[b"certified_recall"] <= 1


def test_a_vector_is_another_name_of_a_vector(client: redis.Redis) -> None:
    fill(client)
    query = near(0, 0.01)
    client.execute_command("VECTOR.ALIAS", "SET", "i", "FP32", query, "FP32", ROWS[0].tobytes())
    search(client, ROWS[0].tobytes())
    assert search(client, query)[1][b"cache"] == b"alias"


def test_what_a_session_asks_next_is_there_before_it_asks(client: redis.Redis) -> None:
    fill(client)
    for session in range(6):
        for row in (0, 1):
            search(client, ROWS[row].tobytes(), "SESSION", f"s{session}")
    client.execute_command("VECTOR.CACHE", "FLUSH", "i")
    search(client, ROWS[0].tobytes(), "SESSION", "new")
    for _ in range(100):
        if stats(client)[b"entries"] == 2:
            break
    assert search(client, ROWS[1].tobytes(), "SESSION", "new")[1][b"cache"] == b"prefetch"
    assert search(client, ROWS[1].tobytes(), "SESSION", "new")[1][b"cache"] == b"exact"
    counted = stats(client)
    assert (counted[b"prefetch_issued"], counted[b"prefetch_used"]) == (1, 1)


def test_without_the_level_nothing_is_foreseen(client: redis.Redis) -> None:
    fill(client, "CACHE", "EXACT")
    for session in range(6):
        for row in (0, 1):
            search(client, ROWS[row].tobytes(), "SESSION", f"s{session}")
    client.execute_command("VECTOR.CACHE", "FLUSH", "i")
    search(client, ROWS[0].tobytes(), "SESSION", "new")
    assert search(client, ROWS[1].tobytes(), "SESSION", "new")[1][b"cache"] == b"miss"
    assert stats(client)[b"prefetch_issued"] == 0


def test_a_policy_survives_a_restart(tmp_path: Path) -> None:
    with running_server(data_dir=tmp_path) as server, server.client(protocol=3) as client:
        fill(client, "CACHE", "EXACT,CLUSTER", "CACHETTL", 60)
        client.execute_command(
            "VECTOR.CACHE", "POLICY", "i", "SET", "MINRECALL", 0.9, "BASIS", "CERTIFIED",
            "CANDIDATES", 77, "MAXBYTES", 100_000, "HOTWRITES", 5,
        )  # fmt: skip
        before = client.execute_command("VECTOR.CACHE", "POLICY", "i")
    with running_server(data_dir=tmp_path) as server, server.client(protocol=3) as client:
        assert client.execute_command("VECTOR.CACHE", "POLICY", "i", "GET") == before
    assert before == {
        b"levels": b"EXACT,CLUSTER", b"ttl": 60, b"maxbytes": 100_000, b"candidates": 77,
        b"minrecall": 0.9, b"basis": b"CERTIFIED", b"hotwrites": 5, b"maxerror": b"AUTO",
        b"guards": b"ALL", b"shadow": b"OFF", b"rememberttl": b"AUTO", b"sliding": b"OFF",
        b"rememberbytes": 0, b"scopes": b"ANY",
    }  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ("STATS", "none"),
        ("POLICY", "none"),
        ("FLUSH", "none"),
        ("INVALIDATE", "none", "ID", "x"),
        ("INVALIDATE", "i", "SLOT", "x"),
        ("POLICY", "i", "PUT"),
        ("POLICY", "i", "SET"),
        ("POLICY", "i", "SET", "TTL"),
        ("POLICY", "i", "SET", "TTL", -1),
        ("POLICY", "i", "SET", "TTL", 1, "TTL", 2),
        ("POLICY", "i", "SET", "LEVELS", "EXACT,FORESIGHT"),
        ("POLICY", "i", "SET", "MINRECALL", 2),
        ("POLICY", "i", "SET", "BASIS", "GUESSED"),
        ("POLICY", "i", "SET", "COLOUR", 2),
    ],
    ids=str,
)
def test_a_bad_command_changes_nothing(client: redis.Redis, words: tuple[Any, ...]) -> None:
    fill(client)
    before = client.execute_command("VECTOR.CACHE", "POLICY", "i")
    with pytest.raises(redis.ResponseError):
        client.execute_command("VECTOR.CACHE", *words)
    assert client.execute_command("VECTOR.CACHE", "POLICY", "i") == before


def test_flush_and_invalidate_forget(client: redis.Redis) -> None:
    fill(client)
    for number in range(5):
        search(client, ROWS[number].tobytes())
    assert client.execute_command("VECTOR.CACHE", "INVALIDATE", "i", "ID", "v0") >= 1
    assert client.execute_command("VECTOR.CACHE", "INVALIDATE", "i", "ID", "nobody") == 0
    assert search(client, ROWS[0].tobytes())[1][b"cache"] == b"miss"
    assert client.execute_command("VECTOR.CACHE", "FLUSH") == b"OK"
    assert stats(client)[b"entries"] == 0
    assert search(client, ROWS[1].tobytes())[1][b"cache"] == b"miss"
