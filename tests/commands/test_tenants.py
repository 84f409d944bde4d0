"""VECTOR.TENANT and VECTOR.USE, through redis-py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from pyrope.testing.clock import ManualClock
from servers import RunningServer, encode, exchange, running_server
from tenancy import (
    PASSWORD,
    add,
    administrator,
    as_map,
    signed_in,
    tenant,
    tenant_server,
    usage,
)

DAY_S = 86_400


@pytest.fixture
def tenants(clock: ManualClock) -> Iterator[RunningServer]:
    """A server with an administrator and no tenant, whose clock stands still."""
    with tenant_server(clock=clock) as server:
        yield server


@pytest.fixture
def admin(tenants: RunningServer) -> Iterator[redis.Redis]:
    with administrator(tenants) as client:
        yield client


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def any_admin(tenants: RunningServer, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with administrator(tenants, protocol=request.param) as client:
        yield client


def works(server: Any, login: str, key: str | bytes) -> bool:
    """Whether somebody is let in by a key."""
    with server.connect() as connection:
        said = exchange(connection, encode("AUTH", login, key), replies=b"\r\n")
    assert said == b"+OK\r\n" or said.startswith(b"-WRONGPASS ")
    return bool(said == b"+OK\r\n")


# -- CREATE, GET, LIST ----------------------------------------------------------------------------


def test_a_tenant_signs_in_with_the_key_that_it_was_given(
    tenants: RunningServer, any_admin: redis.Redis
) -> None:
    assert tenant(any_admin, "CREATE", "acme", "KEY", "s3cret") == b"OK"
    assert works(tenants, "acme", "s3cret")
    for login, key in (("acme", "S3cret"), ("acme", ""), ("Acme", "s3cret"), ("acme.", "s3cret")):
        assert not works(tenants, login, key)
    with signed_in(tenants, "acme", "s3cret") as client:
        assert client.acl_whoami() == "acme"


def test_without_a_key_one_is_made_and_shown_this_once(
    tenants: RunningServer, any_admin: redis.Redis
) -> None:
    key = tenant(any_admin, "CREATE", "acme")
    other = tenant(any_admin, "CREATE", "other")
    assert key.startswith(b"pyr_")
    assert len(key) == 47
    assert key != other
    assert works(tenants, "acme", key)
    assert not works(tenants, "acme", other)
    assert key not in str(tenant(any_admin, "GET", "acme")).encode()


def test_get_shows_limits_and_users_and_no_key(any_admin: redis.Redis, clock: ManualClock) -> None:
    limits = (
        "QPS", "12.5", "BURST", "20", "CONCURRENCY", "3", "BUDGET", "1e6", "MAXVECTORS", "1000",
        "MAXBYTES", "1048576", "CACHEBYTES", "4096", "PRIORITY", "low", "ONBUDGET", "Degrade",
        "SOFTLIMIT", "0.8", "EFFLOOR", "20", "EFCEILING", "200",
    )  # fmt: skip
    tenant(any_admin, "CREATE", "acme", "KEY", "k", *limits)
    tenant(any_admin, "USER", "ADD", "acme", "bob", "KEY", "k", "ROLE", "READER")
    told = as_map(tenant(any_admin, "GET", "acme"))
    (user,) = (as_map(one) for one in told.pop("users"))
    assert user == {
        "user": b"bob",
        "role": b"reader",
        "key_expires_at": None,
        "former_key_expires_at": None,
    }
    for name, value in (("qps", 12.5), ("budget", 1e6), ("softlimit", 0.8)):
        # Doubles in RESP3, bulk strings in RESP2.
        assert isinstance(told[name], float) == (any_admin.get_connection_kwargs()["protocol"] == 3)
        assert float(told.pop(name)) == value
    assert float(told.pop("created_at")) == clock.wall()
    assert told == {
        "tenant": b"acme",
        "key_expires_at": None,
        "former_key_expires_at": None,
        "burst": 20,
        "concurrency": 3,
        "maxvectors": 1000,
        "maxbytes": 1_048_576,
        "cachebytes": 4096,
        "priority": b"LOW",
        "onbudget": b"DEGRADE",
        "effloor": 20,
        "efceiling": 200,
        "nprobefloor": 1,
        "nprobeceiling": None,
        "maxscansfloor": 1000,
        "maxscansceiling": None,
        "degradedrecall": None,
    }


def test_tenants_are_listed_in_order(any_admin: redis.Redis) -> None:
    assert tenant(any_admin, "LIST") == []
    for name in ("b", "a.c", "A", "_-."):
        tenant(any_admin, "CREATE", name)
    assert tenant(any_admin, "LIST") == [b"A", b"_-.", b"a.c", b"b"]


def test_tenants_need_an_administrator() -> None:
    with running_server() as server, server.client() as client:
        with pytest.raises(redis.ResponseError, match="PYROPE_ADMIN_PASSWORD"):
            tenant(client, "CREATE", "acme")
        assert tenant(client, "LIST") == []
        assert client.execute_command("VECTOR.LIST") == []


@pytest.mark.parametrize(
    "words",
    [
        ("CREATE", "a b"),
        ("CREATE", "a/b"),
        ("CREATE", "a:b"),
        ("CREATE", "a\nb"),
        ("CREATE", "a\0"),
        ("CREATE", "é"),
        ("CREATE", ""),
        ("CREATE", "a" * 129),
        ("CREATE", "admin"),
        ("CREATE", "ADMIN"),
        ("CREATE", "x", "KEY"),
        ("CREATE", "x", "KEY", ""),
        ("CREATE", "x", "KEY", "k" * 513),
        ("CREATE", "x", "KEY", "NONE"),
        ("CREATE", "x", "KEY", "k", "KEY", "k"),
        ("CREATE", "x", "QPS"),
        ("CREATE", "x", "COLOUR", "red"),
        *(
            ("CREATE", "x", word, value)
            for word in ("QPS", "BUDGET", "MAXVECTORS", "MAXBYTES", "CACHEBYTES", "CONCURRENCY")
            for value in ("-1", "nan", "inf", "1e400", "9" * 40, "ten", "", " 1", "0x10", "1_000")
        ),
        ("CREATE", "x", "MAXVECTORS", "1.5"),
        ("CREATE", "x", "QPS", "1e-9"),
        ("CREATE", "x", "BURST", "5"),
        ("CREATE", "x", "PRIORITY", "HIGHEST"),
        ("CREATE", "x", "ONBUDGET", "IGNORE"),
        ("CREATE", "x", "SOFTLIMIT", "0"),
        ("CREATE", "x", "EFFLOOR", "10", "EFCEILING", "5"),
        ("CREATE", "x", "DEGRADEDRECALL", "1.1"),
        ("SET", "acme", "QPS", "-1"),
        ("SET", "acme", "QPS", "1", "BUDGET", "-1"),
        ("SET", "acme", "KEY", "present"),
        ("SET", "x", "QPS", "1"),
        # A name is not cut to one that there is.
        ("SET", "long" * 32 + "er", "QPS", "1"),
        ("GET", "long" * 32 + "er"),
        ("USAGE", "long" * 32 + "er"),
        ("ROTATE", "long" * 32 + "er"),
        ("USER", "DEL", "long" * 32 + "er", "boss"),
        ("GET", "x"),
        ("GET", "x" * 1000),
        ("USAGE", "x"),
        ("USAGE", "acme", "PERIOD", "2023-13"),
        ("USAGE", "acme", "PERIOD", "2023-00"),
        ("USAGE", "acme", "PERIOD", "23-1"),
        ("USAGE", "acme", "PERIOD"),
        ("USAGE", "acme", "FROM", "2023-01"),
        ("USER", "ADD", "acme", "bob"),
        ("USER", "ADD", "acme", "bob", "ROLE", "owner"),
        ("USER", "ADD", "acme", "b.ob", "ROLE", "reader"),
        ("USER", "ADD", "acme", "", "ROLE", "reader"),
        ("USER", "ADD", "acme", "b" * 129, "ROLE", "reader"),
        ("USER", "ADD", "x", "bob", "ROLE", "reader"),
        ("USER", "ADD", "acme", "bob", "ROLE", "reader", "KEY", ""),
        ("USER", "DEL", "acme", "nobody"),
        ("USER", "DEL", "acme", "boss", "now"),
        ("USER", "MOVE", "acme", "boss"),
        ("ROTATE", "x"),
        ("ROTATE", "acme", "USER", "nobody"),
        ("ROTATE", "acme", "OVERLAP", "-1"),
        ("ROTATE", "acme", "OVERLAP", "nan"),
        ("ROTATE", "acme", "OVERLAP", "1e300"),
        ("ROTATE", "acme", "KEY", "present"),
        ("ROTATE", "acme", "KEY", ""),
    ],
    ids=repr,
)
def test_bad_input_is_refused_with_a_reason_and_changes_nothing(
    admin: redis.Redis, tenants: RunningServer, words: tuple[str, ...]
) -> None:
    tenant(admin, "CREATE", "acme", "KEY", "present")
    tenant(admin, "CREATE", "long" * 32)
    for name in ("acme", "long" * 32):
        tenant(admin, "USER", "ADD", name, "boss", "KEY", "k", "ROLE", "admin")
    before = tenant(admin, "GET", "acme"), tenant(admin, "LIST")
    with pytest.raises(redis.ResponseError) as refused:
        tenant(admin, *words)
    assert len(str(refused.value)) > 10
    assert "internal error" not in str(refused.value)
    assert (tenant(admin, "GET", "acme"), tenant(admin, "LIST")) == before
    assert works(tenants, "acme", "present")


def test_a_name_is_one_tenants_or_one_users(admin: redis.Redis) -> None:
    tenant(admin, "CREATE", "a")
    tenant(admin, "USER", "ADD", "a", "b", "ROLE", "reader")
    tenant(admin, "CREATE", "a.c")
    for words in (
        ("CREATE", "a"),
        ("CREATE", "a.b"),
        ("USER", "ADD", "a", "b", "ROLE", "reader"),
        ("USER", "ADD", "a", "c", "ROLE", "reader"),
    ):
        with pytest.raises(redis.ResponseError, match=r"^EXISTS "):
            tenant(admin, *words)


# -- SET ------------------------------------------------------------------------------------------


def test_limits_that_are_set_are_in_force_with_the_next_request(
    tenants: RunningServer, any_admin: redis.Redis
) -> None:
    tenant(any_admin, "CREATE", "acme", "KEY", "k", "QPS", "1", "MAXVECTORS", "1")
    with signed_in(tenants, "acme", "k") as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 1)
        with pytest.raises(redis.ResponseError, match=r"^QUOTA .* a second"):
            add(client, "i", "a", 1.0)
        assert tenant(any_admin, "SET", "acme", "QPS", "NONE") == b"OK"
        assert add(client, "i", "a", 1.0) == 1
        with pytest.raises(redis.ResponseError, match=r"^QUOTA 1 vector is allowed"):
            add(client, "i", "b", 1.0)
        tenant(any_admin, "SET", "acme", "maxvectors", "2", "priority", "HIGH")
        assert add(client, "i", "b", 1.0) == 1
        told = as_map(tenant(any_admin, "GET", "acme"))
        assert (told["qps"], told["maxvectors"], told["priority"]) == (None, 2, b"HIGH")


def test_a_budget_that_is_set_in_the_middle_of_a_month_counts_what_has_been_used_before(
    tenants: RunningServer, admin: redis.Redis, clock: ManualClock
) -> None:
    tenant(admin, "CREATE", "acme", "KEY", "k")
    with signed_in(tenants, "acme", "k") as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 1)
        add(client, "i", "a", 1.0)
        used = usage(admin, "acme")["used"]
        assert usage(admin, "acme")["remaining"] is None
        clock.advance(3 * DAY_S)
        tenant(admin, "SET", "acme", "BUDGET", used)
        assert usage(admin, "acme")["remaining"] == 0
        with pytest.raises(redis.ResponseError, match=r"^BUDGET "):
            add(client, "i", "b", 1.0)
        tenant(admin, "SET", "acme", "BUDGET", used + 1)
        assert usage(admin, "acme")["remaining"] == pytest.approx(1)
        assert add(client, "i", "b", 1.0) == 1


def test_a_key_that_is_set_replaces_the_other_at_once_and_ends_what_it_has_open(
    tenants: RunningServer, admin: redis.Redis
) -> None:
    tenant(admin, "CREATE", "acme", "KEY", "old")
    with signed_in(tenants, "acme", "old") as client:
        assert client.ping()
        assert tenant(admin, "SET", "acme", "KEY", "new") == b"OK"
        with pytest.raises(redis.AuthenticationError, match="Authentication required"):
            client.ping()
    assert works(tenants, "acme", "new")
    with tenants.connect() as connection:
        said = exchange(connection, encode("AUTH", "acme", "old"), replies=b"\r\n")
        assert said == b"-WRONGPASS this key has expired: use the one that has replaced it\r\n"


# -- DROP -----------------------------------------------------------------------------------------


def test_a_tenant_that_is_dropped_takes_its_indexes_and_connections_with_it(
    tenants: RunningServer, any_admin: redis.Redis
) -> None:
    tenant(any_admin, "CREATE", "acme", "KEY", "k")
    tenant(any_admin, "USER", "ADD", "acme", "bob", "KEY", "k", "ROLE", "operator")
    tenant(any_admin, "CREATE", "other", "KEY", "k")
    with (
        signed_in(tenants, "other", "k") as other,
        tenants.connect() as own,
        tenants.connect() as users,
        tenants.connect() as bound,
    ):
        other.execute_command("VECTOR.CREATE", "i", "DIM", 1)
        for connection, sent in (
            (own, encode("AUTH", "acme", "k") + encode("VECTOR.CREATE", "i", "DIM", 1)),
            (users, encode("AUTH", "acme.bob", "k") + encode("ECHO", "OK")),
            (bound, encode("AUTH", "admin", PASSWORD) + encode("VECTOR.USE", "acme")),
        ):
            exchange(connection, sent + encode("ECHO", "done"), replies=b"done\r\n")
        assert as_map(tenant(any_admin, "USAGE", "acme"))["requests"] == 1
        assert tenant(any_admin, "DROP", "acme") == 1
        assert tenant(any_admin, "DROP", "acme") == 0
        # Who was bound to it is not moved to another tenant in silence.
        said = exchange(bound, encode("FLUSHALL"), replies=b"\r\n")
        assert said == b"-NOAUTH Authentication required.\r\n"
        # Not even as a tenant of the same name and key.
        tenant(any_admin, "CREATE", "acme", "KEY", "k")
        tenant(any_admin, "USER", "ADD", "acme", "bob", "KEY", "k", "ROLE", "operator")
        for connection in (own, users):
            for words in (("PING",), ("VECTOR.LIST",), ("VECTOR.CREATE", "i", "DIM", 1)):
                said = exchange(connection, encode(*words), replies=b"\r\n")
                assert said == b"-NOAUTH Authentication required.\r\n"
        assert other.execute_command("VECTOR.LIST") == [b"i"]
        assert works(tenants, "acme", "k")
    with signed_in(tenants, "acme", "k") as client:
        assert client.execute_command("VECTOR.LIST") == []
    tenant(any_admin, "CREATE", "long" * 32)
    assert tenant(any_admin, "DROP", "long" * 32 + "er") == 0
    assert any_admin.info("keyspace")["db0"]["keys"] == 1


# -- USAGE ----------------------------------------------------------------------------------------


def test_usage_has_the_fields_that_are_promised(
    tenants: RunningServer, any_admin: redis.Redis
) -> None:
    tenant(any_admin, "CREATE", "acme", "KEY", "k", "BUDGET", "1000000")
    with signed_in(tenants, "acme", "k") as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 1)
        add(client, "i", "a", 1.0)
        for _ in range(2):
            client.execute_command("VECTOR.SEARCH", "i", "VALUES", 1, 1)
        own = usage(client, "acme")
    told = usage(any_admin, "acme")
    assert told == own
    assert told.keys() >= {
        "period", "budget", "used", "remaining", "requests", "hits", "misses", "compute_units",
        "llm_tokens_in", "llm_tokens_out", "llm_cost", "vectors", "bytes", "cache_bytes",
    }  # fmt: skip
    assert (told["tenant"], told["period"], told["budget"]) == ("acme", "2023-11", 1_000_000)
    assert (told["requests"], told["hits"], told["misses"], told["vectors"]) == (4, 1, 1, 1)
    assert told["used"] + told["remaining"] == pytest.approx(1_000_000)
    assert told["bytes"] > 0
    assert told["cache_bytes"] > 0
    assert told["answers"]["exact"] == told["answers"]["miss"] == 1
    # Of a month in which there was nothing.
    empty = usage(any_admin, "acme", "PERIOD", "2019-02")
    assert (empty["period"], empty["used"], empty["vectors"]) == ("2019-02", 0, 0)


def test_usage_of_months_that_are_over_can_be_told_over_the_end_of_a_year(
    tenants: RunningServer, admin: redis.Redis, clock: ManualClock
) -> None:
    tenant(admin, "CREATE", "acme", "KEY", "k")
    with signed_in(tenants, "acme", "k") as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 1)
        # 2023-12-31 23:59:59, and two seconds later.
        for number, wall in enumerate((1_704_067_199.0, 1_704_067_201.0)):
            clock.set_wall(wall)
            for count in range(1 + number):
                add(client, "i", f"{number}.{count}", 1.0)
    assert usage(admin, "acme", "PERIOD", "2023-11")["requests"] == 1
    assert usage(admin, "acme", "PERIOD", "2023-12")["requests"] == 1
    january = usage(admin, "acme", "PERIOD", "2024-01")
    assert january["requests"] == 2
    assert january == usage(admin, "acme")
    # Nobody asks for anything in a year.
    clock.set_wall(1_735_689_600.0)
    assert usage(admin, "acme")["period"] == "2025-01"
    assert usage(admin, "acme", "PERIOD", "2024-01")["used"] == january["used"]


def test_what_a_tenant_kept_at_most_in_a_month_is_told_when_it_is_over(
    clock: ManualClock,
) -> None:
    with (
        tenant_server(clock=clock, tenants={"usage_flush_s": 0.1}) as server,
        administrator(server) as admin,
    ):
        tenant(admin, "CREATE", "acme", "KEY", "k")
        with signed_in(server, "acme", "k") as client:
            client.execute_command("VECTOR.CREATE", "i", "DIM", 1)
            for number in range(3):
                add(client, "i", f"v{number}", 1.0)
            while usage(admin, "acme")["most_vectors"] != 3:
                admin.ping()
            client.execute_command("VECTOR.DEL", "i", "v0")
            kept = usage(admin, "acme")
            assert (kept["vectors"], kept["most_vectors"]) == (2, 3)
            assert kept["most_bytes"] >= kept["bytes"] > 0
        clock.advance(31 * DAY_S)
        over = usage(admin, "acme", "PERIOD", "2023-11")
        assert (over["vectors"], over["bytes"]) == (3, kept["most_bytes"])


# -- USER -----------------------------------------------------------------------------------------


def test_users_may_do_what_their_role_says(tenants: RunningServer, any_admin: redis.Redis) -> None:
    tenant(any_admin, "CREATE", "acme", "KEY", "k")
    for role in ("reader", "operator", "admin"):
        key = tenant(any_admin, "USER", "ADD", "acme", role, "ROLE", role.upper())
        assert key.startswith(b"pyr_")
        tenant(any_admin, "ROTATE", "acme", "USER", role, "KEY", f"key of {role}", "OVERLAP", 0)
        assert not works(tenants, f"acme.{role}", key)

    def may(login: str, key: str, *words: Any) -> bool:
        with signed_in(tenants, login, key) as client:
            assert client.acl_whoami() == login
            try:
                client.execute_command(*words)
            except redis.exceptions.NoPermissionError:
                return False
            return True

    create = ("VECTOR.CREATE", "i", "DIM", 1, "NX")
    user = ("VECTOR.TENANT", "USER", "ADD", "acme", "eve", "KEY", "k", "ROLE", "reader")
    removed = ("VECTOR.TENANT", "USER", "DEL", "acme", "eve")
    own, limits = ("VECTOR.TENANT", "GET", "acme"), ("VECTOR.TENANT", "SET", "acme", "QPS", "1")
    used = ("VECTOR.TENANT", "USAGE", "acme")
    granted = {
        "acme.reader": (False, False, False, False, False, True),
        "acme.operator": (True, False, False, False, False, True),
        "acme": (True, False, False, False, False, True),
        "acme.admin": (True, True, True, True, False, True),
    }
    for login, allowed in granted.items():
        key = "k" if login == "acme" else f"key of {login[5:]}"
        commands = (create, user, removed, own, limits, used)
        assert tuple(may(login, key, *words) for words in commands) == allowed, login


def test_a_user_that_is_removed_or_changes_its_role_is_so_at_once(
    tenants: RunningServer, any_admin: redis.Redis
) -> None:
    tenant(any_admin, "CREATE", "acme", "KEY", "k")
    assert tenant(any_admin, "USER", "ADD", "acme", "bob", "KEY", "k", "ROLE", "operator") == b"OK"
    with signed_in(tenants, "acme.bob", "k") as client, signed_in(tenants, "acme", "k") as other:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 1)
        assert tenant(any_admin, "USER", "DEL", "acme", "bob") == b"OK"
        assert not works(tenants, "acme.bob", "k")
        tenant(any_admin, "USER", "ADD", "acme", "bob", "KEY", "k", "ROLE", "reader")
        with pytest.raises(redis.AuthenticationError, match="Authentication required"):
            client.execute_command("VECTOR.LIST")
        assert other.execute_command("VECTOR.LIST") == [b"i"]


# -- ROTATE ---------------------------------------------------------------------------------------


def test_both_keys_are_good_while_they_overlap_and_the_new_one_after(
    tenants: RunningServer, any_admin: redis.Redis, clock: ManualClock
) -> None:
    tenant(any_admin, "CREATE", "acme", "KEY", "old")
    with signed_in(tenants, "acme", "old") as client:
        key = tenant(any_admin, "ROTATE", "acme", "OVERLAP", "60")
        assert key.startswith(b"pyr_")
        expires = as_map(tenant(any_admin, "GET", "acme"))["former_key_expires_at"]
        assert float(expires) == clock.wall() + 60
        clock.advance(59.5)
        assert client.ping()
        assert works(tenants, "acme", "old")
        assert works(tenants, "acme", key)
        with signed_in(tenants, "acme", "old") as late, signed_in(tenants, "acme", key) as new:
            assert late.ping()
            clock.advance(0.5)
            for one in (client, late):
                with pytest.raises(redis.AuthenticationError, match="Authentication required"):
                    one.ping()
            assert new.ping()
    assert not works(tenants, "acme", "old")
    assert works(tenants, "acme", key)


def test_the_overlap_is_that_of_the_settings_unless_it_is_given(
    tenants: RunningServer, admin: redis.Redis, clock: ManualClock
) -> None:
    tenant(admin, "CREATE", "acme", "KEY", "1")
    assert tenant(admin, "ROTATE", "acme", "KEY", "2") == b"OK"
    clock.advance(DAY_S - 1)
    assert works(tenants, "acme", "1")
    # One former key is kept: the overlap of an earlier rotation ends with the next.
    tenant(admin, "ROTATE", "acme", "KEY", "3", "OVERLAP", "0")
    assert [works(tenants, "acme", key) for key in "123"] == [False, False, True]


def test_an_admin_of_the_tenant_rotates_keys_itself(
    tenants: RunningServer, admin: redis.Redis
) -> None:
    tenant(admin, "CREATE", "acme", "KEY", "k")
    tenant(admin, "USER", "ADD", "acme", "boss", "KEY", "k", "ROLE", "admin")
    with signed_in(tenants, "acme.boss", "k") as boss:
        tenant(boss, "ROTATE", "acme", "KEY", "new", "OVERLAP", 0)
        assert works(tenants, "acme", "new")
        assert tenant(boss, "ROTATE", "acme", "USER", "boss", "KEY", "k2", "OVERLAP", 5) == b"OK"
        assert boss.ping()


def test_a_wrong_key_is_refused_for_a_while_after_too_many_of_them(
    tenants: RunningServer, admin: redis.Redis, clock: ManualClock
) -> None:
    tenant(admin, "CREATE", "acme", "KEY", "k")
    tenant(admin, "CREATE", "other", "KEY", "k")
    with tenants.connect() as connection:
        for number in range(10):
            said = exchange(connection, encode("AUTH", "acme", str(number)), replies=b"\r\n")
            assert said == b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        said = exchange(connection, encode("AUTH", "acme", "k"), replies=b"\r\n")
        assert said.startswith(b"-WRONGPASS too many failed attempts")
        # Nobody else is kept out, nor the tenant for ever.
        assert exchange(connection, encode("AUTH", "other", "k"), replies=b"\r\n") == b"+OK\r\n"
        clock.advance(10)
        assert exchange(connection, encode("AUTH", "acme", "k"), replies=b"\r\n") == b"+OK\r\n"


# -- USE ------------------------------------------------------------------------------------------


def test_only_the_administrator_moves_to_another_tenant(
    tenants: RunningServer, any_admin: redis.Redis
) -> None:
    tenant(any_admin, "CREATE", "acme", "KEY", "k")
    any_admin.execute_command("VECTOR.CREATE", "i", "DIM", 1)
    assert any_admin.execute_command("VECTOR.USE", "acme") == b"OK"
    assert any_admin.execute_command("VECTOR.LIST") == []
    assert any_admin.client_info()["tenant"] == "acme"
    for name in ("nobody", "", "acme.bob", "a" * 1000):
        with pytest.raises(redis.ResponseError, match="no such tenant"):
            any_admin.execute_command("VECTOR.USE", name)
    assert any_admin.client_info()["tenant"] == "acme"
    with signed_in(tenants, "acme", "k") as client:
        for name in ("acme", "default", "nobody"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command("VECTOR.USE", name)


# -- secrets --------------------------------------------------------------------------------------


def test_secrets_are_neither_told_nor_logged_nor_stored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    secrets = [PASSWORD, *(f"secret-number-{number}" for number in range(7))]
    slowlog = {"slower_than_us": 0}
    with tenant_server(data, slowlog=slowlog) as server, administrator(server) as admin:
        secrets.append(tenant(admin, "CREATE", "made").decode())
        tenant(admin, "CREATE", "acme", "KEY", secrets[1])
        tenant(admin, "SET", "acme", "KEY", secrets[2], "QPS", "1000")
        tenant(admin, "ROTATE", "acme", "KEY", secrets[3])
        secrets.append(tenant(admin, "ROTATE", "acme").decode())
        tenant(admin, "USER", "ADD", "acme", "u", "KEY", secrets[4], "ROLE", "admin")
        secrets.append(tenant(admin, "USER", "ADD", "acme", "v", "ROLE", "reader").decode())
        for words in (
            ("CREATE", "acme", "KEY", secrets[5]),
            ("USER", "ADD", "none", "u", "KEY", secrets[5], "ROLE", "admin"),
            ("USER", "ADD", "acme", "w", "KEY", secrets[5], "ROLE", "king"),
            ("ROTATE", "none", "KEY", secrets[5]),
            ("SET", "acme", "QPS", "-1", "KEY", secrets[5]),
        ):
            with pytest.raises(redis.ResponseError) as refused:
                tenant(admin, *words)
            assert secrets[5] not in str(refused.value)
        with server.connect() as connection:
            exchange(connection, encode("AUTH", "acme", secrets[6]), replies=b"\r\n")
            exchange(connection, encode("HELLO", 3, "AUTH", "acme", secrets[7]), replies=b"\r\n")
            told = [
                admin.execute_command(*words)
                for words in (
                    ("SLOWLOG", "GET", "-1"),
                    ("INFO", "everything"),
                    ("CLIENT", "LIST"),
                    ("CONFIG", "GET", "*"),
                    ("ACL", "LIST"),
                    ("VECTOR.TENANT", "GET", "acme"),
                    ("VECTOR.TENANT", "LIST"),
                    ("LATENCY", "HISTOGRAM"),
                )
            ]
        assert any(b"VECTOR.TENANT" in str(entry).encode() for entry in told[0]) is False
        assert len(told[0]) > 1
    trail = b"".join(path.read_bytes() for path in sorted((data / "audit").iterdir()))
    for act in (b"tenant.create", b"tenant.set", b"key.rotate", b"user.add"):
        assert act in trail
    logged = "".join(capfd.readouterr())
    for secret in secrets:
        assert secret not in str(told)
        assert secret not in logged
        for path in data.rglob("*"):
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path


# -- many users -----------------------------------------------------------------------------------


def test_a_tenant_of_many_users_is_managed_like_any_other(
    tenants: RunningServer, admin: redis.Redis
) -> None:
    # The audit trail tells of every change, in entries of limited size.
    tenant(admin, "CREATE", "acme", "KEY", "k")
    names = [f"{number:0>128}" for number in range(300)]
    for name in names:
        tenant(admin, "USER", "ADD", "acme", name, "KEY", "k", "ROLE", "reader")
    tenant(admin, "SET", "acme", "QPS", "5")
    tenant(admin, "ROTATE", "acme", "USER", names[7], "KEY", "new", "OVERLAP", "0")
    tenant(admin, "USER", "DEL", "acme", names[8])
    assert works(tenants, f"acme.{names[7]}", "new")
    assert not works(tenants, f"acme.{names[8]}", "k")
    assert len(as_map(tenant(admin, "GET", "acme"))["users"]) == 299
    newest = tenants.run(tenants.pyrope.server.service.tenancy.audit.newest(None, 2))
    removed, rotated = (cast("dict[str, Any]", entry.payload) for entry in newest)
    assert [one["user"] for one in removed["before"]["users"]] == [names[8]]
    assert removed["after"]["users"] == []
    assert [one["user"] for one in rotated["after"]["users"]] == [names[7]]
    assert tenant(admin, "DROP", "acme") == 1
