"""Tables of cached queries, held against distances in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pyrope.cache.near_tables import (
    NO_CLUSTER,
    TABLE_BYTES,
    NearTable,
    direction_of,
    row_bytes,
    upper_distance,
)
from pyrope.cache.simhash import SimHash
from pyrope.types import Float32Matrix, Metric

DIM = 24
EVERYTHING = 1e30
METRICS = list(Metric)


def queries(count: int, seed: int = 0, dim: int = DIM) -> Float32Matrix:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((5, dim))
    rows = centres[rng.integers(5, size=count)] + 0.4 * rng.standard_normal((count, dim))
    return rows.astype(np.float32)


def table(metric: Metric, dim: int = DIM, examined: int = 1000) -> NearTable:
    return NearTable(metric, dim, SimHash(dim, 7), examined)


def filled(metric: Metric, rows: Float32Matrix, examined: int = 1000) -> NearTable:
    made = table(metric, rows.shape[1], examined)
    for number, row in enumerate(rows):
        made.add(number, row, number % 3)
    return made


def true_distance(metric: Metric, one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    a, b = one.astype(np.longdouble), two.astype(np.longdouble)
    if metric is not Metric.L2:
        a, b = a / np.sqrt((a * a).sum()), b / np.sqrt((b * b).sum())
    return float(np.sqrt(((a - b) ** 2).sum()))


def expected(
    metric: Metric, model: dict[int, NDArray[np.float32]], query: NDArray[np.float32]
) -> list[tuple[float, int]]:
    return sorted((true_distance(metric, row, query), number) for number, row in model.items())


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_within_reach_is_found_nearest_first(metric: Metric) -> None:
    rows = queries(200)
    made = filled(metric, rows)
    model = dict(enumerate(rows))
    for query in queries(20, seed=1):
        truth = expected(metric, model, query)
        reach = (truth[40][0] + truth[41][0]) / 2
        for numbers, distances in (
            made.find_by_cluster(query, np.arange(3, dtype=np.int32), 30, reach),
            made.find_by_code(query, 30, EVERYTHING)
            if metric is Metric.L2
            else made.find_by_code(query, 30, 2.0),
        ):
            assert numbers.dtype == np.int64
            assert distances.dtype == np.float32
            assert numbers.tolist() == [number for _, number in truth[:30]]
            assert np.allclose(distances, [distance for distance, _ in truth[:30]], rtol=1e-5)
        numbers, distances = made.find_by_cluster(query, np.arange(3, dtype=np.int32), 200, reach)
        assert len(numbers) == 41
        assert (distances <= reach).all()


@pytest.mark.parametrize("metric", METRICS)
def test_codes_overlook_hardly_any_query_within_reach(metric: Metric) -> None:
    rows = queries(500, dim=96)
    made = filled(metric, rows)
    rng = np.random.default_rng(2)
    missed = 0
    for number in range(300):
        moved = rows[number] + 0.35 * rng.standard_normal(96).astype(np.float32)
        reach = true_distance(metric, rows[number], moved) * 1.0001
        missed += number not in made.find_by_code(moved, 500, reach)[0]
    assert missed <= 3


@pytest.mark.parametrize("metric", METRICS)
def test_codes_find_nothing_out_of_reach(metric: Metric) -> None:
    rows = queries(100)
    made = filled(metric, rows)
    for query in queries(10, seed=1):
        nearest = expected(metric, dict(enumerate(rows)), query)[0][0]
        assert len(made.find_by_code(query, 10, nearest * 0.999)[0]) == 0


def test_a_cached_query_itself_is_found_whatever_its_length() -> None:
    rows = queries(100)
    made = filled(Metric.COSINE, rows)
    for number, row in enumerate(rows):
        numbers, distances = made.find_by_code(row * np.float32(3.7), 1, 1e-6)
        assert numbers.tolist() == [number]
        assert distances[0] < 1e-6


def test_only_members_of_the_named_clusters_are_found() -> None:
    rows = queries(90)
    made = filled(Metric.L2, rows)
    for clusters in ([0], [2, 1], [7], []):
        numbers, _ = made.find_by_cluster(
            rows[0], np.array(clusters, dtype=np.int32), 100, EVERYTHING
        )
        assert sorted(numbers.tolist()) == [n for n in range(90) if n % 3 in clusters]


def test_later_clusters_are_left_out_once_enough_members_are_known() -> None:
    rows = queries(90)
    made = filled(Metric.L2, rows, examined=30)
    numbers, _ = made.find_by_cluster(rows[0], np.array([1, 0], np.int32), 100, EVERYTHING)
    assert sorted(numbers.tolist()) == list(range(1, 90, 3))


@pytest.mark.parametrize("by", ["code", "cluster"])
def test_of_too_many_candidates_the_nearest_codes_are_measured(by: str) -> None:
    rows = queries(2000, dim=96)
    made = NearTable(Metric.COSINE, 96, SimHash(96, 7), 32)
    for number, row in enumerate(rows):
        made.add(number, row, 0)
    found = 0
    rng = np.random.default_rng(3)
    for number in range(100):
        moved = rows[number] + 0.05 * rng.standard_normal(96).astype(np.float32)
        if by == "code":
            numbers, _ = made.find_by_code(moved, 100, 2.0)
        else:
            numbers, _ = made.find_by_cluster(moved, np.zeros(1, np.int32), 100, 2.0)
        assert len(numbers) == 32
        found += int(numbers[0] == number)
    assert found >= 98


def members(made: NearTable, query: NDArray[np.float32], cluster: int) -> list[int]:
    numbers, _ = made.find_by_cluster(query, np.array([cluster], np.int32), 99, EVERYTHING)
    return sorted(numbers.tolist())


def test_new_centroids_assign_what_is_still_there_and_leave_what_has_come_where_it_is() -> None:
    rows = queries(30)
    made = filled(Metric.L2, rows)
    numbers = made.numbers()
    assert sorted(numbers.tolist()) == list(range(30))
    made.remove(3)
    made.add(30, rows[0], 1)
    made.add(31, rows[0])
    there, vectors = made.vectors(numbers)
    assert sorted(there.tolist()) == [n for n in range(30) if n != 3]
    assert np.array_equal(vectors, rows[there])
    made.remove(4)
    made.assign(there, (there % 2 + 10).astype(np.int32))
    assert members(made, rows[0], 10) == [n for n in range(0, 30, 2) if n != 4]
    assert members(made, rows[0], 11) == [n for n in range(1, 30, 2) if n != 3]
    assert members(made, rows[0], 1) == [30]
    assert members(made, rows[0], NO_CLUSTER) == [31]
    assert members(made, rows[0], 0) == members(made, rows[0], 2) == []


def test_what_is_handed_out_are_copies_of_unit_length_where_directions_count() -> None:
    rows = queries(10)
    made = filled(Metric.COSINE, rows)
    numbers, vectors = made.vectors(made.numbers())
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0)
    vectors[:] = 0.0
    made.numbers()[:] = 0
    numbers[:] = 0
    assert made.find_by_code(rows[4], 1, 1e-3)[0].tolist() == [4]


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.IP])
def test_a_query_without_direction_is_refused_and_finds_nothing(metric: Metric) -> None:
    made = filled(metric, queries(10))
    zero = np.zeros(DIM, np.float32)
    with pytest.raises(ValueError, match="no direction"):
        made.add(10, zero)
    assert len(made) == 10
    assert 10 not in made
    assert len(made.find_by_code(zero, 5, 2.0)[0]) == 0
    assert len(made.find_by_cluster(zero, np.zeros(1, np.int32), 5, 2.0)[0]) == 0


def test_a_zero_query_is_a_place_like_any_other_for_l2() -> None:
    made = table(Metric.L2)
    zero = np.zeros(DIM, np.float32)
    made.add(1, zero)
    numbers, distances = made.find_by_code(zero, 5, 0.0)
    assert numbers.tolist() == [1]
    assert distances.tolist() == [0.0]


def test_a_distance_beyond_float32_is_out_of_every_reach() -> None:
    made = table(Metric.L2)
    made.add(1, np.full(DIM, 3e38, np.float32))
    made.add(2, np.full(DIM, -1e18, np.float32))
    assert made.find_by_code(np.zeros(DIM, np.float32), 5, float("inf"))[0].tolist() == [2]


def test_a_number_can_be_there_once_only() -> None:
    made = filled(Metric.L2, queries(3))
    with pytest.raises(ValueError, match="is in the table"):
        made.add(1, queries(1)[0])
    assert made.remove(1)
    assert not made.remove(1)
    made.add(1, queries(1)[0])
    assert len(made) == 3


def test_a_table_that_may_measure_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 distance"):
        table(Metric.L2, examined=0)


def test_an_empty_table_finds_nothing_and_takes_little() -> None:
    made = table(Metric.L2)
    assert made.find_by_code(queries(1)[0], 5, EVERYTHING)[0].tolist() == []
    assert made.find_by_cluster(queries(1)[0], np.zeros(1, np.int32), 5, EVERYTHING)[0].size == 0
    assert made.nbytes < TABLE_BYTES


def test_bytes_follow_the_rows_with_a_bounded_reserve() -> None:
    made = filled(Metric.L2, queries(3000))
    row = 4 * DIM + 8 + 8 + 4
    assert 3000 * row < made.nbytes < (3000 + 1024) * row + 3000 * 200
    for number in range(2990):
        made.remove(number)
    assert made.nbytes <= TABLE_BYTES + 10 * row_bytes(DIM)
    assert made.find_by_code(queries(3000)[2995], 1, 1e-6)[0].tolist() == [2995]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=30))
def test_what_rows_are_said_to_take_is_never_less_than_what_they_do(
    steps: list[tuple[bool, int]],
) -> None:
    made = table(Metric.L2, 8)
    rows = queries(1, dim=8)
    there: list[int] = []
    for number, (adds, count) in enumerate(steps):
        for more in range(count):
            if adds:
                there.append(100 * number + more)
                made.add(there[-1], rows[0])
            elif there:
                made.remove(there.pop(more % len(there)))
            assert made.nbytes <= TABLE_BYTES + len(there) * row_bytes(8)


@settings(max_examples=60, deadline=None)
@given(
    metric=st.sampled_from(METRICS),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=120),
)
def test_adding_and_removing_in_any_order_keeps_vectors_with_their_numbers(
    metric: Metric, steps: list[tuple[bool, int]]
) -> None:
    rows = queries(31)
    made = table(metric)
    model: dict[int, NDArray[np.float32]] = {}
    for adds, number in steps:
        if adds and number not in model:
            made.add(number, rows[number], number % 4)
            model[number] = rows[number]
        elif not adds:
            assert made.remove(number) == (model.pop(number, None) is not None)
    assert len(made) == len(model)
    query = queries(1, seed=9)[0]
    truth = expected(metric, model, query)
    reach = EVERYTHING if metric is Metric.L2 else 2.0
    assert made.find_by_code(query, 99, reach)[0].tolist() == [n for _, n in truth]
    for cluster in range(4):
        numbers, _ = made.find_by_cluster(query, np.array([cluster], np.int32), 99, reach)
        assert numbers.tolist() == [n for _, n in truth if n % 4 == cluster]


@settings(max_examples=200, deadline=None)
@given(
    metric=st.sampled_from(METRICS),
    dim=st.sampled_from([1, 2, 3, 17, 384, 1536]),
    seed=st.integers(0, 2**32),
    scale=st.sampled_from([1e-25, 1e-6, 1.0, 1e6, 1e15]),
    apart=st.sampled_from([0.0, 1e-8, 1e-7, 1e-4, 0.1, 1.0, 100.0]),
)
def test_the_true_distance_never_exceeds_the_stated_bound(
    metric: Metric, dim: int, seed: int, scale: float, apart: float
) -> None:
    rng = np.random.default_rng(seed)
    one = rng.standard_normal(dim)
    two = one + apart * rng.standard_normal(dim)
    near = (scale * one).astype(np.float32), (scale * two).astype(np.float32)
    made = table(metric, dim)
    made.add(1, near[0])
    reach = EVERYTHING if metric is Metric.L2 else 2.0 + 1e-6
    numbers, distances = made.find_by_code(near[1], 1, reach)
    assert numbers.tolist() == [1]
    true = true_distance(metric, *near)
    bound = upper_distance(metric, dim, float(distances[0]))
    assert true <= bound
    assert bound <= true * 1.0002 + 3e-7 + 1e-15 * dim


def test_a_direction_has_unit_length_from_the_smallest_to_the_largest_floats() -> None:
    for scale in (1e-44, 1e-30, 1.0, 1e38):
        raw = (np.array([3.0, 0.0, 0.0]) * scale).astype(np.float32)
        direction, norm = direction_of(raw)
        assert direction.tolist() == [1.0, 0.0, 0.0]
        assert norm == pytest.approx(float(raw[0]))
