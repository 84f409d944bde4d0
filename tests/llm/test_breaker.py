from __future__ import annotations

import math

import pytest

from pyrope.llm.breaker import Breaker, BreakerState
from pyrope.testing.clock import ManualClock


@pytest.fixture
def breaker(clock: ManualClock) -> Breaker:
    return Breaker(clock, failures=3, probe_s=10.0, max_probe_s=35.0)


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.fail(breaker.begin())


def test_it_opens_after_failures_in_a_row_only(breaker: Breaker) -> None:
    for _ in range(5):
        fail(breaker, 2)
        breaker.succeed(breaker.begin())
    assert breaker.wait_s() == 0
    fail(breaker, 3)
    assert breaker.state is BreakerState.OPEN
    assert breaker.wait_s() == 10.0


def test_one_call_probes_and_closes_it(clock: ManualClock, breaker: Breaker) -> None:
    fail(breaker, 3)
    clock.advance(10.0)
    assert breaker.wait_s() == 0
    probe = breaker.begin()
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.wait_s() == math.inf
    breaker.succeed(probe)
    assert breaker.wait_s() == 0
    fail(breaker, 2)
    assert breaker.wait_s() == 0


def test_pauses_grow_while_probes_fail_and_begin_anew_after_a_success(
    clock: ManualClock, breaker: Breaker
) -> None:
    fail(breaker, 3)
    pauses = []
    for _ in range(4):
        pauses.append(breaker.wait_s())
        clock.advance(pauses[-1])
        fail(breaker)
    assert pauses == [10.0, 20.0, 35.0, 35.0]
    clock.advance(35.0)
    breaker.succeed(breaker.begin())
    fail(breaker, 3)
    assert breaker.wait_s() == 10.0


def test_calls_begun_before_it_opened_say_nothing_afterwards(
    clock: ManualClock, breaker: Breaker
) -> None:
    old = breaker.begin()
    fail(breaker, 3)
    breaker.succeed(old)
    breaker.fail(old, for_good=True)
    assert breaker.wait_s() == 10.0
    clock.advance(10.0)
    probe = breaker.begin()
    breaker.succeed(old)
    breaker.give_up(old)
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.succeed(probe)
    breaker.fail(old, for_good=True)
    assert breaker.wait_s() == 0


def test_what_cannot_work_opens_it_at_once(breaker: Breaker) -> None:
    breaker.fail(breaker.begin(), for_good=True)
    assert breaker.wait_s() == 10.0


def test_after_a_probe_that_says_nothing_there_may_be_another(
    clock: ManualClock, breaker: Breaker
) -> None:
    breaker.give_up(breaker.begin())
    assert breaker.wait_s() == 0
    fail(breaker, 3)
    clock.advance(10.0)
    breaker.give_up(breaker.begin())
    assert breaker.wait_s() == 0
    assert breaker.state is BreakerState.OPEN


def test_a_pause_can_be_ended(breaker: Breaker) -> None:
    breaker.probe_now()
    fail(breaker, 3)
    breaker.probe_now()
    assert breaker.wait_s() == 0
    fail(breaker)
    assert breaker.wait_s() == 20.0


@pytest.mark.parametrize(
    ("failures", "probe_s", "max_probe_s"),
    [(0, 1.0, 1.0), (1, 0.0, 1.0), (1, 2.0, 1.0), (1, 1.0, math.inf)],
)
def test_an_impossible_breaker_is_refused(
    failures: int, probe_s: float, max_probe_s: float
) -> None:
    with pytest.raises(ValueError, match="no breaker"):
        Breaker(ManualClock(), failures=failures, probe_s=probe_s, max_probe_s=max_probe_s)
