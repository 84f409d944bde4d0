"""The bound on the average error of what is served."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrope.semantic.risk import BINS, MIDDLES, TailRisk, bin_of

SURE = np.diag([1e-6, 1e-6])


def flat() -> TailRisk:
    return TailRisk(np.full(BINS, 1 / BINS), 40_000, SURE)


def truth_from(score: float) -> float:
    """Average error of all scores from this one on, where all are as frequent."""
    return float((1 / (1 + np.exp(MIDDLES[bin_of(score) :]))).mean())


@given(st.floats(-8, 8), st.floats(-8, 8))
def test_a_better_score_never_has_a_worse_bound_nor_a_larger_error(a: float, b: float) -> None:
    risk = flat()
    low, high = sorted((a, b))
    assert risk.bound(high) <= risk.bound(low)
    assert risk.error(high) <= risk.error(low)


@pytest.mark.parametrize("score", [-3.0, 0.0, 1.0, 2.0, 3.0])
def test_the_bound_is_above_the_average_and_close_to_it(score: float) -> None:
    bound = flat().bound(score)
    assert truth_from(score) < bound < truth_from(score) * 1.2 + 0.01


def test_the_average_is_below_the_error_of_the_score_itself() -> None:
    risk = flat()
    assert risk.bound(1.0) < risk.error(1.0)


def test_uncertainty_about_the_model_raises_the_bound() -> None:
    unsure = TailRisk(np.full(BINS, 1 / BINS), 40_000, np.diag([0.25, 0.01]))
    assert unsure.bound(2.0) > flat().bound(2.0) * 1.3


def test_a_prior_that_was_fitted_to_few_pairs_is_less_certain() -> None:
    few = TailRisk(np.full(BINS, 1 / BINS), 2_000, SURE)
    assert few.bound(3.0) > flat().bound(3.0) * 1.1
    assert few.error(3.0) == flat().error(3.0)


def test_few_labels_of_a_rare_error_are_taken_for_what_few_can_tell() -> None:
    traffic = np.zeros(BINS)
    traffic[bin_of(3.0)] = 1.0
    risk = TailRisk(traffic, 40, np.zeros((2, 2)))
    error, bound = risk.error(3.0), risk.bound(3.0)
    # The rate that 41 trials would be 1.28 of its own standard deviations below.
    assert (bound - error) == pytest.approx(1.2816 * (bound * (1 - bound) / 41) ** 0.5, rel=1e-3)


def test_traffic_near_the_score_counts_for_more_than_what_rarely_comes() -> None:
    risk = flat()
    before = risk.bound(0.5)
    for _ in range(2000):
        risk.observe(0.5)
    # Nearly all that is served from here on is as bad as this.
    assert risk.bound(0.5) > before
    assert risk.bound(0.5) == pytest.approx(risk.error(0.5), abs=0.05)


def test_labels_of_a_score_move_its_error_and_that_alone() -> None:
    risk = flat()
    other = risk.error(4.0)
    for _ in range(400):
        risk.label(2.0, 1.0, 1.0)
    assert risk.error(2.0) > 0.5
    assert risk.error(4.0) == other


def test_labels_of_an_unsure_source_come_to_the_same_as_those_of_a_sure_one() -> None:
    generator = np.random.default_rng(7)
    accuracy = 0.8
    sure, unsure = flat(), flat()
    for wrong in (generator.random(20_000) < 0.3).tolist():
        sure.label(1.0, 1.0, float(wrong))
        said = wrong ^ (generator.random() >= accuracy)
        unsure.label(1.0, 1.0, (float(said) - (1 - accuracy)) / (2 * accuracy - 1))
    assert unsure.error(1.0) == pytest.approx(sure.error(1.0), abs=0.02)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(-9, 9), st.booleans()), max_size=200))
def test_whatever_comes_bounds_stay_between_0_and_1(labels: list[tuple[float, bool]]) -> None:
    risk = flat()
    for score, wrong in labels:
        risk.observe(score)
        risk.label(score, 1.0, float(wrong))
    for score in np.linspace(-8, 8, 33).tolist():
        assert 0 <= risk.bound(score) <= 1
        assert 0 <= risk.error(score) <= 1


def test_memory_does_not_grow_and_the_old_fades() -> None:
    risk = flat()
    for _ in range(60_000):
        risk.label(1.0, 1.0, 1.0)
    assert risk.labels.sum() <= 2e4
