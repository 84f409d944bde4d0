"""TYPE AUTO: what is measured, and what follows from it."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.engine.auto import (
    LEAST_SWITCH,
    MOST_SWITCH,
    SearchCosts,
    choose_type,
    graph_bytes,
    measure_costs,
    switch_count,
)
from pyrope.types import IndexType, Metric

GIB = 2**30
FLAT, HNSW, HNSW_SQ8 = IndexType.FLAT, IndexType.HNSW, IndexType.HNSW_SQ8
# As measured at 384 dimensions: a graph is half as dear as a scan from about 5,000 vectors on.
USUAL = SearchCosts(scan_fixed=26e-6, scan_row=25e-9, graph=56e-6, graph_count=2000)
MICROSECONDS = st.floats(0, 1e-3)
COSTS = st.builds(
    SearchCosts,
    scan_fixed=MICROSECONDS,
    scan_row=st.floats(0, 1e-6),
    graph=MICROSECONDS,
    graph_count=st.integers(1, 5000),
)


class TickingClock:
    """Goes on by the same time whenever it is read."""

    def __init__(self, tick: float) -> None:
        self._tick = tick
        self._now = 0.0

    def __call__(self) -> float:
        self._now += self._tick
        return self._now


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("dim", [1, 3, 64])
def test_this_machine_is_measured(metric: Metric, dim: int) -> None:
    costs = measure_costs(metric, dim, 16, 200, 64, seed=1, monotonic=time.monotonic)
    assert 0 < costs.graph < 1
    assert 0 < costs.of_scan(costs.graph_count) < 1
    assert 8 <= costs.graph_count <= 2000
    assert LEAST_SWITCH <= switch_count(costs) <= MOST_SWITCH


def test_a_slow_machine_is_not_kept_from_its_work() -> None:
    """Each vector takes a hundredth of a second, and each search too."""
    costs = measure_costs(Metric.L2, 8, 16, 200, 9, seed=1, monotonic=TickingClock(0.01))
    assert 50 <= costs.graph_count <= 70
    assert costs.graph == pytest.approx(0.01 / 8)
    assert costs.scan_fixed == pytest.approx(0.01 / 8)
    assert costs.scan_row == 0


def test_a_beam_that_would_hold_all_of_the_graph_is_measured_on_a_part() -> None:
    costs = measure_costs(Metric.L2, 8, 16, 50, 1000, seed=1, monotonic=TickingClock(0.01))
    assert costs.graph == pytest.approx(0.01 / 8 * 1000 / (costs.graph_count // 4))


def test_many_dimensions_are_measured_on_few_vectors() -> None:
    costs = measure_costs(Metric.COSINE, 32_768, 4, 4, 4, seed=1, monotonic=TickingClock(0.01))
    assert 8 <= costs.graph_count <= 2**22 // 32_768


def test_a_clock_that_stands_still_tells_for_no_graph() -> None:
    costs = measure_costs(Metric.IP, 4, 16, 20, 8, seed=1, monotonic=lambda: 7.0)
    assert costs == SearchCosts(0, 0, 0, 2000)
    assert switch_count(costs) == MOST_SWITCH


def test_the_usual_costs_lead_to_a_graph_at_some_thousands() -> None:
    assert 4000 < switch_count(USUAL) < 6000


@given(costs=COSTS)
def test_a_graph_comes_when_it_is_clearly_cheaper_and_not_before(costs: SearchCosts) -> None:
    count = switch_count(costs)
    assert LEAST_SWITCH <= count <= MOST_SWITCH
    if count < MOST_SWITCH:
        assert costs.of_scan(count) > 2 * costs.of_graph(count)
    if count > LEAST_SWITCH:
        earlier = int(count / 1.06)
        assert costs.of_scan(earlier) <= 2 * costs.of_graph(earlier)


@given(costs=COSTS, small=st.integers(1, 10**6), large=st.integers(1, 10**6))
def test_more_vectors_never_cost_less(costs: SearchCosts, small: int, large: int) -> None:
    small, large = sorted((small, large))
    assert costs.of_scan(small) <= costs.of_scan(large)
    assert costs.of_graph(small) <= costs.of_graph(large)


@pytest.mark.parametrize(
    ("count", "dim", "budget", "now", "expected"),
    [
        (1, 384, None, FLAT, FLAT),
        (3000, 384, None, FLAT, FLAT),
        (3000, 384, 10**6, FLAT, FLAT),
        (10_000, 384, None, FLAT, HNSW_SQ8),
        (10_000, 192, GIB, FLAT, HNSW_SQ8),
        (10_000, 191, None, FLAT, HNSW),
        (10_000, 128, GIB, FLAT, HNSW),
        (1_000_000, 128, GIB, FLAT, HNSW_SQ8),
        (1_000_000, 8, 10**6, FLAT, HNSW),
        (1_000_000, 128, None, HNSW, HNSW),
        (1_000_000, 128, 2 * GIB, HNSW, HNSW),
        (1_000_000, 128, GIB, HNSW, HNSW_SQ8),
        (1_000_000, 8, 10**6, HNSW, HNSW),
        (1_000_000, 384, None, HNSW, HNSW),
        (1, 384, 0, HNSW_SQ8, HNSW_SQ8),
        (1, 4, None, HNSW_SQ8, HNSW_SQ8),
        (1, 128, None, HNSW, HNSW),
    ],
)
def test_the_type_follows_from_size_and_memory(
    count: int, dim: int, budget: int | None, now: IndexType, expected: IndexType
) -> None:
    assert choose_type(count, dim, USUAL, 16, budget, now) is expected


@given(
    costs=COSTS,
    dim=st.integers(1, 2000),
    m=st.integers(2, 64),
    moments=st.lists(
        st.tuples(st.integers(0, 10**7), st.none() | st.integers(0, 2**36)), max_size=30
    ),
)
def test_an_index_never_goes_back_to_what_it_was(
    costs: SearchCosts, dim: int, m: int, moments: list[tuple[int, int | None]]
) -> None:
    """Whatever comes and goes, vectors or memory."""
    types = [FLAT]
    for count, budget in moments:
        types.append(choose_type(count, dim, costs, m, budget, types[-1]))
    order = [FLAT, HNSW, HNSW_SQ8]
    places = [order.index(each) for each in types]
    assert places == sorted(places)


@given(dim=st.integers(16, 191), m=st.integers(2, 64), budget=st.integers(10**7, 10**11))
def test_a_graph_that_has_just_been_chosen_may_double_before_it_is_tight(
    dim: int, m: int, budget: int
) -> None:
    free = SearchCosts(1.0, 1.0, 0.0, 1)
    each = graph_bytes(HNSW, 1, dim, m)
    fitting = int(0.25 * budget) // each
    if fitting >= LEAST_SWITCH:
        assert choose_type(fitting, dim, free, m, budget, FLAT) is HNSW
        assert choose_type(2 * fitting, dim, free, m, budget, HNSW) is HNSW
        assert choose_type(2 * fitting + 2, dim, free, m, budget, HNSW) is HNSW_SQ8


def test_codes_take_less_memory_than_vectors() -> None:
    for dim, m in itertools.product((1, 16, 384), (2, 16)):
        assert graph_bytes(HNSW_SQ8, 1000, dim, m) < graph_bytes(HNSW, 1000, dim, m)
    assert graph_bytes(HNSW, 1000, 384, 16) == 1000 * (4 * 384 + 128 + 100)
    assert graph_bytes(HNSW_SQ8, 1000, 384, 16) == 1000 * (384 + 128 + 60)
