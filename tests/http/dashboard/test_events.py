"""/v1/events: what the dashboard is told, to whom, and for how long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import redis

from control import administering, asking, control_server, problem
from servers import RunningServer
from tenancy import PASSWORD, add, search, signed_in, tenant

KEYS = {"acme": "a" * 20, "globex": "g" * 20, "acme.eve": "e" * 20}
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def tenants(control: RunningServer, wire: redis.Redis) -> Iterator[dict[str, redis.Redis]]:
    """Two tenants, each with an index that is called films, and has been asked something."""
    for name in ("acme", "globex"):
        tenant(wire, "CREATE", name, "KEY", KEYS[name], "BUDGET", 1_000_000)
    tenant(wire, "USER", "ADD", "acme", "eve", "KEY", KEYS["acme.eve"], "ROLE", "reader")
    clients = {name: signed_in(control, name, KEYS[name]) for name in ("acme", "globex")}
    for client in clients.values():
        client.execute_command("VECTOR.CREATE", "films", "DIM", 2)
        add(client, "films", "a", 1, 0)
    clients["globex"].execute_command("VECTOR.CREATE", "secret", "DIM", 2)
    yield clients
    for client in clients.values():
        client.close()


def look(client: httpx2.Client, **parameters: str) -> Any:
    response = client.get("/v1/events", params=parameters)
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    return response.json()


@contextmanager
def watching(client: httpx2.Client, **parameters: str) -> Iterator[Iterator[Any]]:
    """Events as they come; of one that says why there are no more, what it says."""
    with client.stream("GET", "/v1/events", params=parameters, headers=STREAM) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        yield (json.loads(line[6:]) for line in lines if line.startswith("data: "))


# -- what is told -------------------------------------------------------------------------------


def test_the_administrator_is_told_of_everything(
    tenants: dict[str, redis.Redis], admin: httpx2.Client
) -> None:
    told = look(admin)
    assert told["you"] == {
        "user": "admin",
        "tenant": "default",
        "administrator": True,
        "role": "admin",
    }
    figures = told["figures"]
    assert figures["tenant"] is None
    assert {(one["tenant"], one["name"]) for one in figures["indexes"]["items"]} == {
        ("acme", "films"),
        ("globex", "films"),
        ("globex", "secret"),
    }
    assert {one["tenant"] for one in figures["tenants"]["items"]} >= {"acme", "globex"}
    assert figures["server"]["clients"] >= 2
    assert figures["llm"]["state"] == "off"
    assert figures["vectors"] == 2


def test_a_tenant_is_told_of_itself_only(
    control: RunningServer, tenants: dict[str, redis.Redis], admin: httpx2.Client
) -> None:
    for _ in range(3):
        search(tenants["globex"], "films", 1, 0)
    search(tenants["acme"], "films", 1, 0)
    with asking(control, "acme.eve", KEYS["acme.eve"]) as eve:
        told = look(eve)
        assert told["you"]["user"] == "acme.eve"
        assert told["you"]["administrator"] is False
        # By whatever name it asks for others.
        for name in ("globex/films", "globex/secret", "secret", "default/films", "/", "ä\r\n"):
            assert look(eve, index=name)["clusters"] is None
    figures = told["figures"]
    assert "globex" not in json.dumps(told)
    assert "secret" not in json.dumps(told)
    assert figures["tenant"] == "acme"
    assert [one["name"] for one in figures["indexes"]["items"]] == ["films"]
    assert figures["vectors"] == 1
    assert figures["traffic"]["queries"] == 1
    assert figures["cache"]["misses"] == 1
    assert [one["tenant"] for one in figures["tenants"]["items"]] == ["acme"]
    assert figures["tenants"]["configured"] is None
    # Sums over all tenants tell who knows its own part of them about the others.
    assert figures["server"] is None
    assert figures["llm"] is None
    # The administrator sees the same of it.
    theirs = look(admin, tenant="acme")["figures"]
    assert theirs["indexes"] == figures["indexes"]
    assert theirs["server"] is None


def test_who_may_not_see_another_tenant_is_refused(
    control: RunningServer, tenants: dict[str, redis.Redis]
) -> None:
    with asking(control, "acme", KEYS["acme"]) as acme, asking(control) as nobody:
        problem(acme.get("/v1/events", params={"tenant": "globex"}), 403, "NOPERM")
        problem(nobody.get("/v1/events"), 401, "NOAUTH")
        problem(nobody.get("/v1/events", headers=STREAM), 401, "NOAUTH")
        problem(acme.get("/v1/events", params={"bogus": "1"}), 422, "ERR")
        problem(acme.get("/v1/events", params={"index": "x" * 300}), 422, "ERR")


def test_clusters_are_those_of_the_command(
    control: RunningServer, wire: redis.Redis, admin: httpx2.Client
) -> None:
    rows = np.random.default_rng(3).standard_normal((50, 2)).astype("<f4")
    for name in ("quiet", "busy"):
        wire.execute_command("VECTOR.CREATE", name, "DIM", 2)
    wire.execute_command("VECTOR.CLUSTER", "SET", "quiet", "FP32", rows[:9].tobytes())
    for row in rows[:20]:
        search(wire, "busy", *row.tolist())
    # Of an index with clusters there is more to see than of one that is asked more.
    assert look(admin)["clusters"]["index"] == "quiet"
    found = look(admin, index="default/quiet")["clusters"]
    assert found == look(admin, index="quiet")["clusters"]
    assert found["items"] == admin.get("/v1/clusters/quiet").json()["items"]
    assert len(found["items"]) == 9
    assert found["source"] == "pushed"
    wire.execute_command("VECTOR.DROP", "quiet")
    assert look(admin, index="quiet")["clusters"] is None
    assert look(admin)["clusters"]["index"] == "busy"


def test_budgets_come_with_their_pace_and_the_hastiest_first(
    control: RunningServer, tenants: dict[str, redis.Redis], wire: redis.Redis, admin: httpx2.Client
) -> None:
    tenant(wire, "SET", "globex", "BUDGET", 0.5)
    tenant(wire, "CREATE", "free")
    search(tenants["acme"], "films", 1, 0)
    told = look(admin)["figures"]["tenants"]
    globex, acme, free = (one for one in told["items"] if one["tenant"] != "default")
    assert [one["tenant"] for one in (globex, acme, free)] == ["globex", "acme", "free"]
    assert 0 < told["month_gone"] <= 1
    for one in (globex, acme):
        used = admin.get(f"/v1/tenants/{one['tenant']}/usage").json()
        assert one["used"] == used["used"] > 0
        assert one["requests"] == used["requests"]
        assert one["pace"] == pytest.approx(used["used"] / used["budget"] / told["month_gone"])
    assert globex["pace"] > 1 > acme["pace"]
    assert free["budget"] is None
    assert free["pace"] is None


def test_the_slow_log_tells_a_tenant_nothing_of_what_others_have_asked_for(
    control: RunningServer, tenants: dict[str, redis.Redis], wire: redis.Redis, admin: httpx2.Client
) -> None:
    wire.config_set("slowlog-log-slower-than", 0)
    try:
        search(tenants["acme"], "films", 1, 0, options=("QUERY", "a private question"))
        search(tenants["globex"], "films", 1, 0, options=("QUERY", "<b>another\n"))
        wire.config_set("slowlog-log-slower-than", -1)
        slow = look(admin)["figures"]["slow"]
        words = {one["tenant"]: one for one in slow if "SEARCH" in one["command"]}
        assert words["acme"]["command"].startswith("VECTOR.SEARCH films FP32 (binary) QUERY")
        assert words["acme"]["command"].endswith("a private question")
        assert words["globex"]["command"].endswith("QUERY (binary)")
        assert words["acme"]["address"].startswith("127.0.0.1:")
        with asking(control, "acme.eve", KEYS["acme.eve"]) as eve:
            told = look(eve)["figures"]["slow"]
        assert [one["command"] for one in told] == ["VECTOR.SEARCH"]
        assert told[0]["index"] == "films"
        assert told[0]["cache"] == "miss"
        assert "address" not in told[0]
        assert "private" not in json.dumps(told)
    finally:
        wire.config_set("slowlog-log-slower-than", 10_000)


# -- one a second -------------------------------------------------------------------------------


def test_rates_and_latencies_are_of_the_time_between_two_looks(
    control: RunningServer, tenants: dict[str, redis.Redis], admin: httpx2.Client
) -> None:
    def ask_for_some() -> None:
        for number in range(40):
            search(tenants["acme"], "films", number % 5 + 1, 1)

    with (
        asking(control, "acme", KEYS["acme"]) as acme,
        watching(acme) as own,
        watching(admin) as everything,
    ):
        for events in (own, everything):
            first = next(events)["figures"]
            assert first["seconds"] is None
            assert first["traffic"]["queries_per_s"] is None
        ask_for_some()
        for events in (own, everything):
            second = next(events)["figures"]
            traffic, cache = second["traffic"], second["cache"]
            assert 0.8 < second["seconds"] < 3
            assert traffic["queries_per_s"] == pytest.approx(40 / second["seconds"])
            assert 0 <= traffic["p50_us"] <= traffic["p99_us"] < 10_000_000
            assert traffic["p99_us"] > 0
            assert cache["hit_ratio_now"] == pytest.approx(35 / 40)
            assert cache["hit_ratio_now_by_level"]["exact"] == pytest.approx(35 / 40)
            assert cache["saved_per_s"] > 0
            assert cache["spent_per_s"] > 0
        # Nothing is asked, and nothing is known of latencies then.
        for events in (own, everything):
            third = next(events)["figures"]["traffic"]
            assert third["queries_per_s"] == 0
            assert third["p99_us"] is None
    assert "dashboard" not in tasks_of(control)
    assert control.pyrope.server.watched == {}


def tasks_of(server: RunningServer) -> list[str]:
    async def names() -> list[str]:
        # Who has gone is noticed in the next turns of the loop.
        for _ in range(200):
            await asyncio.sleep(0.005)
            found = [task.get_name() for task in asyncio.all_tasks()]
            if "dashboard" not in found:
                break
        return found

    return server.run(names())


def test_all_who_look_at_the_same_are_told_the_same_and_nobody_looks_in_vain(
    control: RunningServer, admin: httpx2.Client
) -> None:
    with administering(control) as other, watching(admin) as one, watching(other) as another:
        for _ in range(2):
            assert next(one)["figures"] == next(another)["figures"]
    assert "dashboard" not in tasks_of(control)
    look(admin)
    assert "dashboard" not in tasks_of(control)


def test_whose_key_is_taken_away_sees_no_more(
    control: RunningServer, tenants: dict[str, redis.Redis], wire: redis.Redis
) -> None:
    with asking(control, "acme.eve", KEYS["acme.eve"]) as eve, watching(eve) as events:
        next(events)
        tenant(wire, "USER", "DEL", "acme", "eve")
        assert next(events)["code"] == "NOAUTH"
        assert list(events) == []
    assert "dashboard" not in tasks_of(control)


def test_tenants_can_keep_neither_each_other_nor_the_administrator_out() -> None:
    with control_server(
        admin_password=PASSWORD, http={"requests_per_s": 0, "max_viewers": 5}
    ) as server:
        with administering(server) as admin:
            for name in ("acme", "globex"):
                admin.post("/v1/tenants", json={"tenant": name, "key": KEYS[name]})
            with (
                asking(server, "acme", KEYS["acme"]) as acme,
                asking(server, "globex", KEYS["globex"]) as globex,
                watching(acme) as events,
            ):
                next(events)
                refused = acme.get("/v1/events", headers=STREAM)
                problem(refused, 503, "BUSY")
                assert refused.headers["retry-after"] == "1"
                problem(acme.get("/v1/events"), 503, "BUSY")
                look(globex)
                look(admin)
        # Who has gone makes room.
        assert "dashboard" not in tasks_of(server)
        with asking(server, "acme", KEYS["acme"]) as acme:
            look(acme)


def test_events_end_when_the_server_stops_and_leave_nothing() -> None:
    with control_server() as server, asking(server) as client, watching(client) as events:
        next(events)
        server.loop.call_soon_threadsafe(server.pyrope.request_stop)
        assert len(list(events)) <= 1
        server.stop()
        assert server.left_tasks == []


def test_a_server_that_loads_says_so(tmp_path: Path) -> None:
    with control_server(tmp_path / "data") as server, asking(server) as client:
        service = server.pyrope.server.service
        service.loading = True
        try:
            problem(client.get("/v1/events", headers=STREAM), 503, "LOADING")
        finally:
            service.loading = False
        look(client)


def test_many_indexes_do_not_hold_the_loop_up(
    control: RunningServer, admin: httpx2.Client, wire: redis.Redis
) -> None:
    pipe = wire.pipeline(transaction=False)
    for number in range(500):
        pipe.execute_command("VECTOR.CREATE", f"i{number}", "DIM", 2, "TYPE", "FLAT")
    pipe.execute()

    async def longest() -> float:
        loop, most = asyncio.get_running_loop(), 0.0
        for _ in range(400):
            before = loop.time()
            await asyncio.sleep(0)
            most = max(most, loop.time() - before)
            await asyncio.sleep(0.0025)
        return most

    with watching(admin) as events:
        shown = next(events)["figures"]["indexes"]
        assert shown["count"] == 500
        assert len(shown["items"]) == 50
        # A turn takes about 3 ms; the bound is what a busy machine may make of it.
        assert control.run(longest()) < 0.1
