from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.llm.limits import RateLimits
from pyrope.testing.clock import ManualClock

MINUTE = 60.0


@given(
    requests=st.integers(0, 5),
    tokens=st.integers(0, 300),
    calls=st.lists(
        st.tuples(st.integers(1, 120), st.integers(0, 120), st.floats(0, 40)), max_size=40
    ),
)
def test_no_minute_sees_more_than_the_limits_say_and_who_waits_as_told_may_begin(
    requests: int, tokens: int, calls: list[tuple[int, int, float]]
) -> None:
    clock = ManualClock()
    limits = RateLimits(clock, requests, tokens)
    made: list[tuple[float, int]] = []
    for reserved, used, pause in calls:
        clock.advance(pause)
        if not limits.fits(reserved):
            continue
        wait = limits.wait_s(reserved)
        if wait:
            clock.advance(wait * 0.99)
            assert limits.wait_s(reserved) > 0
            clock.advance(wait * 0.01)
        assert limits.wait_s(reserved) == 0
        limits.settle(limits.reserve(reserved), min(used, reserved))
        made.append((clock.monotonic(), min(used, reserved)))
    for first, (began, _) in enumerate(made):
        within = [used for at, used in made[first:] if at < began + MINUTE - 1e-3]
        assert not requests or len(within) <= requests
        assert not tokens or sum(within) <= tokens


def test_what_a_call_has_really_used_is_what_counts() -> None:
    clock = ManualClock()
    limits = RateLimits(clock, 0, 1000)
    first = limits.reserve(900)
    assert limits.wait_s(200) == MINUTE
    limits.settle(first, 100)
    assert limits.wait_s(200) == 0
    limits.settle(first, 1500)
    assert limits.wait_s(0) == MINUTE


def test_a_call_that_ends_after_its_minute_changes_nothing_any_more() -> None:
    clock = ManualClock()
    limits = RateLimits(clock, 0, 1000)
    first = limits.reserve(900)
    clock.advance(61.0)
    limits.reserve(900)
    limits.settle(first, 0)
    assert limits.wait_s(200) == MINUTE


def test_a_hold_lets_nothing_through_and_a_shorter_one_does_not_shorten_it() -> None:
    clock = ManualClock()
    limits = RateLimits(clock, 0, 0)
    assert limits.wait_s(10**9) == 0
    limits.hold(30.0)
    limits.hold(5.0)
    clock.advance(10.0)
    assert limits.wait_s(0) == 20.0
    clock.advance(20.0)
    assert limits.wait_s(0) == 0


def test_a_hold_can_be_ended() -> None:
    clock = ManualClock()
    limits = RateLimits(clock, 1, 0)
    limits.hold(1000.0)
    limits.release()
    assert limits.wait_s(0) == 0.0
    limits.reserve(0)
    limits.release()
    assert limits.wait_s(0) == 60.0


def test_without_limits_nothing_is_remembered() -> None:
    limits = RateLimits(ManualClock(), 0, 0)
    for _ in range(100):
        limits.settle(limits.reserve(10), 5)
    assert not limits._window
    assert limits.fits(10**12)


def test_negative_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        RateLimits(ManualClock(), -1, 0)
