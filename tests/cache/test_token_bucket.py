from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.cache.token_bucket import TokenBucket
from pyrope.testing.clock import ManualClock


def take_all(bucket: TokenBucket) -> int:
    taken = 0
    while bucket.try_take():
        taken += 1
    return taken


def test_a_full_bucket_gives_a_burst_and_then_nothing_until_time_passes() -> None:
    clock = ManualClock()
    bucket = TokenBucket(clock, rate=2.0, burst=3.0)
    assert take_all(bucket) == 3
    clock.advance(0.25)
    assert take_all(bucket) == 0
    clock.advance(0.25)
    assert take_all(bucket) == 1
    clock.advance(1e9)
    assert take_all(bucket) == 3


def test_tokens_that_came_before_the_rate_changed_stay() -> None:
    clock = ManualClock()
    bucket = TokenBucket(clock, rate=1.0, burst=10.0)
    take_all(bucket)
    clock.advance(4.0)
    bucket.rate = 0.0
    assert bucket.rate == 0.0
    clock.advance(100.0)
    assert take_all(bucket) == 4


@given(
    rate=st.floats(0, 50),
    burst=st.floats(1, 20),
    waits=st.lists(st.floats(0, 2), min_size=1, max_size=80),
)
def test_no_more_gets_through_than_the_burst_and_the_rate_allow(
    rate: float, burst: float, waits: list[float]
) -> None:
    clock = ManualClock()
    bucket = TokenBucket(clock, rate, burst)
    taken_at: list[float] = []
    for wait in waits:
        clock.advance(wait)
        if bucket.try_take():
            taken_at.append(clock.monotonic())
    for first, start in enumerate(taken_at):
        for last, end in enumerate(taken_at[first:], start=first):
            assert last - first + 1 <= burst + rate * (end - start) + 1e-6


@pytest.mark.parametrize(
    ("rate", "burst"),
    [(-1.0, 1.0), (float("inf"), 1.0), (float("nan"), 1.0), (1.0, 0.5), (1.0, float("nan"))],
)
def test_an_impossible_bucket_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="tokens"):
        TokenBucket(ManualClock(), rate, burst)
