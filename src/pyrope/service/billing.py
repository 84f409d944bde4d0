"""The billing log: from time to time, what every tenant that did something has used in its month.

Entries hold absolute totals, so that one which is written twice bills nothing twice: the last one
of a tenant and a period is what counts. The head of the log is kept in the store, too; a log that
was cut off or written anew does not contain it, and is refused when the server starts.

The store also remembers whose totals are not in the log yet, from the commit on that has changed
them: what was used before a crash is billed after it, whether anything more is used or not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from pyrope.clock import Clock
from pyrope.service.log_heads import put_head
from pyrope.storage.chained_files import MAX_PAGE, read
from pyrope.storage.chained_log import EntryLog
from pyrope.storage.store import Change, DropMeta, PutMeta, Store
from pyrope.tenants.budget import LedgerRecord
from pyrope.tenants.period import Period
from pyrope.tenants.usage import MICRO, Usage, check_usage

SPACE = "billing"
UNBILLED = "unbilled"
"""Space of the store: ``yyyy-mm tenant`` of totals that the log does not have yet."""

# Entries written at once.
_AT_ONCE = 1000


def describe_usage(usage: Usage) -> dict[str, Any]:
    """Totals as people and JSON have them; money in cost units."""
    return {
        "requests": usage.requests,
        "hits": usage.hits,
        "misses": usage.misses,
        "answers": dict(usage.answers),
        "used": usage.used,
        "compute_units": usage.compute_units,
        "llm_tokens_in": usage.llm_tokens_in,
        "llm_tokens_out": usage.llm_tokens_out,
        "llm_cost": usage.llm_cost,
        "embeddings": usage.embeddings,
        "recalls": usage.recalls,
        "recalled": usage.recalled,
        "saved_tokens": usage.saved_tokens,
        "saved_cost": usage.saved_micro / MICRO,
        "refused_quota": usage.refused_quota,
        "refused_budget": usage.refused_budget,
        "most_vectors": usage.most_vectors,
        "most_bytes": usage.most_bytes,
        "most_cache_bytes": usage.most_cache_bytes,
    }


def latest_entries(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The last totals of each tenant and period, from a log's folder; for a thread.

    Raises:
        StorageError: the log is damaged or cannot be read.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    after = 0
    while entries := read(folder, after, MAX_PAGE):
        for entry in entries:
            tenant, period = entry.payload.get("tenant"), entry.payload.get("period")
            # Another event of the log is one of its own, such as a line that was cut off.
            if isinstance(tenant, str) and isinstance(period, str):
                found[tenant, period] = {**entry.payload, "at": entry.at}
        after = entries[-1].seq
    return found


def _note_of(period: Period, tenant: str) -> bytes:
    return f"{period} {tenant}".encode()


def unbilled(store: Store, space_of: Callable[[Period], str]) -> list[LedgerRecord]:
    """Totals that the log does not have yet, as the store remembers; for the store's thread.

    Args:
        space_of: where the totals of a month are.

    Raises:
        UsageFormatError: they are damaged.
        CommandError: what is remembered is.
    """
    found = []
    for key, _ in store.load_meta(UNBILLED):
        month, _, tenant = key.decode(errors="replace").partition(" ")
        period = Period.parse(month)
        value = store.get_meta(space_of(period), tenant.encode())
        # Its month may have been removed meanwhile.
        if value is not None:
            check_usage(value)
            found.append(LedgerRecord(period, tenant, value))
    return found


class BillingLog:
    """For the event loop.

    Args:
        log: where it is written.
        run: calls a function in a thread that may wait for the disk.
        commit: makes changes to the store durable.
    """

    def __init__(
        self,
        log: EntryLog,
        run: Callable[..., Awaitable[Any]],
        commit: Callable[..., Any],
        clock: Clock,
    ) -> None:
        self._log = log
        self._run = run
        self._commit = commit
        self._clock = clock
        self._waiting: dict[tuple[Period, str], bytes] = {}
        # Those of them that the store knows to be waiting.
        self._noted: set[tuple[Period, str]] = set()

    def notes(self, records: Iterable[LedgerRecord]) -> list[Change]:
        """Changes that remember what is to be billed; of the commit that writes the totals down."""
        keys = {(one.period, one.tenant) for one in records} - self._noted
        return [PutMeta(UNBILLED, _note_of(*key), b"") for key in keys]

    def changed(self, records: Iterable[LedgerRecord]) -> None:
        """Totals that the ledger has written down are to be billed with the next entries."""
        for one in records:
            self._waiting[one.period, one.tenant] = one.value
            self._noted.add((one.period, one.tenant))

    async def write(self) -> None:
        """Write what has changed since the last time.

        Raises:
            MisconfError: the disk refuses; what was not written stays for the next time.
        """
        if not self._waiting:
            return
        taken, self._waiting = self._waiting, {}
        keys = list(taken)
        try:
            while keys:
                some = keys[:_AT_ONCE]
                payloads = [
                    {
                        "tenant": tenant,
                        "period": str(period),
                        **describe_usage(Usage.decode(taken[period, tenant])),
                    }
                    for period, tenant in some
                ]
                head = await self._run(self._log.append, payloads, self._clock.wall())
                # Whatever becomes of the commit: noted again is better than not at all.
                self._noted.difference_update(some)
                notes = [DropMeta(UNBILLED, _note_of(*key)) for key in some]
                await self._commit(put_head(SPACE, head), *notes)
                del keys[: len(some)]
        finally:
            for key in keys:
                self._waiting.setdefault(key, taken[key])
