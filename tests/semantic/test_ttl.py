"""TTLs fall with heat, within bounds, and do not flutter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.semantic.ttl import FactorsInForce, default_threshold, ttl_factor

ratios = st.floats(0, 1e12)
floors = st.floats(0.001, 1)
ceilings = st.floats(1, 1000)


@given(st.tuples(ratios, ratios), floors, ceilings)
def test_more_writes_never_mean_a_longer_life(
    two: tuple[float, float], floor: float, ceiling: float
) -> None:
    colder, hotter = sorted(two)
    slack = 1e-12 * ceiling  # of the rounding of a sum
    assert ttl_factor(hotter, floor, ceiling) <= ttl_factor(colder, floor, ceiling) + slack


@given(ratios, floors, ceilings)
def test_the_factor_is_within_its_bounds(ratio: float, floor: float, ceiling: float) -> None:
    assert floor <= ttl_factor(ratio, floor, ceiling) <= ceiling


@given(floors, ceilings)
def test_the_bounds_are_where_cold_and_heat_lead(floor: float, ceiling: float) -> None:
    assert ttl_factor(0, floor, ceiling) == pytest.approx(ceiling)
    assert ttl_factor(1e9, floor, ceiling) == pytest.approx(floor)


@given(floors)
def test_at_the_threshold_a_cluster_is_half_way_to_the_floor(floor: float) -> None:
    assert ttl_factor(1, floor, 1) == pytest.approx((1 + floor) / 2)
    assert ttl_factor(1, floor, 2) == pytest.approx((1 + floor) / 2, abs=0.02)


@given(st.floats(0, 50), floors, st.floats(1, 10))
def test_a_small_change_of_heat_is_a_small_change_of_the_factor(
    ratio: float, floor: float, ceiling: float
) -> None:
    # The steepest that a curve 1 / (1 + (s r)^2) gets is 0.65 s.
    change = abs(ttl_factor(ratio + 1e-4, floor, ceiling) - ttl_factor(ratio, floor, ceiling))
    assert change <= 1e-4 * (0.65 + 0.65 * 8 * (ceiling - 1)) + 1e-12


def test_a_cluster_of_mean_heat_lives_about_as_long_as_the_policy_says() -> None:
    threshold = default_threshold(1000, 50, times_mean=4, least=16)
    assert ttl_factor(1000 / 50 / threshold, floor=0.1, ceiling=2) == pytest.approx(1.147, abs=1e-3)


@given(st.floats(0, 1e9), st.integers(1, 1024), st.floats(0.1, 100), st.floats(1, 1e6))
def test_the_default_threshold_is_a_multiple_of_the_mean_and_never_below_its_least(
    writes: float, clusters: int, times: float, least: float
) -> None:
    threshold = default_threshold(writes, clusters, times, least)
    assert threshold >= least
    assert threshold == least or threshold == pytest.approx(times * writes / clusters)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=40), st.floats(0, 1))
def test_a_factor_moves_only_when_it_is_off_by_more_than_its_share(
    wanted: list[float], share: float
) -> None:
    factors = FactorsInForce(3)
    held = None
    for factor in wanted:
        settled = factors.settle(1, factor, share)
        if held is None or abs(factor - held) > share * held:
            assert settled == factor
        else:
            assert settled == held
        held = settled


def test_what_swings_within_the_share_does_not_move_the_factor() -> None:
    factors = FactorsInForce(1)
    seen = {factors.settle(0, 1.0 + 0.09 * (-1) ** turn, 0.2) for turn in range(100)}
    assert len(seen) == 1


def test_clusters_move_apart() -> None:
    factors = FactorsInForce(2)
    assert factors.settle(0, 1.0, 0.1) == 1.0
    assert factors.settle(1, 0.5, 0.1) == 0.5
    assert factors.settle(0, 1.05, 0.1) == 1.0
