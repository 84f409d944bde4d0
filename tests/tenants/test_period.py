from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.errors import CommandError
from pyrope.tenants.period import Period

moments = st.datetimes(
    datetime(1970, 1, 1),
    datetime(9999, 12, 31),
    timezones=st.just(UTC),
)
periods = st.builds(Period, st.integers(1970, 9999), st.integers(1, 12))


def seconds(year: int, month: int, day: int, hour: int = 0) -> float:
    return datetime(year, month, day, hour, tzinfo=UTC).timestamp()


@given(moments)
def test_a_moment_is_in_the_month_that_the_calendar_says(moment: datetime) -> None:
    period = Period.at(moment.timestamp())
    assert (period.year, period.month) == (moment.year, moment.month)
    assert period.begins_at <= moment.timestamp() < period.ends_at


@given(periods)
def test_months_follow_one_another_without_a_gap(period: Period) -> None:
    assert Period.at(period.begins_at) == Period.at(period.ends_at - 1e-3) == period
    if period != Period(9999, 12):
        assert period.next.begins_at == period.ends_at
        assert period < period.next == Period.at(period.ends_at)


@pytest.mark.parametrize(
    ("year", "month", "days"),
    [(2023, 2, 28), (2024, 2, 29), (2100, 2, 28), (2000, 2, 29), (2026, 4, 30), (2026, 12, 31)],
)
def test_a_month_has_as_many_days_as_in_the_calendar(year: int, month: int, days: int) -> None:
    period = Period(year, month)
    assert period.begins_at == seconds(year, month, 1)
    assert timedelta(seconds=period.ends_at - period.begins_at) == timedelta(days=days)


def test_december_is_followed_by_january_and_the_last_month_by_none() -> None:
    assert Period(2025, 12).next == Period(2026, 1)
    assert Period(9999, 12).next == Period(9999, 12)
    assert Period(9999, 12).ends_at - Period(9999, 12).begins_at == 31 * 86_400


@pytest.mark.parametrize(
    ("wall", "period"),
    [
        (-1.0, Period(1970, 1)),
        (-1e300, Period(1970, 1)),
        (1e15, Period(9999, 12)),
        (1e300, Period(9999, 12)),
    ],
)
def test_a_clock_beyond_the_calendar_counts_as_its_nearest_month(
    wall: float, period: Period
) -> None:
    assert Period.at(wall) == period


@given(periods)
def test_a_period_reads_back_from_its_text(period: Period) -> None:
    assert Period.parse(str(period)) == period
    assert len(str(period)) == 7


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026", "2026-3", "2026-00", "2026-13", "26-03", "2026-03-01", " 2026-03"),
        *("2026-03\n", "2026/03", "1969-12", "0000-01", "-026-03", "٢٠٢٦-03", "2026-03" * 100),
    ],
)
def test_a_text_that_is_no_period_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(CommandError, match="yyyy-mm") as refused:
        Period.parse(text)
    assert len(refused.value.message) < 100


@pytest.mark.parametrize(("year", "month"), [(2026, 0), (2026, 13), (1969, 12), (10_000, 1)])
def test_a_month_that_does_not_exist_cannot_be_made(year: int, month: int) -> None:
    with pytest.raises(ValueError, match="there is no month"):
        Period(year, month)


@given(periods, st.floats(-1e6, 4e6), st.floats(0, 1e6))
def test_the_share_gone_grows_from_above_zero_to_one(
    period: Period, after: float, more: float
) -> None:
    wall = period.begins_at + after
    assert 0 < period.share_gone(wall) <= period.share_gone(wall + more) <= 1


def test_the_share_gone_is_what_of_the_month_has_gone() -> None:
    february = Period(2024, 2)
    assert february.share_gone(seconds(2024, 2, 15, 12)) == pytest.approx(0.5, abs=1e-6)
    assert february.share_gone(seconds(2024, 3, 1)) == 1.0
    assert february.share_gone(seconds(2024, 1, 1)) == pytest.approx(0, abs=1e-6)
