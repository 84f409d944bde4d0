"""/v1/tenants, /v1/billing and /v1/audit, beside the commands that do the same."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
import redis

from control import asking, problem
from servers import RunningServer
from tenancy import as_map, blob, signed_in, tenant

LIMITS = {"qps": 2.5, "concurrency": 3, "budget": 1000, "priority": "LOW", "maxvectors": 10}


def test_a_tenant_is_created_with_a_key_that_works(
    control: RunningServer, admin: httpx2.Client, wire: redis.Redis
) -> None:
    made = admin.post("/v1/tenants", json={"tenant": "acme"} | LIMITS)
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/tenants/acme"
    with signed_in(control, "acme", made.json()["key"]) as acme:
        assert acme.execute_command("VECTOR.LIST") == []
    with asking(control, "acme", made.json()["key"]) as acme:
        assert acme.get("/v1/indexes").json()["items"] == []
    shown = admin.get("/v1/tenants/acme").json()
    assert shown | LIMITS == shown
    assert shown.keys() == as_map(tenant(wire, "GET", "acme")).keys()
    own = admin.post("/v1/tenants", json={"tenant": "other", "key": "one of my own"})
    assert own.json() == {"key": None}


@pytest.mark.parametrize(
    ("members", "status", "code"),
    [
        ({"tenant": "admin"}, 400, "ERR"),
        ({"tenant": "a b"}, 400, "ERR"),
        ({"tenant": "t", "qps": -1}, 400, "ERR"),
        ({"tenant": "t", "burst": 5}, 400, "ERR"),
        ({"tenant": "t", "priority": "SOME"}, 400, "ERR"),
        ({"tenant": "t", "concurrency": 1.5}, 422, "ERR"),
        ({"tenant": "t", "qps": "5"}, 422, "ERR"),
        ({"tenant": "t", "quota": 5}, 422, "ERR"),
        ({"qps": 5}, 422, "ERR"),
        ({"tenant": "t", "key": ""}, 422, "ERR"),
    ],
)
def test_a_bad_tenant_is_refused(
    admin: httpx2.Client, members: dict[str, Any], status: int, code: str
) -> None:
    problem(admin.post("/v1/tenants", json=members), status, code)
    assert admin.get("/v1/tenants").json()["items"] == []


def test_limits_are_changed_and_unset_if_they_are_what_the_client_knows(
    admin: httpx2.Client,
) -> None:
    admin.post("/v1/tenants", json={"tenant": "acme"} | LIMITS)
    tag = admin.get("/v1/tenants/acme").headers["etag"]
    wanted = {"qps": None, "budget": 5}
    changed = admin.patch("/v1/tenants/acme", json=wanted, headers={"If-Match": tag})
    assert changed.json() | wanted | {"concurrency": 3} == changed.json()
    assert changed.headers["etag"] == admin.get("/v1/tenants/acme").headers["etag"]
    late = admin.patch("/v1/tenants/acme", json={"budget": 9}, headers={"If-Match": tag})
    problem(late, 412, "ERR")
    assert admin.get("/v1/tenants/acme").json()["budget"] == 5
    problem(admin.patch("/v1/tenants/nobody", json={"budget": 9}), 404, "ERR")
    problem(admin.patch("/v1/tenants/acme", json={}), 400, "ERR")


def test_tenants_are_listed_by_pages(admin: httpx2.Client) -> None:
    names = [f"t{number}" for number in range(5)]
    for name in names:
        admin.post("/v1/tenants", json={"tenant": name})
    found = []
    cursor: str | None = ""
    while cursor is not None:
        page = admin.get("/v1/tenants", params={"limit": 2, "cursor": cursor}).json()
        found += [one["tenant"] for one in page["items"]]
        cursor = page["cursor"]
    assert found == names


def test_users_and_keys_come_and_go(control: RunningServer, admin: httpx2.Client) -> None:
    admin.post("/v1/tenants", json={"tenant": "acme"})
    made = admin.post("/v1/tenants/acme/users", json={"user": "bob", "role": "admin"})
    assert made.status_code == 201
    with asking(control, "acme.bob", made.json()["key"]) as bob:
        # Who manages a tenant does so over HTTP, too.
        added = bob.post("/v1/tenants/acme/users", json={"user": "eve", "role": "reader"})
        assert added.status_code == 201
        assert bob.delete("/v1/tenants/acme/users/eve").status_code == 204
        problem(bob.delete("/v1/tenants/acme/users/eve"), 404, "ERR")
        again = admin.post("/v1/tenants/acme/rotate", json={"user": "bob", "overlap": 0})
        problem(bob.get("/v1/indexes"), 401, "WRONGPASS")
    with asking(control, "acme.bob", again.json()["key"]) as bob:
        assert bob.get("/v1/tenants/acme").json()["users"][0]["user"] == "bob"
    assert admin.delete("/v1/tenants/acme").status_code == 204
    problem(admin.delete("/v1/tenants/acme"), 404, "ERR")
    problem(admin.get("/v1/tenants/acme"), 404, "ERR")


def test_usage_is_what_the_command_tells(
    control: RunningServer, admin: httpx2.Client, wire: redis.Redis
) -> None:
    key = admin.post("/v1/tenants", json={"tenant": "metered"}).json()["key"]
    with asking(control, "metered", key) as acme:
        acme.post("/v1/indexes", json={"name": "i", "dim": 2})
        wired = as_map(tenant(wire, "USAGE", "metered"))
        told = acme.get("/v1/tenants/metered/usage").json()
        assert told.keys() == wired.keys()
        assert told["requests"] == wired["requests"] == 1
        period = told["period"]
        asked = acme.get("/v1/tenants/metered/usage", params={"period": period}).json()
        assert asked == acme.get("/v1/tenants/metered/usage").json()
        bad = acme.get("/v1/tenants/metered/usage", params={"period": "last month"})
        problem(bad, 400, "ERR")
        problem(acme.get("/v1/tenants/other/usage"), 403, "NOPERM")


def test_a_search_is_charged_as_the_command_is(
    control: RunningServer, admin: httpx2.Client
) -> None:
    key = admin.post("/v1/tenants", json={"tenant": "acme"}).json()["key"]
    with signed_in(control, "acme", key) as client, asking(control, "acme", key) as acme:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 2)
        client.execute_command("VECTOR.ADD", "i", "a", "FP32", blob(1, 0))
        before = acme.get("/v1/tenants/acme/usage").json()
        told = acme.post("/v1/search", json={"index": "i", "vector": [1, 0]}).json()
        after = acme.get("/v1/tenants/acme/usage").json()
    assert after["used"] - before["used"] == pytest.approx(told["info"]["cost"])
    assert after["answers"]["miss"] - before["answers"]["miss"] == 1
    assert after["requests"] - before["requests"] == 1


async def _flushed(server: RunningServer) -> None:
    await server.pyrope.server.service.tenancy.flush()


def test_billing_tells_of_everybody_by_pages_and_of_who_is_dropped(
    control: RunningServer, admin: httpx2.Client
) -> None:
    period = admin.get("/v1/tenants/default/usage").json()["period"]
    names = [f"bill-{number}" for number in range(4)]
    for name in names:
        key = admin.post("/v1/tenants", json={"tenant": name, "budget": 50}).json()["key"]
        with asking(control, name, key) as client:
            client.post("/v1/indexes", json={"name": "i", "dim": 2})
    control.run(_flushed(control))
    admin.delete("/v1/tenants/bill-2")
    rows: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        params = {"limit": 2, "cursor": cursor, "period": period}
        page = admin.get("/v1/billing/usage", params=params).json()
        rows += page["items"]
        cursor = page["cursor"]
    mine = {row["tenant"]: row for row in rows if row["tenant"] in names}
    assert list(mine) == names
    assert [row["requests"] for row in mine.values()] == [1, 1, 1, 1]
    assert [row["budget"] for row in mine.values()] == [50, 50, None, 50]
    assert admin.get("/v1/billing/usage", params={"period": "1999-01"}).json()["items"] == []
    for params in ({"period": "x"}, {"cursor": "é" * 500}, {"cursor": "a b"}):
        problem(admin.get("/v1/billing/usage", params=params), 400, "ERR")


# -- the audit trail ----------------------------------------------------------------------------


def told(entry: dict[str, Any]) -> dict[str, Any]:
    """What an entry says, but for what is its own."""
    own = {"seq", "at", "prev", "hash", "address"}
    return {name: value for name, value in entry.items() if name not in own}


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        fresh = {"created_at", "former_key_expires_at", "uid"}
        return {name: without_times(one) for name, one in value.items() if name not in fresh}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def test_the_trail_tells_the_same_of_a_request_and_of_its_command(
    admin: httpx2.Client, wire: redis.Redis
) -> None:
    def entries(since: int) -> list[dict[str, Any]]:
        found = admin.get("/v1/audit", params={"limit": 100}).json()["items"]
        return [one for one in reversed(found) if one["seq"] > since]

    def last() -> int:
        newest: list[dict[str, Any]] = admin.get("/v1/audit", params={"limit": 1}).json()["items"]
        return int(newest[0]["seq"]) if newest else 0

    start = last()
    admin.post("/v1/tenants", json={"tenant": "acme", "qps": 5})
    admin.patch("/v1/tenants/acme", json={"qps": None, "priority": "LOW"})
    admin.post("/v1/tenants/acme/users", json={"user": "bob", "role": "reader", "key": "k"})
    admin.post("/v1/tenants/acme/rotate", json={"overlap": 0})
    admin.delete("/v1/tenants/acme/users/bob")
    admin.post("/v1/indexes", json={"name": "i", "dim": 2}, params={"tenant": "acme"})
    admin.patch("/v1/indexes/i", json={"ef": 9, "cachettl": 5}, params={"tenant": "acme"})
    admin.patch("/v1/cache/i/policy", json={"minrecall": 0.5}, params={"tenant": "acme"})
    admin.post("/v1/cache/i/flush", params={"tenant": "acme"})
    rows = {"centroids": [[1, 0], [0, 1]]}
    admin.put("/v1/clusters/i", json=rows, params={"tenant": "acme"})
    admin.delete("/v1/indexes/i", params={"tenant": "acme"})
    admin.delete("/v1/tenants/acme")
    middle = last()
    tenant(wire, "CREATE", "acme", "QPS", 5)
    tenant(wire, "SET", "acme", "QPS", "NONE", "PRIORITY", "LOW")
    tenant(wire, "USER", "ADD", "acme", "bob", "ROLE", "reader", "KEY", "k")
    tenant(wire, "ROTATE", "acme", "OVERLAP", 0)
    tenant(wire, "USER", "DEL", "acme", "bob")
    wire.execute_command("VECTOR.USE", "acme")
    wire.execute_command("VECTOR.CREATE", "i", "DIM", 2)
    wire.execute_command("VECTOR.ALTER", "i", "EF", 9, "CACHETTL", 5)
    wire.execute_command("VECTOR.CACHE", "POLICY", "i", "SET", "MINRECALL", 0.5)
    wire.execute_command("VECTOR.CACHE", "FLUSH", "i")
    wire.execute_command("VECTOR.CLUSTER", "SET", "i", "FP32", blob(1, 0, 0, 1))
    wire.execute_command("VECTOR.DROP", "i")
    wire.execute_command("VECTOR.USE", "default")
    tenant(wire, "DROP", "acme")
    after = entries(start)
    by_http = [told(one) for one in after if one["seq"] <= middle]
    by_wire = [told(one) for one in after if one["seq"] > middle]
    assert len(by_http) == 12
    assert without_times(by_http) == without_times(by_wire)
    assert {one["actor"] for one in by_http} == {"admin"}
    assert all(one["address"].startswith("127.0.0.1:") for one in after)


def test_the_trail_is_read_by_pages_newest_first(admin: httpx2.Client) -> None:
    for number in range(5):
        admin.post("/v1/tenants", json={"tenant": f"t{number}"})
    whole = admin.get("/v1/audit", params={"limit": 5}).json()["items"]
    assert [one["target"] for one in whole] == ["t4", "t3", "t2", "t1", "t0"]
    first = admin.get("/v1/audit", params={"limit": 2}).json()
    second = admin.get("/v1/audit", params={"limit": 3, "cursor": first["cursor"]}).json()
    assert first["items"] + second["items"] == whole
    for cursor in ("x", "0", "-1", "٣"):
        problem(admin.get("/v1/audit", params={"cursor": cursor}), 400, "ERR")
    # The hashes are those of the chain: each entry names the one before.
    assert [one["prev"] for one in whole[:-1]] == [one["hash"] for one in whole[1:]]


def test_a_refused_act_leaves_no_entry(admin: httpx2.Client) -> None:
    admin.post("/v1/tenants", json={"tenant": "acme"})
    before = admin.get("/v1/audit").json()["items"][0]["seq"]
    problem(admin.post("/v1/tenants", json={"tenant": "acme"}), 409, "EXISTS")
    condition = {"If-Match": '"another"'}
    refused = admin.patch("/v1/tenants/acme", json={"qps": 5}, headers=condition)
    problem(refused, 412, "ERR")
    assert admin.get("/v1/audit").json()["items"][0]["seq"] == before
