from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.tenants.limits import TenantLimits
from pyrope.tenants.pressure import (
    EARLY_SHARE,
    SPENT,
    Adjustment,
    Effort,
    adjust,
    pressure,
    scale,
    strain,
)

LIMITS = TenantLimits(ef_floor=16, nprobe_floor=2, max_scans_floor=1000)

shares = st.floats(0, 1)
soft_limits = st.floats(0.01, 3)
efforts = st.integers(1, 10**6)
ceilings = st.none() | efforts


def test_pressure_is_one_where_the_money_lasts_as_long_as_the_month() -> None:
    assert pressure(50, 100, 0.5) == 1.0
    assert pressure(50, 100, 0.25) == 2.0
    assert pressure(0, 100, 0.5) == 0.0
    assert pressure(0, 0, 0.5) == math.inf


def test_the_first_request_of_a_month_is_no_emergency() -> None:
    gone = 1 / 2_678_400
    assert pressure(1, 1000, gone) == pytest.approx(0.01)
    assert strain(1, 1000, gone, 1.0) == 0.0
    assert strain(1000 * EARLY_SHARE, 1000, gone, 1.0) == 0.0
    assert strain(1000 * EARLY_SHARE * 1.01, 1000, gone, 1.0) > 0.0


@given(st.floats(0, 2), shares, soft_limits)
def test_up_to_the_soft_limit_nothing_is_lowered_and_at_the_end_everything(
    used: float, gone: float, soft: float
) -> None:
    value = strain(used, 1.0, gone, soft)
    if used >= 1:
        assert value == SPENT
    else:
        assert 0 <= value < SPENT
        if pressure(used, 1.0, gone) < soft * (1 - 1e-9):
            assert value == 0
        if pressure(used, 1.0, gone) > soft * (1 + 1e-6):
            assert value > 0


@given(shares, shares, shares, shares, soft_limits, soft_limits)
def test_strain_grows_with_what_is_used_and_shrinks_with_time_and_patience(
    used: float, more: float, gone: float, later: float, soft: float, softer: float
) -> None:
    used, more = sorted((used, more))
    gone, later = sorted((gone, later))
    soft, softer = sorted((soft, softer))
    value = strain(used, 1.0, gone, soft)
    assert value <= strain(more, 1.0, gone, soft) + 1e-12
    assert value >= strain(used, 1.0, later, soft) - 1e-12
    assert value >= strain(used, 1.0, gone, softer) - 1e-12


@given(shares, soft_limits)
def test_strain_has_no_jump_on_the_way(gone: float, soft: float) -> None:
    free = soft * max(gone, EARLY_SHARE)
    if free >= 0.9:
        return  # nothing is lowered, or as steeply as the rest of the budget is small
    points = [strain(step / 2000, 1.0, gone, soft) for step in range(2001)]
    steps = [after - before for before, after in pairwise(points)]
    # The slope of a smoothstep is 3 / 2 at the most, over a way of 1 - free.
    assert max(steps) <= 1.51 / (1 - free) / 2000
    assert abs(points[1999] - SPENT) < 3 * (1 / 2000 / (1 - free)) ** 2 + 1e-12


def test_a_soft_limit_that_is_never_reached_lowers_nothing_before_the_end() -> None:
    assert strain(0.999, 1.0, 0.9, 2.0) == 0.0
    assert strain(1.0, 1.0, 0.9, 2.0) == SPENT


def test_no_money_is_spent_from_the_first_moment() -> None:
    assert strain(0, 0, 0.5, 1.0) == SPENT


@given(efforts, efforts, ceilings, shares)
def test_effort_stays_between_floor_and_ceiling_and_is_never_raised(
    value: int, floor: int, ceiling: int | None, strain: float
) -> None:
    scaled = scale(value, floor, ceiling, strain)
    most = value if ceiling is None else min(value, ceiling)
    assert min(floor, most) <= scaled <= most
    assert scale(value, floor, ceiling, 0.0) == most
    assert scale(value, floor, ceiling, SPENT) == min(floor, most)


@given(efforts, efforts, efforts, ceilings, shares, shares)
def test_effort_falls_with_strain_and_grows_with_the_wish(
    value: int, more: int, floor: int, ceiling: int | None, strain: float, harder: float
) -> None:
    value, more = sorted((value, more))
    strain, harder = sorted((strain, harder))
    scaled = scale(value, floor, ceiling, strain)
    assert scaled >= scale(value, floor, ceiling, harder)
    assert scaled <= scale(more, floor, ceiling, strain)


def test_who_gets_what_was_asked_for_is_told_nothing() -> None:
    asked = Effort(64, 8, 50_000, 0.9)
    assert adjust(asked, LIMITS, 0.0) == (asked, None)
    assert adjust(Effort(None, None, None), LIMITS, 0.7) == (Effort(None, None, None), None)
    assert adjust(Effort(0, 0, 0), LIMITS, 1.0) == (Effort(0, 0, 0), None)
    assert adjust(Effort(8, 1, 10), LIMITS, 1.0) == (Effort(8, 1, 10), None)


def test_under_pressure_effort_is_lowered_and_told() -> None:
    given, told = adjust(Effort(64, None, None), LIMITS, 0.5)
    assert given == Effort(40, None, None)
    assert told == Adjustment("pressure", {"ef": 64}, {"ef": 40})
    given, told = adjust(Effort(None, 10, 9000), LIMITS, 0.5)
    assert given == Effort(None, 6, 5000)
    assert told == Adjustment(
        "pressure", {"nprobe": 10, "max_scans": 9000}, {"nprobe": 6, "max_scans": 5000}
    )


def test_when_the_budget_is_spent_effort_is_at_the_floor() -> None:
    given, told = adjust(Effort(64, 10, 9000, 0.99), LIMITS, SPENT)
    assert given == Effort(16, 2, 1000, 0.99)
    assert told is not None
    assert told.reason == "spent"
    assert "min_recall" not in told.to


def test_ceilings_bound_what_is_wished_for_without_any_pressure() -> None:
    limits = replace(LIMITS, ef_ceiling=100, nprobe_ceiling=4, max_scans_ceiling=5000)
    given, told = adjust(Effort(500, 8, None), limits, 0.0)
    assert given == Effort(100, 4, 5000)
    assert told == Adjustment(
        "ceiling",
        {"ef": 500, "nprobe": 8, "max_scans": None},
        {"ef": 100, "nprobe": 4, "max_scans": 5000},
    )
    assert adjust(Effort(100, 4, 5000), limits, 0.0)[1] is None
    _, told = adjust(Effort(500, None, 100), limits, 0.5)
    assert told is not None
    assert told.reason == "pressure"


def test_pressure_that_has_nothing_left_to_lower_is_not_given_as_the_reason() -> None:
    limits = replace(LIMITS, ef_floor=50, ef_ceiling=50)
    _, told = adjust(Effort(500, None, None), limits, 0.5)
    assert told == Adjustment("ceiling", {"ef": 500}, {"ef": 50})


@pytest.mark.parametrize(("asked", "given"), [(0.95, 0.8), (None, 0.8), (0.8, 0.8), (0.5, 0.5)])
def test_when_the_budget_is_spent_a_tenant_that_allows_it_gets_looser_hits(
    asked: float | None, given: float
) -> None:
    limits = replace(LIMITS, degraded_recall=0.8)
    effort, told = adjust(Effort(None, None, None, asked), limits, SPENT)
    assert effort.min_recall == given
    if asked == given:
        assert told is None
    else:
        assert told == Adjustment("spent", {"min_recall": asked}, {"min_recall": given})
    assert adjust(Effort(None, None, None, asked), limits, 0.999)[1] is None


def test_another_reason_for_strain_is_told_as_such_and_loosens_no_recall() -> None:
    limits = replace(LIMITS, degraded_recall=0.8)
    given, told = adjust(Effort(64, None, None, 0.95), limits, 1.0, "latency")
    assert given == Effort(16, None, None, 0.95)
    assert told == Adjustment("latency", {"ef": 64}, {"ef": 16})


@given(
    st.builds(
        Effort,
        st.none() | st.integers(0, 5000),
        st.none() | st.integers(0, 500),
        st.none() | st.integers(0, 10**6),
        st.none() | st.floats(0.1, 1),
    ),
    shares,
    st.none() | st.integers(1, 4000),
    st.none() | st.floats(0.1, 1),
)
def test_what_is_told_is_exactly_what_changed(
    asked: Effort, strain: float, ceiling: int | None, degraded: float | None
) -> None:
    limits = replace(
        LIMITS, ef_ceiling=ceiling, max_scans_ceiling=ceiling, degraded_recall=degraded
    )
    given, told = adjust(asked, limits, strain)
    before, after = asked._asdict(), given._asdict()
    changed = [name for name in before if before[name] != after[name]]
    if told is None:
        assert not changed
    else:
        assert changed
        assert told.from_ == {name: before[name] for name in changed}
        assert told.to == {name: after[name] for name in changed}
        assert (told.reason == "ceiling") == (given == adjust(asked, limits, 0.0)[0])
