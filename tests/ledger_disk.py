"""A ledger with a disk that may fail, and all that a service does around the two."""

from __future__ import annotations

from contextlib import suppress

from pyrope.tenants.budget import Ledger, LedgerRecord, check_records
from pyrope.tenants.period import Period
from pyrope.tenants.usage import Usage
from pyrope.testing.clock import ManualClock


class DiskFullError(Exception):
    pass


class Disk:
    """What a service does around a ledger, with a dict for a store."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.records: dict[tuple[Period, str], bytes] = {}
        self.ledger = self.start()

    def start(self) -> Ledger:
        """A process that knows what has been written, and nothing else."""
        self.ledger = Ledger(self.clock)
        self.ledger.open({period for period, _ in self.records})
        self.settle()
        return self.ledger

    def settle(self) -> None:
        while (period := self.ledger.wanted()) is not None:
            self.ledger.load(period, check_records(period, self.read(period)))

    def read(self, period: Period) -> list[tuple[str, bytes]]:
        return [(tenant, value) for (of, tenant), value in self.records.items() if of == period]

    def put(self, records: list[LedgerRecord]) -> None:
        self.records |= {(one.period, one.tenant): one.value for one in records}

    def flush(self) -> int:
        self.settle()
        flushed = 0
        for flush in self.ledger.flushes():
            with flush as records:
                self.put(records)
                flushed += len(records)
        return flushed

    def fail_to_flush(self) -> None:
        """Every portion of it."""
        for flush in self.ledger.flushes():
            with suppress(DiskFullError), flush:
                raise DiskFullError

    def charge(self, tenant: str, micro: int) -> Period:
        """The period that it was charged to."""
        self.ledger.turn(self.clock.wall())
        entry = self.ledger.entry(tenant)
        entry.compute_micro += micro
        entry.changed = True
        return self.ledger.period

    def stored(self, tenant: str, period: Period) -> int:
        value = self.records.get((period, tenant))
        return 0 if value is None else Usage.decode(value).used_micro

    def used(self, tenant: str, period: Period) -> int:
        """As `USAGE` tells it: what the ledger knows, or else the store."""
        found = self.ledger.look_up(tenant, period)
        return self.stored(tenant, period) if found is None else found.used_micro
