"""Tenants and their users: names, roles, hashed keys, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from pyrope.errors import CommandError
from pyrope.tenants.keys import HashedKey
from pyrope.tenants.limit_fields import DEFAULT_LIMITS, describe_limits, pack_limits, unpack_limits
from pyrope.tenants.limits import TenantLimits


class Role(Enum):
    """What somebody may do within the own tenant. Each includes those before it.

    READER: search and read. OPERATOR: write, and manage indexes, caches and aliases. ADMIN: manage
    the tenant's users and keys. A tenant's limits are none of its own business: only the server's
    administrator sets them.
    """

    READER = "reader"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        return _RANK[self] >= _RANK[other]


_RANK: Final = {role: rank for rank, role in enumerate(Role)}

TENANT_KEY_ROLE: Final = Role.OPERATOR
"""Of who signs in with the tenant's own key. That is the key which applications hold: it does their
work, and whoever steals it can neither make users to come back by nor lock the owner out. An ADMIN
is a user, whom the server's administrator adds first."""


def parse_role(raw: bytes) -> Role:
    """A role by its name, in any case. Raises CommandError."""
    try:
        return Role(raw.decode("ascii", errors="replace").lower())
    except ValueError:
        words = ", ".join(role.value for role in Role)
        raise CommandError(f"invalid ROLE: one of {words} is expected") from None


@dataclass(frozen=True, slots=True)
class User:
    """Somebody within a tenant.

    Attributes:
        key: the one to sign in with.
        former: the one before, accepted until it expires; kept then, so that who still presents it
            is told what is wrong.
    """

    name: str
    role: Role
    key: HashedKey
    former: HashedKey | None = None

    def describe(self) -> dict[str, Any]:
        """As people and JSON have it, without anything of the keys but when they expire."""
        return {"user": self.name, "role": self.role.value} | _expiry(self)


NO_USERS: Final[Mapping[str, User]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant as it is configured. Small: there may be 100,000 that do nothing.

    Attributes:
        created_at: Unix time in seconds.
        key, former: of the tenant itself, as in `User`; they give `TENANT_KEY_ROLE`.
        users: by name; never changed in place.
        packed_limits: see `limit_fields.pack_limits`.
    """

    name: str
    created_at: float
    key: HashedKey
    former: HashedKey | None = None
    users: Mapping[str, User] = field(default_factory=lambda: NO_USERS)
    packed_limits: bytes = b""

    @staticmethod
    def of(
        name: str, created_at: float, key: HashedKey, limits: TenantLimits = DEFAULT_LIMITS
    ) -> Tenant:
        """A new one, without users."""
        return Tenant(name, created_at, key, packed_limits=pack_limits(limits))

    @property
    def limits(self) -> TenantLimits:
        return unpack_limits(self.packed_limits)

    def describe(self) -> dict[str, Any]:
        """As people and JSON have it, without anything of the keys but when they expire."""
        return {
            "tenant": self.name,
            "created_at": self.created_at,
            "users": [self.users[name].describe() for name in sorted(self.users)],
            **_expiry(self),
            **describe_limits(self.limits),
        }


def _expiry(owner: User | Tenant) -> dict[str, float | None]:
    former = owner.former
    return {
        "key_expires_at": owner.key.expires_at,
        "former_key_expires_at": None if former is None else former.expires_at,
    }
