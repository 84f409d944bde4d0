"""Series of tenants and indexes; sums that never fall."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx2
import pytest
import redis

from control import administering, asking, control_server
from pyrope.http.metrics.collector import METRICS
from pyrope.http.metrics.metric import Kind
from pyrope.testing.clock import ManualClock
from remembered_calls import lead_a_life
from scraping import Samples, scrape, value
from servers import RunningServer
from tenancy import PASSWORD, add, administrator, as_map, search, signed_in, usage

KEY = "k" * 20
# What is counted by the month, and begins anew with each.
BY_THE_MONTH = "pyrope_tenant_"


@pytest.fixture(scope="module")
def labelled() -> Iterator[RunningServer]:
    labels = {"tenant_labels": 2, "index_labels": 2}
    with control_server(admin_password=PASSWORD, metrics=labels) as server:
        yield server


@pytest.fixture
def admin(labelled: RunningServer) -> Iterator[httpx2.Client]:
    with administering(labelled) as client:
        yield client


def counters(found: Samples) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    names = {one.name for one in METRICS if one.kind is Kind.COUNTER}
    return {key: number for key, number in found.items() if key[0] in names}


def test_the_first_have_series_of_their_own_and_the_rest_are_others(
    labelled: RunningServer, admin: httpx2.Client
) -> None:
    names = ("ann", "bob", "cid", "other")
    with administrator(labelled) as wire:
        for name in names:
            wire.execute_command("VECTOR.TENANT", "CREATE", name, "KEY", KEY, "BUDGET", 1e6)
        for count, name in enumerate(names, 1):
            with signed_in(labelled, name, KEY) as client:
                client.execute_command(
                    "VECTOR.CREATE", "i", "DIM", 2, "TYPE", "FLAT", "CACHE", "EXACT"
                )
                add(client, "i", "x", 1, 0)
                for _ in range(count + 1):
                    search(client, "i", 1, 0)
                lead_a_life(client, "i", 2)
                scrape(admin)
        told = {name: usage(wire, name) for name in names}
    found = scrape(admin)
    own = {dict(pairs)["tenant"] for (name, pairs) in found if name.startswith(BY_THE_MONTH)}
    assert own == {"ann", "bob", "other"}
    for name in ("ann", "bob"):
        mine = told[name]
        assert value(found, "pyrope_tenant_requests_total", tenant=name) == mine["requests"]
        for level, count in mine["answers"].items():
            answers = value(found, "pyrope_tenant_answers_total", tenant=name, cache=level)
            assert answers == count
        units = value(found, "pyrope_tenant_charged_units_total", tenant=name, what="compute")
        assert units == pytest.approx(mine["compute_units"])
        share = value(found, "pyrope_tenant_budget_used_ratio", tenant=name)
        assert share == pytest.approx(mine["used"] / 1e6)
    rest = value(found, "pyrope_tenant_requests_total", tenant="other")
    assert rest >= told["cid"]["requests"] + told["other"]["requests"]
    indexes = {dict(pairs)["tenant"] for (name, pairs) in found if name == "pyrope_index_vectors"}
    assert indexes == {"ann", "bob", "other"}
    assert value(found, "pyrope_index_vectors", tenant="other", index="other") == 2
    hits = {
        name: value(found, "pyrope_index_cache_hits_total", tenant=name, index=index)
        for name, index in (("ann", "i"), ("bob", "i"), ("other", "other"))
    }
    # Each has two of its three recalls answered.
    for name, index, times in (("ann", "i", 1), ("bob", "i", 1), ("other", "other", 2)):
        saved = told["ann"]["saved_tokens"] * times
        for labels in ({"tenant": name, "index": index}, {"tenant": name}):
            of = "pyrope_index" if "index" in labels else "pyrope_tenant"
            assert value(found, f"{of}_remembered_hits_total", **labels) == 2 * times
            assert value(found, f"{of}_saved_units_total", **labels) == 3 * times
            assert value(found, f"{of}_saved_tokens_total", **labels) == saved > 0
        assert value(found, "pyrope_index_remembered_responses", tenant=name, index=index) == times
    # Of ann's two searches one was a hit, of bob's three two, of the others' nine seven.
    assert hits == {"ann": 1, "bob": 2, "other": 3 + 4}


def test_no_counter_falls_when_indexes_and_tenants_go(
    labelled: RunningServer, admin: httpx2.Client
) -> None:
    with administrator(labelled) as wire:
        for number in range(4):
            wire.execute_command(
                "VECTOR.CREATE", f"n{number}", "DIM", 2, "TYPE", "FLAT", "CACHE", "EXACT"
            )
            add(wire, f"n{number}", "x", 1, 0)
            for _ in range(3):
                search(wire, f"n{number}", 1, 0)
        wire.execute_command("VECTOR.TENANT", "CREATE", "gone", "KEY", KEY)
        before = scrape(admin)
        for doomed in ("n0", "n3"):
            wire.execute_command("VECTOR.DROP", doomed)
            after = scrape(admin)
            held = counters(before)
            fallen = {
                key: (number, after.get(key))
                for key, number in held.items()
                if key in after and after[key] < number
            }
            assert fallen == {}
            before = after
        wire.execute_command("VECTOR.TENANT", "DROP", "gone")
        after = scrape(admin)
        assert all(after.get(key, n) >= n for key, n in counters(before).items())
        wire.flushall()
        last = counters(scrape(admin))
        kept = {key: n for key, n in counters(after).items() if not key[0].startswith("pyrope_ind")}
        assert all(last[key] >= n for key, n in kept.items())


def test_sums_do_not_fall_while_an_index_is_being_dropped() -> None:
    """Between the first moment of a drop, and its last."""
    with control_server() as server, server.client() as wire:
        wire.execute_command("VECTOR.CREATE", "a", "DIM", 2, "TYPE", "FLAT", "CACHE", "EXACT")
        add(wire, "a", "x", 1, 0)
        for _ in range(5):
            search(wire, "a", 1, 0)
        service = server.pyrope.server.service
        seen: list[int] = []

        async def drop() -> None:
            task = asyncio.create_task(service.drop_index("default", b"a"))
            while not task.done():
                seen.append(service.totals().hits_total)
                await asyncio.sleep(0)
            seen.append(service.totals().hits_total)

        server.run(drop())
        assert set(seen) == {4}
        assert len(seen) > 3


def test_budgets_are_told_by_the_worst_of_them() -> None:
    clock = ManualClock(wall=1_700_000_000.0)  # the middle of November 2023
    with (
        control_server(clock=clock, admin_password=PASSWORD) as server,
        administrator(server) as wire,
        administering(server) as client,
    ):
        for name, budget in (("rich", 1e9), ("poor", 1000), ("broke", 1)):
            wire.execute_command("VECTOR.TENANT", "CREATE", name, "KEY", KEY, "BUDGET", budget)
            with signed_in(server, name, KEY) as tenant:
                tenant.execute_command("VECTOR.CREATE", "i", "DIM", 2, "TYPE", "FLAT")
                add(tenant, "i", "x", 1, 0)
        wire.execute_command("VECTOR.TENANT", "CREATE", "free", "KEY", KEY)
        broke = usage(wire, "broke")
        found = scrape(client)
    gone = value(found, "pyrope_budget_month_elapsed_ratio")
    assert gone == pytest.approx(0.4642, abs=1e-4)
    assert value(found, "pyrope_budget_worst_pace_ratio") == pytest.approx(broke["used"] / gone)
    states = {
        state: value(found, "pyrope_budget_tenants", state=state)
        for state in ("all", "ahead", "spent")
    }
    assert states == {"all": 3, "ahead": 1, "spent": 1}


def test_a_near_hit_is_counted_with_its_recall() -> None:
    with control_server() as server, server.client() as wire, asking(server) as client:
        wire.execute_command("VECTOR.CREATE", "a", "DIM", 2, "TYPE", "FLAT", "CACHE", "CLUSTER")
        for number in range(50):
            add(wire, "a", f"v{number}", 1, number / 10)
        search(wire, "a", 1, 1, options=("MINRECALL", 0.5))
        for step in range(1, 4):
            wire_search(wire, 1 + step * 1e-3)
        found = scrape(client)
        hits = value(found, "pyrope_cache_hits_total", level="cluster")
        assert hits == 3
        assert value(found, "pyrope_cache_certified_recall_total", level="cluster") == hits
        assert value(found, "pyrope_cache_estimated_recall_total", level="cluster") == hits


def test_remembered_responses_are_told_as_the_index_tells_them() -> None:
    with control_server() as server, server.client() as wire, asking(server) as client:
        wire.execute_command("VECTOR.CREATE", "near", "DIM", 8)
        lead_a_life(wire, "near", 8)
        stats = as_map(as_map(wire.execute_command("VECTOR.CACHE", "STATS", "near"))["remembered"])
        found = scrape(client)
    for name, told in (
        ("remembered_total", "remembered"),
        ("remembered_recalls_total", "recalls"),
        ("remembered_responses", "entries"),
        ("remembered_quarantined_total", "quarantined"),
        ("remembered_saved_tokens_total", "tokens_saved"),
    ):
        assert value(found, f"pyrope_{name}") == float(stats[told]), name
    for label, kind, fields in (
        ("way", "hits_total", {"exact": "hits_exact", "near": "hits_near"}),
        ("verdict", "feedback_total", {"good": "feedback_good", "bad": "feedback_bad"}),
        ("why", "refused_total", {"guard": "guard_numbers", "uncertain": "uncertain"}),
        ("reason", "gone_total", {"forgotten": "gone_forgotten"}),
    ):
        for part, told in fields.items():
            number = value(found, f"pyrope_remembered_{kind}", **{label: part})
            assert number == float(stats[told]) == 1, (kind, part)
    assert value(found, "pyrope_remembered_saved_units_total") == 3


def wire_search(wire: redis.Redis, second: float) -> None:
    search(wire, "a", 1, second, options=("MINRECALL", 1, "CERTIFIED"))
