"""The ledger against plain sums: charges, clocks that are set, flushes, crashes, in any order."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger_disk import Disk, DiskFullError
from pyrope.tenants.budget import TOLERANCE_S, Flush, LedgerRecord, check_records
from pyrope.tenants.period import Period
from pyrope.testing.clock import ManualClock

TENANTS = ("a", "b", "c")
DAY = 86_400.0
NEW_YEAR = Period(2026, 1)

tenants = st.sampled_from(TENANTS)
moments = st.builds(
    lambda month, off: NEW_YEAR.begins_at + month * 30.4 * DAY + off,
    st.integers(-3, 3) | st.just(120),
    st.floats(-2 * DAY, 2 * DAY),
)


class AgainstSums(RuleBasedStateMachine):
    """Each (period, tenant) has a sum, and the sum that is on disk; a crash takes it back to that.

    A flush may stay open over any number of other steps, and so may the reading of a month.
    """

    @initialize()
    def make(self) -> None:
        self.clock = ManualClock(NEW_YEAR.begins_at - DAY / 2)
        self.disk = Disk(self.clock)
        self.charged: Counter[tuple[Period, str]] = Counter()
        self.durable: dict[tuple[Period, str], int] = {}
        self.open_flushes: list[Flush] = []
        self.taken: list[LedgerRecord] | None = None
        self.in_flight: dict[tuple[Period, str], int] = {}
        self.reading: tuple[Period, dict[str, bytes]] | None = None

    def put(self) -> None:
        assert self.taken is not None
        self.disk.put(self.taken)
        self.durable |= self.in_flight

    # -- what happens -----------------------------------------------------------------------------

    @rule(tenant=tenants, micro=st.integers(0, 10**9))
    def charge(self, tenant: str, micro: int) -> None:
        before = self.disk.ledger.period
        period = self.disk.charge(tenant, micro)
        self.charged[period, tenant] += micro
        if period < before:
            assert self.clock.wall() < before.begins_at - TOLERANCE_S

    @rule(seconds=st.floats(0, 3 * DAY) | st.floats(0, 70 * DAY))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(wall=moments)
    def set_clock(self, wall: float) -> None:
        self.clock.set_wall(wall)

    @rule(busy=st.sets(tenants))
    def rest(self, busy: set[str]) -> None:
        self.disk.ledger.rest(busy)

    @precondition(lambda self: self.taken is None)
    @rule()
    def begin_flush(self) -> None:
        for flush in self.disk.ledger.flushes():
            self.taken = flush.__enter__()
            keys = [(one.period, one.tenant) for one in self.taken]
            self.in_flight = {key: self.charged[key] for key in keys}
            self.open_flushes = [flush]

    @precondition(lambda self: self.taken is not None)
    @rule(written=st.booleans(), told=st.booleans())
    def end_flush(self, written: bool, told: bool) -> None:  # noqa: FBT001  # hypothesis
        """Written or not; and if it was, that may be told or not."""
        if written:
            self.put()
        [flush] = self.open_flushes
        if written and told:
            flush.__exit__(None, None, None)
        else:
            flush.__exit__(DiskFullError, DiskFullError(), None)
        self.taken = None

    @rule()
    def begin_reading(self) -> None:
        period = self.disk.ledger.wanted()
        if period is not None:
            self.reading = period, check_records(period, self.disk.read(period))

    @precondition(lambda self: self.reading is not None)
    @rule()
    def end_reading(self) -> None:
        assert self.reading is not None
        self.disk.ledger.load(*self.reading)
        self.reading = None

    @precondition(lambda self: self.taken is None)
    @rule()
    def settle(self) -> None:
        """Afterwards it is the clock's month, or the one after it that had begun already."""
        before = self.disk.ledger.period
        self.disk.settle()
        now, period = self.clock.wall(), self.disk.ledger.period
        if period != Period.at(now):
            assert period == Period.at(now).next
            assert now >= period.begins_at - TOLERANCE_S
            assert period == before or period in {of for of, _ in self.disk.records}

    @rule(written=st.booleans())
    def crash(self, written: bool) -> None:  # noqa: FBT001  # hypothesis
        """At any moment, also when a flush has been written and nobody has heard of it."""
        if self.taken is not None and written:
            self.put()
        self.taken, self.reading = None, None
        self.disk.start()
        self.charged = Counter(self.durable)

    # -- what is always so ------------------------------------------------------------------------

    @invariant()
    def every_sum_is_exact(self) -> None:
        for period, tenant in self.charged:
            assert self.disk.used(tenant, period) == self.charged[period, tenant]

    @invariant()
    def what_is_on_disk_is_what_was_put(self) -> None:
        assert self.disk.records.keys() == self.durable.keys()
        for (period, tenant), total in self.durable.items():
            assert self.disk.stored(tenant, period) == total

    @invariant()
    def a_tenant_is_busy_or_at_rest(self) -> None:
        ledger = self.disk.ledger
        assert not ledger._live.keys() & ledger._resting.keys()
        assert not any(entry.closed for entry in ledger._live.values())
        assert all(entry.closed and entry.changed for entry in ledger._closed.values())

    def teardown(self) -> None:
        """In the end all can be written."""
        if hasattr(self, "disk"):
            if self.taken is not None:
                self.end_flush(written=False, told=False)
            self.disk.flush()
            for (period, tenant), total in self.charged.items():
                assert self.disk.stored(tenant, period) == total


AgainstSums.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_the_ledger_has_exact_sums_whatever_happens = AgainstSums.TestCase
