"""The ledger: what every tenant has used in the month that is being charged.

**What is kept.** Of the month being charged, the totals of each tenant that has done anything in
it: as an `Entry` while it is busy, as the bytes of one otherwise. Of other months nothing, but for
what has not been written down yet. A tenant that has done nothing is in no table here.

**Exactly once.** The ledger writes nothing itself. Whoever owns the store goes through `flushes`
now and then, and puts records of *absolute* totals, each in place of the one before. However often
a record is put, it counts once; a flush that fails is put back and its totals go with the next one;
a crash loses what was charged since the last flush and nothing else. For a put that was reported as
failed and happened nevertheless, the same holds.

    ledger.open(periods that the store has records of)
    while (period := ledger.wanted()) is not None:          # at the start, and before each flush
        ledger.load(period, check_records(period, await records of the period))
    for flush in ledger.flushes():                        # every second, and at the end
        with flush as records:
            await put(records)
    for period in ledger.expired(keep):                   # now and then
        await remove the records of the period
        ledger.removed(period)

One task does all this, one step after the other; what it awaits may take as long as it likes.

**Which month.** That of the wall clock, in UTC; but clocks are set, by people and by programs.

- *Back by up to a day* (`TOLERANCE_S`; a clock set to local time by mistake is 14 hours off at the
  most): if that leads to the month before, charging stays in the month it is in until the clock
  is there again. A month that is over stays over, and no tenant spends its budget a second time.
- *Back by more*: an error is being put right. Charging goes to the clock's month, on top of all
  that was charged in it before, so that nobody's budget is renewed. Hence a clock that was set far
  ahead does no lasting damage: once it is right again, charging goes on where it had been, without
  a restart. What was charged meanwhile stays in the month that the clock showed, and will be there
  when that month comes.
- *Back before `_EARLIEST`*, as when a host without a battery starts in 1970: the clock cannot be
  right. Charging stays in the latest month until it has been set.
- *Ahead*: nothing tells that from time that has passed. Charging goes to the clock's month.

Before going to a month of which the store has records, these are needed: the ledger names it as
`wanted`, and charges on in the month it is in until they have been loaded. Old months are removed
by number and not by age, so that a clock that is far ahead makes no month old, and the one
that it will come back to is still there.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import islice
from types import TracebackType
from typing import NamedTuple

from pyrope.clock import Clock
from pyrope.log import get_logger
from pyrope.tenants.period import Period
from pyrope.tenants.usage import Usage, UsageFormatError, check_usage, llm_part, used_part

_log = get_logger(__name__)

TOLERANCE_S = 86_400.0
"""A clock that has been set back by less does not lead back into another month."""

# No server ran before Pyrope was written.
_EARLIEST = Period(2020, 1)

# Totals encoded in one go: 3 ms.
_AT_ONCE = 1000


class LedgerRecord(NamedTuple):
    """What a tenant has used in a period, all in all; put it in place of the one before.

    Attributes:
        value: what `Usage.decode` reads.
    """

    period: Period
    tenant: str
    value: bytes


class Entry(Usage):
    """Totals in the ledger. Whoever adds to them sets `changed`.

    Attributes:
        changed: they have to be written down.
        closed: they are not what is being charged any more: ask the ledger again.
    """

    __slots__ = ("changed", "closed")

    def __init__(self) -> None:
        super().__init__()
        self.changed = False
        self.closed = False


class Charged:
    """What all tenants together were charged, and were refused, since the ledger was made.

    Attributes:
        compute_micro, llm_micro, refused_quota, refused_budget, embeddings: as of `Usage`.
    """

    __slots__ = ("compute_micro", "embeddings", "llm_micro", "refused_budget", "refused_quota")

    def __init__(self) -> None:
        self.compute_micro = 0
        self.llm_micro = 0
        self.refused_quota = 0
        self.refused_budget = 0
        self.embeddings = 0


class Ledger:
    """Totals by tenant, of the month being charged. For the event loop.

    Args:
        clock: its wall is what months go by.

    Attributes:
        charged: whatever month it was in.
        steady_from, steady_until: Unix times in seconds. As long as the wall clock is between
            them (the first included), there is no need to call `turn`.
    """

    def __init__(self, clock: Clock) -> None:
        self.charged = Charged()
        self._wall = clock.wall
        self._period: Period | None = None
        # To be loaded; and the same if what the store has of it has not changed since it was told.
        self._wanted: Period | None = None
        self._asked: Period | None = None
        self.steady_from = float("inf")
        self.steady_until = float("-inf")
        self._begins_at, self._length = 0.0, 1.0
        self._live: dict[str, Entry] = {}
        self._resting: dict[str, bytes] = {}
        # Of months that are not being charged: what a flush has yet to take.
        self._closed: dict[tuple[Period, str], Entry] = {}
        self._in_flight: dict[tuple[Period, str], bytes] | None = None
        self._stored: set[Period] = set()
        self._opened = False
        self._has_warned = False

    # -- life -------------------------------------------------------------------------------------

    def open(self, stored: Iterable[Period]) -> None:
        """Begin; the month is `wanted` if there are records of it.

        Args:
            stored: periods that the store has records of.
        """
        self._stored = set(stored)
        self._opened = True
        self.turn(self._wall())

    def wanted(self) -> Period | None:
        """The period whose records are to be loaded; None if none are, or during a flush."""
        self.turn(self._wall())
        self._asked = self._wanted if self._in_flight is None else None
        return self._asked

    def load(self, period: Period, records: Mapping[str, bytes]) -> None:
        """Charge in the period that was wanted.

        If it is not wanted any more, or a flush has come between, nothing happens: ask again.

        Args:
            period: what `wanted` was before the records were read.
            records: what `check_records` answered.
        """
        if period == self._wanted == self._asked:
            self._charge_in(period, records)

    @property
    def period(self) -> Period:
        """The one being charged. Raises RuntimeError before the first one has been loaded."""
        if self._period is None:
            raise RuntimeError("the ledger has not been loaded")
        return self._period

    def share_gone(self, now: float) -> float:
        """Of the period being charged, as `Period.share_gone`, without looking at a calendar."""
        gone = now - self._begins_at + 1.0
        if gone >= self._length:
            return 1.0
        return (gone if gone > 1.0 else 1.0) / self._length

    def turn(self, now: float) -> None:
        """Charge in the month that it is; see the top of this module for which one that is.

        Args:
            now: wall time in seconds.
        """
        if self.steady_from <= now < self.steady_until:
            self._wanted = None
            self._has_warned = False
            return
        if not self._opened:
            raise RuntimeError("the ledger has not been opened")
        period = self._month(now)
        if period == self._period:
            self._wanted = None
        elif period in self._stored:
            self._wanted = period
        else:
            self._charge_in(period, {})

    def _month(self, now: float) -> Period:
        """Which month to charge at a wall time."""
        there = Period.at(now)
        known = self._stored if self._period is None else {*self._stored, self._period}
        following = there.next
        if following in known and now >= following.begins_at - TOLERANCE_S:
            return following
        if there >= _EARLIEST or not known:
            return there
        latest = max(there, self._period or max(known))
        if latest != there and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "the clock cannot be right: the latest month is being charged",
                clock=str(there),
                period=str(latest),
            )
        return latest

    def _charge_in(self, period: Period, records: Mapping[str, bytes]) -> None:
        former = self._period
        if former is not None:
            for tenant, entry in self._live.items():
                entry.closed = True
                if entry.changed:
                    self._closed[former, tenant] = entry
            if period < former:
                _log.warning(
                    "the clock was set back: an earlier month is being charged",
                    period=str(period),
                    before=str(former),
                )
        self._live = {}
        self._resting = dict(records)
        # What has not been written down yet is newer than what was read.
        for key in [key for key in self._closed if key[0] == period]:
            entry = self._closed.pop(key)
            entry.closed = False
            self._live[key[1]] = entry
            self._resting.pop(key[1], None)
        self._period = period
        self._wanted = None
        begins_at, ends_at = float(period.begins_at), float(period.ends_at)
        self._begins_at, self._length = begins_at, ends_at - begins_at
        self.steady_from, self.steady_until = begins_at - TOLERANCE_S, ends_at

    # -- totals -----------------------------------------------------------------------------------

    def entry(self, tenant: str) -> Entry:
        """What is being charged; made if there is none. Raises RuntimeError as `period`."""
        entry = self._live.get(tenant)
        if entry is None:
            if self._period is None:
                raise RuntimeError("the ledger has not been loaded")
            resting = self._resting.pop(tenant, None)
            entry = self._live[tenant] = Entry() if resting is None else Entry.decode(resting)
        return entry

    def rest(self, busy: Container[str]) -> None:
        """Keep totals in less memory, but of tenants that are busy, and what is to be flushed.

        Those that are resting already cost nothing here. 1,000 others take 3 ms; there are no more
        in one call.
        """
        quiet = (
            (tenant, entry)
            for tenant, entry in self._live.items()
            if not entry.changed and tenant not in busy
        )
        for tenant, entry in list(islice(quiet, _AT_ONCE)):
            entry.closed = True
            del self._live[tenant]
            self._resting[tenant] = entry.encode()

    def look_up(self, tenant: str, period: Period) -> Usage | None:
        """Totals to read, which do not change any more; None: only the store can tell."""
        if period == self._period:
            entry = self._live.get(tenant)
            value = self._resting.get(tenant) if entry is None else entry.encode()
            return Usage() if value is None else Usage.decode(value)
        closed = self._closed.get((period, tenant))
        value = (self._in_flight or {}).get((period, tenant)) if closed is None else closed.encode()
        return None if value is None else Usage.decode(value)

    def used_micro(self, tenant: str) -> int:
        """Micro-units that a tenant has used of its budget, in the period being charged."""
        entry = self._live.get(tenant)
        if entry is not None:
            return entry.used_micro
        stored = self._resting.get(tenant)
        return 0 if stored is None else used_part(stored)

    def records(self) -> list[bytes]:
        """Totals of everybody, in the period being charged, for `Usage.decode`."""
        return [*[entry.encode() for entry in self._live.values()], *self._resting.values()]

    def llm_totals(self) -> Iterator[tuple[str, int, int]]:
        """Tokens, and micro-units, that language models have used of each tenant's budget.

        In the period being charged, of those that have used any; a microsecond for each tenant
        with totals. The ledger must not be changed before it is through.
        """
        for tenant, entry in self._live.items():
            if entry.llm_tokens_in or entry.llm_tokens_out or entry.llm_micro:
                yield tenant, entry.llm_tokens_in + entry.llm_tokens_out, entry.llm_micro
        for tenant, stored in self._resting.items():
            tokens_in, tokens_out, micro = llm_part(stored)
            if tokens_in or tokens_out or micro:
                yield tenant, tokens_in + tokens_out, micro

    # -- writing down -----------------------------------------------------------------------------

    def flushes(self) -> Iterator[Flush]:
        """All that has changed until now, in portions; see the top of this module.

        A flush is to be entered and left before the next one is asked for.
        """
        changed = list(self._closed.items())
        if self._period is not None:
            period = self._period
            changed += [
                ((period, tenant), entry) for tenant, entry in self._live.items() if entry.changed
            ]
        for start in range(0, len(changed), _AT_ONCE):
            yield Flush(self, changed[start : start + _AT_ONCE])

    def _take(self, changed: list[tuple[tuple[Period, str], Entry]]) -> list[LedgerRecord]:
        if self._in_flight is not None:
            raise RuntimeError("one flush at a time")
        self._asked = None
        records = []
        for (period, tenant), entry in changed:
            if not entry.changed:
                continue  # another pass has been quicker
            entry.changed = False
            records.append(LedgerRecord(period, tenant, entry.encode()))
            self._stored.add(period)
            self._closed.pop((period, tenant), None)
        self._in_flight = {(one.period, one.tenant): one.value for one in records}
        return records

    def _written(self) -> None:
        self._in_flight = None

    def _put_back(self) -> None:
        taken, self._in_flight = self._in_flight or {}, None
        for key, value in taken.items():
            period, tenant = key
            if period == self._period:
                self.entry(tenant).changed = True
            else:
                entry = self._closed.setdefault(key, Entry.decode(value))
                entry.closed = entry.changed = True

    # -- removing ---------------------------------------------------------------------------------

    def expired(self, keep: int) -> list[Period]:
        """Periods to be removed from the store: all that have records but the latest ones.

        Args:
            keep: how many to keep beside the one being charged, at least 1.
        """
        busy = {self._period, self._wanted, *(period for period, _ in self._closed)}
        return [one for one in sorted(self._stored - {self._period})[:-keep] if one not in busy]

    def removed(self, period: Period) -> None:
        """Say that the store has no records of a period any more."""
        self._stored.discard(period)


class Flush:
    """Records to be put within a ``with``. Whatever is raised there puts them back."""

    __slots__ = ("_changed", "_ledger")

    def __init__(self, ledger: Ledger, changed: list[tuple[tuple[Period, str], Entry]]) -> None:
        self._ledger = ledger
        self._changed = changed

    def __enter__(self) -> list[LedgerRecord]:
        return self._ledger._take(self._changed)  # noqa: SLF001 - part of it

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._ledger._written()  # noqa: SLF001 - part of it
        else:
            self._ledger._put_back()  # noqa: SLF001 - part of it


def check_records(period: Period, records: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    """Records of a period by tenant, looked at one by one; in any thread, 1 µs each.

    Raises:
        UsageFormatError: one is damaged, or a newer Pyrope wrote it; says which.
    """
    checked = {}
    for tenant, value in records:
        try:
            check_usage(value)
        except UsageFormatError as error:
            raise UsageFormatError(f"tenant '{tenant}', {period}: {error}") from None
        checked[tenant] = value
    return checked
