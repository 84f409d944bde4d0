"""Looks at everything in a data directory that a server relies on, while no server has it open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pyrope.errors import CommandError
from pyrope.service.audit import SPACE as AUDIT
from pyrope.service.billing import SPACE as BILLING
from pyrope.service.billing import latest_entries
from pyrope.service.log_heads import stored_head
from pyrope.service.spec_record import decode_spec
from pyrope.service.tenancy import AUDIT_FOLDER, BILLING_FOLDER, PERIODS, TENANTS, space_of
from pyrope.storage.chained_entry import Head
from pyrope.storage.chained_verify import verify
from pyrope.storage.codec import damaged_rows
from pyrope.storage.lmdb_store import LmdbStore, is_in_use
from pyrope.storage.store import StorageError, Store
from pyrope.tenants.budget import check_records
from pyrope.tenants.period import Period
from pyrope.tenants.records import TenantRecordError, decode_tenant
from pyrope.tenants.usage import Usage, UsageFormatError


def examine(data_dir: Path) -> Iterator[tuple[str, list[str]]]:
    """Look at one thing after another.

    Yields:
        What was looked at, and what is wrong with it: a sentence each; nothing where all is well.

    Raises:
        StorageError: the directory is not there, a server has it open, or it is damaged so that a
            server would not start.
    """
    if not data_dir.is_dir():
        raise StorageError(f"{data_dir} is no directory")
    if not is_in_use(data_dir):
        raise StorageError(f"{data_dir} holds no data of Pyrope")
    store = LmdbStore.open(data_dir)
    try:
        yield from _indexes(store)
        yield "tenants", _tenants(store)
        periods = [Period.parse(key.decode()) for key, _ in store.load_meta(PERIODS)]
        for period in periods:
            yield f"usage of {period}", _usage(store, period)
        for what, space, folder in (
            ("audit trail", AUDIT, AUDIT_FOLDER),
            ("billing log", BILLING, BILLING_FOLDER),
        ):
            yield what, _log(data_dir / folder, stored_head(space, store.load_meta(space)))
        yield "billing against usage", _billing(store, data_dir / BILLING_FOLDER, periods)
    finally:
        store.close()


def _indexes(store: Store) -> Iterator[tuple[str, list[str]]]:
    for uid, blob in store.indexes():
        spec = decode_spec(blob)
        columns = store.load(uid)
        damaged = damaged_rows(columns, store.vectors(uid, spec.dim).view())
        problems = []
        if len(columns.damaged):
            problems.append(f"{len(columns.damaged)} records are damaged")
        if len(damaged):
            problems.append(f"{len(damaged)} vectors are damaged")
        if sides := store.load_side(uid).damaged:
            problems.append(f"{sides} side records are damaged")
        yield f"index {spec.tenant}/{spec.name}, {len(columns)} vectors", problems


def _tenants(store: Store) -> list[str]:
    problems = []
    for name, blob in store.load_meta(TENANTS):
        try:
            decode_tenant(name.decode(errors="replace"), blob)
        except TenantRecordError as error:
            problems.append(str(error))
    return problems


def _usage(store: Store, period: Period) -> list[str]:
    records = [(key.decode(errors="replace"), value) for key, value in _stored(store, period)]
    try:
        check_records(period, records)
    except UsageFormatError as error:
        return [str(error)]
    return []


def _stored(store: Store, period: Period) -> list[tuple[bytes, bytes]]:
    return store.load_meta(space_of(period))


def _log(folder: Path, expect: Head) -> list[str]:
    if not folder.is_dir():
        return [f"{folder} is missing"]
    report = verify(folder, expect)
    more = report.problems_total - len(report.problems)
    return [str(one) for one in report.problems] + ([f"and {more} more"] if more else [])


def _billing(store: Store, folder: Path, periods: list[Period]) -> list[str]:
    """What has been billed must have been used."""
    if not folder.is_dir():
        return []
    used: dict[tuple[str, str], Usage] = {}
    for period in periods:
        for key, value in _stored(store, period):
            try:
                used[key.decode(), str(period)] = Usage.decode(value)
            except UsageFormatError:
                continue  # named already
    kept = {str(period) for period in periods}
    problems = []
    try:
        entries = latest_entries(folder)
    except (StorageError, CommandError) as error:
        return [str(error)]
    for (tenant, month), payload in entries.items():
        if month not in kept:
            continue  # its usage is not kept any more
        there = used.get((tenant, month))
        if there is None or there.requests < int(payload["requests"]):
            problems.append(
                f"tenant '{tenant}', {month}: {payload['requests']} requests are billed, and "
                f"{0 if there is None else there.requests} are in the ledger"
            )
    return problems
