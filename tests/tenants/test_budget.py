"""The ledger: months, clocks that are set, flushes that fail."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest

from ledger_disk import Disk, DiskFullError
from pyrope.tenants.budget import TOLERANCE_S, Ledger, check_records
from pyrope.tenants.period import Period
from pyrope.tenants.usage import Usage, UsageFormatError
from pyrope.testing.clock import ManualClock

FEBRUARY, MARCH, APRIL = Period(2026, 2), Period(2026, 3), Period(2026, 4)


def at(text: str) -> float:
    """Unix time of an ISO time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(at("2026-03-15"))


@pytest.fixture
def disk(clock: ManualClock) -> Disk:
    return Disk(clock)


# -- flushes --------------------------------------------------------------------------------------


def test_only_what_has_changed_is_flushed_and_all_of_it_in_total(disk: Disk) -> None:
    disk.charge("a", 5)
    disk.charge("b", 7)
    assert disk.flush() == 2
    assert disk.flush() == 0
    disk.charge("a", 2)
    assert disk.flush() == 1
    assert (disk.stored("a", MARCH), disk.stored("b", MARCH)) == (7, 7)


def test_after_a_crash_what_was_flushed_is_there_once(disk: Disk) -> None:
    disk.charge("a", 5)
    disk.flush()
    disk.charge("a", 100)
    for _ in range(3):
        disk.start()
        assert disk.used("a", MARCH) == 5
        disk.flush()
    disk.charge("a", 1)
    disk.flush()
    assert disk.stored("a", MARCH) == 6


def test_a_flush_that_failed_goes_with_the_next_one(disk: Disk) -> None:
    disk.charge("a", 5)
    disk.fail_to_flush()
    disk.charge("a", 3)
    disk.charge("b", 1)
    disk.fail_to_flush()
    assert disk.flush() == 2
    assert (disk.stored("a", MARCH), disk.stored("b", MARCH)) == (8, 1)


def test_a_flush_that_was_written_but_reported_as_failed_counts_once(disk: Disk) -> None:
    disk.charge("a", 5)
    for flush in disk.ledger.flushes():
        with suppress(DiskFullError), flush as records:
            disk.put(records)
            raise DiskFullError
    disk.flush()
    assert disk.stored("a", MARCH) == 5


def test_what_is_charged_while_a_flush_is_written_goes_with_the_next_one(disk: Disk) -> None:
    disk.charge("a", 5)
    for flush in disk.ledger.flushes():
        with flush as records:
            disk.charge("a", 2)
            disk.put(records)
    assert disk.stored("a", MARCH) == 5
    disk.flush()
    assert disk.stored("a", MARCH) == 7


def test_there_is_one_flush_at_a_time(disk: Disk) -> None:
    disk.charge("a", 5)
    [first], [second] = list(disk.ledger.flushes()), list(disk.ledger.flushes())
    with first, pytest.raises(RuntimeError, match="one flush at a time"):
        second.__enter__()
    with second as records:
        assert records == []


def test_many_tenants_are_flushed_in_portions(disk: Disk) -> None:
    for number in range(2500):
        disk.charge(f"t{number}", number)
    sizes = []
    for flush in disk.ledger.flushes():
        with flush as records:
            disk.put(records)
            sizes.append(len(records))
    assert sizes == [1000, 1000, 500]
    assert disk.start().look_up("t2499", MARCH).used_micro == 2499  # type: ignore[union-attr]


# -- memory ---------------------------------------------------------------------------------------


def test_a_tenant_that_rests_is_charged_on_where_it_was(disk: Disk) -> None:
    disk.charge("a", 5)
    before = disk.ledger.entry("a")
    disk.ledger.rest(busy=())
    assert disk.ledger.entry("a") is before, "it is not written down yet"
    disk.flush()
    disk.ledger.rest(busy={"a"})
    assert disk.ledger.entry("a") is before, "it is busy"
    disk.ledger.rest(busy=())
    assert before.closed
    assert disk.used("a", MARCH) == 5
    assert disk.flush() == 0
    disk.charge("a", 1)
    disk.flush()
    assert disk.stored("a", MARCH) == 6


def test_a_failed_flush_of_a_tenant_that_rests_by_now_is_not_lost(disk: Disk) -> None:
    disk.charge("a", 5)
    for flush in disk.ledger.flushes():
        with suppress(DiskFullError), flush:
            disk.ledger.rest(busy=())
            raise DiskFullError
    disk.flush()
    assert disk.stored("a", MARCH) == 5


def test_looking_a_tenant_up_makes_no_entry(disk: Disk) -> None:
    found = disk.ledger.look_up("nobody", MARCH)
    assert found is not None
    assert found.used_micro == 0
    assert not disk.ledger._live
    assert disk.ledger.look_up("nobody", FEBRUARY) is None


# -- months ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "first", "before", "after"),
    [
        ("2026-02-28T23:59:59.999", "2026-03-01", FEBRUARY, MARCH),
        ("2024-02-29T23:59:59.999", "2024-03-01", Period(2024, 2), Period(2024, 3)),
        ("2025-12-31T23:59:59.999", "2026-01-01", Period(2025, 12), Period(2026, 1)),
    ],
)
def test_a_month_ends_at_midnight_utc_and_the_next_one_begins_at_nothing(
    last: str, first: str, before: Period, after: Period
) -> None:
    clock = ManualClock(at(last))
    disk = Disk(clock)
    assert disk.charge("a", 5) == before
    clock.set_wall(at(first))
    assert disk.charge("a", 2) == after
    assert (disk.used("a", before), disk.used("a", after)) == (5, 2)
    disk.flush()
    assert (disk.stored("a", before), disk.stored("a", after)) == (5, 2)


def test_a_month_turns_without_a_request_too(disk: Disk, clock: ManualClock) -> None:
    clock.set_wall(at("2026-04-02"))
    assert disk.ledger.wanted() is None
    assert disk.ledger.period == APRIL


def test_after_years_without_a_request_a_new_month_begins(disk: Disk, clock: ManualClock) -> None:
    disk.charge("a", 5)
    disk.flush()
    clock.set_wall(at("2031-07-04"))
    assert disk.charge("a", 1) == Period(2031, 7)
    disk.flush()
    disk.start()
    assert disk.used("a", Period(2031, 7)) == 1
    assert disk.stored("a", MARCH) == 5


def test_what_was_not_flushed_before_the_month_turned_is_flushed_after(
    disk: Disk, clock: ManualClock
) -> None:
    disk.charge("a", 5)
    disk.fail_to_flush()
    disk.charge("b", 3)
    clock.set_wall(at("2026-04-01"))
    disk.charge("a", 1)
    disk.fail_to_flush()
    assert disk.flush() == 3
    assert [disk.stored("a", MARCH), disk.stored("b", MARCH)] == [5, 3]
    assert disk.stored("a", APRIL) == 1
    assert disk.ledger.look_up("a", MARCH) is None, "nothing of it is kept any more"


def test_a_month_that_turns_during_a_flush_that_fails_loses_nothing(
    disk: Disk, clock: ManualClock
) -> None:
    disk.charge("a", 5)
    for flush in disk.ledger.flushes():
        with suppress(DiskFullError), flush:
            clock.set_wall(at("2026-04-01"))
            disk.charge("a", 1)
            assert disk.used("a", MARCH) == 5
            raise DiskFullError
    assert disk.used("a", MARCH) == 5
    disk.flush()
    assert (disk.stored("a", MARCH), disk.stored("a", APRIL)) == (5, 1)


def test_the_share_of_the_month_gone_is_that_of_the_period(disk: Disk, clock: ManualClock) -> None:
    for moment in ("2026-03-01", "2026-03-15T12:00", "2026-03-31T23:59:59", "2026-02-28T12:00"):
        clock.set_wall(at(moment))
        disk.settle()
        assert disk.ledger.share_gone(clock.wall()) == MARCH.share_gone(clock.wall())


# -- clocks that are set --------------------------------------------------------------------------


def test_a_clock_set_back_a_little_leads_back_into_no_month_that_is_over() -> None:
    clock = ManualClock(at("2026-02-28T23:59:50"))
    disk = Disk(clock)
    disk.charge("a", 5)
    clock.advance(20)
    disk.charge("a", 1)
    clock.set_wall(at("2026-02-28T23:59:55"))
    assert disk.charge("a", 2) == MARCH
    clock.set_wall(MARCH.begins_at - TOLERANCE_S)
    assert disk.charge("a", 4) == MARCH
    disk.flush()
    disk.start()
    assert disk.charge("a", 8) == MARCH, "nor does a restart"
    clock.set_wall(at("2026-03-01T00:00:01"))
    assert disk.charge("a", 16) == MARCH
    assert (disk.used("a", FEBRUARY), disk.used("a", MARCH)) == (5, 31)


def test_a_clock_that_was_far_ahead_and_is_right_again_does_no_lasting_damage(
    disk: Disk, clock: ManualClock
) -> None:
    disk.charge("a", 5)
    disk.flush()
    clock.set_wall(at("2035-01-10"))
    assert disk.charge("a", 100) == Period(2035, 1)
    disk.flush()
    assert disk.ledger.expired(keep=1) == []
    clock.set_wall(at("2026-03-15T00:10"))
    assert disk.charge("a", 1) == Period(2035, 1), "March has to be loaded first"
    disk.settle()
    assert disk.charge("a", 2) == MARCH
    assert disk.used("a", MARCH) == 7, "its budget has not been renewed"
    clock.set_wall(at("2026-04-01"))
    assert disk.charge("a", 3) == APRIL
    disk.flush()
    disk.start()
    assert disk.ledger.period == APRIL
    clock.set_wall(at("2035-01-01"))
    disk.settle()
    assert disk.charge("a", 0) == Period(2035, 1)
    assert disk.used("a", Period(2035, 1)) == 101


def test_a_clock_that_was_far_ahead_does_no_damage_over_a_restart_or_a_failing_disk(
    disk: Disk, clock: ManualClock
) -> None:
    disk.charge("a", 5)
    disk.flush()
    disk.charge("a", 6)
    clock.set_wall(at("2035-01-10"))
    disk.charge("a", 100)
    disk.fail_to_flush()
    clock.set_wall(at("2026-03-15T00:10"))
    disk.settle()
    assert disk.used("a", MARCH) == 11, "what was charged and not written is newer"
    assert "a" not in disk.ledger._resting
    disk.flush()
    disk.start()
    assert (disk.ledger.period, disk.used("a", MARCH)) == (MARCH, 11)
    assert disk.used("a", Period(2035, 1)) == 100


@pytest.mark.parametrize("asks_again", [False, True])
def test_what_is_flushed_while_a_month_is_read_is_not_lost(
    disk: Disk,
    clock: ManualClock,
    asks_again: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    disk.charge("a", 5)
    disk.flush()
    disk.charge("a", 6)
    clock.set_wall(at("2035-01-10"))
    disk.charge("a", 100)
    clock.set_wall(at("2026-03-15T00:10"))
    assert disk.ledger.wanted() == MARCH
    read = check_records(MARCH, disk.read(MARCH))
    for flush in disk.ledger.flushes():
        with flush as records:
            assert not (asks_again and disk.ledger.wanted())
            disk.put(records)
    disk.ledger.load(MARCH, read)
    assert disk.charge("a", 1) == Period(2035, 1), "what was read is not all any more"
    disk.settle()
    assert disk.charge("a", 1) == MARCH
    assert disk.used("a", MARCH) == 12


def test_a_month_that_was_read_for_nothing_is_not_charged(disk: Disk, clock: ManualClock) -> None:
    disk.charge("a", 5)
    disk.flush()
    clock.set_wall(at("2026-05-10"))
    disk.charge("a", 1)
    clock.set_wall(at("2026-03-20"))
    assert disk.ledger.wanted() == MARCH
    read = check_records(MARCH, disk.read(MARCH))
    clock.set_wall(at("2026-05-11"))
    assert disk.ledger.wanted() is None
    disk.ledger.load(MARCH, read)
    assert disk.ledger.period == Period(2026, 5)
    assert disk.used("a", Period(2026, 5)) == 1


def test_a_clock_that_cannot_be_right_renews_no_budget(disk: Disk, clock: ManualClock) -> None:
    disk.charge("a", 5)
    disk.flush()
    clock.set_wall(100.0)
    disk.start()
    assert disk.charge("a", 2) == MARCH
    clock.set_wall(at("2026-03-16"))
    assert disk.charge("a", 1) == MARCH
    clock.set_wall(100.0)
    assert disk.charge("a", 1) == MARCH
    assert disk.used("a", MARCH) == 9


def test_a_first_start_with_a_clock_that_cannot_be_right_recovers(clock: ManualClock) -> None:
    clock.set_wall(100.0)
    disk = Disk(clock)
    assert disk.charge("a", 5) == Period(1970, 1)
    clock.set_wall(at("2026-03-16"))
    assert disk.charge("a", 5) == MARCH


def test_a_first_start_with_a_clock_that_is_ahead_recovers(clock: ManualClock) -> None:
    clock.set_wall(at("2035-01-10"))
    disk = Disk(clock)
    disk.charge("a", 5)
    disk.flush()
    clock.set_wall(at("2026-03-16"))
    assert disk.charge("a", 1) == MARCH


# -- old months, damage, order --------------------------------------------------------------------


def test_old_months_are_removed_by_their_number(disk: Disk, clock: ManualClock) -> None:
    for month in range(3, 9):
        clock.set_wall(at(f"2026-0{month}-10"))
        disk.charge("a", month)
        disk.flush()
    assert disk.ledger.expired(keep=3) == [MARCH, APRIL]
    assert disk.ledger.expired(keep=12) == []
    disk.ledger.removed(MARCH)
    assert disk.ledger.expired(keep=3) == [APRIL]


def test_a_month_that_is_not_all_written_yet_is_not_removed(disk: Disk, clock: ManualClock) -> None:
    disk.charge("a", 1)
    disk.flush()
    disk.charge("a", 1)
    for month in (4, 5, 6):
        clock.set_wall(at(f"2026-0{month}-10"))
        disk.charge("b", 1)
        for flush in disk.ledger.flushes():
            with suppress(DiskFullError), flush as records:
                disk.put([one for one in records if one.tenant == "b"])
                raise DiskFullError
    assert MARCH not in disk.ledger.expired(keep=1)
    disk.flush()
    assert disk.ledger.expired(keep=1) == [MARCH, APRIL]


def test_a_record_that_is_damaged_stops_loading_and_says_which() -> None:
    good = Usage().encode()
    with pytest.raises(UsageFormatError, match=r"tenant 'b', 2026-03: .*damaged.*backup"):
        check_records(MARCH, [("a", good), ("b", good[:-3])])


def test_a_ledger_that_has_not_been_loaded_charges_nobody(clock: ManualClock) -> None:
    ledger = Ledger(clock)
    with pytest.raises(RuntimeError, match="not been opened"):
        ledger.turn(clock.wall())
    ledger.open([MARCH])
    assert ledger.wanted() == MARCH
    with pytest.raises(RuntimeError, match="not been loaded"):
        ledger.entry("a")
    with pytest.raises(RuntimeError, match="not been loaded"):
        _ = ledger.period
    assert list(ledger.flushes()) == []
    ledger.load(MARCH, {})
    assert ledger.entry("a").used_micro == 0


def test_what_language_models_have_used_is_told_of_all_that_have_used_any() -> None:
    clock = ManualClock()
    ledger = Ledger(clock)
    ledger.open([])
    for name, tokens in (("quiet", 0), ("busy", 5), ("resting", 7)):
        entry = ledger.entry(name)
        entry.requests += 1
        entry.llm_tokens_in += tokens
        entry.llm_tokens_out += 2 * tokens
        entry.llm_micro += 10 * tokens
    ledger.rest(busy={"busy", "quiet"})
    assert sorted(ledger.llm_totals()) == [("busy", 15, 50), ("resting", 21, 70)]
    assert ledger.look_up("resting", ledger.period) is not None
