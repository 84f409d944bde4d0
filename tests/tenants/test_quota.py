from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.errors import QuotaError
from pyrope.tenants.quota import (
    RateLimit,
    check_bytes,
    check_vectors,
    refuse_concurrency,
    refuse_rate,
)

STARTS = (0.0, 12_345.678, 1e7)
"""Monotonic times that a host may have begun at: 1e7 is four months up."""

rates = st.floats(0.001, 1e6)
bursts = st.none() | st.floats(1, 50)


def take_all(limit: RateLimit, now: float) -> int:
    for taken in range(10_000):
        if limit.take(now):
            return taken
    raise AssertionError("it never refuses")


@pytest.mark.parametrize("start", STARTS)
def test_a_burst_is_let_through_and_then_what_the_rate_allows(start: float) -> None:
    limit = RateLimit(2.0, 3)
    assert take_all(limit, start) == 3
    assert take_all(limit, start + 0.25) == 0
    assert take_all(limit, start + 0.5) == 1
    assert take_all(limit, start + 1e9) == 3


@pytest.mark.parametrize(("qps", "burst"), [(100.0, 100), (2.5, 2), (0.5, 1), (1.0, 1)])
def test_without_a_burst_as_many_may_come_at_once_as_in_a_second(qps: float, burst: int) -> None:
    assert take_all(RateLimit(qps), 5.0) == burst


@given(rates, bursts, st.sampled_from(STARTS), st.lists(st.floats(0, 2), max_size=60))
def test_no_more_gets_through_than_burst_and_rate_allow(
    qps: float, burst: float | None, start: float, waits: list[float]
) -> None:
    limit = RateLimit(qps, burst)
    most = max(1.0, qps) if burst is None else burst
    now = start
    taken: list[float] = []
    for wait in waits:
        now += wait
        if limit.take(now) == 0:
            taken.append(now)
    for first, begin in enumerate(taken):
        for count, end in enumerate(taken[first:], start=1):
            assert count <= most + qps * (end - begin + 1e-6)


@given(rates, bursts, st.sampled_from(STARTS), st.lists(st.floats(0, 1), max_size=40))
def test_it_is_a_token_bucket(
    qps: float, burst: float | None, start: float, waits: list[float]
) -> None:
    limit = RateLimit(qps, burst)
    size = max(1.0, qps) if burst is None else burst
    tokens, now = size, start
    for wait in waits:
        now += wait
        tokens = min(size, tokens + ((now - (now - wait)) * qps))
        refused = limit.take(now)
        if abs(tokens - 1.0) > 1e-6 * max(1.0, qps):
            assert (refused == 0) == (tokens > 1.0)
        if not refused:
            tokens -= 1.0


@given(rates, bursts, st.sampled_from(STARTS), st.integers(1, 30))
def test_who_waits_as_long_as_told_is_let_in_and_not_much_sooner(
    qps: float, burst: float | None, start: float, more: int
) -> None:
    limit = RateLimit(qps, burst)
    now = start
    for _ in range(1000):
        wait = limit.take(now)
        if wait:
            break
    else:
        return  # a burst that large is not drained here
    for _ in range(more):
        assert limit.take(now) == wait, "being refused costs nothing"
        if wait > 1e-6:
            assert limit.take(now + wait - max(5e-7, wait * 1e-6)) > 0
        now += math.ceil(wait * 1000) / 1000
        assert limit.take(now) == 0
        while not (wait := limit.take(now)):
            pass


@pytest.mark.parametrize("start", STARTS)
def test_it_is_full_when_all_tokens_are_there_again(start: float) -> None:
    limit = RateLimit(10.0, 5)
    assert limit.is_full(start)
    limit.take(start)
    limit.take(start)
    assert not limit.is_full(start + 0.19)
    assert limit.is_full(start + 0.21)


def test_a_rate_of_none_refuses_everybody_for_ever() -> None:
    limit = RateLimit(0.0)
    assert limit.take(1e9) == math.inf
    assert limit.is_full(0.0)


def changed(former: RateLimit, qps: float, burst: float | None, now: float) -> RateLimit:
    limit = RateLimit(qps, burst)
    limit.take_over(former, now)
    return limit


def test_another_rate_counts_what_was_taken_before() -> None:
    limit = RateLimit(1.0, 10)
    for _ in range(4):
        limit.take(0.0)
    assert take_all(changed(limit, 5.0, 10, 0.0), 0.0) == 6
    smaller = changed(limit, 5.0, 3, 0.0)
    assert take_all(smaller, 0.0) == 0
    assert take_all(smaller, 0.2) == 1, "it cannot be emptier than empty"
    assert take_all(changed(limit, 5.0, 20, 0.0), 0.0) == 16
    assert take_all(changed(limit, 5.0, 10, 100.0), 100.0) == 10


def test_a_tenant_that_was_suspended_comes_back_with_a_full_bucket() -> None:
    limit = RateLimit(1.0, 10)
    take_all(limit, 0.0)
    suspended = changed(limit, 0.0, None, 0.0)
    assert suspended.take(50.0) == math.inf
    assert take_all(changed(suspended, 1.0, 10, 60.0), 60.0) == 10


@pytest.mark.parametrize(
    ("qps", "burst"),
    [(-1.0, None), (math.inf, None), (math.nan, None), (1.0, 0.5), (1.0, math.nan)],
)
def test_an_impossible_rate_is_refused(qps: float, burst: float | None) -> None:
    with pytest.raises(ValueError, match="no rate can be"):
        RateLimit(qps, burst)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            refuse_rate("a", RateLimit(100), 0.0112),
            "100 requests a second are allowed to tenant 'a'; retry in 12 ms",
        ),
        (
            refuse_rate("a", RateLimit(1), 1e-7),
            "1 request a second is allowed to tenant 'a'; retry in 1 ms",
        ),
        (
            refuse_rate("a", RateLimit(0.5), 1.5),
            "0.5 requests a second are allowed to tenant 'a'; retry in 1500 ms",
        ),
        (
            refuse_rate("a", RateLimit(0), math.inf),
            "no requests are allowed to tenant 'a' until its QPS is raised",
        ),
        (
            refuse_concurrency("a", 8),
            "8 requests at a time are allowed to tenant 'a'; retry when one has been answered",
        ),
        (
            refuse_concurrency("a", 0),
            "no requests are allowed to tenant 'a' until its CONCURRENCY is raised",
        ),
    ],
)
def test_a_refusal_says_what_is_allowed_and_when_to_retry(error: QuotaError, text: str) -> None:
    assert (error.prefix, error.message) == ("QUOTA", text)


def test_what_a_tenant_keeps_may_reach_its_quota_but_not_exceed_it() -> None:
    check_vectors("a", 100, 90, 10)
    check_vectors("a", None, 10**12, 10**12)
    check_bytes("a", 2**30, 2**30 - 1, 1)
    with pytest.raises(QuotaError) as vectors:
        check_vectors("a", 100, 90, 11)
    assert vectors.value.message == (
        "100 vectors are allowed to tenant 'a', which has 90, and 11 more would be too many; "
        "retry when some have been deleted"
    )
    with pytest.raises(QuotaError, match="1000000000 bytes are allowed to tenant 'b'"):
        check_bytes("b", 10**9, 0, 10**9 + 1)


def test_what_adds_nothing_is_let_through_above_a_quota_that_was_lowered() -> None:
    check_vectors("a", 100, 500, 0)
    check_bytes("a", 100, 500, -7)
    with pytest.raises(QuotaError):
        check_vectors("a", 100, 500, 1)


def test_an_error_says_when_another_try_is_of_use() -> None:
    assert refuse_rate("a", RateLimit(0.5), 1.5).retry_after_s == 1.5
    assert refuse_concurrency("a", 8).retry_after_s == 0
    # Waiting alone does not help.
    assert refuse_rate("a", RateLimit(0), math.inf).retry_after_s is None
    assert refuse_concurrency("a", 0).retry_after_s is None
    with pytest.raises(QuotaError) as refused:
        check_vectors("a", 1, 1, 1)
    assert refused.value.retry_after_s is None
