from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from pyrope.errors import LoadingError, NoPermError, WrongPassError
from pyrope.tenants.changes import Prepared, UnknownTenantError
from pyrope.tenants.identity import Identity
from pyrope.tenants.keys import KeyHasher
from pyrope.tenants.limits import TenantLimits
from pyrope.tenants.lockout import LockedOutError, LockoutPolicy
from pyrope.tenants.records import TenantRecordError, encode_tenant
from pyrope.tenants.registry import TenantRegistry
from pyrope.tenants.tenant import Role, Tenant
from pyrope.testing.clock import ManualClock

HERE = "10.0.0.1:5000"
WRONG = r"^invalid username-password pair or user is disabled\.$"
EXPIRED = "this key has expired"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def registry(clock: ManualClock) -> TenantRegistry:
    """Tenants acme (key k; its user bob, a reader: b) and acme.eu (e; bob, an admin: eb)."""
    registry = TenantRegistry(
        clock, b"root", random_bytes=Random(1).randbytes, lockout=LockoutPolicy(failures=3)
    )
    registry.load([])
    changes = registry.changes
    apply(registry, changes.create("acme", key=b"k"))
    apply(registry, changes.add_user("acme", "bob", Role.READER, b"b"))
    apply(registry, changes.create("acme.eu", key=b"e"))
    apply(registry, changes.add_user("acme.eu", "bob", Role.ADMIN, b"eb"))
    return registry


def apply(registry: TenantRegistry, prepared: Prepared) -> None:
    registry.apply(prepared.tenant)


def sign_in(registry: TenantRegistry, login: str, key: str) -> Identity:
    return registry.authenticate(login.encode(), key.encode(), HERE)


# -- who somebody is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("login", "key", "tenant", "role"),
    [
        ("acme", "k", "acme", Role.OPERATOR),
        ("acme.bob", "b", "acme", Role.READER),
        ("acme.eu", "e", "acme.eu", Role.OPERATOR),
        ("acme.eu.bob", "eb", "acme.eu", Role.ADMIN),
    ],
)
def test_tenants_and_users_sign_in_with_their_own_keys(
    registry: TenantRegistry, login: str, key: str, tenant: str, role: Role
) -> None:
    identity = sign_in(registry, login, key)
    assert (identity.tenant, identity.role, identity.name) == (tenant, role, login)
    assert not identity.administrator
    for other in {"k", "b", "e", "eb", "root", ""} - {key}:
        with pytest.raises(WrongPassError, match=WRONG):
            sign_in(registry, login, other)
        sign_in(registry, login, key)


@pytest.mark.parametrize("login", ["admin", "default"])
def test_the_administrator_signs_in_by_the_password_and_begins_in_the_default_tenant(
    registry: TenantRegistry, login: str
) -> None:
    identity = sign_in(registry, login, "root")
    assert (identity.tenant, identity.role, identity.name) == ("default", Role.ADMIN, login)
    assert identity.administrator
    with pytest.raises(WrongPassError, match=WRONG):
        sign_in(registry, login, "k")


def test_a_default_tenant_that_is_configured_is_signed_in_to_by_its_own_key(
    registry: TenantRegistry,
) -> None:
    apply(registry, registry.changes.create("default", key=b"d"))
    identity = sign_in(registry, "default", "d")
    assert (identity.tenant, identity.role, identity.administrator) == (
        "default",
        Role.OPERATOR,
        False,
    )
    with pytest.raises(WrongPassError, match=WRONG):
        sign_in(registry, "default", "root")
    assert sign_in(registry, "admin", "root").administrator


UNKNOWN = [b"nobody", b"acme.eve", b"nobody.bob", b"bob", b"ACME", b"ADMIN", b"", b"a b", b"\xff"]


@pytest.mark.parametrize("login", [*UNKNOWN, b"acme", b"acme.bob", b"admin", b"x" * 5000])
@pytest.mark.parametrize("key", [b"", b"wrong", b"x" * 100_000])
def test_unknown_names_and_wrong_keys_cost_the_same_and_are_told_the_same(
    registry: TenantRegistry, login: bytes, key: bytes
) -> None:
    before = registry.statistics()
    with pytest.raises(WrongPassError, match=WRONG):
        registry.authenticate(login, key, HERE)
    after = registry.statistics()
    assert after.hashes_total == before.hashes_total + 2
    assert after.failures_total == before.failures_total + 1
    assert after.logins_total == before.logins_total


def test_while_tenants_exist_an_anonymous_client_is_nobody(registry: TenantRegistry) -> None:
    assert registry.anonymous() is None


def test_a_password_alone_leaves_anonymous_clients_nobody(clock: ManualClock) -> None:
    registry = TenantRegistry(clock, b"root")
    registry.load([])
    assert registry.anonymous() is None
    assert sign_in(registry, "default", "root").administrator


def test_a_server_without_tenants_and_password_is_everybodys(clock: ManualClock) -> None:
    registry = TenantRegistry(clock, None)
    registry.load([])
    identity = registry.anonymous()
    assert identity is not None
    assert (identity.tenant, identity.name, identity.administrator) == ("default", "default", True)
    assert registry.current(identity) is identity
    for login in ("default", "admin"):
        assert sign_in(registry, login, "whatever").name == login
    with pytest.raises(WrongPassError, match=WRONG):
        sign_in(registry, "acme", "whatever")


def test_tenants_without_a_password_have_no_administrator(
    registry: TenantRegistry, clock: ManualClock
) -> None:
    without = TenantRegistry(clock, None)
    without.load(records_of(registry))
    assert without.anonymous() is None
    for key in ("", "root", "None"):
        with pytest.raises(WrongPassError, match=WRONG):
            sign_in(without, "admin", key)
    assert sign_in(without, "acme", "k").tenant == "acme"


def test_before_the_tenants_are_known_nobody_is_anybody(clock: ManualClock) -> None:
    registry = TenantRegistry(clock, None)
    assert registry.anonymous() is None
    with pytest.raises(LoadingError):
        sign_in(registry, "default", "")


def test_only_the_administrator_moves_to_another_tenant_that_there_is(
    registry: TenantRegistry,
) -> None:
    admin = sign_in(registry, "admin", "root")
    moved = registry.use(admin, "acme")
    assert (moved.tenant, moved.name, moved.administrator) == ("acme", "admin", True)
    assert registry.use(moved, "default") == admin
    with pytest.raises(UnknownTenantError, match="no such tenant 'nobody'"):
        registry.use(admin, "nobody")
    for name in ("acme.eu", "nobody", "acme"):
        with pytest.raises(NoPermError):
            registry.use(sign_in(registry, "acme.eu.bob", "eb"), name)


# -- rotation -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("login", "user_name"), [("acme", None), ("acme.bob", "bob")])
def test_both_keys_count_while_they_overlap_and_then_the_new_one_alone(
    registry: TenantRegistry, clock: ManualClock, login: str, user_name: str | None
) -> None:
    old = "k" if user_name is None else "b"
    apply(registry, registry.changes.rotate("acme", 60.0, user_name=user_name, key=b"new"))
    clock.advance(59.75)
    assert sign_in(registry, login, old).valid_until == clock.wall() + 0.25
    assert sign_in(registry, login, "new").valid_until is None
    clock.advance(0.25)
    for _ in range(2):
        with pytest.raises(WrongPassError, match=EXPIRED):
            sign_in(registry, login, old)
    with pytest.raises(WrongPassError, match=WRONG):
        sign_in(registry, login, "wrong")
    assert sign_in(registry, login, "new").name == login


def test_a_second_rotation_ends_the_overlap_of_the_first(registry: TenantRegistry) -> None:
    apply(registry, registry.changes.rotate("acme", 60.0, key=b"k2"))
    apply(registry, registry.changes.rotate("acme", 60.0, key=b"k3"))
    with pytest.raises(WrongPassError, match=WRONG):
        sign_in(registry, "acme", "k")
    assert sign_in(registry, "acme", "k2").tenant == "acme"
    assert sign_in(registry, "acme", "k3").tenant == "acme"


def test_a_key_that_is_set_counts_at_once_and_alone(registry: TenantRegistry) -> None:
    apply(registry, registry.changes.rotate("acme", 60.0, key=b"k2"))
    apply(registry, registry.changes.set("acme", {}, b"k3"))
    with pytest.raises(WrongPassError, match=EXPIRED):
        sign_in(registry, "acme", "k2")
    with pytest.raises(WrongPassError, match=WRONG):
        sign_in(registry, "acme", "k")
    assert sign_in(registry, "acme", "k3").tenant == "acme"


def test_a_former_key_may_come_back(registry: TenantRegistry) -> None:
    apply(registry, registry.changes.rotate("acme", 0.0, key=b"k2"))
    apply(registry, registry.changes.rotate("acme", 0.0, key=b"k"))
    assert sign_in(registry, "acme", "k").valid_until is None


def test_a_key_that_has_expired_stays_so_when_the_clock_is_set_back(
    registry: TenantRegistry, clock: ManualClock
) -> None:
    start = clock.wall()
    apply(registry, registry.changes.rotate("acme", 60.0, key=b"new"))
    session = sign_in(registry, "acme", "k")
    clock.advance(60.0)
    assert registry.current(session) is None
    clock.set_wall(start)
    assert registry.current(session) is None
    with pytest.raises(WrongPassError, match=EXPIRED):
        sign_in(registry, "acme", "k")


def test_an_expired_key_does_not_lock_out_those_who_have_its_successor(
    registry: TenantRegistry,
) -> None:
    apply(registry, registry.changes.rotate("acme", 0.0, key=b"new"))
    for _ in range(50):
        with pytest.raises(WrongPassError, match=EXPIRED):
            sign_in(registry, "acme", "k")
    assert sign_in(registry, "acme", "new").tenant == "acme"
    assert registry.statistics().failures_total == 0


# -- lock-out -------------------------------------------------------------------------------------


def lock_out(registry: TenantRegistry, login: bytes, address: str = HERE) -> None:
    for _ in range(3):
        with pytest.raises(WrongPassError, match=WRONG):
            registry.authenticate(login, b"wrong", address)


@pytest.mark.parametrize(
    ("login", "key"), [(b"acme", b"k"), (b"acme.bob", b"b"), (b"admin", b"root")]
)
def test_who_is_locked_out_is_refused_with_the_right_key_too_and_costs_no_hash(
    registry: TenantRegistry, clock: ManualClock, login: bytes, key: bytes
) -> None:
    lock_out(registry, login)
    before = registry.statistics().hashes_total
    for one in (key, b"wrong"):
        with pytest.raises(LockedOutError, match="retry in 10 s"):
            registry.authenticate(login, one, "10.0.0.1:6000")
    assert registry.statistics().hashes_total == before
    assert registry.authenticate(login, key, "10.0.0.2:6000").name == login.decode()
    clock.advance(10.0)
    assert registry.authenticate(login, key, HERE).name == login.decode()


def test_a_name_that_does_not_exist_is_locked_out_as_one_that_does(
    registry: TenantRegistry,
) -> None:
    for login in (b"nobody", b"nobody.bob", b"a b"):
        lock_out(registry, login)
        with pytest.raises(LockedOutError, match="retry in 10 s"):
            registry.authenticate(login, b"wrong", HERE)


def test_the_two_names_of_the_administrator_do_not_allow_twice_the_guesses(
    registry: TenantRegistry,
) -> None:
    lock_out(registry, b"admin")
    with pytest.raises(LockedOutError):
        sign_in(registry, "default", "root")


def test_signing_in_clears_what_went_before(registry: TenantRegistry) -> None:
    for _ in range(5):
        for _ in range(2):
            with pytest.raises(WrongPassError, match=WRONG):
                sign_in(registry, "acme", "wrong")
        sign_in(registry, "acme", "k")


# -- what is open ends with its key ---------------------------------------------------------------


def test_an_identity_lasts_while_its_key_does(registry: TenantRegistry, clock: ManualClock) -> None:
    owner, user = sign_in(registry, "acme", "k"), sign_in(registry, "acme.bob", "b")
    apply(registry, registry.changes.set("acme", {"qps": 5}))
    renewed = registry.current(owner)
    assert renewed == replace(owner, revision=registry.revision)
    apply(registry, registry.changes.rotate("acme", 60.0, key=b"new"))
    overlapping = registry.current(owner)
    assert overlapping is not None
    assert overlapping.valid_until == clock.wall() + 60
    assert registry.current(overlapping) is overlapping
    clock.advance(60.0)
    assert registry.current(overlapping) is None
    assert registry.current(owner) is None
    assert registry.current(user) is not None


def test_a_key_that_is_replaced_at_once_ends_what_is_open(registry: TenantRegistry) -> None:
    owner = sign_in(registry, "acme", "k")
    apply(registry, registry.changes.set("acme", {}, b"new"))
    assert registry.current(owner) is None


def test_no_identity_outlives_its_user_or_its_tenant_or_meets_a_namesake(
    registry: TenantRegistry,
) -> None:
    changes = registry.changes
    owner, user = sign_in(registry, "acme", "k"), sign_in(registry, "acme.bob", "b")
    apply(registry, changes.delete_user("acme", "bob"))
    assert registry.current(user) is None
    assert registry.current(owner) is not None
    apply(registry, changes.add_user("acme", "bob", Role.ADMIN, b"b"))
    assert registry.current(user) is None
    registry.remove("acme")
    assert registry.current(owner) is None
    apply(registry, changes.create("acme", key=b"k"))
    assert registry.current(owner) is None
    assert registry.current(sign_in(registry, "acme", "k")) is not None


def test_the_administrator_is_not_moved_when_the_tenant_it_uses_is_dropped(
    registry: TenantRegistry,
) -> None:
    admin = sign_in(registry, "admin", "root")
    bound = registry.use(admin, "acme")
    registry.remove("acme")
    assert registry.current(bound) is None
    assert registry.current(admin) == replace(admin, revision=registry.revision)


def test_an_anonymous_administrator_is_nobody_once_tenants_are_there(
    registry: TenantRegistry, clock: ManualClock
) -> None:
    opened = TenantRegistry(clock, None)
    opened.load([])
    identity = opened.anonymous()
    assert identity is not None
    opened.load(records_of(registry))
    assert opened.current(identity) is None


# -- what there is --------------------------------------------------------------------------------


def records_of(registry: TenantRegistry) -> list[tuple[str, bytes]]:
    tenants = (registry.get(name) for name in registry.names())
    return [(one.name, encode_tenant(one)) for one in tenants if one is not None]


def test_tenants_come_back_from_their_records(registry: TenantRegistry, clock: ManualClock) -> None:
    again = TenantRegistry(clock, b"root")
    again.load(reversed(records_of(registry)))
    assert again.names() == registry.names() == ["acme", "acme.eu"]
    assert [again.get(name) for name in again.names()] == [
        registry.get(name) for name in registry.names()
    ]
    assert sign_in(again, "acme.eu.bob", "eb").role is Role.ADMIN
    apply(again, again.changes.create("more"))
    assert again.names() == ["acme", "acme.eu", "more"]


def test_a_damaged_record_stops_the_load_and_nothing_is_forgotten(
    registry: TenantRegistry,
) -> None:
    with pytest.raises(TenantRecordError, match="record of tenant 'bad' is damaged"):
        registry.load([*records_of(registry), ("bad", b"{}")])
    assert registry.names() == ["acme", "acme.eu"]


def test_names_come_in_order_page_by_page_whatever_comes_and_goes(
    registry: TenantRegistry,
) -> None:
    names = [f"t{number:02}" for number in range(20)]
    for name in Random(1).sample(names, 20):
        apply(registry, registry.changes.create(name))
    assert registry.names(after="acme.eu") == names

    def pages() -> Iterator[str]:
        after = "acme.eu"
        while page := registry.names(after, 6):
            yield from page
            after = page[-1]
            if after in names:
                registry.remove(after)
                apply(registry, registry.changes.create(f"a-{after}"))

    assert list(pages()) == names


def test_limits_are_those_of_the_tenant_or_none(registry: TenantRegistry) -> None:
    apply(registry, registry.changes.set("acme", {"qps": 5}))
    assert registry.limits("acme") == TenantLimits(qps=5.0)
    assert registry.limits("default") == TenantLimits()


def test_a_registry_counts_what_happens(registry: TenantRegistry) -> None:
    sign_in(registry, "acme", "k")
    lock_out(registry, b"acme")
    with pytest.raises(LockedOutError):
        sign_in(registry, "acme", "k")
    statistics = registry.statistics()
    assert statistics.tenants_current == 2
    assert statistics.logins_total == 1
    assert statistics.failures_total == 3
    assert statistics.locked_out_total == 1
    assert statistics.lockout_entries_current == 2


def many_records(count: int) -> list[tuple[str, bytes]]:
    """Tenants that all have keys, rates and budgets of their own."""
    hasher = KeyHasher(Random(1).randbytes)
    return [
        (name, encode_tenant(Tenant.of(name, 1_700_000_000.0 + number, hasher.hash(b"k"), limits)))
        for number in range(count)
        for name in [f"tenant-{number:06}"]
        for limits in [TenantLimits(qps=10.0 + number, budget=1e6 + number)]
    ]


def test_a_tenant_that_does_nothing_takes_less_than_500_bytes(clock: ManualClock) -> None:
    records = many_records(10_000)
    registry = TenantRegistry(clock, b"root")
    # The caches of what is busy are of a fixed size, and filled by this.
    TenantRegistry(clock, b"root").load(records)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        registry.load((name.encode().decode(), blob) for name, blob in records)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken / len(registry) < 500


def test_tenants_are_read_at_50_microseconds_each_or_less(clock: ManualClock) -> None:
    records = many_records(5_000)
    registry = TenantRegistry(clock, b"root")
    seconds = []
    for _ in range(3):
        began = time.process_time()
        registry.load(records)
        seconds.append(time.process_time() - began)
    assert min(seconds) / len(records) < 50e-6
