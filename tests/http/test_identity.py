"""Who asks, and whether they may: the same as on the wire."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import redis
from fastapi.routing import APIRoute

from control import administering, asking, control_server, problem
from pyrope.commands.ranks import ADMINISTRATOR, OPERATOR, READER
from pyrope.commands.table import build_table
from pyrope.http.calls import COMMAND, RANK, CommandRoute
from pyrope.http.routes import ROUTERS
from pyrope.testing.clock import ManualClock
from servers import RunningServer
from tenancy import PASSWORD, signed_in

KEYS = {"acme.reader": "r" * 20, "acme": "t" * 20, "acme.boss": "b" * 20}


@pytest.fixture
def acme(admin: httpx2.Client) -> httpx2.Client:
    """The administrator, of a server with a tenant that has users."""
    admin.post("/v1/tenants", json={"tenant": "acme", "key": KEYS["acme"]})
    for name, role in (("reader", "reader"), ("boss", "admin")):
        user = {"user": name, "role": role, "key": KEYS[f"acme.{name}"]}
        admin.post("/v1/tenants/acme/users", json=user)
    return admin


# -- credentials --------------------------------------------------------------------------------


def test_keys_come_as_basic_credentials_or_in_headers_of_their_own(
    control: RunningServer, acme: httpx2.Client
) -> None:
    acme.post("/v1/indexes", json={"name": "mine", "dim": 2}, params={"tenant": "acme"})
    key = KEYS["acme.reader"]
    basic = base64.b64encode(f"acme.reader:{key}".encode()).decode()
    with asking(control) as client:
        for headers in (
            {"Authorization": f"Basic {basic}"},
            {"Authorization": f"basic {basic}"},
            {"X-API-Key": key, "X-Tenant": "acme.reader"},
        ):
            found = client.get("/v1/indexes", headers=headers).json()["items"]
            assert [one["name"] for one in found] == ["mine"]
        # As with AUTH, a key alone is the administrator's.
        assert client.get("/v1/tenants", headers={"X-API-Key": PASSWORD}).status_code == 200
        alone = base64.b64encode(f":{PASSWORD}".encode()).decode()
        headers = {"Authorization": f"Basic {alone}"}
        assert client.get("/v1/tenants", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "NOAUTH"),
        ({"X-Tenant": "acme"}, "NOAUTH"),
        ({"X-API-Key": "wrong", "X-Tenant": "acme"}, "WRONGPASS"),
        ({"X-API-Key": "wrong", "X-Tenant": "nobody"}, "WRONGPASS"),
        ({"X-API-Key": "wrong"}, "WRONGPASS"),
        ({"X-API-Key": ""}, "WRONGPASS"),
        ({"X-API-Key": "x" * 600, "X-Tenant": "acme"}, "WRONGPASS"),
        ({"Authorization": "Bearer abc"}, "NOAUTH"),
        ({"Authorization": "Basic"}, "NOAUTH"),
        ({"Authorization": "Basic ä"}, "NOAUTH"),
        ({"Authorization": "Basic YWJj"}, "NOAUTH"),
        ({"Authorization": "Basic " + "YWJj" * 1000}, "NOAUTH"),
    ],
)
def test_who_has_no_key_or_a_wrong_one_is_nobody(
    control: RunningServer, acme: httpx2.Client, headers: dict[str, str], code: str
) -> None:
    with asking(control) as client:
        raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        response = client.get("/v1/indexes", headers=raw)
    problem(response, 401, code)
    assert response.headers["www-authenticate"].startswith("Basic ")


def test_two_kinds_of_credentials_at_once_are_refused(control: RunningServer) -> None:
    with administering(control) as client:
        response = client.get("/v1/indexes", headers={"X-API-Key": PASSWORD})
    problem(response, 400, "ERR")


def test_nothing_of_a_body_is_read_of_who_may_not_send_it(control: RunningServer) -> None:
    with asking(control) as client:
        response = client.post(
            "/v1/indexes", content=b"{", headers={"Content-Type": "application/json"}
        )
    problem(response, 401, "NOAUTH")


def test_guessing_is_slowed_down_for_http_and_the_wire_together() -> None:
    clock = ManualClock()
    with (
        control_server(clock=clock, admin_password=PASSWORD) as server,
        asking(server, "admin", "wrong") as guesser,
        administering(server) as owner,
    ):
        for _ in range(10):
            problem(guesser.get("/v1/indexes"), 401, "WRONGPASS")
        locked = guesser.get("/v1/indexes")
        problem(locked, 429, "WRONGPASS")
        assert int(locked.headers["retry-after"]) == 10
        # With the right key, too, and on the wire.
        problem(owner.get("/v1/indexes"), 429, "WRONGPASS")
        with (
            pytest.raises(redis.AuthenticationError, match="too many failed attempts"),
            signed_in(server, "admin", PASSWORD) as client,
        ):
            client.ping()
        clock.advance(10)
        assert owner.get("/v1/indexes").status_code == 200


def test_a_server_without_a_password_is_everybodys_on_this_host() -> None:
    with control_server() as server, asking(server) as client:
        assert client.get("/v1/tenants").status_code == 200
        # As on the wire, whatever key the administrator is said to have.
        with asking(server, "admin", "anything") as other:
            assert other.get("/v1/tenants").status_code == 200
        # And none may be given alone, as AUTH has it.
        response = client.get("/v1/tenants", headers={"X-API-Key": "anything"})
        assert "without any password configured" in problem(response, 400, "ERR")


# -- tenants ------------------------------------------------------------------------------------


def test_nobody_sees_what_is_anothers(control: RunningServer, acme: httpx2.Client) -> None:
    acme.post("/v1/tenants", json={"tenant": "rival", "key": "k" * 20})
    acme.post("/v1/indexes", json={"name": "secret", "dim": 2}, params={"tenant": "acme"})
    with asking(control, "rival", "k" * 20) as rival:
        assert rival.get("/v1/indexes").json()["items"] == []
        for method, path, body in (
            ("GET", "/v1/indexes/secret", None),
            ("GET", "/v1/indexes/secret/stats", None),
            ("PATCH", "/v1/indexes/secret", {"ef": 5}),
            ("DELETE", "/v1/indexes/secret", None),
            ("POST", "/v1/indexes/secret/build", None),
            ("POST", "/v1/search", {"index": "secret", "vector": [1, 0]}),
            ("GET", "/v1/cache/secret/policy", None),
            ("GET", "/v1/aliases/secret", None),
            ("GET", "/v1/clusters/secret", None),
        ):
            there = rival.request(method, path, json=body)
            nowhere = rival.request(
                method,
                path.replace("secret", "nowhere"),
                json=None if body is None else {**body, **_renamed(body)},
            )
            told = problem(there, 404, "NOINDEX")
            assert told.replace("secret", "nowhere") == problem(nowhere, 404, "NOINDEX")
        problem(rival.get("/v1/tenants/acme"), 403, "NOPERM")
        problem(rival.get("/v1/indexes", params={"tenant": "acme"}), 403, "NOPERM")
        problem(rival.get("/v1/indexes", params={"tenant": "nobody"}), 403, "NOPERM")
        assert rival.get("/v1/indexes", params={"tenant": "rival"}).status_code == 200
    assert acme.get("/v1/indexes/secret", params={"tenant": "acme"}).status_code == 200


def _renamed(body: dict[str, Any]) -> dict[str, str]:
    return {"index": "nowhere"} if "index" in body else {}


def test_the_administrator_names_the_tenant_that_it_means(acme: httpx2.Client) -> None:
    acme.post("/v1/indexes", json={"name": "i", "dim": 2}, params={"tenant": "acme"})
    assert acme.get("/v1/indexes").json()["items"] == []
    found = acme.get("/v1/indexes", params={"tenant": "acme"}).json()["items"]
    assert [(one["name"], one["tenant"]) for one in found] == [("i", "acme")]
    problem(acme.get("/v1/indexes", params={"tenant": "nobody"}), 404, "ERR")


def test_requests_count_against_the_tenants_quotas(
    control: RunningServer, acme: httpx2.Client
) -> None:
    acme.post("/v1/indexes", json={"name": "i", "dim": 2}, params={"tenant": "acme"})
    acme.patch("/v1/tenants/acme", json={"qps": 0.001, "burst": 1})
    with asking(control, "acme", KEYS["acme"]) as client:
        assert client.get("/v1/indexes/i").status_code == 200
        refused = client.get("/v1/indexes/i")
        assert "allowed to tenant 'acme'" in problem(refused, 429, "QUOTA")
        assert 900 < int(refused.headers["retry-after"]) <= 1000
        # What touches no index is free, as on the wire.
        assert client.get("/v1/indexes").status_code == 200
        acme.patch("/v1/tenants/acme", json={"qps": None, "burst": None, "concurrency": 0})
        assert "CONCURRENCY" in problem(client.get("/v1/indexes/i"), 429, "QUOTA")
        acme.patch("/v1/tenants/acme", json={"concurrency": None, "budget": 0})
        search = {"index": "i", "vector": [1, 0]}
        assert "budget" in problem(client.post("/v1/search", json=search), 402, "BUDGET")
        told = client.get("/v1/tenants/acme/usage").json()
        assert (told["refused_quota"], told["refused_budget"]) == (2, 1)


# -- ranks --------------------------------------------------------------------------------------


def routes() -> Iterator[tuple[str, str, CommandRoute]]:
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, CommandRoute):
                for method in sorted(route.methods or ()):
                    yield method, route.path, route


def rank_of(route: CommandRoute) -> int:
    """Of the command that a route stands for, by its flags in the table; or its own."""
    extra = route.openapi_extra or {}
    if COMMAND not in extra:
        return int(extra[RANK])
    parent, _, word = extra[COMMAND].partition("|")
    command = build_table()[parent.encode()]
    return (command.subcommands[word] if word else command).rank


def test_every_route_says_what_it_takes_but_those_that_are_for_everybody() -> None:
    free = {
        route.path
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and not isinstance(route, CommandRoute)
    }
    expected = {"/healthz", "/readyz", "/openapi.json", "/docs", "/docs.js", "/docs.css"}
    # Files of the dashboard: what it shows takes signing in.
    assert free == expected | {"/", "/dashboard/{name}", "/vendor/{name}"}
    assert all({COMMAND, RANK} & (route.openapi_extra or {}).keys() for *_, route in routes())


@pytest.mark.parametrize(
    ("method", "path", "route"), [pytest.param(*one, id=f"{one[0]} {one[1]}") for one in routes()]
)
def test_every_route_refuses_who_is_below_its_rank(
    control: RunningServer, acme: httpx2.Client, method: str, path: str, route: CommandRoute
) -> None:
    needed = rank_of(route)
    filled = path.replace("{index}", "i").replace("{name}", "acme").replace("{user}", "u")
    ranks = {"acme.reader": READER, "acme": OPERATOR, "acme.boss": OPERATOR}
    for login, rank in ranks.items():
        with asking(control, login, KEYS[login]) as client:
            response = client.request(method, filled)
        if rank < needed:
            assert "no permissions to run" in problem(response, 403, "NOPERM")
        elif response.status_code == 403:
            # Whose tenant it is, and which role in it, is the command's own matter.
            assert "VECTOR.TENANT" in (route.openapi_extra or {})[COMMAND]
    with asking(control) as nobody:
        problem(nobody.request(method, filled), 401, "NOAUTH")
    assert needed in (READER, OPERATOR, ADMINISTRATOR)
