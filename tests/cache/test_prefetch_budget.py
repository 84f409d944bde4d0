from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pyrope.cache.prefetch_budget import Declined, PrefetchBudget, PrefetchLimits
from pyrope.cache.prefetch_judge import PrefetchState
from pyrope.testing.clock import ManualClock

WIDE: dict[str, Any] = {
    "least_probability": 0.4,
    "rate": 1000.0,
    "burst": 1000.0,
    "work_share": 0.5,
    "work_half_life_s": 1e9,
    "patience_s": 100.0,
    "max_outstanding": 1000,
    "judged": 10,
    "least_used": 0.3,
    "pause_s": 60.0,
    "probation_rate": 0.1,
}
"""Limits of which each test narrows the one that it is about."""


class Budget(PrefetchBudget[str]):
    """With words for what the tests do, and work done already."""

    def __init__(self, clock: ManualClock, work: float = 1e9, **narrowed: Any) -> None:
        super().__init__(clock, PrefetchLimits(**{**WIDE, **narrowed}))
        self.numbers = 0
        self.worked(work)

    def issue(
        self,
        key: str | None = None,
        probability: float = 1.0,
        cost: float = 1.0,
        *,
        idle: bool = True,
    ) -> bool:
        self.numbers += 1
        key = key or f"key {self.numbers}"
        return self.try_issue(key, probability, cost, idle=idle)

    def issue_and(self, times: int, *, used: bool) -> None:
        """Issue some, and let all of them be used or wasted."""
        for _ in range(times):
            assert self.issue("some")
            if used:
                assert self.use("some")
            else:
                self.waste("some")

    def last_declined(self) -> list[Declined]:
        return [reason for reason, times in self.statistics().declined.items() if times]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Issued, used, wasted, outstanding."""
        seen = self.statistics()
        return seen.issued_total, seen.used_total, seen.wasted_total, seen.outstanding_current


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


# -- what is allowed ------------------------------------------------------------------------------


def test_what_is_likely_is_issued_in_idle_time(clock: ManualClock) -> None:
    budget = Budget(clock)
    assert budget.issue(probability=0.4)
    assert budget.counts == (1, 0, 0, 1)
    assert budget.last_declined() == []


@pytest.mark.parametrize(
    ("asked", "reason"),
    [({"probability": 0.399}, Declined.UNLIKELY), ({"idle": False}, Declined.BUSY)],
)
def test_what_is_unlikely_or_would_be_in_the_way_is_not_issued(
    clock: ManualClock, asked: dict[str, Any], reason: Declined
) -> None:
    budget = Budget(clock)
    assert not budget.issue(**asked)
    assert budget.last_declined() == [reason]
    assert budget.counts == (0, 0, 0, 0)


def test_the_same_is_not_issued_again_before_its_outcome_is_known(clock: ManualClock) -> None:
    budget = Budget(clock)
    assert budget.issue("key")
    assert not budget.issue("key")
    assert budget.last_declined() == [Declined.ISSUED]
    budget.use("key")
    assert budget.issue("key")


def test_a_burst_is_issued_and_then_no_more_than_the_rate(clock: ManualClock) -> None:
    budget = Budget(clock, rate=2.0, burst=3.0)
    assert [budget.issue() for _ in range(4)] == [True, True, True, False]
    clock.advance(0.5)
    assert [budget.issue() for _ in range(2)] == [True, False]
    assert budget.last_declined() == [Declined.RATE]


def test_nothing_is_issued_before_there_was_useful_work(clock: ManualClock) -> None:
    budget = Budget(clock, work=0.0)
    assert not budget.issue()
    assert budget.last_declined() == [Declined.WORK]


def test_prefetches_cost_their_share_of_the_useful_work(clock: ManualClock) -> None:
    budget = Budget(clock, work=0.0, work_share=0.1)
    budget.worked(600.0)
    budget.worked(400.0)
    assert not budget.issue(cost=100.1)
    assert budget.issue(cost=70.0)
    assert not budget.issue(cost=31.0)
    assert budget.issue(cost=30.0)
    assert budget.statistics().credit_current == pytest.approx(0.0)


def test_credit_that_is_not_spent_leaks_away(clock: ManualClock) -> None:
    budget = Budget(clock, work=80.0, work_half_life_s=10.0)
    assert budget.statistics().credit_current == 40.0
    clock.advance(20.0)
    assert budget.statistics().credit_current == pytest.approx(10.0)
    assert not budget.issue(cost=10.1)
    assert budget.issue(cost=9.9)


def test_a_prefetch_declined_for_the_rate_keeps_its_credit(clock: ManualClock) -> None:
    budget = Budget(clock, work=10.0, burst=1.0)
    assert [budget.issue(), budget.issue()] == [True, False]
    assert budget.last_declined() == [Declined.RATE]
    assert budget.statistics().credit_current == 4.0


def test_a_prefetch_declined_for_its_cost_keeps_its_token(clock: ManualClock) -> None:
    budget = Budget(clock, work=10.0, burst=1.0)
    assert not budget.issue(cost=6.0)
    assert budget.issue(cost=5.0)


def test_no_more_are_outstanding_than_may_be(clock: ManualClock) -> None:
    budget = Budget(clock, max_outstanding=2)
    assert [budget.issue("a"), budget.issue("b"), budget.issue("c")] == [True, True, False]
    assert budget.last_declined() == [Declined.OUTSTANDING]
    budget.waste("a")
    assert budget.issue("c")


# -- what comes of it -----------------------------------------------------------------------------


def test_the_first_hit_counts_as_used_and_no_other(clock: ManualClock) -> None:
    budget = Budget(clock)
    budget.issue("key")
    assert budget.use("key")
    assert not budget.use("key")
    budget.waste("key")
    assert budget.counts == (1, 1, 0, 0)


def test_hits_and_losses_of_what_was_never_prefetched_count_for_nothing(clock: ManualClock) -> None:
    budget = Budget(clock)
    assert not budget.use("key")
    budget.waste("key")
    budget.withdraw("key")
    assert budget.counts == (0, 0, 0, 0)


def test_a_hit_that_comes_too_late_is_not_the_merit_of_the_prefetch(clock: ManualClock) -> None:
    budget = Budget(clock, patience_s=100.0)
    budget.issue("early")
    budget.issue("late")
    clock.advance(99.9)
    assert budget.use("early")
    clock.advance(0.1)
    assert not budget.use("late")
    assert budget.counts == (2, 1, 1, 0)


def test_a_sweep_counts_what_was_not_hit_in_time_and_no_more_than_it_may(
    clock: ManualClock,
) -> None:
    budget = Budget(clock, patience_s=100.0)
    for _ in range(5):
        budget.issue()
    clock.advance(50.0)
    budget.issue()
    clock.advance(50.0)
    assert [budget.sweep(3), budget.sweep(3), budget.sweep(3)] == [3, 2, 0]
    assert budget.counts == (6, 0, 5, 1)


def test_without_sweeps_late_prefetches_go_faster_than_new_ones_come(clock: ManualClock) -> None:
    budget = Budget(clock, patience_s=100.0, least_used=0.0)
    for _ in range(40):
        budget.issue()
    clock.advance(100.0)
    for _ in range(20):
        assert budget.issue()
    assert budget.counts == (60, 0, 40, 20)


def test_a_withdrawn_prefetch_is_not_judged_and_gets_its_credit_back(clock: ManualClock) -> None:
    budget = Budget(clock, work=20.0)
    budget.issue("key", cost=10.0)
    assert not budget.issue("other")
    budget.withdraw("key")
    seen = budget.statistics()
    assert (seen.withdrawn_total, seen.outstanding_current, seen.judged_current) == (1, 0, 0)
    assert budget.issue("other", cost=10.0)


# -- turning itself off ---------------------------------------------------------------------------


def test_it_turns_itself_off_when_too_little_is_used(clock: ManualClock) -> None:
    budget = Budget(clock)
    budget.issue_and(2, used=True)
    budget.issue_and(7, used=False)
    assert budget.statistics().state is PrefetchState.ON
    assert budget.statistics().used_share_current == pytest.approx(2 / 9)
    budget.issue_and(3, used=True)
    budget.issue_and(7, used=False)
    seen = budget.statistics()
    assert (seen.state, seen.used_share_current) == (PrefetchState.ON, 0.3)
    budget.issue_and(1, used=False)
    seen = budget.statistics()
    assert (seen.state, seen.pauses_total, seen.resumes_in_s) == (PrefetchState.PAUSED, 1, 60.0)
    assert (seen.rate_current, seen.used_share_current) == (0.0, None)
    assert not budget.issue()
    assert budget.last_declined() == [Declined.PAUSED]


def test_prefetches_that_nobody_hits_turn_it_off_by_time_alone(clock: ManualClock) -> None:
    budget = Budget(clock, patience_s=100.0)
    for _ in range(8):
        budget.issue()
    clock.advance(100.0)
    budget.sweep(100)
    assert budget.statistics().state is PrefetchState.PAUSED


def test_it_comes_back_on_probation_at_a_smaller_rate(clock: ManualClock) -> None:
    budget = Budget(clock, rate=10.0, burst=8.0, probation_rate=0.1)
    budget.issue_and(8, used=False)
    clock.advance(60.0)
    seen = budget.statistics()
    assert (seen.state, seen.rate_current) == (PrefetchState.PROBATION, 1.0)
    assert sum(budget.issue() for _ in range(20)) == 8  # what the bucket holds
    clock.advance(3.0)
    assert sum(budget.issue() for _ in range(20)) == 3


def test_a_probation_that_goes_well_gives_the_full_rate_back(clock: ManualClock) -> None:
    budget = Budget(clock, rate=10.0, burst=8.0, probation_rate=0.1)
    budget.issue_and(8, used=False)
    clock.advance(60.0)
    budget.issue_and(3, used=True)
    seen = budget.statistics()
    assert (seen.state, seen.rate_current) == (PrefetchState.ON, 10.0)
    while budget.issue():
        pass
    clock.advance(0.5)
    assert sum(budget.issue() for _ in range(20)) == 5


def test_a_probation_that_goes_badly_ends_in_a_longer_pause(clock: ManualClock) -> None:
    budget = Budget(clock)
    budget.issue_and(8, used=False)
    clock.advance(60.0)
    budget.issue_and(8, used=False)
    seen = budget.statistics()
    assert (seen.state, seen.pauses_total) == (PrefetchState.PAUSED, 2)
    assert seen.resumes_in_s == 120.0


def test_what_was_issued_before_the_pause_is_counted_and_not_judged_after_it(
    clock: ManualClock,
) -> None:
    budget = Budget(clock, patience_s=1000.0)
    for number in range(10):
        budget.issue(f"old {number}")
    budget.issue_and(8, used=False)
    clock.advance(60.0)
    for number in range(5):
        assert budget.use(f"old {number}")
        budget.waste(f"old {number + 5}")
    seen = budget.statistics()
    assert (seen.state, seen.judged_current) == (PrefetchState.PROBATION, 0)
    assert budget.counts == (18, 5, 13, 0)


def test_a_hopeless_stream_is_tried_less_and_less(clock: ManualClock) -> None:
    budget = Budget(clock, patience_s=1.0)
    hours = []
    for _ in range(24):
        before = budget.statistics().issued_total
        for _ in range(600):
            clock.advance(6.0)
            budget.issue()
        hours.append(budget.statistics().issued_total - before)
    assert hours[0] >= 8
    assert sum(hours[12:]) <= 2 * 10
    assert budget.statistics().used_total == 0


# -- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(WIDE))
@pytest.mark.parametrize("wrong", [-1.0, math.nan])
def test_impossible_limits_are_refused_by_name(name: str, wrong: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name} of prefetching cannot be {wrong}"):
        PrefetchLimits(**{**WIDE, name: wrong})


def test_impossible_costs_and_probabilities_are_refused(clock: ManualClock) -> None:
    budget = Budget(clock)
    for cost in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="no search costs"):
            budget.worked(cost)
        with pytest.raises(ValueError, match="no search costs"):
            budget.issue(cost=cost)
    for probability in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="a probability lies"):
            budget.issue(probability=probability)


@settings(deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.floats(0, 20), st.floats(0, 30), st.floats(0, 5)), min_size=1, max_size=80
    ),
    share=st.floats(0, 1),
    half_life_s=st.floats(0.1, 100),
)
def test_prefetches_never_cost_more_than_their_share_of_all_work(
    steps: list[tuple[float, float, float]], share: float, half_life_s: float
) -> None:
    clock = ManualClock()
    budget = Budget(clock, work=0.0, work_share=share, work_half_life_s=half_life_s)
    worked = spent = 0.0
    for work, cost, seconds in steps:
        clock.advance(seconds)
        budget.worked(work)
        worked += work
        if budget.issue(cost=cost):
            spent += cost
        assert spent <= share * worked + 1e-6


# -- against a model ------------------------------------------------------------------------------


@dataclass
class Issued:
    """A prefetch whose outcome is not known."""

    late_at: float
    term: int
    cost: float


class BudgetAgainstModel(RuleBasedStateMachine):
    """The model keeps every outcome of a term in a list, and does the sums anew each time."""

    keys = st.sampled_from([f"key {number}" for number in range(8)])

    @initialize(
        judged=st.integers(1, 5),
        least_used=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        max_outstanding=st.integers(1, 6),
        burst=st.integers(1, 5),
    )
    def make(self, judged: int, least_used: float, max_outstanding: int, burst: int) -> None:
        self.clock = ManualClock()
        self.limits = PrefetchLimits(
            least_probability=0.4,
            rate=0.5,
            burst=burst,
            work_share=0.5,
            work_half_life_s=50.0,
            patience_s=16.0,
            max_outstanding=max_outstanding,
            judged=judged,
            least_used=least_used,
            pause_s=32.0,
            probation_rate=0.25,
        )
        self.budget: PrefetchBudget[str] = PrefetchBudget(self.clock, self.limits)
        self.outstanding: dict[str, Issued] = {}
        self.counts: Counter[str] = Counter()
        self.outcomes: list[bool] = []
        self.state = PrefetchState.ON
        self.term = 0
        self.pause_s = 32.0
        self.resumes_at = 0.0
        self.issued_at: list[float] = []
        self.credit = 0.0

    def now(self) -> float:
        return self.clock.monotonic()

    def decide(self, key: str, outcome: str) -> None:
        issued = self.outstanding.pop(key)
        self.counts[outcome] += 1
        if outcome == "withdrawn" or issued.term != self.term:
            return
        self.outcomes.append(outcome == "used")
        last = self.outcomes[-self.limits.judged :]
        unknown = self.limits.judged - len(last)
        used, needed = sum(last), self.limits.least_used * self.limits.judged
        if used + unknown < needed:
            self.state, self.outcomes, self.term = PrefetchState.PAUSED, [], self.term + 1
            self.resumes_at = self.now() + self.pause_s
            self.pause_s *= 2
        elif self.state is PrefetchState.PROBATION and used >= needed:
            self.state, self.pause_s = PrefetchState.ON, 32.0

    def late(self) -> list[str]:
        return [key for key, issued in self.outstanding.items() if issued.late_at <= self.now()]

    @rule(seconds=st.sampled_from([0.5, 2.0, 8.0, 40.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.credit *= 0.5 ** (seconds / 50.0)
        if self.state is PrefetchState.PAUSED and self.now() >= self.resumes_at:
            self.state = PrefetchState.PROBATION

    @rule(cost=st.sampled_from([1.0, 10.0, 100.0]))
    def work(self, cost: float) -> None:
        self.budget.worked(cost)
        self.credit += 0.5 * cost

    @rule(
        key=keys,
        probability=st.sampled_from([0.1, 0.4, 0.9]),
        cost=st.sampled_from([0.9, 2.1]),
        idle=st.sampled_from([True, True, True, False]),
    )
    def issue(self, key: str, probability: float, cost: float, idle: bool) -> None:  # noqa: FBT001  # hypothesis
        for some in self.late()[:2]:
            self.decide(some, "wasted")
        free = (
            probability >= 0.4
            and self.state is not PrefetchState.PAUSED
            and idle
            and key not in self.outstanding
            and len(self.outstanding) < self.limits.max_outstanding
        )
        allowed = self.budget.try_issue(key, probability, cost, idle=idle)
        declined = self.budget.statistics().declined
        self.counts["declined"] += not allowed
        assert sum(declined.values()) == self.counts["declined"]
        if allowed:
            assert free
            assert cost <= self.credit + 1e-9
            self.credit -= cost
            self.outstanding[key] = Issued(self.now() + 16.0, self.term, cost)
            self.issued_at.append(self.now())
            self.counts["issued"] += 1
        elif free and cost <= self.credit - 1e-9:
            assert declined[Declined.RATE] > self.counts["rate"]
        self.counts["rate"] = declined[Declined.RATE]

    @rule(key=keys)
    def hit(self, key: str) -> None:
        in_time = key in self.outstanding and key not in self.late()
        assert self.budget.use(key) == in_time
        if key in self.outstanding:
            self.decide(key, "used" if in_time else "wasted")

    @rule(key=keys)
    def lose(self, key: str) -> None:
        self.budget.waste(key)
        if key in self.outstanding:
            self.decide(key, "wasted")

    @rule(key=keys)
    def withdraw(self, key: str) -> None:
        self.budget.withdraw(key)
        if key in self.outstanding:
            self.credit += self.outstanding[key].cost
            self.decide(key, "withdrawn")

    @rule(limit=st.integers(0, 9))
    def sweep(self, limit: int) -> None:
        late = self.late()[:limit]
        assert self.budget.sweep(limit) == len(late)
        for key in late:
            self.decide(key, "wasted")

    @invariant()
    def all_that_is_counted_is_that_of_the_model(self) -> None:
        seen = self.budget.statistics()
        assert seen.state is self.state
        assert seen.outstanding_current == len(self.outstanding) <= self.limits.max_outstanding
        assert seen.issued_total == self.counts["issued"]
        assert seen.used_total == self.counts["used"]
        assert seen.wasted_total == self.counts["wasted"]
        assert seen.withdrawn_total == self.counts["withdrawn"]
        assert seen.issued_total == (
            seen.used_total + seen.wasted_total + seen.withdrawn_total + seen.outstanding_current
        )
        last = self.outcomes[-self.limits.judged :]
        assert seen.judged_current == len(last)
        assert seen.used_share_current == (sum(last) / len(last) if last else None)
        assert seen.credit_current == pytest.approx(self.credit, abs=1e-6)

    @invariant()
    def the_rate_is_kept(self) -> None:
        for number, start in enumerate(self.issued_at):
            count = len(self.issued_at) - number
            assert count <= self.limits.burst + 0.5 * (self.issued_at[-1] - start) + 1e-6


TestBudgetAgainstModel = BudgetAgainstModel.TestCase
TestBudgetAgainstModel.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)
