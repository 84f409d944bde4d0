"""Recall of hits by aliases: a bound that holds, audits that thin out and age."""

from __future__ import annotations

import random

import numpy as np

from pyrope.cache.alias_audits import AliasAudits
from pyrope.testing.clock import ManualClock

DAY = 86_400.0


def made(confidence: float = 0.95) -> tuple[AliasAudits, ManualClock]:
    clock = ManualClock()
    return AliasAudits(clock, random.Random(1), confidence=confidence), clock


def test_nothing_is_known_without_audits() -> None:
    audits, _ = made()
    assert (audits.answers, audits.recall, audits.lower_bound) == (0, 0.0, 0.0)
    assert audits.should_audit()


def test_the_bound_is_below_the_mean_and_comes_nearer() -> None:
    audits, _ = made()
    bounds = []
    for _ in range(3):
        for number in range(100):
            audits.record(0.5 + 0.5 * (number % 2))
        bounds.append(audits.lower_bound)
        assert audits.recall == 0.75
    assert bounds == sorted(bounds)
    assert 0.6 < bounds[0] < bounds[-1] < 0.75


def test_the_bound_exceeds_the_mean_no_more_often_than_its_risk() -> None:
    rng = np.random.default_rng(2)
    too_high = 0
    for _ in range(300):
        audits, _ = made(0.9)
        for recall in rng.binomial(1, 0.8, 100).tolist():
            audits.record(recall)
        too_high += audits.lower_bound > 0.8
    # At a risk of 0.1, 47 of 300 would be three standard deviations too many.
    assert too_high < 47


def test_the_more_is_known_the_fewer_are_audited() -> None:
    audits, _ = made()
    shares = []
    for count in (127, 129, 700):
        for _ in range(count):
            audits.record(1.0)
        shares.append(sum(audits.should_audit() for _ in range(2000)) / 2000)
    assert shares[0] == 1.0
    assert 0.2 < shares[1] < 0.3
    assert 0.01 <= shares[2] < 0.05


def test_audits_are_forgotten_with_time() -> None:
    audits, clock = made()
    for _ in range(200):
        audits.record(0.0)
    clock.advance(1.01 * DAY)
    assert audits.answers == 0
    audits.record(1.0)
    assert (audits.answers, audits.recall) == (1, 1.0)
