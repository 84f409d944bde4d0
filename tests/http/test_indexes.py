"""/v1/indexes, beside the commands that do the same."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
import redis

from control import problem
from tenancy import add, as_map


def create(admin: httpx2.Client, name: str = "films", **members: Any) -> httpx2.Response:
    return admin.post("/v1/indexes", json={"name": name, "dim": 3} | members)


def test_an_index_is_created_as_the_command_creates_it(
    admin: httpx2.Client, wire: redis.Redis
) -> None:
    members: dict[str, Any] = {
        "metric": "L2",
        "type": "IVF_FLAT",
        "nlist": 4,
        "nprobe": "AUTO",
        "cachettl": 1.5,
    }
    made = create(admin, **members, cache="EXACT,ALIAS")
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/indexes/films"
    words = ("METRIC", "L2", "TYPE", "IVF_FLAT", "NLIST", 4, "NPROBE", "AUTO", "CACHETTL", "1.5")
    wire.execute_command("VECTOR.CREATE", "other", "DIM", 3, *words, "CACHE", "EXACT,ALIAS")
    other = admin.get("/v1/indexes/other").json()
    assert made.json() | {"name": "", "created_at": 0} == other | {"name": "", "created_at": 0}
    assert (other["metric"], other["cache"], other["cachettl"]) == ("L2", "EXACT,ALIAS", 1.5)


def test_what_the_command_refuses_is_refused_in_its_words(
    admin: httpx2.Client, wire: redis.Redis
) -> None:
    refusals: tuple[tuple[str, dict[str, Any], tuple[str | int, ...]], ...] = (
        ("films", {"dim": 0}, ("DIM", 0)),
        ("films", {"m": 1}, ("DIM", 3, "M", 1)),
        ("films", {"nlist": 7}, ("DIM", 3, "NLIST", 7)),
        ("films", {"metric": "NEAR"}, ("DIM", 3, "METRIC", "NEAR")),
        ("films", {"cache": "SOME"}, ("DIM", 3, "CACHE", "SOME")),
        ("a b", {}, ("DIM", 3)),
    )
    for name, members, words in refusals:
        with pytest.raises(redis.ResponseError) as refused:
            wire.execute_command("VECTOR.CREATE", name, *words)
        assert problem(create(admin, name, **members), 400, "ERR") == str(refused.value)
    assert admin.get("/v1/indexes").json()["items"] == []


def test_an_index_that_is_there_is_a_conflict_and_fine_with_nx(admin: httpx2.Client) -> None:
    create(admin)
    assert "exists already" in problem(create(admin), 409, "EXISTS")
    assert create(admin, nx=True).status_code == 201
    assert "another definition" in problem(create(admin, nx=True, m=8), 409, "EXISTS")


def test_indexes_are_listed_by_pages(admin: httpx2.Client) -> None:
    names = [f"index-{number:02}" for number in range(7)]
    for name in names:
        create(admin, name)
    found: list[str] = []
    cursor: str | None = ""
    sizes = []
    while cursor is not None:
        page = admin.get("/v1/indexes", params={"limit": 3, "cursor": cursor}).json()
        found += [one["name"] for one in page["items"]]
        sizes.append(len(page["items"]))
        cursor = page["cursor"]
    assert (found, sizes) == (names, [3, 3, 1])
    assert admin.get("/v1/indexes").json()["cursor"] is None
    problem(admin.get("/v1/indexes", params={"limit": 0}), 422, "ERR")
    problem(admin.get("/v1/indexes", params={"limit": 1001}), 422, "ERR")


def test_a_page_goes_on_where_an_index_was_dropped_meanwhile(admin: httpx2.Client) -> None:
    for name in "abcd":
        create(admin, name)
    page = admin.get("/v1/indexes", params={"limit": 2}).json()
    admin.delete("/v1/indexes/b")
    rest = admin.get("/v1/indexes", params={"limit": 2, "cursor": page["cursor"]}).json()
    assert [one["name"] for one in rest["items"]] == ["c", "d"]


def test_an_index_is_altered_if_it_is_what_the_client_knows(admin: httpx2.Client) -> None:
    tag = create(admin).headers["etag"]
    assert admin.get("/v1/indexes/films").headers["etag"] == tag
    changed = admin.patch("/v1/indexes/films", json={"ef": 100}, headers={"If-Match": tag})
    assert (changed.status_code, changed.json()["ef"]) == (200, 100)
    late = admin.patch("/v1/indexes/films", json={"ef": 7}, headers={"If-Match": tag})
    assert changed.headers["etag"] in problem(late, 412, "ERR")
    assert admin.get("/v1/indexes/films").json()["ef"] == 100
    for condition in ("*", f'"other", {changed.headers["etag"]}'):
        headers = {"If-Match": condition}
        again = admin.patch("/v1/indexes/films", json={"ef": 100}, headers=headers)
        assert again.status_code == 200
    weak = {"If-Match": f"W/{changed.headers['etag']}"}
    problem(admin.patch("/v1/indexes/films", json={"ef": 7}, headers=weak), 412, "ERR")


def test_a_change_of_nothing_and_one_of_what_is_fixed_are_refused(admin: httpx2.Client) -> None:
    create(admin)
    problem(admin.patch("/v1/indexes/films", json={"dim": 4}), 422, "ERR")
    assert "NPROBE" in problem(admin.patch("/v1/indexes/films", json={"nprobe": 4}), 400, "ERR")
    problem(admin.patch("/v1/indexes/nothing", json={"ef": 4}), 404, "NOINDEX")


def test_stats_are_what_info_tells(admin: httpx2.Client, wire: redis.Redis) -> None:
    create(admin)
    add(wire, "films", "alien", 1, 2, 3)
    told = admin.get("/v1/indexes/films/stats").json()
    wired = as_map(wire.execute_command("VECTOR.INFO", "films"))
    assert told.keys() == wired.keys()
    assert told["count"] == wired["count"] == 1
    assert told["embedder"] is wired["embedder"] is None


def test_an_index_is_built_and_dropped(admin: httpx2.Client, wire: redis.Redis) -> None:
    create(admin)
    for number in range(20):
        add(wire, "films", f"v{number}", 1, number, 0)
    wire.execute_command("VECTOR.DEL", "films", "v3")
    assert admin.post("/v1/indexes/films/build").status_code == 204
    assert admin.get("/v1/indexes/films/stats").json()["deleted"] == 0
    assert admin.delete("/v1/indexes/films").status_code == 204
    assert wire.execute_command("VECTOR.LIST") == []
    for response in (
        admin.delete("/v1/indexes/films"),
        admin.get("/v1/indexes/films"),
        admin.post("/v1/indexes/films/build"),
    ):
        assert "no such index 'films'" in problem(response, 404, "NOINDEX")
