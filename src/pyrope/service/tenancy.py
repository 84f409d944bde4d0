"""Tenants with what is behind them: the store, the ledger, the audit trail, the billing log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyrope.clock import Clock
from pyrope.config import Settings
from pyrope.errors import CommandError, NoAuthError, NoPermError
from pyrope.log import get_logger
from pyrope.service.audit import SPACE as AUDIT
from pyrope.service.audit import Actor, AuditTrail
from pyrope.service.billing import SPACE as BILLING
from pyrope.service.billing import BillingLog, describe_usage, unbilled
from pyrope.service.log_heads import stored_head
from pyrope.storage.chained_entry import Head
from pyrope.storage.chained_log import ChainedLog, EntryLog
from pyrope.storage.memory_log import MemoryLog
from pyrope.storage.store import Change, DropMeta, PutMeta, StorageError, Store
from pyrope.tenants.budget import Charged, Ledger, LedgerRecord, check_records
from pyrope.tenants.changes import Prepared, UnknownTenantError
from pyrope.tenants.enforcer import TenantQuotaEnforcer
from pyrope.tenants.identity import Identity
from pyrope.tenants.limit_fields import Value
from pyrope.tenants.limits import Priority, TenantLimits
from pyrope.tenants.names import DEFAULT_TENANT, is_tenant_name
from pyrope.tenants.period import Period
from pyrope.tenants.records import TenantRecordError
from pyrope.tenants.registry import TenantRegistry
from pyrope.tenants.tenant import Role, Tenant
from pyrope.tenants.usage import Usage, UsageFormatError

_log = get_logger(__name__)

TENANTS, PERIODS = "tenants", "periods"
"""Spaces of the store: records of tenants by name; months, of which there is usage."""

AUDIT_FOLDER, BILLING_FOLDER = "audit", "billing"
"""Within the data directory."""

# Entries of logs that are kept by a server without a data directory.
_MEMORY_ENTRIES = 10_000
# Tenants looked at in one turn of the loop; some 10 us each, and more for many indexes.
_OBSERVED_AT_ONCE = 50
# Users that one entry of the audit trail describes: 250 bytes each.
_TRAILED_USERS = 100
# Records removed in one commit.
_REMOVED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a tenant keeps now.

    Attributes:
        vectors: in all its indexes.
        nbytes: of memory that they take.
        cache_bytes: of its cached answers.
    """

    vectors: int
    nbytes: int
    cache_bytes: int


class Tenancy:
    """All methods are for the event loop.

    Args:
        run: calls a function in the thread of the store.
        commit: makes changes durable, together.
        holdings: of a tenant by its name.
        on_limits: told of a tenant's limits whenever they may have changed.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        *,
        run: Callable[..., Awaitable[Any]],
        commit: Callable[..., Awaitable[None]],
        holdings: Callable[[str], Holdings],
        on_limits: Callable[[str, TenantLimits], None],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._run = run
        self._commit = commit
        self._holdings = holdings
        self._on_limits = on_limits
        password = settings.admin_password
        self.registry = TenantRegistry(
            clock, None if password is None else password.get_secret_value().encode()
        )
        self._ledger = Ledger(clock)
        self.enforcer = TenantQuotaEnforcer(clock, self._ledger, self.registry.limits)
        self._logs: list[EntryLog] = []
        self._audit: AuditTrail | None = None
        self._billing: BillingLog | None = None
        self._store: Store | None = None
        self._changing = asyncio.Lock()
        self._dropping: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._billed_at = 0.0

    # -- life -------------------------------------------------------------------------------------

    async def start(self, store: Store) -> None:
        """Read what there is, and begin to write down what is used.

        Raises:
            StorageError: something is damaged, or of a newer version. Nothing is reset.
        """
        self._store = store
        try:
            records = await self._run(store.load_meta, TENANTS)
            self.registry.load([(name.decode(), blob) for name, blob in records])
            periods = await self._run(store.load_meta, PERIODS)
            self._ledger.open([Period.parse(key.decode()) for key, _ in periods])
            await self._load_wanted()
            heads = [
                stored_head(space, await self._run(store.load_meta, space))
                for space in (AUDIT, BILLING)
            ]
            waiting = await self._run(unbilled, store, space_of)
            audit, billing = await self._run(self._open_logs, *heads)
        except (TenantRecordError, UsageFormatError, CommandError) as error:
            raise StorageError(str(error)) from error
        self._logs = [audit, billing]
        self._audit = AuditTrail(audit, self._run, self._commit, self._clock)
        self._billing = BillingLog(billing, self._run, self._commit, self._clock)
        self._billing.changed(waiting)
        for name in self.registry.names():
            limits = self.registry.limits(name)
            if limits.cache_bytes is not None or limits.priority is not Priority.NORMAL:
                self._on_limits(name, limits)
        self._billed_at = self._clock.monotonic()
        self._task = asyncio.create_task(self._keep(), name="usage")

    async def stop(self) -> None:
        """Write down what has been used, and close the logs. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            try:
                await self.flush()
                await self.billing.write()
            except Exception as error:  # noqa: BLE001 - the rest is to be closed all the same
                _log.error("usage since the last second is lost", error=str(error))
        for log in self._logs:
            await self._run(log.close)
        self._logs = []

    def _open_logs(self, audited: Head, billed: Head) -> tuple[EntryLog, EntryLog]:
        if self._settings.in_memory:
            return MemoryLog(_MEMORY_ENTRIES), MemoryLog(_MEMORY_ENTRIES)
        folder = Path(self._settings.data_dir)
        rotate = self._settings.tenants.log_file_bytes
        now = self._clock.wall()
        audit = ChainedLog.open(folder / AUDIT_FOLDER, rotate_bytes=rotate, at=now, expect=audited)
        try:
            billing = ChainedLog.open(
                folder / BILLING_FOLDER, rotate_bytes=rotate, at=now, expect=billed
            )
        except BaseException:
            audit.close()
            raise
        return audit, billing

    @property
    def audit(self) -> AuditTrail:
        if self._audit is None:
            raise RuntimeError("the tenants have not been loaded")
        return self._audit

    @property
    def billing(self) -> BillingLog:
        if self._billing is None:
            raise RuntimeError("the tenants have not been loaded")
        return self._billing

    @property
    def charged(self) -> Charged:
        """What all tenants together were charged since the start."""
        return self._ledger.charged

    def share_of_month_gone(self) -> float:
        """Of the month that is being charged, above 0."""
        now = self._clock.wall()
        # A month may have begun in which nobody has asked for anything yet.
        self._ledger.turn(now)
        return self._ledger.share_gone(now)

    def used_micro_now(self, tenant: str) -> int:
        """Micro-units that a tenant has used of its budget, this month."""
        return self._ledger.used_micro(tenant)

    def used_now(self, tenant: str) -> Usage:
        """What a tenant has used this month; a copy."""
        return self._ledger.look_up(tenant, self._ledger.period) or Usage()

    def used_by_all_now(self) -> list[bytes]:
        """What each tenant has used this month, for `Usage.decode`."""
        return self._ledger.records()

    # -- usage ------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        settings = self._settings.tenants
        while True:
            await asyncio.sleep(settings.usage_flush_s)
            try:
                await self._observe()
                await self.flush()
                now = self._clock.monotonic()
                if now - self._billed_at >= settings.billing_interval_s:
                    self._billed_at = now
                    await self.billing.write()
                await self._prune()
            except Exception as error:  # noqa: BLE001 - the next second is another try
                _log.error("usage cannot be written down; trying again", error=str(error))

    async def _observe(self) -> None:
        """Remember the most that tenants keep, of those who have done something of late."""
        for number, account in enumerate(self.enforcer.busy()):
            if number % _OBSERVED_AT_ONCE == 0:
                await asyncio.sleep(0)
            now = self._holdings(account.tenant)
            account.observe(now.vectors, now.nbytes, now.cache_bytes)

    async def _load_wanted(self) -> None:
        store = self._store
        assert store is not None  # noqa: S101 - started
        while (period := self._ledger.wanted()) is not None:
            records = await self._run(store.load_meta, space_of(period))
            pairs = [(key.decode(), value) for key, value in records]
            self._ledger.load(period, await self._run(check_records, period, pairs))

    async def flush(self) -> None:
        """Write down what has been used since the last time.

        Raises:
            MisconfError: the disk refuses; it goes with the next flush.
        """
        await self._load_wanted()
        for flush in self._ledger.flushes():
            with flush as records:
                await self._commit(*_changes_of(records), *self.billing.notes(records))
            self.billing.changed(records)
        self.enforcer.sweep()

    async def _prune(self) -> None:
        store = self._store
        assert store is not None  # noqa: S101 - started
        for period in self._ledger.expired(self._settings.tenants.usage_months):
            space = space_of(period)
            keys = [key for key, _ in await self._run(store.load_meta, space)]
            for start in range(0, len(keys), _REMOVED_AT_ONCE):
                some = keys[start : start + _REMOVED_AT_ONCE]
                await self._commit(*[DropMeta(space, key) for key in some])
            await self._commit(DropMeta(PERIODS, str(period).encode()))
            self._ledger.removed(period)

    def period(self) -> Period:
        """The month that is being charged now."""
        self._ledger.turn(self._clock.wall())
        return self._ledger.period

    def llm_totals(self) -> list[tuple[str, int, int]]:
        """What language models have used of each tenant's month; see `Ledger.llm_totals`."""
        return list(self._ledger.llm_totals())

    async def usage(self, identity: Identity, tenant: str, period: str | None) -> dict[str, Any]:
        """What a tenant has used in a month; None: in the present one.

        Raises:
            NoPermError: it is not the asker's own.
            UnknownTenantError: there is no such tenant.
            CommandError: there is no such month.
        """
        self._check_own(identity, tenant)
        ledger = self._ledger
        # A month may have begun in which nobody has asked for anything yet.
        ledger.turn(self._clock.wall())
        present = ledger.period
        asked = present if period is None else Period.parse(period)
        found = ledger.look_up(tenant, asked)
        if found is None:
            found = await self._stored_usage(tenant, asked)
        limits = self.registry.limits(tenant)
        budget = limits.budget
        plain = {"tenant": tenant, "period": str(asked), "budget": budget}
        plain["remaining"] = None if budget is None else max(0.0, budget - found.used)
        plain |= describe_usage(found)
        if asked == present:
            now = self._holdings(tenant)
            plain |= {"vectors": now.vectors, "bytes": now.nbytes, "cache_bytes": now.cache_bytes}
        else:
            plain |= {
                "vectors": found.most_vectors,
                "bytes": found.most_bytes,
                "cache_bytes": found.most_cache_bytes,
            }
        return plain

    async def usages(self, period: str | None, after: str, limit: int) -> list[dict[str, Any]]:
        """A page of what everybody has used in a month, by name, those too that are dropped since.

        Who has begun less than `tenants.usage_flush_s` ago may be missing.

        Args:
            period: ``yyyy-mm``; None: the present one.
            after: the name that the page begins behind; empty: the first page.
            limit: rows, at least 1.

        Raises:
            CommandError: there is no such month; or nobody can have such a name.
        """
        if after and not is_tenant_name(after):
            raise CommandError("invalid cursor")
        store = self._store
        assert store is not None  # noqa: S101 - started
        ledger = self._ledger
        ledger.turn(self._clock.wall())
        asked = ledger.period if period is None else Period.parse(period)
        stored = await self._run(store.page_meta, space_of(asked), after.encode(), limit)
        rows = []
        for key, value in stored:
            tenant = key.decode()
            # What is counted since has not been written down yet.
            found = ledger.look_up(tenant, asked) or Usage.decode(value)
            budget = self.registry.limits(tenant).budget
            row = {"tenant": tenant, "period": str(asked), "budget": budget}
            rows.append(row | describe_usage(found))
        return rows

    async def _stored_usage(self, tenant: str, period: Period) -> Usage:
        store = self._store
        assert store is not None  # noqa: S101 - started
        value = await self._run(store.get_meta, space_of(period), tenant.encode())
        return Usage() if value is None else Usage.decode(value)

    # -- who may ----------------------------------------------------------------------------------

    def _check_own(self, identity: Identity, tenant: str) -> None:
        """Whose usage may be seen: one's own. A stranger does not learn who exists."""
        if not identity.administrator and identity.tenant != tenant:
            raise NoPermError("only the administrator may see other tenants")
        if tenant != DEFAULT_TENANT:
            self._existing(tenant)

    def _check_manages(self, identity: Identity, tenant: str) -> None:
        if not identity.manages(tenant):
            raise NoPermError("this takes the administrator, or an admin of that tenant")
        self._existing(tenant)

    def _existing(self, tenant: str) -> None:
        if self.registry.get(tenant) is None:
            raise UnknownTenantError(f"no such tenant '{tenant[:128]}'")

    def describe(self, identity: Identity, tenant: str) -> dict[str, Any]:
        """The definition of a tenant. Raises NoPermError, UnknownTenantError."""
        self._check_manages(identity, tenant)
        found = self.registry.get(tenant)
        assert found is not None  # noqa: S101 - just checked
        return found.describe()

    # -- changing ---------------------------------------------------------------------------------

    async def create(
        self, actor: Actor, name: str, values: Mapping[str, Value], key: bytes | None
    ) -> bytes | None:
        """Create a tenant, durably. Returns the key where one was generated.

        Raises:
            CommandError, ExistsError: as `TenantChanges.create`.
            MisconfError: the disk refuses; nothing has changed.
        """
        async with self._changing:
            prepared = self.registry.changes.create(name, values, key)
            return await self._apply(actor, "tenant.create", name, prepared)

    async def set(
        self,
        actor: Actor,
        name: str,
        values: Mapping[str, Value],
        key: bytes | None,
        *,
        precondition: Callable[[Tenant], None] | None = None,
    ) -> None:
        """Change a tenant's limits, or its key.

        Args:
            precondition: called with the tenant as it is, which nobody else changes until this is
                over; what it raises is raised, and nothing has changed.

        Raises:
            CommandError, UnknownTenantError, MisconfError: as `TenantChanges.set`.
        """
        async with self._changing:
            there = self.registry.get(name)
            if precondition is not None and there is not None:
                precondition(there)
            prepared = self.registry.changes.set(name, values, key)
            await self._apply(actor, "tenant.set", name, prepared)

    async def add_user(
        self, identity: Identity, actor: Actor, name: str, user: str, role: Role, key: bytes | None
    ) -> bytes | None:
        """Add a user. Returns the key where one was generated.

        Raises:
            NoPermError: the tenant is not the asker's to manage.
            CommandError, ExistsError, UnknownTenantError, MisconfError: as `create`.
        """
        self._check_manages(identity, name)
        async with self._changing:
            prepared = self.registry.changes.add_user(name, user, role, key)
            return await self._apply(actor, "user.add", f"{name}.{user}", prepared)

    async def delete_user(self, identity: Identity, actor: Actor, name: str, user: str) -> None:
        """Remove a user; what it has open ends. Raises as `add_user`."""
        self._check_manages(identity, name)
        async with self._changing:
            prepared = self.registry.changes.delete_user(name, user)
            await self._apply(actor, "user.del", f"{name}.{user}", prepared)

    async def rotate(
        self,
        identity: Identity,
        actor: Actor,
        name: str,
        *,
        user: str | None,
        key: bytes | None,
        overlap_s: float | None,
    ) -> bytes | None:
        """Replace a key, which stays valid for a while. Returns the new one if it was generated.

        Args:
            user: whose; None: the tenant's own.
            overlap_s: seconds; None: as in the settings.

        Raises:
            NoPermError, UnknownTenantError, CommandError, MisconfError: as `add_user`.
        """
        self._check_manages(identity, name)
        if overlap_s is None:
            overlap_s = self._settings.tenants.key_overlap_s
        async with self._changing:
            prepared = self.registry.changes.rotate(name, overlap_s, user_name=user, key=key)
            target = name if user is None else f"{name}.{user}"
            return await self._apply(actor, "key.rotate", target, prepared)

    async def _apply(self, actor: Actor, act: str, target: str, prepared: Prepared) -> bytes | None:
        tenant, before = prepared.tenant, prepared.before
        async with self.audit.act(
            actor,
            act,
            tenant.name,
            target,
            None if before is None else _trail(before, tenant),
            _trail(tenant, before),
        ):
            await self._commit(PutMeta(TENANTS, tenant.name.encode(), prepared.blob))
        self.registry.apply(tenant)
        self._limits_changed(tenant.name)
        return prepared.generated_key

    async def drop(
        self, actor: Actor, name: str, drop_indexes: Callable[[str, Actor], Awaitable[None]]
    ) -> bool:
        """Remove a tenant with all its indexes. Returns whether it was there.

        What it has used stays in the ledger and the billing log.

        Raises:
            MisconfError: the disk refuses. It is still there, if with fewer indexes.
        """
        async with self._changing:
            there = self.registry.get(name)
            if there is None:
                return False
            self._dropping.add(name)
            try:
                async with self.audit.act(actor, "tenant.drop", name, name, _trail(there, None)):
                    await drop_indexes(name, actor)
                    await self._commit(DropMeta(TENANTS, name.encode()))
                self.registry.remove(name)
            finally:
                self._dropping.discard(name)
            self._limits_changed(name)
            self.enforcer.drop(name)
            return True

    def check_stays(self, tenant: str) -> None:
        """To be asked before anything is made that would outlive a tenant that is dropped.

        Raises:
            NoAuthError: the tenant has gone, or is about to go.
        """
        gone = tenant != DEFAULT_TENANT and self.registry.get(tenant) is None
        if gone or tenant in self._dropping:
            raise NoAuthError("Authentication required: the tenant has been dropped.")

    def _limits_changed(self, name: str) -> None:
        self.enforcer.limits_changed(name)
        self._on_limits(name, self.registry.limits(name))


def space_of(period: Period) -> str:
    """Of the store, where usage of a month is by tenant."""
    return f"usage-{period}"


def _trail(tenant: Tenant, other: Tenant | None) -> dict[str, Any]:
    """A tenant as the audit trail has it, whose entries have a limit: a tenant may have more users.

    Args:
        other: as it was before, or will be: users that are the same there are left out.
    """
    same = {} if other is None else other.users
    users = [one for name, one in sorted(tenant.users.items()) if same.get(name) != one]
    told = tenant.describe() | {"users": [one.describe() for one in users[:_TRAILED_USERS]]}
    return told | {"users_total": len(tenant.users)}


def _changes_of(records: list[LedgerRecord]) -> list[Change]:
    periods = {one.period for one in records}
    changes: list[Change] = [PutMeta(PERIODS, str(period).encode(), b"") for period in periods]
    return changes + [
        PutMeta(space_of(one.period), one.tenant.encode(), one.value) for one in records
    ]
