"""/v1/cache, /v1/aliases and /v1/clusters."""

from __future__ import annotations

import base64
import struct
from typing import Any

import httpx2
import pytest
import redis

from control import problem
from tenancy import add, as_map, search


@pytest.fixture
def films(wire: redis.Redis) -> redis.Redis:
    wire.execute_command("VECTOR.CREATE", "films", "DIM", 2)
    for name, vector in {"a": (1, 0), "b": (0, 1)}.items():
        add(wire, "films", name, *vector)
    return wire


# -- caches -------------------------------------------------------------------------------------


def test_stats_and_policy_are_those_of_the_commands(
    admin: httpx2.Client, films: redis.Redis
) -> None:
    search(films, "films", 1, 0)
    search(films, "films", 1, 0)
    told = admin.get("/v1/cache/films/stats").json()
    wired = as_map(films.execute_command("VECTOR.CACHE", "STATS", "films"))
    assert told.keys() == wired.keys()
    assert (told["hits"], told["misses"], told["hit_ratio"]) == (1, 1, 0.5)
    policy = as_map(films.execute_command("VECTOR.CACHE", "POLICY", "films"))
    assert admin.get("/v1/cache/films/policy").json().keys() == policy.keys()


def test_a_policy_is_changed_if_it_is_what_the_client_knows(
    admin: httpx2.Client, films: redis.Redis
) -> None:
    tag = admin.get("/v1/cache/films/policy").headers["etag"]
    wanted = {"levels": "EXACT", "ttl": 5.5, "minrecall": 0.9, "basis": "CERTIFIED"}
    changed = admin.patch("/v1/cache/films/policy", json=wanted, headers={"If-Match": tag})
    assert changed.json() | wanted == changed.json()
    assert changed.headers["etag"] == admin.get("/v1/cache/films/policy").headers["etag"]
    late = admin.patch("/v1/cache/films/policy", json={"ttl": 1}, headers={"If-Match": tag})
    problem(late, 412, "ERR")
    # The definition has another tag, of which this is a part.
    definition = admin.get("/v1/indexes/films")
    assert definition.json()["cachettl"] == 5.5
    assert definition.headers["etag"] != changed.headers["etag"]
    problem(admin.patch("/v1/cache/films/policy", json={"minrecall": 2}), 400, "ERR")
    problem(admin.patch("/v1/cache/films/policy", json={}), 400, "ERR")


def test_cached_answers_are_forgotten(admin: httpx2.Client, films: redis.Redis) -> None:
    for query in ((1, 0), (0, 1)):
        search(films, "films", *query, options=("COUNT", 1))

    def entries() -> int:
        told: int = admin.get("/v1/cache/films/stats").json()["entries"]
        return told

    assert entries() == 2
    assert admin.post("/v1/cache/films/invalidate", json={"id": "b"}).json() == {"forgotten": 1}
    assert entries() == 1
    assert admin.post("/v1/cache/films/flush").status_code == 204
    assert entries() == 0
    search(films, "films", 1, 0)
    assert admin.post("/v1/cache/flush").status_code == 204
    assert entries() == 0
    problem(admin.post("/v1/cache/nothing/flush"), 404, "NOINDEX")


# -- aliases ------------------------------------------------------------------------------------


def test_an_alias_is_set_shown_listed_and_removed(admin: httpx2.Client, films: redis.Redis) -> None:
    wanted = {"alias": "Space  film", "canonical": "alien", "confidence": 0.95, "ex": 60}
    assert admin.post("/v1/aliases/films", json=wanted).status_code == 204
    shown = admin.get("/v1/aliases/films/entry", params={"alias": "space film"}).json()
    wired = as_map(films.execute_command("VECTOR.ALIAS", "GET", "films", "space film"))
    assert shown.keys() == wired.keys()
    assert (shown["canonical"], shown["confidence"], shown["source"]) == ("alien", 0.95, "manual")
    assert 0 < shown["ttl"] <= 60
    listed = admin.get("/v1/aliases/films").json()
    assert [one["alias"] for one in listed["items"]] == [shown["alias"]]
    assert listed["cursor"] is None
    entry = {"alias": "space film"}
    assert admin.delete("/v1/aliases/films/entry", params=entry).status_code == 204
    for response in (
        admin.delete("/v1/aliases/films/entry", params=entry),
        admin.get("/v1/aliases/films/entry", params=entry),
    ):
        problem(response, 404, "ERR")


def test_a_key_may_be_a_vector(admin: httpx2.Client, films: redis.Redis) -> None:
    blob = struct.pack("<2f", 1, 0)
    text = base64.b64encode(blob).decode()
    admin.post("/v1/aliases/films", json={"alias": {"vector": [1, 0]}, "canonical": {"fp32": text}})
    listed = admin.get("/v1/aliases/films").json()["items"]
    assert listed == []  # a key that stands for itself is none
    other = base64.b64encode(struct.pack("<2f", 0, 1)).decode()
    set_ = {"alias": {"vector": [1, 0]}, "canonical": {"fp32": other}}
    assert admin.post("/v1/aliases/films", json=set_).status_code == 204
    assert films.execute_command("VECTOR.ALIAS", "GET", "films", "FP32", blob) is not None
    shown = admin.get("/v1/aliases/films/entry", params={"fp32": text}).json()
    assert (shown["alias"], shown["canonical"]) == ({"fp32": text}, {"fp32": other})
    neither = admin.get("/v1/aliases/films/entry")
    assert "one of alias or fp32" in problem(neither, 400, "ERR")
    word = admin.post("/v1/aliases/films", json={"alias": "fp32", "canonical": "x"})
    problem(word, 400, "ERR")


def test_aliases_are_listed_by_pages(admin: httpx2.Client, films: redis.Redis) -> None:
    wanted = {f"alias {number}" for number in range(150)}
    for name in wanted:
        films.execute_command("VECTOR.ALIAS", "SET", "films", name, "canonical")
    found: list[str] = []
    cursor: str | None = "0"
    while cursor is not None:
        page = admin.get("/v1/aliases/films", params={"cursor": cursor}).json()
        found += [one["alias"] for one in page["items"]]
        cursor = page["cursor"]
    assert (set(found), len(found)) == (wanted, 150)
    problem(admin.get("/v1/aliases/films", params={"cursor": "x"}), 400, "ERR")


# -- clusters -----------------------------------------------------------------------------------


def test_centroids_are_set_and_tell_what_is_near(admin: httpx2.Client, films: redis.Redis) -> None:
    assert len(admin.get("/v1/clusters/films").json()["items"]) == 1
    near: dict[str, Any] = admin.post("/v1/clusters/films/nearest", json={"id": "a"}).json()
    assert near == {"id": 0, "score": None}
    rows = {"centroids": [[1, 0], [0, 1]]}
    assert admin.put("/v1/clusters/films", json=rows).status_code == 204
    wired = [as_map(one) for one in films.execute_command("VECTOR.CLUSTER", "LIST", "films")]
    listed = admin.get("/v1/clusters/films").json()["items"]
    assert [one.keys() for one in listed] == [one.keys() for one in wired]
    assert len(listed) == 2
    near = admin.post("/v1/clusters/films/nearest", json={"vector": [0, 3]}).json()
    assert near == {"id": 1, "score": pytest.approx(1)}
    told = admin.post("/v1/clusters/films/ttl", json={"id": "b"}).json()
    assert told["id"] == 1
    assert told["base_ttl"] == 3600
    assert admin.post("/v1/clusters/films/rebuild").status_code == 204
    assert admin.post("/v1/clusters/films/forget", json={}).json() == {"forgotten": 0}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "ERR"),
        ({"centroids": [[1, 0], [1]]}, 400, "DIM"),
        ({"centroids": [[1, 0, 0]]}, 400, "DIM"),
        ({"centroids": [[0, 0]]}, 400, "ERR"),
        ({"fp32": "AAAAAAAA"}, 400, "DIM"),
        ({"centroids": [[1, 0]], "fp32": "AAAA"}, 400, "ERR"),
        ({"centroids": []}, 422, "ERR"),
        ({"centroids": [["1", 0]]}, 422, "ERR"),
    ],
)
def test_bad_centroids_are_refused(
    admin: httpx2.Client, films: redis.Redis, body: dict[str, Any], status: int, code: str
) -> None:
    problem(admin.put("/v1/clusters/films", json=body), status, code)
