"""Who connects where, as whom; and what happens when that goes wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from calling import calling
from pyrope.client import NO_RETRIES, Adjustment, BulkOptions, RetryPolicy
from pyrope.errors import (
    BusyError,
    ExistsError,
    LoadingError,
    NoAuthError,
    NoPermError,
    QuotaError,
    WrongPassError,
)
from pyrope.testing.clock import ManualClock
from scripted_server import HANG_UP, scripted_server
from servers import RunningServer, free_port, running_server
from tenancy import PASSWORD, administrator, tenant, tenant_server

QUICK = RetryPolicy(first_s=0.001, longest_s=0.01)


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningServer]:
    with tenant_server() as server:
        yield server


@pytest.fixture
def tenanted(shared: RunningServer) -> Iterator[RunningServer]:
    """A server with an administrator, and no tenants."""
    yield shared
    with administrator(shared) as admin:
        for name in tenant(admin, "LIST"):
            tenant(admin, "DROP", name)


def as_admin(kind: Any, server: RunningServer, **options: Any) -> Any:
    return calling(kind, port=server.port, tenant="admin", key=PASSWORD, **options)


# -- tenants -------------------------------------------------------------------------------------


def test_tenants_users_and_keys_are_administered(tenanted: RunningServer, kind: Any) -> None:
    with as_admin(kind, tenanted) as admin:
        made = admin.tenants.create("acme", qps=100, burst=200, max_vectors=10, priority="LOW")
        assert made.startswith("pyr_")
        assert admin.tenants.create("globex", key="its-own-key") == "its-own-key"
        with pytest.raises(ExistsError):
            admin.tenants.create("acme")
        assert admin.tenants.list() == ["acme", "globex"]
        admin.tenants.set("acme", burst=None, budget=12.5, on_budget="DEGRADE", ef_floor=20)
        assert admin.tenants.add_user("acme", "bob", "reader", key="bobs-key") == "bobs-key"
        assert admin.tenants.add_user("acme", "eve", "admin").startswith("pyr_")
        told = admin.tenants.get("acme")
        assert (told.name, told.limits["qps"], told.limits["burst"]) == ("acme", 100.0, None)
        assert (told.limits["maxvectors"], told.limits["onbudget"]) == (10, "DEGRADE")
        assert [(user.name, user.role) for user in told.users] == [
            ("bob", "reader"),
            ("eve", "admin"),
        ]
        admin.tenants.delete_user("acme", "eve")
        assert [user.name for user in admin.tenants.get("acme").users] == ["bob"]
        assert admin.tenants.rotate("acme", overlap_s=60) != made
        assert admin.tenants.get("acme").former_key_expires_at is not None
        assert admin.tenants.rotate("acme", user="bob", key="another", overlap_s=0) == "another"
        assert admin.tenants.drop("globex") is True
        assert admin.tenants.drop("globex") is False
        usage = admin.tenants.usage("acme")
        assert (usage.tenant, usage.budget, usage.remaining, usage.vectors) == (
            "acme",
            12.5,
            12.5,
            0,
        )
        assert re.fullmatch(r"\d{4}-\d\d", usage.period)
        assert admin.tenants.usage("acme", "2001-02").used == 0


def test_tenant_and_key_sign_in_by_options_and_by_url(tenanted: RunningServer, kind: Any) -> None:
    with as_admin(kind, tenanted) as admin:
        admin.tenants.create("acme", key="k/@:%")
        admin.tenants.add_user("acme", "bob", "reader", key="b")
    with calling(kind, port=tenanted.port, tenant="acme", key="k/@:%", name="shop") as calls:
        calls.create("mine", 2)
        assert calls.info("mine").tenant == "acme"
    with calling(kind, f"redis://acme:k%2F%40%3A%25@127.0.0.1:{tenanted.port}") as calls:
        assert calls.list() == ["mine"]
    with calling(kind, port=tenanted.port, tenant="acme.bob", key="b") as calls:
        assert calls.list() == ["mine"]
        with pytest.raises(NoPermError):
            calls.add("mine", "a", [1, 2])
        with pytest.raises(NoPermError):
            calls.tenants.list()


def test_the_administrator_acts_as_a_tenant_on_every_connection(
    tenanted: RunningServer, kind: Any
) -> None:
    with as_admin(kind, tenanted) as admin:
        admin.tenants.create("acme")
    with as_admin(kind, tenanted, use="acme") as calls:
        calls.create("mine", 2)
        calls.close() if hasattr(calls, "close") else calls.aclose()
        assert calls.info("mine").tenant == "acme"
    with (
        as_admin(kind, tenanted, use="nobody", retry=NO_RETRIES) as calls,
        pytest.raises(Exception, match="nobody"),
    ):
        calls.list()


def test_a_wrong_key_and_none_at_all_are_told_apart(tenanted: RunningServer, kind: Any) -> None:
    with (
        calling(kind, port=tenanted.port, tenant="admin", key="guess") as calls,
        pytest.raises(WrongPassError),
    ):
        calls.list()
    with calling(kind, port=tenanted.port) as calls, pytest.raises(NoAuthError):
        calls.list()


# -- quotas --------------------------------------------------------------------------------------


def test_who_is_too_fast_waits_for_as_long_as_the_server_says(
    tenanted: RunningServer, kind: Any
) -> None:
    with as_admin(kind, tenanted) as admin:
        admin.tenants.create("acme", key="k", qps=200, burst=1)
    with calling(kind, port=tenanted.port, tenant="acme", key="k", retry=QUICK) as calls:
        calls.create("i", 2, type="FLAT")
        for number in range(10):
            calls.add("i", f"v{number}", [1, number])
        assert calls.add_many("i", ["a", "b", "c", "d"], np.ones((4, 2)),
                              options=BulkOptions(block_vectors=1, in_flight=4)) == 4  # fmt: skip
        assert calls.count("i") == 14


def test_without_retries_the_refusal_says_when_to_come_back(kind: Any) -> None:
    clock = ManualClock()
    with tenant_server(None, clock) as server:
        with as_admin(kind, server) as admin:
            admin.tenants.create("acme", key="k", qps=4, burst=1)
        options = {"port": server.port, "tenant": "acme", "key": "k"}
        with calling(kind, retry=NO_RETRIES, **options) as calls:
            calls.create("i", 2)
            with pytest.raises(QuotaError) as refused:
                calls.count("i")
            assert refused.value.retry_after_s == pytest.approx(0.25, abs=0.002)
        with as_admin(kind, server) as admin:
            admin.tenants.set("acme", qps=None, burst=None, max_vectors=0)
        with calling(kind, **options) as calls, pytest.raises(QuotaError) as full:
            calls.add("i", "a", [1, 2])
        assert full.value.retry_after_s is None


def test_what_a_ceiling_has_changed_is_told(tenanted: RunningServer, kind: Any) -> None:
    with as_admin(kind, tenanted) as admin:
        admin.tenants.create("acme", key="k", ef_ceiling=20)
    with calling(kind, port=tenanted.port, tenant="acme", key="k") as calls:
        calls.create("i", 2, type="HNSW")
        calls.add("i", "a", [1, 2])
        info = calls.search("i", [1, 2], ef=50, info=True).info
    assert info.adjustment == Adjustment("ceiling", {"ef": 50}, {"ef": 20})
    assert info.cost > 0


# -- failures ------------------------------------------------------------------------------------


def test_a_read_is_sent_again_when_its_connection_fails(kind: Any) -> None:
    with (
        scripted_server(HANG_UP, b":7\r\n") as server,
        calling(kind, port=server.port, retry=QUICK) as calls,
    ):
        assert calls.count("i") == 7
    assert [each[0] for each in server.received] == [b"VECTOR.CARD"] * 2


def test_a_write_that_says_what_is_to_be_is_sent_again(kind: Any) -> None:
    with (
        scripted_server(HANG_UP, b"#t\r\n") as server,
        calling(kind, port=server.port, retry=QUICK) as calls,
    ):
        assert calls.add("i", "a", [1, 2]) is True
    assert len(server.received) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda calls: calls.add("i", "a", [1, 2], if_new=True),
        lambda calls: calls.add("i", "a", [1, 2], if_there=True),
        lambda calls: calls.create("i", 2),
        lambda calls: calls.drop("i"),
        lambda calls: calls.build("i"),
        lambda calls: calls.clusters.rebuild("i"),
        lambda calls: calls.tenants.create("t"),
        lambda calls: calls.tenants.rotate("t"),
        lambda calls: calls.tenants.drop("t"),
    ],
)  # fmt: skip
def test_what_could_do_something_else_a_second_time_is_sent_once(call: Any, kind: Any) -> None:
    with (
        scripted_server(HANG_UP, b"+never\r\n") as server,
        calling(kind, port=server.port, retry=QUICK) as calls,
        pytest.raises(redis.ConnectionError),
    ):
        call(calls)
    assert len(server.received) == 1


def test_everything_is_sent_again_after_a_refusal_that_passes(kind: Any) -> None:
    with (
        scripted_server(
            b"-LOADING restoring\r\n", b"-BUSY shed; retry with backoff\r\n", b"+OK\r\n"
        ) as server,
        calling(kind, port=server.port, retry=QUICK) as calls,
    ):
        assert calls.create("i", 2) is None
    assert len(server.received) == 3


def test_what_lasts_is_raised_in_the_end(kind: Any) -> None:
    with (
        scripted_server(*[b"-LOADING restoring\r\n"] * 3) as server,
        calling(kind, port=server.port, retry=RetryPolicy(3, 0.001, 0.01)) as calls,
        pytest.raises(LoadingError, match="restoring"),
    ):
        calls.list()
    assert len(server.received) == 3


def test_of_a_bulk_only_the_pieces_that_were_refused_are_sent_again(kind: Any) -> None:
    with (
        scripted_server(b":1\r\n", b"-BUSY no\r\n", b":1\r\n", b":1\r\n") as server,
        calling(kind, port=server.port, retry=QUICK) as calls,
    ):
        options = BulkOptions(block_vectors=1, in_flight=3)
        assert calls.add_many("i", ["a", "b", "c"], np.ones((3, 1)), options=options) == 3
    assert [each[6] for each in server.received] == [b"a", b"b", b"c", b"b"]


def test_a_bulk_goes_on_where_its_connection_failed(kind: Any) -> None:
    with (
        scripted_server(b":1\r\n", b":1\r\n", HANG_UP, b":1\r\n", b":1\r\n") as server,
        calling(kind, port=server.port, retry=QUICK) as calls,
    ):
        options = BulkOptions(block_vectors=1, in_flight=2)
        assert calls.add_many("i", list("abcd"), np.ones((4, 1)), options=options) == 4
    assert [each[6] for each in server.received] == [b"a", b"b", b"c", b"c", b"d"]


def test_a_bulk_that_fails_for_good_says_so_on_the_error(kind: Any) -> None:
    with (
        scripted_server(b":1\r\n", b"-BUSY no\r\n") as server,
        calling(kind, port=server.port, retry=NO_RETRIES) as calls,
    ):
        options = BulkOptions(block_vectors=1, in_flight=1)
        with pytest.raises(BusyError) as refused:
            calls.add_many("i", ["a", "b"], np.ones((2, 1)), options=options)
    assert refused.value.__notes__ == ["1 of 2 vectors are written for certain; others may be"]


def test_a_server_that_is_not_there_is_a_connection_error(kind: Any) -> None:
    with (
        calling(kind, port=free_port(), retry=RetryPolicy(2, 0.001)) as calls,
        pytest.raises(redis.ConnectionError),
    ):
        calls.list()


def test_a_server_that_does_not_answer_in_time_is_a_timeout(kind: Any) -> None:
    with (
        scripted_server(b"") as server,
        calling(kind, port=server.port, retry=NO_RETRIES, timeout_s=0.05) as calls,
        pytest.raises(redis.TimeoutError),
    ):
        calls.list()


# -- places --------------------------------------------------------------------------------------


def test_a_unix_socket_is_reached_by_option_and_by_url(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "a socket%20.sock"
    with running_server(unixsocket=path):
        with calling(kind, unix_socket=path) as calls:
            calls.create("i", 2)
        with calling(kind, f"unix://{str(path).replace('%', '%25').replace(' ', '%20')}") as calls:
            assert calls.list() == ["i"]


def test_tls_checks_the_server_and_shows_a_certificate(certificates: Path, kind: Any) -> None:
    port = free_port()
    tls = {
        "port": port,
        "cert_file": certificates / "server.crt",
        "key_file": certificates / "server.key",
        "ca_file": certificates / "ca.crt",
        "auth_clients": "yes",
    }
    own = {"tls_cert": certificates / "client.crt", "tls_key": certificates / "client.key"}
    trusted = {"tls_ca": certificates / "ca.crt"}
    with running_server(tls=tls):
        with calling(kind, port=port, tls=True, **trusted, **own) as calls:
            assert calls.list() == []
        with calling(kind, f"rediss://127.0.0.1:{port}", **trusted, **own) as calls:
            assert calls.list() == []
        for missing in (trusted, own):
            with (
                calling(kind, port=port, tls=True, retry=NO_RETRIES, **missing) as calls,
                pytest.raises(redis.ConnectionError),
            ):
                calls.list()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://127.0.0.1", {}),
        ("redis://127.0.0.1", {"port": 1}),
        ("redis://a:b@127.0.0.1", {"tenant": "c"}),
        ("redis://127.0.0.1", {"tls": True}),
        (None, {"unix_socket": "/x", "port": 1}),
        (None, {"unix_socket": "/x", "tls": True}),
        (None, {"tls_ca": "/x"}),
    ],
)
def test_places_that_contradict_one_another_are_refused(
    url: str | None, options: dict[str, Any], kind: Any
) -> None:
    with pytest.raises(ValueError, match=r"URL|mean nothing"):
        kind(url, **options)


def test_an_unknown_option_is_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match="unknown: password"):
        kind(password="a guess at the name")
