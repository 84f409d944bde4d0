"""Quotas and budgets, as a tenant meets them."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from pyrope.testing.clock import ManualClock
from servers import RunningServer, encode, exchange
from tenancy import (
    add,
    administrator,
    as_map,
    blob,
    search,
    searched,
    signed_in,
    tenant,
    tenant_server,
    usage,
)

# 2023-11-30, a second before December.
LAST_SECOND = 1_701_388_799.0


class Desk:
    """A server whose clock stands still, its administrator, and a client of tenant `t`."""

    def __init__(self, server: RunningServer, clock: ManualClock, *limits: Any) -> None:
        self.server = server
        self.clock = clock
        self.admin = administrator(server)
        tenant(self.admin, "CREATE", "t", "KEY", "key")
        self.client = signed_in(server, "t", "key")
        self.client.execute_command("VECTOR.CREATE", "i", "DIM", 2, "METRIC", "L2")
        add(self.client, "i", "a", 1.0, 0.0)
        add(self.client, "i", "b", 0.0, 1.0)
        if limits:
            self.set(*limits)

    def set(self, *limits: Any) -> None:
        tenant(self.admin, "SET", "t", *limits)

    def usage(self, *words: Any) -> dict[str, Any]:
        return usage(self.admin, "t", *words)

    def pipelined(self, *commands: tuple[Any, ...]) -> list[bytes]:
        """The replies of commands that arrive in one packet, each of one line."""
        with self.server.connect() as connection:
            assert exchange(connection, encode("AUTH", "t", "key"), replies=b"\r\n") == b"+OK\r\n"
            said = exchange(connection, b"".join(encode(*each) for each in (*commands, ("QUIT",))))
        lines = said.split(b"\r\n")
        assert lines[-2:] == [b"+OK", b""]
        return lines[:-2]


@contextmanager
def desk(*limits: Any, wall: float = 1_700_000_000.0, **settings: Any) -> Iterator[Desk]:
    clock = ManualClock(wall)
    with tenant_server(clock=clock, **settings) as server:
        made = Desk(server, clock, *limits)
        try:
            yield made
        finally:
            made.admin.close()
            made.client.close()


def refusals(before: dict[str, Any], after: dict[str, Any]) -> tuple[int, int]:
    """By quota and by budget; everything else has to be as it was."""
    quota, budget = (
        after.pop(name) - before.pop(name) for name in ("refused_quota", "refused_budget")
    )
    assert after == before
    return quota, budget


def put(number: int) -> tuple[Any, ...]:
    return ("VECTOR.ADD", "i", f"n{number}", "FP32", blob(number, 1.0))


# -- rate and concurrency -------------------------------------------------------------------------


def test_requests_a_second_are_counted_exactly_and_who_comes_too_early_is_told_when() -> None:
    with desk("QPS", "4", "BURST", "3") as at:
        card = ("VECTOR.CARD", "i")
        assert at.pipelined(*[card] * 3) == [b":2"] * 3
        before = at.usage()
        refused = b"-QUOTA 4 requests a second are allowed to tenant 't'; retry in 251 ms"
        assert at.pipelined(*[card] * 5) == [refused] * 5
        assert refusals(before, at.usage()) == (5, 0)
        at.clock.advance(0.25)
        assert at.pipelined(*[card] * 2) == [b":2", refused]
        at.clock.advance(0.125)
        assert at.pipelined(card) == [refused.replace(b"251", b"126")]
        at.clock.advance(0.125)
        assert at.pipelined(*[card] * 2) == [b":2", refused]
        at.clock.advance(3600)
        assert at.pipelined(*[card] * 4) == [b":2"] * 3 + [refused]


def test_a_tenant_is_suspended_by_a_rate_of_0_and_what_touches_no_index_goes_on() -> None:
    with desk("QPS", "0") as at:
        for words in (("VECTOR.CARD", "i"), ("VECTOR.CREATE", "j", "DIM", 2), ("VECTOR.DROP", "i")):
            with pytest.raises(redis.ResponseError, match=r"^QUOTA no requests are allowed"):
                at.client.execute_command(*words)
        assert at.client.ping()
        at.set("QPS", "NONE")
        assert at.client.execute_command("VECTOR.LIST") == [b"i"]


def test_the_rate_of_one_tenant_is_not_anothers() -> None:
    with desk("QPS", "1") as at:
        tenant(at.admin, "CREATE", "u", "KEY", "key", "QPS", "1")
        with signed_in(at.server, "u", "key") as other:
            other.execute_command("VECTOR.CREATE", "i", "DIM", 2)
            assert at.client.execute_command("VECTOR.CARD", "i") == 2
            for client in (at.client, other):
                with pytest.raises(redis.ResponseError, match=r"^QUOTA .* retry in 1000 ms"):
                    client.execute_command("VECTOR.CARD", "i")


def test_so_many_requests_are_under_way_at_a_time_and_each_gives_its_place_back() -> None:
    with desk("CONCURRENCY", "2") as at:
        sent = ("VECTOR.SEARCH", "i", "FP32", blob(1.0, 0.0), "COUNT", "1", "CACHE", "OFF")
        refused = (
            b"-QUOTA 2 requests at a time are allowed to tenant 't'; "
            b"retry when one has been answered"
        )
        for _ in range(3):
            assert at.pipelined(sent, sent, sent, sent) == [
                *[b"*1", b"$1", b"a"] * 2,
                refused,
                refused,
            ]
        # Those that fail give it back, too, and those whose client has gone.
        wrong = ("VECTOR.SEARCH", "none", "FP32", blob(1.0, 0.0))
        assert at.pipelined(*[wrong] * 9) == [b"-NOINDEX no such index 'none'"] * 9
        for _ in range(20):
            with at.server.connect() as connection:
                connection.sendall(encode("AUTH", "t", "key") + encode(*sent) * 2)
        while at.pipelined(sent) != [b"*1", b"$1", b"a"]:
            at.client.ping()
        assert at.pipelined(sent, sent) == [b"*1", b"$1", b"a"] * 2


def test_no_request_at_all_is_under_way_where_none_is_allowed() -> None:
    refused = pytest.raises(redis.ResponseError, match=r"^QUOTA no requests are allowed")
    with desk("CONCURRENCY", "0") as at, refused:
        search(at.client, "i", 1.0, 0.0)


# -- what is kept ---------------------------------------------------------------------------------


def test_vectors_are_counted_over_all_indexes_and_the_one_too_many_changes_nothing() -> None:
    with desk("MAXVECTORS", "4") as at:
        run: Any = at.client.execute_command
        run("VECTOR.CREATE", "j", "DIM", 2)
        assert add(at.client, "j", "a", 1.0, 1.0) == 1
        assert run(*put(1)) == 1
        before = at.usage()
        assert before["vectors"] == 4
        for words in (
            put(2),
            (*put(2), "NX"),
            ("VECTOR.MADD", "i", "FP32", blob(1.0, 1.0), "IDS", 1, "n2"),
            # One of them is there already.
            ("VECTOR.MADD", "i", "FP32", blob(1.0, 1.0, 2.0, 2.0), "IDS", 2, "a", "n2"),
        ):
            with pytest.raises(redis.ResponseError, match=r"^QUOTA 4 vectors are allowed"):
                run(*words)
        assert refusals(before, at.usage()) == (4, 0)
        assert run("VECTOR.GET", "i", "a", "WITHVECTOR", "FP32")[-1] == blob(1.0, 0.0)
        # What is there may be replaced, and what goes makes room.
        assert run("VECTOR.ADD", "i", "a", "FP32", blob(5.0, 5.0)) == 0
        assert run("VECTOR.MADD", "i", "FP32", blob(6.0, 6.0, 7.0, 7.0), "IDS", 2, "a", "b") == 0
        assert run("VECTOR.ADD", "i", "a", "FP32", blob(5.0, 5.0), "NX") is None
        assert run("VECTOR.DEL", "i", "a") == 1
        assert run(*put(2)) == 1
        with pytest.raises(redis.ResponseError, match=r"^QUOTA"):
            run(*put(3))
        run("VECTOR.DROP", "j")
        assert run(*put(3)) == 1


def test_an_update_of_what_is_not_there_adds_nothing_and_so_exceeds_no_quota() -> None:
    with desk("MAXVECTORS", "2") as at:
        assert at.client.execute_command(*put(1), "XX") is None
        # It fills no room for others either.
        assert at.pipelined((*put(1), "XX"), (*put(2), "XX")) == [b"$-1", b"$-1"]


def test_many_vectors_at_once_come_in_together_or_not_at_all() -> None:
    with desk("MAXVECTORS", "10") as at:
        run: Any = at.client.execute_command
        nine = struct.pack("<18f", *range(18))
        ids = [f"m{number}" for number in range(9)]
        with pytest.raises(redis.ResponseError, match=r"^QUOTA .* has 2, and 9 more would be too"):
            run("VECTOR.MADD", "i", "FP32", nine, "IDS", 9, *ids)
        assert run("VECTOR.CARD", "i") == 2
        assert run("VECTOR.MADD", "i", "FP32", nine[:64], "IDS", 8, *ids[:8]) == 8
        # An id that is given twice counts once.
        run("VECTOR.DEL", "i", "a")
        assert run("VECTOR.MADD", "i", "FP32", nine[:16], "IDS", 2, "z", "z") == 1
        assert run("VECTOR.CARD", "i") == 10


def test_a_pipeline_of_writes_stops_at_the_quota() -> None:
    with desk("MAXVECTORS", "50") as at:
        replies = at.pipelined(*[put(number) for number in range(100)])
        assert replies[:48] == [b":1"] * 48
        assert {reply[:7] for reply in replies[48:]} == {b"-QUOTA "}
        assert at.usage()["vectors"] == 50
        assert at.pipelined(*[put(number) for number in range(48)]) == [b":0"] * 48


def test_two_connections_share_what_is_left_to_the_last_vector() -> None:
    with desk("MAXVECTORS", "202") as at:
        outcomes: list[list[bytes]] = []

        def write(connection: int) -> None:
            replies = []
            for start in range(0, 200, 4):
                numbers = range(start, start + 4)
                replies += at.pipelined(*[put(1000 * connection + n) for n in numbers])
            outcomes.append(replies)

        writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        replies = [reply for outcome in outcomes for reply in outcome]
        assert len(replies) == 400
        # Never one too many, and none refused while there was room.
        assert replies.count(b":1") == 200
        assert at.usage()["vectors"] == 202


def test_bytes_are_bounded_for_vectors_attributes_aliases_and_clusters() -> None:
    with desk() as at:
        run: Any = at.client.execute_command
        at.set("MAXBYTES", int(at.usage()["bytes"]) + 1_500)
        before = at.usage()
        many = struct.pack("<2000f", *range(2_000))
        for words in (
            ("VECTOR.MADD", "i", "FP32", many, "IDS", 1_000, *range(1_000)),
            ("VECTOR.SETATTR", "i", "a", '{"x": "%s"}' % ("y" * 6_000)),
            ("VECTOR.ALIAS", "SET", "i", "x" * 4_000, "y" * 4_000),
            ("VECTOR.CLUSTER", "SET", "i", "FP32", many[:2_000]),
        ):
            with pytest.raises(redis.ResponseError, match=r"^QUOTA .* bytes are allowed"):
                run(*words)
        assert refusals(before, at.usage()) == (4, 0)
        assert run("VECTOR.ADD", "i", "c", "FP32", blob(2.0, 2.0)) == 1
        run("VECTOR.ALIAS", "SET", "i", "x", "y")


def test_a_tenants_answers_take_no_more_room_than_it_has() -> None:
    with desk() as at:
        run: Any = at.client.execute_command
        for number in range(400):
            search(at.client, "i", float(number), 0.5)
        full = at.usage()["cache_bytes"]
        assert full > 10_000
        at.set("CACHEBYTES", 5_000)
        # The sweep that sees to it comes ten times a second.
        while at.usage()["cache_bytes"] > 5_000:
            at.client.ping()
        search(at.client, "i", -1.0, 0.5)
        assert 0 < at.usage()["cache_bytes"] <= 5_000
        at.set("CACHEBYTES", 0)
        while at.usage()["cache_bytes"]:
            at.client.ping()
        for _ in range(3):
            assert searched(at.client, "i", 1.0, 0.5)[1]["cache"] == b"miss"
        assert at.usage()["cache_bytes"] == 0
        at.set("CACHEBYTES", "NONE")
        run("VECTOR.CACHE", "FLUSH")
        levels = [searched(at.client, "i", 1.0, 0.5)[1]["cache"] for _ in range(2)]
        assert levels == [b"miss", b"exact"]


# -- money ----------------------------------------------------------------------------------------


def cost_of(info: dict[str, Any]) -> float:
    return float(info["cost"])


@pytest.mark.parametrize("type_", ["FLAT", "HNSW"])
def test_what_withinfo_says_that_it_cost_is_what_is_charged(type_: str) -> None:
    with desk() as at:
        run: Any = at.client.execute_command
        run("VECTOR.CREATE", "k", "DIM", 2, "TYPE", type_, "CACHE", "EXACT")
        data = struct.pack("<2000f", *(float(number % 97) for number in range(2000)))
        run("VECTOR.MADD", "k", "FP32", data, "IDS", 1000, *range(1000))
        # What a search costs is another matter while vectors are on their way into the graph.
        run("VECTOR.BUILD", "k")
        before = at.usage()
        costs, saved = [], []
        for options in (
            (),
            (),
            ("COUNT", 5),
            ("TRUTH",),
            ("CACHE", "OFF", "EF", 100),
            ("FILTER", ".x > 1"),
            ("WITHATTRIBS", "CACHE", "REFRESH"),
        ):
            _, info = searched(at.client, "k", 1.0, 3.0, options=options)
            costs.append(cost_of(info))
            if info["cache"] == b"exact":
                saved.append(float(info["cost_saved"]))
            else:
                assert float(info["cost_saved"]) == 0
        assert saved[0] + costs[1] == pytest.approx(costs[0])
        found = run("VECTOR.MSEARCH", "k", "FP32", data[:80], "WITHINFO")
        costs += [cost_of(as_map(info)) for _, info in found]
        after = at.usage()
        # Each charge is rounded to a millionth.
        assert after["used"] - before["used"] == pytest.approx(sum(costs), abs=1e-6 * len(costs))
        assert after["compute_units"] == after["used"]
        assert after["requests"] - before["requests"] == 8
        assert after["answers"]["off"] - before["answers"]["off"] == 1
        assert after["hits"] - before["hits"] + after["misses"] - before["misses"] == 16
        # Without WITHINFO it costs the same.
        search(at.client, "k", 1.0, 3.0)
        search(at.client, "k", 1.0, 3.0)
        last = at.usage()
        assert last["used"] - after["used"] == pytest.approx(2 * costs[1], abs=2e-6)


def test_what_fails_or_adds_nothing_costs_nothing() -> None:
    with desk() as at:
        run: Any = at.client.execute_command
        before = at.usage()["used"]
        for words in (
            ("VECTOR.SEARCH", "none", "FP32", blob(1.0, 0.0)),
            ("VECTOR.SEARCH", "i", "FP32", blob(1.0)),
            ("VECTOR.SEARCH", "i", "FP32", blob(1.0, 7.0), "CACHE", "ONLY"),
            ("VECTOR.ADD", "i", "c", "FP32", blob(1.0)),
            ("VECTOR.MADD", "i", "FP32", blob(1.0, float("nan")), "IDS", 1, "c"),
        ):
            with pytest.raises(redis.ResponseError):
                run(*words)
        assert run("VECTOR.ADD", "i", "a", "FP32", blob(1.0, 0.0), "NX") is None
        assert run("VECTOR.SETATTR", "i", "none", "{}") == 0
        assert at.usage()["used"] == before
        for words in (put(1), ("VECTOR.SETATTR", "i", "a", "{}"), ("VECTOR.DEL", "i", "a")):
            run(*words)
            after = at.usage()["used"]
            assert after > before
            before = after


def test_a_spent_budget_refuses_until_the_next_month_or_until_it_is_raised() -> None:
    with desk(wall=LAST_SECOND) as at:
        used = at.usage()["used"]
        at.set("BUDGET", used / 2)
        before = at.usage()
        assert before["remaining"] == 0
        said = (
            rf"^BUDGET tenant 't' has used {used:.10g} of its budget of .* units; the next one "
            r"begins on 2023-12-01 \(UTC\)"
        )
        for words in (put(1), ("VECTOR.CARD", "i"), ("VECTOR.SEARCH", "i", "FP32", blob(1.0, 0.0))):
            with pytest.raises(redis.ResponseError, match=said):
                at.client.execute_command(*words)
        assert refusals(before, at.usage()) == (0, 3)
        assert at.client.execute_command("VECTOR.LIST") == [b"i"]

        at.set("BUDGET", used + 1000)
        assert at.client.execute_command(*put(1)) == 1
        assert at.usage()["remaining"] < 1000
        at.set("BUDGET", "0")
        with pytest.raises(redis.ResponseError, match=r"^BUDGET"):
            at.client.execute_command(*put(2))

        at.set("BUDGET", used / 2)
        november = at.usage()
        at.clock.set_wall(LAST_SECOND + 1)
        december = at.usage()
        assert (december["period"], december["used"], december["requests"]) == ("2023-12", 0, 0)
        assert at.client.execute_command(*put(2)) == 1
        kept = at.usage("PERIOD", "2023-11")
        for name in ("used", "requests", "refused_budget", "answers"):
            assert kept[name] == november[name]
        # A clock that is set back a little does not open the month that is over.
        at.clock.set_wall(LAST_SECOND)
        assert at.usage()["period"] == "2023-12"


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_spent_budget_lowers_effort_where_that_is_the_policy_and_says_so(protocol: int) -> None:
    with desk() as at, signed_in(at.server, "t", "key", protocol=protocol) as client:
        client.execute_command("VECTOR.ALTER", "i", "EF", 200)
        assert "budget_adjustment" not in searched(client, "i", 1.0, 0.0)[1]
        at.set("BUDGET", "0.001", "ONBUDGET", "DEGRADE", "EFFLOOR", "20", "DEGRADEDRECALL", "0.5")
        _, info = searched(client, "i", 3.0, 1.0, options=("EF", 120))
        told = as_map(info["budget_adjustment"])
        assert told["reason"] == b"spent"
        from_, to = as_map(told["from"]), as_map(told["to"])
        assert (from_["ef"], to["ef"]) == (120, 20)
        assert from_["min_recall"] is None
        assert float(to["min_recall"]) == 0.5
        assert info["ef"] == 20
        # A scan of everything is what it says, and a failure tells of nothing but itself.
        _, info = searched(client, "i", 3.0, 1.0, options=("TRUTH",))
        assert "budget_adjustment" not in info
        with pytest.raises(redis.ResponseError) as refused:
            searched(client, "none", 9.0, 9.0)
        assert "budget" not in str(refused.value).lower()
        # A ceiling bounds a wish, however little is spent.
        at.set("BUDGET", "NONE", "EFFLOOR", "1", "EFCEILING", "50")
        _, info = searched(client, "i", 4.0, 1.0, options=("EF", 120))
        told = as_map(info["budget_adjustment"])
        assert (told["reason"], as_map(told["to"])) == (b"ceiling", {"ef": 50})
        _, info = searched(client, "i", 4.0, 1.0, options=("EF", 50))
        assert "budget_adjustment" not in info


def test_effort_falls_smoothly_as_spending_runs_ahead_of_the_month() -> None:
    # The middle of the month: 1 is where the budget lasts exactly as long as the month.
    with desk(wall=1_700_092_800.0) as at:
        at.client.execute_command("VECTOR.ALTER", "i", "EF", 200)
        used = at.usage()["used"]
        seen = []
        for share in (0.1, 0.4, 0.6, 0.75, 0.9, 0.99):
            at.set("BUDGET", used / share, "ONBUDGET", "DEGRADE")
            _, info = searched(at.client, "i", share, 1.0)
            used = at.usage()["used"]
            told = as_map(info["budget_adjustment"]) if "budget_adjustment" in info else None
            if told is not None:
                assert told["reason"] == b"pressure"
                assert as_map(told["from"])["ef"] == 200
                assert as_map(told["to"])["ef"] == info["ef"]
            seen.append(info["ef"])
        assert seen[:2] == [200, 200]
        assert seen == sorted(seen, reverse=True)
        assert len(set(seen)) >= 4
        assert 16 <= seen[-1] < 40


def test_an_answer_of_less_effort_is_not_kept_as_one_of_more() -> None:
    with desk() as at:
        at.client.execute_command("VECTOR.ALTER", "i", "EF", 200)
        at.set("BUDGET", "0.001", "ONBUDGET", "DEGRADE")
        assert searched(at.client, "i", 3.0, 1.0)[1]["ef"] == 16
        at.set("BUDGET", "NONE")
        _, info = searched(at.client, "i", 3.0, 1.0)
        assert (info["cache"], info["ef"]) == (b"miss", 200)


def test_an_administrators_work_is_charged_to_the_tenant_that_it_is_bound_to() -> None:
    with desk() as at:
        before = at.usage()["used"]
        at.admin.execute_command("VECTOR.USE", "t")
        add(at.admin, "i", "by the administrator", 3.0, 3.0)
        assert at.usage()["used"] > before
        at.admin.execute_command("VECTOR.USE", "default")
        before = at.usage()["used"]
        at.admin.execute_command("VECTOR.CREATE", "own", "DIM", 2)
        add(at.admin, "own", "x", 3.0, 3.0)
        assert at.usage()["used"] == before
        assert usage(at.admin, "default")["used"] > 0
