from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest

from pyrope.errors import CommandError
from pyrope.tenants.identity import Identity
from pyrope.tenants.keys import KeyHasher
from pyrope.tenants.limit_fields import DEFAULT_LIMITS
from pyrope.tenants.limits import TenantLimits
from pyrope.tenants.tenant import Role, Tenant, User, parse_role

HASHER = KeyHasher(Random(1).randbytes)


def test_each_role_includes_those_before_it() -> None:
    order = [Role.READER, Role.OPERATOR, Role.ADMIN]
    for rank, role in enumerate(order):
        assert [role.includes(other) for other in order] == [i <= rank for i in range(3)]


def test_roles_are_named_in_any_case() -> None:
    assert parse_role(b"Reader") is Role.READER
    assert parse_role(b"OPERATOR") is Role.OPERATOR
    for raw in (b"", b"owner", b"\xff"):
        with pytest.raises(CommandError, match="one of reader, operator, admin"):
            parse_role(raw)


def test_tenants_without_limits_or_users_share_what_they_lack() -> None:
    first = Tenant.of("a", 1.0, HASHER.hash(b"x"))
    second = Tenant.of("b", 1.0, HASHER.hash(b"x"), TenantLimits())
    assert first.limits is second.limits is DEFAULT_LIMITS
    assert first.users is second.users


def test_a_tenant_has_the_limits_that_it_was_given() -> None:
    limits = TenantLimits(qps=5.0, budget=1e9, ef_ceiling=100)
    assert Tenant.of("a", 1.0, HASHER.hash(b"x"), limits).limits == limits


def test_what_is_told_of_a_tenant_holds_nothing_of_its_keys() -> None:
    key, former = HASHER.hash(b"k"), HASHER.hash(b"f", expires_at=9.0)
    user = User("bob", Role.READER, key, former)
    tenant = replace(
        Tenant.of("a", 1.0, key, TenantLimits(qps=5.0)), former=former, users={"bob": user}
    )
    described = tenant.describe()
    assert described["tenant"] == "a"
    assert described["created_at"] == 1.0
    assert described["qps"] == 5.0
    assert described["former_key_expires_at"] == 9.0
    assert described["users"] == [
        {"user": "bob", "role": "reader", "key_expires_at": None, "former_key_expires_at": 9.0}
    ]
    for text in (json.dumps(described), repr(tenant)):
        assert key.packed.hex() not in text
        assert repr(key.packed) not in text


def test_an_identity_may_what_its_role_includes_within_its_own_tenant() -> None:
    operator = Identity("acme", None, Role.OPERATOR)
    assert operator.may(Role.READER)
    assert not operator.may(Role.ADMIN)
    assert not operator.manages("acme")
    admin = Identity("acme", "bob", Role.ADMIN)
    assert admin.manages("acme")
    assert not admin.manages("other")
    assert Identity("default", "admin", Role.ADMIN, administrator=True).manages("other")


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        (Identity("acme", None, Role.OPERATOR), "acme"),
        (Identity("acme.eu", "bob", Role.READER), "acme.eu.bob"),
        (Identity("acme", "admin", Role.ADMIN, administrator=True), "admin"),
    ],
)
def test_an_identity_is_called_as_it_signed_in(identity: Identity, name: str) -> None:
    assert identity.name == name
