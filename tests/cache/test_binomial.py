"""Lower bounds on a share, held against the binomial distribution in whole numbers."""

from __future__ import annotations

from decimal import Decimal, localcontext
from math import comb

import pytest

from pyrope.cache.binomial import lower_bound


def probability(successes: int, trials: int, share: float) -> Decimal:
    """Of so many successes or more, in 50 digits."""
    with localcontext() as context:
        context.prec = 50
        p, q = Decimal(share), 1 - Decimal(share)
        return sum(
            (comb(trials, n) * p**n * q ** (trials - n) for n in range(successes, trials + 1)),
            Decimal(0),
        )


@pytest.mark.parametrize("risk", [0.025, 0.05, 0.4])
@pytest.mark.parametrize("trials", [1, 2, 9, 40])
def test_a_bound_is_the_share_at_which_so_many_successes_have_the_probability_of_the_risk(
    trials: int, risk: float
) -> None:
    for successes in range(1, trials + 1):
        bound = lower_bound(successes, trials, risk)
        assert probability(successes, trials, bound) <= risk
        assert probability(successes, trials, bound + 1e-7) >= risk


@pytest.mark.parametrize(
    ("successes", "trials"), [(1150, 1152), (700, 1152), (1, 1152), (9_990, 10_000)]
)
def test_bounds_of_many_trials_are_as_precise(successes: int, trials: int) -> None:
    bound = lower_bound(successes, trials, 0.025)
    assert probability(successes, trials, bound) <= 0.025
    assert probability(successes, trials, bound + 1e-7) >= 0.025


@pytest.mark.parametrize("trials", [0, 1, 50])
def test_nothing_is_known_without_a_success(trials: int) -> None:
    assert lower_bound(0, trials, 0.05) == 0.0


def test_what_always_succeeded_has_the_bound_in_closed_form() -> None:
    for trials in (1, 10, 72, 1024):
        assert lower_bound(trials, trials, 0.025) == pytest.approx(0.025 ** (1 / trials), abs=2e-9)


def test_more_successes_never_lower_the_bound() -> None:
    bounds = [lower_bound(successes, 200, 0.025) for successes in range(201)]
    assert bounds == sorted(bounds)
