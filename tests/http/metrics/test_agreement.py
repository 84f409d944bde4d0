"""INFO and /metrics tell the same."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import redis

from control import asking, control_server
from pyrope.http.metrics.collector import METRICS
from pyrope.http.metrics.metric import Described
from remembered_calls import lead_a_life
from scraping import Samples, scrape, value
from servers import RunningServer, exchange
from tenancy import PASSWORD, add, administrator, blob, search, signed_in

# What has moved on by the time that the other is asked.
MOVING = {
    "pyrope_commands_total",
    "pyrope_network_receive_bytes_total",
    "pyrope_network_transmit_bytes_total",
    "pyrope_uptime_seconds",
}


def use(server: RunningServer) -> None:
    """A bit of everything."""
    rng = np.random.default_rng(7)
    with administrator(server) as wire:
        wire.execute_command(
            "VECTOR.CREATE", "near", "DIM", 8, "TYPE", "FLAT", "CACHE", "EXACT,CLUSTER,ALIAS"
        )
        wire.execute_command("VECTOR.CREATE", "hnsw", "DIM", 8, "TYPE", "HNSW", "CACHE", "EXACT")
        rows = rng.standard_normal((300, 8)).astype("<f4")
        ids = [f"v{i}" for i in range(300)]
        for index in ("near", "hnsw"):
            wire.execute_command("VECTOR.MADD", index, "FP32", rows.tobytes(), "IDS", 300, *ids)
        wire.execute_command("VECTOR.BUILD", "hnsw")
        for row in rows[:20]:
            for _ in range(5):
                search(wire, "near", *row.tolist())
                search(wire, "hnsw", *row.tolist(), options=("WITHSCORES",))
        for row in rows[:20] + np.float32(1e-4):
            search(wire, "near", *row.tolist(), options=("MINRECALL", 0.1))
        wire.execute_command(
            "VECTOR.MSEARCH", "near", "FP32", rows[50:60].tobytes(), "CACHE", "OFF"
        )
        for number in range(40):
            add(wire, "near", f"w{number}", *rng.standard_normal(8).tolist())
            search(wire, "near", *rows[number % 20].tolist())
        wire.execute_command("VECTOR.DEL", "near", "v0", "v1")
        wire.execute_command("VECTOR.ALIAS", "SET", "near", "what?", "which?")
        for text in ("what?", "which?", "what?"):
            search(wire, "near", *rows[5].tolist(), options=("QUERY", text))
        for _ in range(3):
            for row in rows[100:104]:
                search(wire, "near", *row.tolist(), options=("SESSION", "s"))
        lead_a_life(wire, "near", 8)
        wire.execute_command("VECTOR.CACHE", "FLUSH", "hnsw")
        wire.execute_command("VECTOR.TENANT", "CREATE", "slow", "KEY", "k" * 20, "QPS", 1)
        wire.execute_command(
            "VECTOR.TENANT",
            "CREATE",
            "poor",
            "KEY",
            "p" * 20,
            "BUDGET",
            0.001,
            "ONBUDGET",
            "REJECT",
        )
        refused(wire, "VECTOR.GET", "nothing", "a")
        refused(wire, "VECTOR.GET")
        refused(wire, "NOSUCH")
    for name in ("slow", "poor"):
        with signed_in(server, name, name[0].replace("s", "k") * 20) as client:
            client.execute_command("VECTOR.CREATE", "mine", "DIM", 2)
            for _ in range(4):
                refused(client, "VECTOR.ADD", "mine", "a", "FP32", blob(1, 2))
    with server.connect() as bare:
        exchange(bare, b"*1\r\n$1\r\na\r\n*x\r\n")


def refused(client: redis.Redis, *words: Any) -> None:
    """Whether it is refused is not the question."""
    try:
        client.execute_command(*words)
    except redis.ResponseError:
        return


def told(info: dict[str, Any], one: Described, labels: dict[str, str]) -> Any:
    """What INFO has for a sample; 0 for what it leaves out, as it does with what never was."""
    field, part = one.info.format(**labels), ""
    if "." in one.info:
        field, _, part = field.rpartition(".")
    found = info.get(field, 0)
    return found[part] if part and isinstance(found, dict) else found


def compare(
    before: dict[str, Any], samples: Samples, after: dict[str, Any]
) -> tuple[set[str], list[Any]]:
    """Metrics that were compared, and what differs, of all that INFO tells before and after."""
    compared, differences = set(), []
    for one in METRICS:
        for (name, pairs), told_number in samples.items():
            if not one.info or name != one.name or name in MOVING:
                continue
            labels = dict(pairs)
            said = told(before, one, labels)
            # Asking is a command, too.
            if said != told(after, one, labels):
                continue
            compared.add(name)
            # Points in time INFO tells to the second.
            number = int(told_number) if name.endswith("_timestamp_seconds") else told_number
            if said != number:
                differences.append((name, labels, said, number))
    return compared, differences


def test_info_and_metrics_tell_the_same_of_a_mixed_workload(tmp_path: Path) -> None:
    with (
        control_server(tmp_path, admin_password=PASSWORD, metrics={"access": "any"}) as server,
        administrator(server) as wire,
        asking(server) as client,
    ):
        use(server)
        wait_until_quiet(wire)
        expected = {one.name for one in METRICS if one.info} - MOVING
        for _ in range(20):
            before = everything(wire)
            samples = scrape(client)
            compared, differences = compare(before, samples, everything(wire))
            # What tenants have used is committed once a second, and what was flushed is swept.
            if not differences and compared == expected:
                break
    assert differences == []
    assert compared == expected
    # The workload was one: what it was to bring about has happened.
    assert value(samples, "pyrope_cache_hits_total", level="exact") > 50
    assert value(samples, "pyrope_cache_repairs_total") > 5
    assert value(samples, "pyrope_refused_requests_total", why="quota") >= 1
    assert value(samples, "pyrope_refused_requests_total", why="budget") >= 1
    assert value(samples, "pyrope_errors_total", prefix="NOINDEX") == 1
    assert value(samples, "pyrope_search_shortcuts_total") > 10
    assert value(samples, "pyrope_protocol_errors_total") == 1
    assert value(samples, "pyrope_remembered_guards_total", guard="numbers") == 1


def test_what_is_counted_twice_is_counted_alike(tmp_path: Path) -> None:
    with (
        control_server(tmp_path, admin_password=PASSWORD, metrics={"access": "any"}) as server,
        administrator(server) as wire,
        asking(server) as client,
    ):
        use(server)
        wait_until_quiet(wire)
        samples = scrape(client)
        stats = wire.info("commandstats")["cmdstat_vector.search"]
    searches = value(samples, "pyrope_command_duration_seconds_count", command="vector.search")
    assert searches == stats["calls"]
    # Each search is a query, and the MSEARCH has ten.
    queries = searches - stats["failed_calls"] + 10
    assert total(samples, "pyrope_search_duration_seconds_count") == queries
    # A query is looked up once, unless it does not want the caches.
    assert queries == (
        total(samples, "pyrope_cache_hits_total")
        + value(samples, "pyrope_cache_misses_total")
        + value(samples, "pyrope_cache_uncached_total")
    )
    assert value(samples, "pyrope_search_batch_queries_sum") == value(
        samples, "pyrope_engine_searches_total"
    )
    engine = "pyrope_engine_queries_total"
    ways = value(samples, engine, way="graph") + value(samples, engine, way="scan")
    assert ways == value(samples, "pyrope_engine_searches_total")


def total(samples: Samples, name: str) -> float:
    return sum(number for (one, _), number in samples.items() if one == name)


def everything(wire: redis.Redis) -> dict[str, Any]:
    """All that INFO tells."""
    info: dict[str, Any] = wire.info("all")
    return info


def wait_until_quiet(wire: redis.Redis) -> None:
    """Until audits and commits are over."""
    before: object = None
    for _ in range(200):
        now = (wire.info("cache"), wire.info("persistence"))
        if now == before:
            return
        before = now
        time.sleep(0.05)
    raise AssertionError("the server does not come to rest")
