"""What is certified is what a full search gives, rounding included."""

from __future__ import annotations

from math import asin, cos, pi, sin

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pyrope.cache.certificate import distances_of, proven_count, reach_of, strain_of
from pyrope.cache.near_tables import NearTable, upper_distance
from pyrope.cache.simhash import SimHash
from pyrope.engine.kernels import pair_scores
from pyrope.engine.normalise import row_norms
from pyrope.types import Float32Matrix, Metric

METRICS = list(Metric)


def scores_of(
    metric: Metric, query: NDArray[np.float32], rows: Float32Matrix
) -> NDArray[np.float32]:
    """As engines report them."""
    return pair_scores(metric, np.tile(query, (len(rows), 1)), rows).astype(np.float32)


def ranking(
    metric: Metric, query: NDArray[np.float32], rows: Float32Matrix
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """A full search: slots by score and then by slot, and the scores in that order."""
    scores = scores_of(metric, query, rows)
    order = np.lexsort((np.arange(len(rows)), -scores if metric.higher_is_nearer else scores))
    return order, scores[order]


def query_distance(
    metric: Metric, cached: NDArray[np.float32], query: NDArray[np.float32]
) -> float:
    """The bound that a table of cached queries leads to."""
    table = NearTable(metric, len(cached), SimHash(len(cached), 7))
    table.add(1, cached)
    _, distances = table.find_by_code(query, 1, 1e30 if metric is Metric.L2 else 2.1)
    return upper_distance(metric, len(cached), float(distances[0]))


def certify(
    metric: Metric,
    cached: NDArray[np.float32],
    query: NDArray[np.float32],
    rows: Float32Matrix,
    held: int,
    k: int,
) -> tuple[int, list[int], list[int]]:
    """Proven results of a neighbourhood of `held` rows; its answer; the true one."""
    max_norm = float(row_norms(rows).max()) if metric is Metric.IP else 1.0
    norms = row_norms(np.stack([cached, query]))
    order, scores = ranking(metric, cached, rows)
    radius = distances_of(metric, scores[held - 1], query_norm=float(norms[0]), max_norm=max_norm)
    slots = np.sort(order[:held])
    places, again = ranking(metric, query, rows[slots])
    distances = distances_of(metric, again, query_norm=float(norms[1]), max_norm=max_norm)
    proven = proven_count(metric, radius, query_distance(metric, cached, query), distances, k)
    truth = ranking(metric, query, rows)[0][:k]
    return int(proven), slots[places[:k]].tolist(), truth.tolist()


@settings(max_examples=300, deadline=None)
@given(
    metric=st.sampled_from(METRICS),
    dim=st.sampled_from([1, 2, 3, 8, 40]),
    seed=st.integers(0, 2**32),
    held=st.integers(1, 40),
    k=st.integers(1, 12),
    apart=st.sampled_from([0.0, 1e-7, 1e-5, 1e-3, 0.03, 0.3, 2.0]),
    spread=st.sampled_from([1e-7, 1e-6, 1e-4, 0.1, 1.0]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_what_is_proven_is_what_a_full_search_gives(
    metric: Metric,
    dim: int,
    seed: int,
    held: int,
    k: int,
    apart: float,
    spread: float,
    scale: float,
) -> None:
    # Small spreads make thousands of ties and near-ties in float32.
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal(dim)
    rows = (scale * (centre + spread * rng.standard_normal((60, dim)))).astype(np.float32)
    cached = (centre + rng.choice([0.0, spread, 1.0]) * rng.standard_normal(dim)).astype(np.float32)
    query = (cached + apart * rng.standard_normal(dim)).astype(np.float32)
    if not (row_norms(np.stack([cached, query])) > 0).all():
        return
    if metric is Metric.L2:
        cached, query = cached * np.float32(scale), query * np.float32(scale)
    proven, answer, truth = certify(metric, cached, query, rows, held, k)
    assert answer[:proven] == truth[:proven]


@pytest.mark.parametrize("metric", METRICS)
def test_a_neighbourhood_that_is_wide_enough_proves_all_and_a_narrow_one_only_some(
    metric: Metric,
) -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((2000, 6)).astype(np.float32)
    # Norms of the same size: for IP, one long vector would leave hardly anything to prove.
    rows *= (rng.uniform(0.9, 1.0, 2000) / row_norms(rows))[:, None].astype(np.float32)
    counts = []
    for held in (15, 200, 1000):
        total = 0
        for _ in range(20):
            cached = rng.standard_normal(6).astype(np.float32)
            query = cached + 0.05 * rng.standard_normal(6).astype(np.float32)
            cached, query = cached / np.linalg.norm(cached), query / np.linalg.norm(query)
            proven, answer, truth = certify(metric, cached, query, rows, held, 10)
            assert answer[:proven] == truth[:proven]
            total += proven
        counts.append(total)
    assert counts[0] < counts[1] <= counts[2]
    assert counts[2] == 200
    assert counts[0] < 180


def on_a_circle(angles: NDArray[np.float64]) -> Float32Matrix:
    return np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1).astype(np.float32)


@pytest.mark.parametrize("gap", [0.0, 1e-9, 1e-8, 3e-8, 1e-7, 3e-7, 1e-6])
def test_a_stranger_straight_behind_the_new_query_is_never_passed_over(gap: float) -> None:
    """The worst case: cached query, new query and stranger on one line, a candidate just nearer."""
    rng = np.random.default_rng(2)
    passed_over = proven_at_all = 0
    for _ in range(300):
        turn, radius, part = rng.uniform(0, 2 * pi), rng.uniform(0.01, 2.5), rng.uniform(0, 0.9)
        distance = part * radius
        # The stranger ties with the last that is held; the candidate is on the query's other side.
        angles = turn + np.array([-radius, radius, distance - (radius - distance) * (1.0 - gap)])
        rows = on_a_circle(angles)
        cached, query = on_a_circle(turn + np.array([0.0, distance]))
        last = scores_of(Metric.COSINE, cached, rows)[0]
        scores = scores_of(Metric.COSINE, query, rows)
        distances = distances_of(Metric.COSINE, scores[2:])
        bound = query_distance(Metric.COSINE, cached, query)
        proven = proven_count(Metric.COSINE, distances_of(Metric.COSINE, last), bound, distances, 1)
        proven_at_all += int(proven)
        stranger_takes_part = scores_of(Metric.COSINE, cached, rows)[1] <= last
        passed_over += int(proven and stranger_takes_part and scores[1] >= scores[2])
    assert passed_over == 0
    # A gap that float32 cannot show is not proven by chance either.
    assert proven_at_all == 0 or gap >= 3e-7


@pytest.mark.parametrize("scale", [1.0, 1e-42, 1e-20, 1e15])
def test_distances_on_a_line_are_proven_only_beyond_what_float32_rounds(scale: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(500):
        radius = np.float32(scale * rng.uniform(0.1, 10))
        distance = float(radius) * rng.uniform(0, 0.95)
        edge = float(radius) - distance
        steps = np.float32(edge)
        for ulps in range(-6, 7):
            near = np.float32(steps + ulps * np.spacing(steps))
            proven = proven_count(
                Metric.L2,
                distances_of(Metric.L2, radius),
                distance,
                distances_of(Metric.L2, np.array([near])),
                1,
            )
            # The true radius may be half a unit in the last place less than its score says.
            least = float(radius) - float(np.spacing(radius)) / 2 - distance
            assert not proven or near < np.float32(least)


@pytest.mark.parametrize("radius", [0.1, 0.8, 1.1, 1.9])
@pytest.mark.parametrize("part", [0.01, 0.3, 0.8, 0.99])
def test_the_reach_on_the_sphere_is_that_of_angles(radius: float, part: float) -> None:
    distance = part * radius
    angle = 2 * asin(radius / 2) - 2 * asin(distance / 2)
    reach = float(reach_of(Metric.COSINE, radius, distance))
    # Roundings are allowed for in squares.
    assert reach**2 == pytest.approx(4 * sin(angle / 2) ** 2, abs=2e-6)
    assert reach < 2 * sin(angle / 2)
    # Never less than chords alone would prove.
    assert reach**2 >= (radius - distance) ** 2 - 2e-6
    assert reach_of(Metric.IP, radius, distance) == reach


@pytest.mark.parametrize("metric", METRICS)
def test_nothing_is_proven_once_the_query_is_as_far_away_as_the_last_that_is_held(
    metric: Metric,
) -> None:
    for distance in (0.5, 0.6, 2.0):
        assert reach_of(metric, 0.5, distance) == 0.0
        assert proven_count(metric, 0.5, distance, np.zeros(3), 3) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_what_holds_everything_proves_everything(metric: Metric) -> None:
    distances = np.array([0.1, 1.9, np.nan])
    assert proven_count(metric, np.inf, 1.5, distances, 2) == 2
    assert proven_count(metric, np.inf, 1.5, distances, 10) == 3
    assert strain_of(metric, np.inf, 1.5, 1.9) == 0.0


@pytest.mark.parametrize("metric", METRICS)
def test_many_neighbourhoods_are_certified_at_once_as_one_by_one(metric: Metric) -> None:
    rng = np.random.default_rng(4)
    radii, away = rng.uniform(0.5, 1.5, 20), rng.uniform(0, 0.7, 20)
    distances = np.sort(rng.uniform(0, 1.5, (20, 30)), axis=1)
    counts = proven_count(metric, radii, away, distances, 10)
    assert counts.shape == (20,)
    one_by_one = [
        int(proven_count(metric, r, d, row, 10))
        for r, d, row in zip(radii, away, distances, strict=True)
    ]
    assert counts.tolist() == one_by_one
    assert 0 < counts.sum() < 200


def test_scores_beyond_float32_prove_nothing() -> None:
    scores = np.array([np.inf, -np.inf, np.nan], dtype=np.float32)
    assert np.isnan(distances_of(Metric.L2, scores)).all()
    for norms in ({"query_norm": 1e20, "max_norm": 1e20}, {"query_norm": 0.0}):
        assert np.isnan(distances_of(Metric.IP, np.zeros(2, np.float32), **norms)).all()
    nan = distances_of(Metric.L2, scores[:1])
    assert proven_count(Metric.L2, nan[0], 0.1, np.array([0.1]), 1) == 0
    assert proven_count(Metric.L2, 5.0, 0.1, nan, 1) == 0


def test_a_product_that_the_bound_on_norms_does_not_allow_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_norm"):
        distances_of(Metric.IP, np.array([2.1], np.float32), query_norm=2.0, max_norm=1.0)
    nearest = distances_of(Metric.IP, np.array([2.0], np.float32), query_norm=2.0, max_norm=1.0)
    assert nearest.tolist() == [0.0]


@pytest.mark.parametrize("metric", METRICS)
def test_no_strain_means_that_all_is_proven_and_only_that(metric: Metric) -> None:
    rng = np.random.default_rng(5)
    sides = set()
    for _ in range(300):
        radius, distance, furthest = rng.uniform(0.2, 1.5), rng.uniform(0, 0.8), rng.uniform(0, 1.5)
        strain = float(strain_of(metric, radius, distance, furthest))
        proven = bool(proven_count(metric, radius, distance, np.array([furthest]), 1))
        assert proven == (strain == 0)
        sides.add(proven)
    assert sides == {True, False}


@pytest.mark.parametrize("metric", METRICS)
def test_strain_grows_with_both_distances_and_falls_with_the_radius(metric: Metric) -> None:
    steps = np.linspace(0.5, 1.4, 10)
    assert (np.diff(strain_of(metric, 1.0, steps, 1.0)) > 0).all()
    assert (np.diff(strain_of(metric, 1.0, 0.8, steps)) > 0).all()
    assert (np.diff(strain_of(metric, steps, 0.8, 1.0)) < 0).all()
    assert strain_of(metric, 1.0, 0.6, 0.8) == pytest.approx((0.64 + 0.18) ** 0.5)


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_not_known_is_an_infinite_strain(metric: Metric) -> None:
    for radius, furthest in ((np.nan, 0.5), (1.0, np.nan), (0.0, 0.5)):
        assert strain_of(metric, radius, 0.1, furthest) == np.inf
    assert strain_of(metric, np.inf, 0.1, np.nan) == 0.0


def test_a_chord_is_the_way_between_unit_vectors() -> None:
    angles = np.linspace(0, pi, 20)
    chords = distances_of(Metric.COSINE, np.cos(angles).astype(np.float32))
    assert np.allclose(chords, 2 * np.sin(angles / 2), atol=4e-4)
    halves = distances_of(
        Metric.IP, np.array([6 * cos(1.0)], np.float32), query_norm=2.0, max_norm=3.0
    )
    assert halves[0] == pytest.approx(2 * sin(0.5))
