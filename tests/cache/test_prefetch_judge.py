from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.cache.prefetch_judge import PrefetchJudge, PrefetchState
from pyrope.testing.clock import ManualClock

ON, PAUSED, PROBATION = PrefetchState.ON, PrefetchState.PAUSED, PrefetchState.PROBATION
PAUSE_S = 60.0


def judge(clock: ManualClock, judged: int = 10, least_used: float = 0.3) -> PrefetchJudge:
    return PrefetchJudge(clock, judged=judged, least_used=least_used, pause_s=PAUSE_S)


def record(judging: PrefetchJudge, used: int = 0, wasted: int = 0) -> None:
    for _ in range(used):
        judging.record(judging.term, used=True)
    for _ in range(wasted):
        judging.record(judging.term, used=False)


def on_probation(clock: ManualClock) -> PrefetchJudge:
    judging = judge(clock)
    record(judging, wasted=8)
    clock.advance(PAUSE_S)
    assert judging.state is PROBATION
    return judging


def test_outcomes_that_are_not_known_yet_get_the_benefit_of_the_doubt() -> None:
    judging = judge(ManualClock())
    assert judging.state is ON
    record(judging, wasted=7)
    assert judging.state is ON
    record(judging, wasted=1)  # three of ten cannot be reached any more
    assert judging.state is PAUSED


def test_only_the_last_outcomes_count() -> None:
    judging = judge(ManualClock())
    record(judging, used=1000)
    record(judging, wasted=7)
    assert (judging.state, judging.outcomes) == (ON, (10, 3))
    record(judging, wasted=1)
    assert judging.state is PAUSED


@pytest.mark.parametrize(
    ("judged", "least_used", "enough"), [(100, 0.07, 7), (10, 0.25, 3), (10, 1.0, 10), (1, 0.1, 1)]
)
def test_the_share_is_reached_by_the_least_number_that_is_as_much(
    judged: int, least_used: float, enough: int
) -> None:
    good, bad = (judge(ManualClock(), judged, least_used) for _ in range(2))
    record(good, used=enough, wasted=judged - enough)
    assert good.state is ON
    record(bad, used=enough - 1, wasted=judged - enough + 1)
    assert bad.state is PAUSED


def test_with_a_share_of_0_it_is_never_turned_off() -> None:
    judging = judge(ManualClock(), least_used=0.0)
    record(judging, wasted=1000)
    assert judging.state is ON


def test_probation_begins_when_the_pause_is_over() -> None:
    clock = ManualClock()
    judging = judge(clock)
    record(judging, wasted=8)
    clock.advance(PAUSE_S - 1)
    assert (judging.state, judging.resumes_in_s) == (PAUSED, 1.0)
    clock.advance(1)
    assert (judging.state, judging.resumes_in_s) == (PROBATION, 0.0)
    assert judging.outcomes == (0, 0)


def test_probation_is_over_as_soon_as_enough_was_used() -> None:
    judging = on_probation(ManualClock())
    record(judging, wasted=4, used=2)
    assert judging.state is PROBATION
    record(judging, used=1)
    assert judging.state is ON


def test_each_failed_probation_makes_the_next_pause_twice_as_long_up_to_a_limit() -> None:
    clock = ManualClock()
    judging = judge(clock)
    pauses = []
    for _ in range(13):
        record(judging, wasted=8)
        pauses.append(judging.resumes_in_s / PAUSE_S)
        clock.advance(judging.resumes_in_s)
        assert judging.state is PROBATION
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024])
    assert judging.pauses_total == 13


def test_a_probation_that_was_passed_makes_the_next_pause_short_again() -> None:
    clock = ManualClock()
    judging = on_probation(clock)
    record(judging, wasted=8)
    assert judging.resumes_in_s == 2 * PAUSE_S
    clock.advance(2 * PAUSE_S)
    assert judging.state is PROBATION
    record(judging, used=10, wasted=8)
    assert (judging.state, judging.resumes_in_s) == (PAUSED, PAUSE_S)


def test_what_was_issued_before_a_pause_is_not_judged_after_it() -> None:
    clock = ManualClock()
    judging = judge(clock)
    before = judging.term
    record(judging, wasted=8)
    for used in (True, False):
        judging.record(before, used=used)
    clock.advance(PAUSE_S)
    for _ in range(20):
        judging.record(before, used=True)
        judging.record(before, used=False)
    assert (judging.state, judging.outcomes) == (PROBATION, (0, 0))


@given(
    outcomes=st.lists(st.booleans(), max_size=120),
    judged=st.integers(1, 12),
    least_used=st.floats(0, 1),
)
def test_it_is_off_exactly_when_the_last_outcomes_cannot_have_the_share(
    outcomes: list[bool], judged: int, least_used: float
) -> None:
    clock = ManualClock()
    judging = judge(clock, judged, least_used)
    last: list[bool] = []
    for used in outcomes:
        judging.record(judging.term, used=used)
        last = [*last, used][-judged:]
        best = (sum(last) + judged - len(last)) / judged
        assert (judging.state is PAUSED) == (best < least_used - 1e-9)
        if judging.state is PAUSED:
            clock.advance(judging.resumes_in_s)
            assert judging.state is PROBATION
            last = []
