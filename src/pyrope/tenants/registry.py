"""Every tenant in memory, and who signs in as what.

Who has signed in holds an `Identity`, which names the key that it was made with by its salt. An
identity is no more once its key is: it was replaced and the overlap is over, its user or its tenant
is gone. So taking a key away ends what its holder has open, and who creates a tenant again meets
no connection of the one before.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from pyrope.clock import Clock
from pyrope.errors import LoadingError, NoPermError, WrongPassError
from pyrope.tenants.changes import TenantChanges, existing
from pyrope.tenants.identity import Identity
from pyrope.tenants.keys import HashedKey, KeyHasher, RandomBytes
from pyrope.tenants.limit_fields import DEFAULT_LIMITS
from pyrope.tenants.limits import TenantLimits
from pyrope.tenants.lockout import Lockout, LockoutPolicy, origin_of
from pyrope.tenants.names import ADMINISTRATOR, DEFAULT_TENANT, Login, parse_login
from pyrope.tenants.records import decode_tenant
from pyrope.tenants.tenant import TENANT_KEY_ROLE, Role, Tenant, User

# As Redis says it; the same whoever it is, and whether the name or the key was wrong.
_WRONG = "invalid username-password pair or user is disabled."
_EXPIRED = "this key has expired: use the one that has replaced it"


@dataclass(frozen=True, slots=True)
class RegistryStatistics:
    """What there is, and what has happened since the start.

    Attributes:
        tenants_current: configured.
        logins_total: keys that were right.
        failures_total: keys that were not.
        locked_out_total: attempts refused unseen.
        lockout_entries_current: logins and origins whose failures are remembered.
        hashes_total: keys hashed.
    """

    tenants_current: int
    logins_total: int
    failures_total: int
    locked_out_total: int
    lockout_entries_current: int
    hashes_total: int


class _Account(NamedTuple):
    """Whom a login means, with the keys that open it."""

    identity: Identity
    key: HashedKey
    former: HashedKey | None


class TenantRegistry:
    """The tenants, by name. Empty and shut until `load` is called.

    Args:
        clock: its wall tells which keys have expired, its monotonic side paces failures.
        admin_password: of the administrator; None: there is none.
        random_bytes: where keys and salts come from.
        lockout: how many failures are too many.

    Attributes:
        changes: prepares what `apply` then puts in place.
        revision: another number after each change.
    """

    def __init__(
        self,
        clock: Clock,
        admin_password: bytes | None,
        *,
        random_bytes: RandomBytes = os.urandom,
        lockout: LockoutPolicy | None = None,
    ) -> None:
        self._wall = clock.wall
        self._hasher = KeyHasher(random_bytes)
        self._admin = None if admin_password is None else self._hasher.hash(admin_password)
        self._lockout = Lockout(clock, lockout or LockoutPolicy())
        self._tenants: dict[str, Tenant] = {}
        self._names: list[str] = []
        self._loaded = False
        self._latest = -math.inf
        self._logins_total = 0
        self.revision = 0
        self.changes = TenantChanges(
            self._tenants, self._hasher, self._now, has_administrator=self._admin is not None
        )

    # -- what there is ----------------------------------------------------------------------------

    def load(self, records: Iterable[tuple[str, bytes]]) -> None:
        """Take these tenants, by name and record, for all that there are.

        Raises:
            TenantRecordError: one cannot be read; nothing has changed then.
        """
        tenants = {name: decode_tenant(name, blob) for name, blob in records}
        self._tenants.clear()
        self._tenants.update(tenants)
        self._names = sorted(tenants)
        self._loaded = True
        self.revision += 1

    def __len__(self) -> int:
        return len(self._tenants)

    def get(self, name: str) -> Tenant | None:
        return self._tenants.get(name)

    def limits(self, name: str) -> TenantLimits:
        """Of a tenant; none for one that is not configured, as `default` may be."""
        tenant = self._tenants.get(name)
        return DEFAULT_LIMITS if tenant is None else tenant.limits

    def names(self, after: str = "", count: int | None = None) -> list[str]:
        """The next names in order, behind one of them or where it would be; None: all of them.

        Pages of it hold every tenant that is there from the first page to the last, once.
        """
        start = bisect_right(self._names, after)
        return self._names[start : None if count is None else start + count]

    def apply(self, tenant: Tenant) -> None:
        """Put what was prepared, and has been committed, in the place of what was before."""
        if tenant.name not in self._tenants:
            insort(self._names, tenant.name)
        self._tenants[tenant.name] = tenant
        self.revision += 1

    def remove(self, name: str) -> Tenant:
        """Take a tenant out, whose record has gone. Raises UnknownTenantError."""
        tenant = existing(self._tenants, name)
        del self._tenants[name]
        del self._names[bisect_left(self._names, name)]
        self.revision += 1
        return tenant

    def statistics(self) -> RegistryStatistics:
        return RegistryStatistics(
            len(self._tenants),
            self._logins_total,
            self._lockout.failures_total,
            self._lockout.refused_total,
            self._lockout.entries_current,
            self._hasher.hashes_total,
        )

    # -- who somebody is --------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether anybody is the administrator: there is neither a tenant nor a password."""
        return self._loaded and self._admin is None and not self._tenants

    def anonymous(self) -> Identity | None:
        """Who somebody is that has not signed in; None: nobody yet, and may only sign in."""
        return self._administrator(DEFAULT_TENANT) if self.is_open else None

    def authenticate(self, login: bytes, key: bytes, address: str) -> Identity:
        """Who somebody is that signs in.

        Every attempt that is looked at costs two hashes, whether there is such an account or not.

        Args:
            login: `names` says how it is read.
            address: of the client, with or without its port.

        Raises:
            LoadingError: the tenants are not known yet.
            LockedOutError: too many failures; a WrongPassError.
            WrongPassError: unknown login, wrong key, or one that was right until it expired.
        """
        if not self._loaded:
            raise LoadingError("the tenants are still being read")
        if self.is_open and login in (ADMINISTRATOR.encode(), DEFAULT_TENANT.encode()):
            # As in Redis: who has no password is let in with any.
            return self._administrator(login.decode())
        parsed = parse_login(login)
        account = None if parsed is None else self._account(parsed)
        origin = origin_of(address)
        counted = _counted_as(parsed, account)
        self._lockout.check(counted, origin)
        current, former = (None, None) if account is None else (account.key, account.former)
        found = self._hasher.find(key, current, former)
        if account is None or found is None:
            self._lockout.failed(counted, origin)
            raise WrongPassError(_WRONG)
        if found.expired(self._now()):
            # No guess, so not counted: programs that still have it do not lock out, from the same
            # address, those that have its successor.
            raise WrongPassError(_EXPIRED)
        self._lockout.succeeded(counted, origin)
        self._logins_total += 1
        return replace(account.identity, salt=found.salt, valid_until=found.expires_at)

    def has_login(self, login: bytes) -> bool:
        """Whether somebody signs in by that word."""
        if login in (ADMINISTRATOR.encode(), DEFAULT_TENANT.encode()):
            return True
        parsed = parse_login(login)
        return parsed is not None and self._account(parsed) is not None

    def current(self, identity: Identity) -> Identity | None:
        """The identity as it is now; None: its key no longer counts, it has to sign in again.

        To be asked before each command. Takes a fraction of a microsecond while nothing changes.
        """
        if identity.revision != self.revision:
            return self._renewed(identity)
        if identity.valid_until is None or self._now() < identity.valid_until:
            return identity
        return None

    def use(self, identity: Identity, tenant: str) -> Identity:
        """The administrator, bound to another tenant.

        Raises:
            NoPermError: it is not the administrator.
            UnknownTenantError: there is no such tenant.
        """
        if not identity.administrator:
            raise NoPermError("only the administrator may use another tenant")
        if tenant != DEFAULT_TENANT:
            existing(self._tenants, tenant)
        return replace(identity, tenant=tenant)

    def _account(self, login: Login) -> _Account | None:
        whole, owner = self._tenants.get(login.word), self._tenants.get(login.tenant)
        if whole is not None:
            return self._account_of(whole, None)
        if owner is not None and login.user in owner.users:
            return self._account_of(owner, owner.users[login.user])
        if self._admin is not None and login.word in (ADMINISTRATOR, DEFAULT_TENANT):
            return _Account(self._administrator(login.word), self._admin, None)
        return None

    def _account_of(self, tenant: Tenant, user: User | None) -> _Account:
        if user is None:
            identity = Identity(tenant.name, None, TENANT_KEY_ROLE, revision=self.revision)
            return _Account(identity, tenant.key, tenant.former)
        identity = Identity(tenant.name, user.name, user.role, revision=self.revision)
        return _Account(identity, user.key, user.former)

    def _administrator(self, user: str) -> Identity:
        return Identity(
            DEFAULT_TENANT, user, Role.ADMIN, administrator=True, revision=self.revision
        )

    def _renewed(self, identity: Identity) -> Identity | None:
        tenant = self._tenants.get(identity.tenant)
        if identity.administrator:
            # Not moved to another tenant in silence when its own is dropped: what it meant for
            # that one would hit the other.
            bound = tenant is not None or identity.tenant == DEFAULT_TENANT
            known = self.is_open if self._admin is None else identity.salt == self._admin.salt
            return replace(identity, revision=self.revision) if bound and known else None
        if tenant is None:
            return None
        user = None
        if identity.user is not None:
            user = tenant.users.get(identity.user)
            if user is None:
                return None
        account = self._account_of(tenant, user)
        for key in (account.key, account.former):
            if key is not None and key.salt == identity.salt and not key.expired(self._now()):
                return replace(account.identity, salt=key.salt, valid_until=key.expires_at)
        return None

    def _now(self) -> float:
        """Wall time that does not go back: a key that has expired stays so if the clock is set."""
        self._latest = max(self._latest, self._wall())
        return self._latest


def _counted_as(login: Login | None, account: _Account | None) -> str:
    """Under what name failures are counted.

    One for both names of the administrator, and one for everything that is no name.
    """
    if account is not None and account.identity.administrator:
        return ADMINISTRATOR
    return "" if login is None else login.word
