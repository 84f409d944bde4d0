"""How tenants change: everything is checked, and nothing has changed yet.

Each change answers the tenant as it will be, with its record. The caller commits the record, then
has the registry apply the tenant; what is refused, or cannot be committed, leaves no trace. What is
allowed depends on the tenants that there are, so callers hold one lock from preparing to applying.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from pyrope.errors import CommandError, ExistsError
from pyrope.tenants.keys import HashedKey, KeyHasher
from pyrope.tenants.limit_fields import DEFAULT_LIMITS, Value, change_limits, pack_limits
from pyrope.tenants.names import login_of, parse_tenant_name, parse_user_name
from pyrope.tenants.records import encode_tenant
from pyrope.tenants.tenant import NO_USERS, Role, Tenant, User

MAX_TENANTS: Final = 1_000_000
MAX_USERS: Final = 1_000
"""Of one tenant: its record is written whole with each change, at about 200 bytes a user."""

MAX_OVERLAP_S: Final = 366 * 86_400.0
"""For which a replaced key may still be used: a year."""


class UnknownTenantError(CommandError):
    """There is no such tenant, or no such user of it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A change to a tenant that has been checked, and is yet to be committed and applied.

    Attributes:
        tenant: as it will be.
        blob: its record.
        before: as it is; None for a new one.
        generated_key: where the server has made the key: to be shown, this once.
    """

    tenant: Tenant
    blob: bytes = field(repr=False)
    before: Tenant | None
    generated_key: bytes | None = field(default=None, repr=False)


class TenantChanges:
    """Prepares changes. A `registry.TenantRegistry` has one.

    Args:
        tenants: by name; the registry's own, which this reads only.
        hasher: makes and hashes keys.
        now: Unix time in seconds, which does not go back.
        has_administrator: whether there is somebody to manage tenants.
    """

    def __init__(
        self,
        tenants: Mapping[str, Tenant],
        hasher: KeyHasher,
        now: Callable[[], float],
        *,
        has_administrator: bool,
    ) -> None:
        self._tenants = tenants
        self._hasher = hasher
        self._now = now
        self._has_administrator = has_administrator

    def create(
        self, name: str, values: Mapping[str, Value] | None = None, key: bytes | None = None
    ) -> Prepared:
        """A new tenant.

        Args:
            values: limits by attribute; see `limit_fields`.
            key: None: one is generated.

        Raises:
            CommandError: the name, a limit or the key is not acceptable; there are too many; or
                there is no administrator, so that nobody could manage what is made.
            ExistsError: there is one, or its name is how some tenant's user signs in.
        """
        parse_tenant_name(name)
        if not self._has_administrator:
            raise CommandError(
                "tenants need an administrator, since nobody else may manage them: set "
                "admin_password (or the environment's PYROPE_ADMIN_PASSWORD) and start again"
            )
        if name in self._tenants:
            raise ExistsError(f"tenant '{name}' exists already")
        owner_name, _, user_name = name.rpartition(".")
        owner = self._tenants.get(owner_name)
        if owner is not None and user_name in owner.users:
            raise ExistsError(
                f"'{name}' is how user '{user_name}' of tenant '{owner_name}' signs in"
            )
        if len(self._tenants) >= MAX_TENANTS:
            raise CommandError(f"a server has at most {MAX_TENANTS} tenants")
        limits = change_limits(DEFAULT_LIMITS, values or {})
        hashed, generated = self._new_key(key)
        tenant = Tenant.of(name, self._now(), hashed, limits)
        return Prepared(tenant, encode_tenant(tenant), None, generated)

    def set(self, name: str, values: Mapping[str, Value], key: bytes | None = None) -> Prepared:
        """Other limits, or another key, which counts at once and alone: `rotate` overlaps.

        Raises:
            UnknownTenantError: there is no such tenant.
            CommandError: a limit or the key is not acceptable, or nothing is given.
        """
        before = existing(self._tenants, name)
        if not values and key is None:
            raise CommandError("nothing to set: a field and its value are expected")
        tenant = replace(before, packed_limits=pack_limits(change_limits(before.limits, values)))
        if key is not None:
            hashed, former, _ = self._replacement(before, key, 0.0)
            tenant = replace(tenant, key=hashed, former=former)
        return Prepared(tenant, encode_tenant(tenant), before)

    def add_user(self, name: str, user_name: str, role: Role, key: bytes | None = None) -> Prepared:
        """A new user of a tenant.

        Args:
            key: None: one is generated.

        Raises:
            UnknownTenantError: there is no such tenant.
            CommandError: the name or the key is not acceptable, or there are too many users.
            ExistsError: there is one, or a tenant has the name by which it would sign in.
        """
        before = existing(self._tenants, name)
        login = login_of(name, parse_user_name(user_name))
        if user_name in before.users:
            raise ExistsError(f"user '{user_name}' of tenant '{name}' exists already")
        if login in self._tenants:
            raise ExistsError(f"'{login}', by which the user would sign in, is a tenant's name")
        if len(before.users) >= MAX_USERS:
            raise CommandError(f"a tenant has at most {MAX_USERS} users")
        hashed, generated = self._new_key(key)
        tenant = _with_user(before, User(user_name, role, hashed))
        return Prepared(tenant, encode_tenant(tenant), before, generated)

    def delete_user(self, name: str, user_name: str) -> Prepared:
        """A tenant without one of its users. Raises UnknownTenantError."""
        before = existing(self._tenants, name)
        gone = _existing_user(before, user_name)
        left = {one.name: one for one in before.users.values() if one is not gone}
        tenant = replace(before, users=left or NO_USERS)
        return Prepared(tenant, encode_tenant(tenant), before)

    def rotate(
        self,
        name: str,
        overlap_s: float,
        *,
        user_name: str | None = None,
        key: bytes | None = None,
    ) -> Prepared:
        """Another key for a tenant or one of its users.

        One former key is kept: the overlap of an earlier rotation ends with the next.

        Args:
            overlap_s: seconds of wall time for which the present key may still be used.
            user_name: whose key; None: the tenant's own.
            key: None: one is generated.

        Raises:
            UnknownTenantError: there is no such tenant or user.
            CommandError: the overlap or the key is not acceptable, or is the present key.
        """
        before = existing(self._tenants, name)
        if not 0 <= overlap_s <= MAX_OVERLAP_S:
            raise CommandError(f"invalid overlap: 0 to {MAX_OVERLAP_S:.0f} seconds are expected")
        owner = before if user_name is None else _existing_user(before, user_name)
        hashed, former, generated = self._replacement(owner, key, overlap_s)
        if isinstance(owner, User):
            tenant = _with_user(before, replace(owner, key=hashed, former=former))
        else:
            tenant = replace(before, key=hashed, former=former)
        return Prepared(tenant, encode_tenant(tenant), before, generated)

    def _new_key(self, key: bytes | None) -> tuple[HashedKey, bytes | None]:
        """A key as it is kept; and as it is, where it was not given but made."""
        if key is not None:
            return self._hasher.hash(key), None
        made = self._hasher.new_key()
        return self._hasher.hash(made), made

    def _replacement(
        self, owner: Tenant | User, key: bytes | None, overlap_s: float
    ) -> tuple[HashedKey, HashedKey, bytes | None]:
        """The new key, the one before with its end, and the new one as it is if it was made."""
        if key is not None and self._hasher.matches(key, owner.key):
            raise CommandError("the new key is the present one")
        hashed, generated = self._new_key(key)
        return hashed, owner.key.ending(self._now() + overlap_s), generated


def _with_user(tenant: Tenant, user: User) -> Tenant:
    return replace(tenant, users={**tenant.users, user.name: user})


def existing(tenants: Mapping[str, Tenant], name: str) -> Tenant:
    """The tenant of that name. Raises UnknownTenantError."""
    tenant = tenants.get(name)
    if tenant is None:
        raise UnknownTenantError(f"no such tenant '{name[:128]}'")
    return tenant


def _existing_user(tenant: Tenant, user_name: str) -> User:
    user = tenant.users.get(user_name)
    if user is None:
        raise UnknownTenantError(f"no such user '{user_name[:128]}' of tenant '{tenant.name}'")
    return user
