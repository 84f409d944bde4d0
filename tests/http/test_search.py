"""/v1/search."""

from __future__ import annotations

import base64
import struct
from typing import Any

import httpx2
import pytest
import redis

from control import problem
from tenancy import add, search, searched

VECTORS = {"a": (1.0, 0.0, 0.0), "b": (1.0, 1.0, 0.0), "c": (0.0, 0.0, 1.0)}


@pytest.fixture
def films(wire: redis.Redis) -> redis.Redis:
    wire.execute_command("VECTOR.CREATE", "films", "DIM", 3)
    for year, (name, vector) in enumerate(VECTORS.items(), start=1980):
        add(wire, "films", name, *vector)
        wire.execute_command("VECTOR.SETATTR", "films", name, f'{{"year": {year}}}')
    return wire


def ask(admin: httpx2.Client, **members: Any) -> Any:
    response = admin.post("/v1/search", json={"index": "films"} | members)
    assert response.status_code == 200, response.text
    return response.json()


def ids(answer: Any) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


def test_hits_come_with_scores_attributes_and_info(
    admin: httpx2.Client, films: redis.Redis
) -> None:
    told = ask(admin, vector=[1, 0, 0], count=2)
    expected = search(films, "films", 1, 0, 0, options=("COUNT", 2, "WITHSCORES"))
    assert ids(told) == [id_.decode() for id_ in expected[::2]] == ["a", "b"]
    scores = [hit["score"] for hit in told["hits"]]
    assert scores == pytest.approx([float(score) for score in expected[1::2]])
    assert [hit["attributes"] for hit in told["hits"]] == [{"year": 1980}, {"year": 1981}]
    _, info = searched(films, "films", 1, 0, 0)
    assert told["info"].keys() == info.keys()
    assert told["info"]["cache"] == "miss"
    assert ask(admin, vector=[1, 0, 0], count=2)["info"]["cache"] == "exact"


def test_a_vector_is_a_list_or_base64_or_that_of_an_id(
    admin: httpx2.Client, films: redis.Redis
) -> None:
    blob = base64.b64encode(struct.pack("<3f", 0, 0, 1)).decode()
    assert ids(ask(admin, fp32=blob))[0] == ids(ask(admin, vector=[0, 0, 1.0]))[0] == "c"
    assert ids(ask(admin, id="c"))[0] == "c"
    for members in ({}, {"id": "c", "fp32": blob}, {"vector": [1, 2, 3], "text": "x"}):
        response = admin.post("/v1/search", json={"index": "films", **members})
        assert "one of vector, fp32, id or text" in problem(response, 400, "ERR")


def test_options_are_those_of_the_command(admin: httpx2.Client, films: redis.Redis) -> None:
    assert ids(ask(admin, vector=[1, 0, 0], filter=".year > 1980")) == ["b", "c"]
    assert ids(ask(admin, vector=[1, 0, 0], epsilon=0.5)) == ["a", "b"]
    told = ask(admin, vector=[1, 0, 0], truth=True, cache="OFF", withattribs=False)
    assert told["info"]["certified_recall"] == 1
    assert told["info"]["cache"] == "off"
    assert all(hit["attributes"] is None for hit in told["hits"])
    assert ask(admin, vector=[1, 0, 0], minrecall=0.5, basis="CERTIFIED", session="s")["hits"]
    missed = admin.post("/v1/search", json={"index": "films", "id": "c", "cache": "ONLY"})
    assert "CACHE ONLY" in problem(missed, 503, "BUSY")
    assert missed.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("members", "status", "code", "message"),
    [
        ({"vector": [1, 2]}, 400, "DIM", "got 2 but index has 3"),
        ({"vector": [1, 2, 1e300]}, 400, "ERR", "NaN and infinity"),
        ({"vector": [3e38] * 16}, 400, "ERR", "too large"),
        ({"fp32": "AAAA"}, 400, "DIM", "multiple of 4"),
        ({"fp32": "AAAAA"}, 400, "ERR", "base64"),
        ({"id": "nobody"}, 400, "ERR", "element not found"),
        ({"id": "a", "filter": ".year >"}, 400, "ERR", "FILTER"),
        ({"id": "a", "truth": True, "maxscans": 5}, 400, "ERR", "contradict"),
        ({"id": "a", "basis": "CERTIFIED"}, 400, "ERR", "minrecall"),
        ({"id": "a", "text": None, "index": "nothing"}, 404, "NOINDEX", "no such index"),
        ({"text": "alien"}, 400, "ERR", "embed"),
        ({"id": "a", "count": 0}, 422, "ERR", "count"),
        ({"id": "a", "count": 1001}, 422, "ERR", "count"),
        ({"id": "a", "count": "3"}, 422, "ERR", "count"),
        ({"id": "a", "cache": "NEVER"}, 422, "ERR", "cache"),
        ({"id": 7}, 422, "ERR", "id"),
        ({"vector": [1, "2", 3]}, 422, "ERR", "vector"),
        ({"vector": []}, 422, "ERR", "vector"),
    ],
)
def test_a_bad_search_is_told_what_is_bad(
    admin: httpx2.Client,
    films: redis.Redis,
    members: dict[str, Any],
    status: int,
    code: str,
    message: str,
) -> None:
    response = admin.post("/v1/search", json={"index": "films"} | members)
    assert message in problem(response, status, code)


def test_ids_that_are_no_text_are_base64(admin: httpx2.Client, films: redis.Redis) -> None:
    films.execute_command("VECTOR.ADD", "films", b"\xff\x00", "VALUES", 3, 0, 1, 0)
    shown = {"base64": base64.b64encode(b"\xff\x00").decode()}
    told = ask(admin, vector=[0, 1, 0], count=1)
    assert told["hits"][0]["id"] == shown
    assert ask(admin, id=shown, count=1)["hits"][0]["id"] == shown


def test_attributes_are_told_as_they_were_sent(admin: httpx2.Client, films: redis.Redis) -> None:
    raw = '{"title": "Z\\u00fcrich \u2603", "big": 12345678901234567890, "deep": {"a": [1, null]}}'
    films.execute_command("VECTOR.SETATTR", "films", "a", raw)
    response = admin.post("/v1/search", json={"index": "films", "id": "a", "count": 1})
    assert raw in response.text
