"""The correction to a prior, where it holds and where it does not."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.semantic.beliefs import Beliefs, weigh

DEVIATIONS = (0.05, 0.02, 0.5)


def teach(shift: float, count: int, accuracy: float = 1.0, seed: int = 0) -> Beliefs:
    """Labels of pairs whose log-odds are all off by `shift`."""
    generator = np.random.default_rng(seed)
    beliefs = Beliefs(DEVIATIONS)
    for _ in range(count):
        z = float(generator.normal(0, 1.5))
        phi = np.array([1.0, z, float(generator.normal())])
        right = generator.random() < 1 / (1 + exp(-(z + shift)))
        said = bool(right) ^ bool(generator.random() >= accuracy)
        beliefs.learn(phi, z, (min(accuracy, 0.999),) * 2, right=said, other_variance=0.0)
    return beliefs


def test_where_the_prior_holds_it_is_kept() -> None:
    beliefs = teach(0.0, 1500)
    assert beliefs.elsewhere < 0.01
    assert abs(beliefs.mean[0]) < 0.1
    assert beliefs.covariance[0, 0] < DEVIATIONS[0] ** 2 * 1.1


@pytest.mark.parametrize("shift", [-1.5, 1.5])
@pytest.mark.parametrize("accuracy", [1.0, 0.85])
def test_where_it_does_not_it_is_given_up_soon(shift: float, accuracy: float) -> None:
    beliefs = teach(shift, 500, accuracy)
    assert beliefs.elsewhere > 0.99
    assert beliefs.mean[0] == pytest.approx(shift, abs=0.5)


def test_while_it_is_open_whether_it_holds_uncertainty_is_large() -> None:
    open_ = next(b for n in range(0, 120, 5) if 0.2 < (b := teach(-1.2, n)).elsewhere < 0.8)
    assert open_.covariance[0, 0] > 10 * DEVIATIONS[0] ** 2


def test_what_was_learned_can_be_stored() -> None:
    beliefs, other = teach(1.0, 100), Beliefs(DEVIATIONS)
    other.restore(beliefs.numbers())
    assert np.array_equal(other.numbers(), beliefs.numbers())
    assert np.array_equal(other.mean, beliefs.mean)
    assert other.elsewhere == beliefs.elsewhere


@given(z=st.floats(-6, 6), accuracy=st.floats(0.6, 0.999), right=st.booleans())
def test_a_verdict_weighs_as_the_logarithm_of_its_likelihood_has_it(
    *, z: float, accuracy: float, right: bool
) -> None:
    step = 1e-5
    numeric = (
        log(weigh(z + step, accuracy, right=right).likelihood)
        - log(weigh(z - step, accuracy, right=right).likelihood)
    ) / (2 * step)
    weighed = weigh(z, accuracy, right=right)
    assert weighed.gradient == pytest.approx(numeric, abs=1e-4)
    yes, no = (weigh(z, accuracy, right=r) for r in (True, False))
    expected = yes.likelihood * yes.gradient**2 + no.likelihood * no.gradient**2
    assert weighed.information == pytest.approx(expected)
    assert 0 < weighed.certainty <= 1


def test_a_sure_verdict_is_certain_and_a_coin_is_not() -> None:
    assert weigh(0.7, 1.0, right=True).certainty == pytest.approx(1)
    assert weigh(0.7, 0.5, right=True).information == 0
