from __future__ import annotations

import re
from random import Random

import pytest

from pyrope.errors import CommandError, ExistsError
from pyrope.tenants.changes import MAX_USERS, Prepared, UnknownTenantError
from pyrope.tenants.limits import TenantLimits
from pyrope.tenants.records import decode_tenant
from pyrope.tenants.registry import TenantRegistry
from pyrope.tenants.tenant import Role
from pyrope.testing.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def registry(clock: ManualClock) -> TenantRegistry:
    registry = TenantRegistry(clock, b"root", random_bytes=Random(1).randbytes)
    registry.load([])
    return registry


def apply(registry: TenantRegistry, prepared: Prepared) -> Prepared:
    registry.apply(prepared.tenant)
    return prepared


def test_a_new_tenant_is_what_was_asked_for_and_its_record_says_the_same(
    registry: TenantRegistry, clock: ManualClock
) -> None:
    prepared = registry.changes.create("acme", {"qps": 5}, b"key")
    assert prepared.before is None
    assert prepared.generated_key is None
    assert prepared.tenant.limits == TenantLimits(qps=5.0)
    assert prepared.tenant.created_at == clock.wall()
    assert decode_tenant("acme", prepared.blob) == prepared.tenant


def test_preparing_changes_nothing_until_it_is_applied(registry: TenantRegistry) -> None:
    revision = registry.revision
    prepared = registry.changes.create("acme")
    assert (len(registry), registry.revision) == (0, revision)
    apply(registry, prepared)
    tenant = registry.get("acme")
    assert tenant == prepared.tenant
    changes = registry.changes
    for change in (
        changes.set("acme", {"qps": 1}),
        changes.add_user("acme", "bob", Role.READER),
        changes.rotate("acme", 60.0),
    ):
        assert change.before is tenant
        assert change.tenant != tenant
        assert decode_tenant("acme", change.blob) == change.tenant
        assert registry.get("acme") is tenant


def test_a_key_is_generated_where_none_is_given_and_is_in_no_repr(
    registry: TenantRegistry,
) -> None:
    changes = registry.changes
    created = apply(registry, changes.create("acme"))
    added = apply(registry, changes.add_user("acme", "bob", Role.READER))
    rotated = changes.rotate("acme", 0.0)
    for prepared in (created, added, rotated):
        assert prepared.generated_key is not None
        assert re.fullmatch(rb"pyr_[\w-]{43}", prepared.generated_key)
        assert prepared.generated_key.decode() not in repr(prepared)
    given = (
        changes.add_user("acme", "eve", Role.READER, b"k"),
        changes.rotate("acme", 0.0, key=b"k"),
        changes.set("acme", {}, b"k"),
    )
    assert [one.generated_key for one in given] == [None, None, None]


def test_without_an_administrator_no_tenant_is_created(clock: ManualClock) -> None:
    registry = TenantRegistry(clock, None)
    registry.load([])
    with pytest.raises(CommandError, match="set admin_password"):
        registry.changes.create("acme")


def test_a_tenant_is_created_once(registry: TenantRegistry) -> None:
    apply(registry, registry.changes.create("acme"))
    with pytest.raises(ExistsError, match="tenant 'acme' exists already"):
        registry.changes.create("acme")
    registry.remove("acme")
    registry.changes.create("acme")


def test_no_tenant_takes_the_name_by_which_a_user_signs_in(registry: TenantRegistry) -> None:
    changes = registry.changes
    apply(registry, changes.create("acme.eu"))
    apply(registry, changes.add_user("acme.eu", "bob", Role.READER))
    with pytest.raises(ExistsError, match=r"'acme\.eu\.bob' is how user 'bob'"):
        changes.create("acme.eu.bob")
    apply(registry, changes.delete_user("acme.eu", "bob"))
    apply(registry, changes.create("acme.eu.bob"))
    with pytest.raises(ExistsError, match="is a tenant's name"):
        changes.add_user("acme.eu", "bob", Role.READER)


@pytest.mark.parametrize(
    ("name", "values", "key"),
    [
        ("admin", {}, None),
        ("a b", {}, None),
        ("a/../b", {}, None),
        ("acme", {"qps": -1}, None),
        ("acme", {"budget": float("nan")}, None),
        ("acme", {"ef_floor": 9, "ef_ceiling": 8}, None),
        ("acme", {}, b""),
        ("acme", {}, b"x" * 513),
    ],
)
def test_what_cannot_be_created_is_refused(
    registry: TenantRegistry, name: str, values: dict[str, float], key: bytes | None
) -> None:
    with pytest.raises(CommandError):
        registry.changes.create(name, values, key)
    assert registry.names() == []


def test_setting_limits_leaves_the_others_and_the_keys(registry: TenantRegistry) -> None:
    changes = registry.changes
    before = apply(registry, changes.create("acme", {"qps": 5, "budget": 10})).tenant
    after = apply(registry, changes.set("acme", {"budget": None, "max_vectors": 3})).tenant
    assert after.limits == TenantLimits(qps=5.0, max_vectors=3)
    assert (after.key, after.created_at) == (before.key, before.created_at)
    with pytest.raises(CommandError, match="nothing to set"):
        changes.set("acme", {})


def test_only_what_exists_can_be_changed(registry: TenantRegistry) -> None:
    changes = registry.changes
    for refused in (
        lambda: changes.set("acme", {"qps": 1}),
        lambda: changes.add_user("acme", "bob", Role.READER),
        lambda: changes.delete_user("acme", "bob"),
        lambda: changes.rotate("acme", 0.0),
        lambda: registry.remove("acme"),
    ):
        with pytest.raises(UnknownTenantError, match="no such tenant 'acme'"):
            refused()
    apply(registry, changes.create("acme"))
    for refused in (
        lambda: changes.delete_user("acme", "bob"),
        lambda: changes.rotate("acme", 0.0, user_name="bob"),
    ):
        with pytest.raises(UnknownTenantError, match="no such user 'bob' of tenant 'acme'"):
            refused()


def test_users_come_and_go_one_by_one(registry: TenantRegistry) -> None:
    changes = registry.changes
    apply(registry, changes.create("acme"))
    first = apply(registry, changes.add_user("acme", "bob", Role.READER)).tenant
    both = apply(registry, changes.add_user("acme", "eve", Role.ADMIN)).tenant
    assert set(first.users) == {"bob"}
    assert {user.name: user.role for user in both.users.values()} == {
        "bob": Role.READER,
        "eve": Role.ADMIN,
    }
    with pytest.raises(ExistsError, match="user 'bob' of tenant 'acme' exists already"):
        changes.add_user("acme", "bob", Role.ADMIN)
    with pytest.raises(CommandError, match="invalid user name"):
        changes.add_user("acme", "b.b", Role.ADMIN)
    left = apply(registry, changes.delete_user("acme", "bob")).tenant
    assert left.users == {"eve": both.users["eve"]}
    assert apply(registry, changes.delete_user("acme", "eve")).tenant.users == {}


def test_a_tenant_has_a_bounded_number_of_users(registry: TenantRegistry) -> None:
    changes = registry.changes
    prepared = apply(registry, changes.create("acme"))
    user = changes.add_user("acme", "bob", Role.READER).tenant.users["bob"]
    prepared.tenant.describe()
    full = {f"user-{number}": user for number in range(MAX_USERS)}
    registry.apply(type(prepared.tenant)("acme", 1.0, prepared.tenant.key, users=full))
    with pytest.raises(CommandError, match="at most 1000 users"):
        changes.add_user("acme", "bob", Role.READER)


@pytest.mark.parametrize("overlap", [-1.0, float("nan"), float("inf"), 367 * 86_400.0])
def test_an_absurd_overlap_is_refused(registry: TenantRegistry, overlap: float) -> None:
    apply(registry, registry.changes.create("acme"))
    with pytest.raises(CommandError, match="invalid overlap"):
        registry.changes.rotate("acme", overlap)


def test_a_key_is_not_replaced_by_itself(registry: TenantRegistry) -> None:
    changes = registry.changes
    apply(registry, changes.create("acme", key=b"same"))
    apply(registry, changes.add_user("acme", "bob", Role.READER, b"same too"))
    with pytest.raises(CommandError, match="is the present one"):
        changes.rotate("acme", 60.0, key=b"same")
    with pytest.raises(CommandError, match="is the present one"):
        changes.rotate("acme", 60.0, user_name="bob", key=b"same too")
    with pytest.raises(CommandError, match="is the present one"):
        changes.set("acme", {}, b"same")
