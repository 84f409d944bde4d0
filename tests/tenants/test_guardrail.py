"""The guardrail: up a ladder when latency misses its target, and down again."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrope.tenants.guardrail import Decision, Guardrail, GuardrailOptions
from pyrope.tenants.limits import Priority
from pyrope.testing.clock import ManualClock

LOW, NORMAL, HIGH = Priority.LOW, Priority.NORMAL, Priority.HIGH
FREE = Decision()
OPTIONS = GuardrailOptions(step_seconds=5, recovery_seconds=10, min_samples=100)
TARGET = 20.0


class Harness:
    """A guardrail that is evaluated ten times a second."""

    def __init__(self, asking: tuple[Priority, ...] = (LOW, NORMAL, HIGH)) -> None:
        self.clock = ManualClock()
        self.guardrail = Guardrail(OPTIONS)
        self.asking = asking

    def evaluate(self, p99: float, samples: int = 1000, target: float = TARGET) -> None:
        for priority in self.asking:
            self.guardrail.decision(priority)
        self.guardrail.evaluate(
            self.clock.monotonic(), target_ms=target, p99_ms=p99, samples=samples
        )
        self.clock.advance(0.1)

    def go_on(self, seconds: float, p99: float, samples: int = 1000) -> None:
        for _ in range(round(seconds * 10)):
            self.evaluate(p99, samples)

    def until(self, p99: float, reached: Callable[[], bool]) -> float:
        began = self.clock.monotonic()
        while not reached():
            self.evaluate(p99)
            assert self.clock.monotonic() - began < 1000
        return self.clock.monotonic() - began

    def decisions(self) -> list[Decision]:
        """From LOW to HIGH."""
        return list(self.guardrail.statistics().decisions.values())


def severity(decision: Decision) -> tuple[bool, bool, float]:
    return decision.shed, decision.cache_only, -decision.effort_share


def test_nothing_is_done_while_the_target_is_met() -> None:
    harness = Harness()
    harness.go_on(60, TARGET)
    assert harness.decisions() == [FREE] * 3
    assert not harness.guardrail.is_active


def test_without_a_target_nothing_is_done_whatever_the_latency() -> None:
    harness = Harness()
    for _ in range(500):
        harness.evaluate(1e6, target=0)
    assert harness.decisions() == [FREE] * 3


def test_the_ladder_is_climbed_from_low_to_high_and_each_rung_has_its_time() -> None:
    harness = Harness()
    seen: list[list[Decision]] = []
    changed_at: list[float] = []
    for _ in range(1500):
        harness.evaluate(10 * TARGET)
        levels = [Decision(1.0, one.cache_only, one.shed) for one in harness.decisions()]
        if not seen or levels != seen[-1]:
            seen.append(levels)
            changed_at.append(harness.clock.monotonic())
    only, shed = Decision(1.0, cache_only=True), Decision(1.0, cache_only=True, shed=True)
    assert seen == [
        [FREE, FREE, FREE],
        [only, FREE, FREE],
        [shed, FREE, FREE],
        [shed, only, FREE],
        [shed, shed, FREE],
        [shed, shed, only],
        [shed, shed, shed],
    ]
    gaps = [later - earlier for earlier, later in pairwise(changed_at)]
    assert min(gaps) >= OPTIONS.step_seconds - 1e-6


def test_effort_falls_smoothly_to_its_floor_before_anything_else_happens() -> None:
    harness = Harness()
    shares = [1.0]
    while not (low := harness.guardrail.decision(LOW)).cache_only:
        harness.evaluate(2 * TARGET)
        shares.append(low.effort_share)
    steps = [before - after for before, after in pairwise(shares)]
    assert min(steps) >= 0
    assert max(steps) <= 0.75 * 0.1 / OPTIONS.step_seconds + 1e-9
    assert shares[-1] == pytest.approx(OPTIONS.least_effort)


def test_a_target_that_is_hardly_missed_lowers_effort_more_slowly() -> None:
    def effort(p99: float) -> float:
        harness = Harness()
        harness.go_on(3, p99)
        return harness.guardrail.decision(LOW).effort_share

    assert effort(1.1 * TARGET) > effort(1.5 * TARGET) > effort(2 * TARGET) == effort(9 * TARGET)


def test_in_the_band_below_the_target_everything_stays_as_it_is() -> None:
    harness = Harness()
    harness.go_on(3, 2 * TARGET)
    before = harness.decisions()
    assert before[0].effort_share < 1
    harness.go_on(300, 0.9 * TARGET)
    assert harness.decisions() == before


def test_few_samples_never_lead_up() -> None:
    harness = Harness()
    harness.go_on(300, 100 * TARGET, samples=99)
    assert harness.decisions() == [FREE] * 3


def test_a_server_that_refuses_everybody_recovers_though_it_measures_nothing() -> None:
    harness = Harness()
    harness.until(10 * TARGET, lambda: harness.decisions()[2].shed)
    harness.go_on(300, 0.0, samples=0)
    assert harness.decisions() == [FREE] * 3


def test_recovery_takes_calm_without_a_break() -> None:
    harness = Harness()
    harness.until(10 * TARGET, lambda: harness.decisions()[0].shed)
    before = harness.decisions()
    for _ in range(20):
        harness.go_on(OPTIONS.recovery_seconds - 0.2, 0.1 * TARGET)
        harness.evaluate(0.9 * TARGET)
    assert harness.decisions() == before
    harness.go_on(OPTIONS.recovery_seconds + 0.2, 0.1 * TARGET)
    assert not harness.decisions()[0].shed
    assert harness.decisions()[0].cache_only


def test_a_priority_that_nobody_has_is_passed_over_and_yet_treated_no_better() -> None:
    harness = Harness(asking=(NORMAL,))
    harness.go_on(1, 10 * TARGET)
    low, normal, high = harness.decisions()
    assert 0 < normal.effort_share < 1
    assert low.shed
    assert high == FREE
    harness.go_on(100, 10 * TARGET)
    assert harness.decisions()[1].shed
    assert harness.decisions()[2] == FREE


def test_switching_the_target_off_frees_everybody_at_once() -> None:
    harness = Harness()
    harness.go_on(40, 10 * TARGET)
    assert harness.guardrail.is_active
    harness.evaluate(10 * TARGET, target=0)
    assert harness.decisions() == [FREE] * 3


def test_an_evaluation_that_comes_late_does_not_move_effort_by_all_that_time() -> None:
    harness = Harness()
    harness.go_on(1, 2 * TARGET)
    before = harness.decisions()[0].effort_share
    harness.clock.advance(3600)
    harness.evaluate(2 * TARGET)
    assert before - harness.decisions()[0].effort_share <= 0.75 / OPTIONS.step_seconds + 1e-9


MEASURED = st.lists(
    st.tuples(
        st.floats(0, 10 * TARGET),
        st.sampled_from([0, 99, 100, 5000]),
        st.floats(0, 30),
        st.sets(st.sampled_from(list(Priority))),
    ),
    max_size=200,
)


@settings(deadline=None)
@given(MEASURED)
def test_a_higher_priority_is_never_treated_worse_and_calm_frees_everybody(
    measured: list[tuple[float, int, float, set[Priority]]],
) -> None:
    harness = Harness()
    for p99, samples, gap, asking in measured:
        harness.asking = tuple(asking)
        harness.evaluate(p99, samples)
        harness.clock.advance(gap)
        low, normal, high = harness.decisions()
        assert severity(low) >= severity(normal) >= severity(high)
        for one in (low, normal, high):
            assert OPTIONS.least_effort - 1e-9 <= one.effort_share <= 1
            assert one.cache_only or not one.shed
    # Nine rungs, each with the time to come down and, where it degrades, that for its effort.
    harness.go_on(13 * OPTIONS.recovery_seconds + 10, 0.1 * TARGET)
    assert harness.decisions() == [FREE] * 3


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.floats(0.5, 1.5), st.floats(0.01, 0.6))
def test_noise_makes_no_flapping(seed: int, level: float, spread: float) -> None:
    """However noise moves latency about its target, turns are as rare as recovery makes them."""
    harness = Harness()
    noise = random.Random(seed)
    directions: list[int] = []
    before = -3.0  # three times all the effort
    seconds = 600
    for _ in range(10 * seconds):
        harness.evaluate(TARGET * level * (1 + noise.uniform(-spread, spread)))
        now = sum(2.0 * one.shed + one.cache_only - one.effort_share for one in harness.decisions())
        if now != before:
            directions.append(1 if now > before else -1)
            before = now
    turns = sum(a != b for a, b in pairwise(directions))
    # Each way down begins with a whole time of calm.
    assert turns <= 2 * seconds / OPTIONS.recovery_seconds
    if level * (1 - spread) > OPTIONS.recovery_share:
        assert turns == 0
    statistics = harness.guardrail.statistics()
    assert statistics.rungs_down_total <= statistics.rungs_up_total


@pytest.mark.parametrize(
    "wrong",
    [{"least_effort": 0}, {"step_seconds": 0}, {"recovery_seconds": -1}, {"recovery_share": 1}],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"share|lasts longer"):
        GuardrailOptions(**wrong)  # type: ignore[arg-type]  # one of several fields
