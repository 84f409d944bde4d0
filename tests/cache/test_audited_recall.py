"""Recall as audits saw it: bounds that hold, audits that thin out, levels that turn off."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pyrope.cache.audited_recall import AuditedRecall
from pyrope.testing.clock import ManualClock

LEVEL = "quantized"
DAY = 86_400.0


def audited(confidence: float = 0.95, seed: int = 1) -> tuple[AuditedRecall, ManualClock]:
    clock = ManualClock()
    return AuditedRecall(clock, random.Random(seed), confidence=confidence), clock


def record(
    recall: AuditedRecall,
    times: int,
    strain: float,
    found: int = 10,
    *,
    promised: float | None = None,
) -> None:
    for _ in range(times):
        recall.record(LEVEL, strain, found, 10, promised=promised)


def test_nothing_is_known_without_audits() -> None:
    recall, _ = audited()
    assert recall.lower_bound(LEVEL, 0.0, 10) == 0.0
    assert recall.should_audit(LEVEL, 0.0, 10)
    assert recall.level_is_trusted(LEVEL, 0.95)


def test_a_few_good_answers_are_not_enough_for_a_high_bound() -> None:
    recall, _ = audited()
    record(recall, 71, 1.0)
    assert 0.9 < recall.lower_bound(LEVEL, 1.0, 10) < 0.95
    record(recall, 1, 1.0)
    assert 0.95 < recall.lower_bound(LEVEL, 1.0, 10) < 0.951


def test_results_of_one_answer_are_no_independent_trials() -> None:
    bounds = []
    for k in (1, 10, 1000):
        recall, _ = audited()
        for _ in range(100):
            recall.record(LEVEL, 1.0, k, k)
        bounds.append(recall.lower_bound(LEVEL, 1.0, k))
    assert bounds[0] == bounds[1] == bounds[2] > 0.9


def test_hits_with_many_results_say_nothing_about_hits_with_few() -> None:
    recall, _ = audited()
    record(recall, 100, 1.0)
    known = recall.lower_bound(LEVEL, 1.0, 10)
    assert known > 0.9
    assert [recall.lower_bound(LEVEL, 1.0, k) for k in (1, 7, 8, 15, 16, 100)] == [
        *(0.0, 0.0),
        *(known, known),
        *(0.0, 0.0),
    ]
    assert recall.should_audit(LEVEL, 1.0, 1)


def test_an_answer_that_lacks_a_part_counts_with_the_part_it_has() -> None:
    recall, _ = audited()
    record(recall, 100, 1.0)
    full = recall.lower_bound(LEVEL, 1.0, 10)
    record(recall, 10, 1.0, found=9)
    assert 0.94 < recall.lower_bound(LEVEL, 1.0, 10) < full


def test_audits_of_harder_hits_speak_for_easier_ones_and_never_the_other_way_round() -> None:
    recall, _ = audited()
    record(recall, 200, 1.1)
    assert recall.lower_bound(LEVEL, 0.9, 10) == recall.lower_bound(LEVEL, 1.1, 10) > 0.95
    assert recall.lower_bound(LEVEL, 1.2, 10) == 0.0


def test_bins_with_enough_audits_are_not_pooled_with_harder_ones() -> None:
    recall, _ = audited()
    record(recall, 200, 1.0)
    record(recall, 200, 1.5, found=5)
    assert recall.lower_bound(LEVEL, 1.0, 10) > 0.98
    assert recall.lower_bound(LEVEL, 1.2, 10) < 0.5
    assert recall.lower_bound(LEVEL, 1.5, 10) < 0.5


def test_a_harder_bin_never_has_the_better_bound() -> None:
    recall, _ = audited()
    record(recall, 200, 1.0, found=8)
    record(recall, 1000, 1.2, found=10)
    bounds = [recall.lower_bound(LEVEL, strain, 10) for strain in np.linspace(0, 3, 200)]
    assert bounds == sorted(bounds, reverse=True)
    assert recall.lower_bound(LEVEL, 1.2, 10) == recall.lower_bound(LEVEL, 1.0, 10) < 0.8


def test_levels_are_judged_apart() -> None:
    recall, _ = audited()
    record(recall, 100, 1.0)
    assert recall.lower_bound("cluster", 1.0, 10) == 0.0


def test_more_confidence_takes_more_evidence() -> None:
    bounds = []
    for confidence in (0.5, 0.9, 0.99):
        recall, _ = audited(confidence)
        record(recall, 100, 1.0)
        bounds.append(recall.lower_bound(LEVEL, 1.0, 10))
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[2] + 0.02


@pytest.mark.parametrize("mean", [0.6, 0.9, 0.97, 0.995])
@pytest.mark.parametrize("kind", ["all or nothing", "some of ten"])
def test_a_bound_exceeds_the_expected_recall_no_more_often_than_its_risk(
    mean: float, kind: str
) -> None:
    rng = np.random.default_rng(2)
    too_high = 0
    for _ in range(300):
        recall, _ = audited(0.9)
        # Either way the same mean, with the largest variance there is or with a small one.
        found = 10 * rng.binomial(1, mean, 120) if "all" in kind else rng.binomial(10, mean, 120)
        for some in found.tolist():
            recall.record(LEVEL, 1.0, some, 10)
        too_high += recall.lower_bound(LEVEL, 1.0, 10) > mean
    # At a risk of 0.1, 47 of 300 would be three standard deviations too many.
    assert too_high < 47


def test_pooling_a_graded_recall_gives_no_bin_too_high_a_bound() -> None:
    rng = np.random.default_rng(3)
    strains = np.array([0.70, 0.85, 0.95, 1.05, 1.20, 1.40, 1.70])
    truth = np.array([1.0, 0.995, 0.98, 0.95, 0.9, 0.8, 0.6])
    too_high = np.zeros(len(strains))
    for _ in range(100):
        recall, _ = audited(0.9)
        for place in rng.integers(len(strains), size=300):
            found = int(rng.binomial(10, truth[place]))
            recall.record(LEVEL, strains[place], found, 10)
        bounds = np.array([recall.lower_bound(LEVEL, strain, 10) for strain in strains])
        assert bounds[0] > 0.9
        too_high += bounds > truth
    assert (too_high < 20).all()


def test_old_audits_make_room_for_new_ones() -> None:
    recall, _ = audited()
    record(recall, 2000, 1.0)
    assert recall.lower_bound(LEVEL, 1.0, 10) > 0.995
    record(recall, 2000, 1.0, found=8)
    assert 0.7 < recall.lower_bound(LEVEL, 1.0, 10) < 0.8
    assert sum(some.answers for some in recall.statistics(LEVEL)[8]) <= 1024


def test_audits_are_forgotten_with_time() -> None:
    recall, clock = audited()
    record(recall, 100, 1.0)
    clock.advance(0.4 * DAY)
    record(recall, 100, 1.0)
    known = recall.lower_bound(LEVEL, 1.0, 10)
    clock.advance(0.4 * DAY)
    assert recall.lower_bound(LEVEL, 1.0, 10) == known
    clock.advance(0.25 * DAY)
    assert recall.lower_bound(LEVEL, 1.0, 10) == 0.0
    assert recall.should_audit(LEVEL, 1.0, 10)


@pytest.mark.parametrize("pause", [0.3, 0.6, 0.9, 3.0])
def test_no_audit_is_remembered_for_longer_than_said_whatever_comes_in_between(
    pause: float,
) -> None:
    recall, clock = audited()
    record(recall, 50, 1.0, found=0)
    clock.advance(pause * DAY)
    record(recall, 50, 1.0)
    clock.advance(max(0.0, 1.01 - pause) * DAY)
    known = [(some.answers, some.recall) for some in recall.statistics(LEVEL)[8] if some.answers]
    # What is not older than half of that time is remembered.
    assert known == [(50, 1.0)] or (known == [] and pause < 0.5)


def test_what_is_known_well_is_audited_seldom_and_what_is_not_each_time() -> None:
    recall, _ = audited()

    def share(strain: float) -> float:
        return sum(recall.should_audit(LEVEL, strain, 10) for _ in range(4000)) / 4000

    record(recall, 127, 1.0)
    assert share(1.0) == 1.0
    record(recall, 129, 1.0)
    assert 0.2 < share(1.0) < 0.3
    record(recall, 2000, 1.0)
    assert 0.01 < share(1.0) < 0.04
    assert share(1.2) == 1.0


def test_the_same_seed_draws_the_same_audits() -> None:
    draws = []
    for _ in range(2):
        recall, _ = audited(seed=5)
        record(recall, 400, 1.0)
        draws.append([recall.should_audit(LEVEL, 1.0, 10) for _ in range(200)])
    assert draws[0] == draws[1]
    assert 0 < sum(draws[0]) < 200


def test_a_level_that_falls_below_the_policy_turns_off_until_shadow_hits_are_good() -> None:
    recall, _ = audited()
    record(recall, 31, 1.0, found=0, promised=0.95)
    assert recall.level_is_trusted(LEVEL, 0.95)
    record(recall, 1, 1.0, found=0, promised=0.95)
    assert not recall.level_is_trusted(LEVEL, 0.95)
    record(recall, 31, 1.0, promised=0.95)
    assert not recall.level_is_trusted(LEVEL, 0.95)
    record(recall, 1, 1.0, promised=0.95)
    assert recall.level_is_trusted(LEVEL, 0.95)


def test_a_level_comes_back_with_headroom_only() -> None:
    recall, _ = audited()
    record(recall, 40, 1.0, found=8, promised=0.9)
    assert not recall.level_is_trusted(LEVEL, 0.9)
    # 0.91 would have been enough to stay, not to come back.
    for _ in range(5):
        record(recall, 9, 1.0, found=9, promised=0.9)
        record(recall, 1, 1.0, found=10, promised=0.9)
    assert not recall.level_is_trusted(LEVEL, 0.9)
    record(recall, 200, 1.0, found=10, promised=0.9)
    assert recall.level_is_trusted(LEVEL, 0.9)
    record(recall, 40, 1.0, found=9, promised=0.9)
    assert recall.level_is_trusted(LEVEL, 0.9)


def test_hits_that_were_not_good_enough_to_serve_do_not_condemn_a_level() -> None:
    recall, _ = audited()
    record(recall, 500, 1.6, found=1)
    assert recall.level_is_trusted(LEVEL, 0.95)
    assert recall.lower_bound(LEVEL, 1.6, 10) < 0.1


def test_recall_that_is_exactly_the_policy_is_good_enough() -> None:
    recall, _ = audited()
    record(recall, 100, 1.0, found=7, promised=0.7)
    assert recall.level_is_trusted(LEVEL, 0.7)


def test_those_who_ask_for_little_are_served_when_those_who_ask_for_much_are_not() -> None:
    recall, _ = audited()
    for _ in range(40):
        record(recall, 1, 1.0, found=9, promised=0.8)
        record(recall, 1, 1.0, found=9, promised=0.999)
    assert recall.level_is_trusted(LEVEL, 0.8)
    assert not recall.level_is_trusted(LEVEL, 0.999)
    assert recall.level_is_trusted("cluster", 0.999)
    record(recall, 40, 1.0, found=5, promised=0.8)
    record(recall, 256, 1.0, found=10, promised=0.999)
    assert not recall.level_is_trusted(LEVEL, 0.8)
    assert recall.level_is_trusted(LEVEL, 0.999)


def test_the_audit_that_turns_a_level_off_or_on_says_so() -> None:
    recall, _ = audited()
    told = [recall.record(LEVEL, 1.0, 5, 10, promised=0.9) for _ in range(40)]
    assert [number for number, one in enumerate(told, 1) if one] == [32]
    told = [recall.record(LEVEL, 1.0, 10, 10, promised=0.9) for _ in range(400)]
    assert sum(told) == 1
    assert not recall.record(LEVEL, 1.0, 0, 10)


def test_what_is_forgotten_is_learnt_anew() -> None:
    recall, _ = audited()
    record(recall, 200, 1.0)
    record(recall, 40, 1.0, found=0, promised=0.9)
    recall.forget()
    assert recall.levels == []
    assert recall.level_is_trusted(LEVEL, 0.9)
    assert recall.lower_bound(LEVEL, 1.0, 10) == 0.0


def test_statistics_tell_each_bin() -> None:
    recall, _ = audited()
    assert recall.statistics(LEVEL) == {}
    record(recall, 3, 0.0, found=10)
    record(recall, 1, float("inf"), found=2)
    recall.record(LEVEL, 1.0, 1, 1)
    assert sorted(recall.statistics(LEVEL)) == [1, 8]
    bins = recall.statistics(LEVEL)[8]
    assert [some.up_to for some in bins] == sorted(some.up_to for some in bins)
    assert (bins[0].up_to, bins[0].answers, bins[0].recall) == (0.0, 3, 1.0)
    assert (bins[-1].up_to, bins[-1].answers, bins[-1].recall) == (float("inf"), 1, 0.2)
    assert all(
        some.lower_bound == recall.lower_bound(LEVEL, min(some.up_to, 1e9), 10) for some in bins
    )


@pytest.mark.parametrize(
    ("strain", "found", "k"),
    [(-0.1, 1, 1), (float("nan"), 1, 1), (1.0, 2, 1), (1.0, -1, 5), (1.0, 0, 0)],
)
def test_an_audit_that_cannot_be_is_refused(strain: float, found: int, k: int) -> None:
    recall, _ = audited()
    with pytest.raises(ValueError, match=r"results|strain"):
        recall.record(LEVEL, strain, found, k, promised=0.9)
    assert recall.statistics(LEVEL) == {}


@pytest.mark.parametrize(
    "settings", [{"confidence": 1.0}, {"confidence": 0.0}, {"max_age": 0.0}, {"least_share": 1.5}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"confidence|remembered|share"):
        AuditedRecall(ManualClock(), random.Random(0), **settings)
