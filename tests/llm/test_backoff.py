from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.llm.backoff import Backoff


@given(st.floats(0.01, 10), st.floats(0.01, 1000), st.integers(1, 10_000))
def test_a_delay_is_at_most_the_base_doubled_for_each_attempt_and_at_most_the_maximum(
    base: float, most: float, attempts: int
) -> None:
    delay = Backoff(base, most, Random(1)).delay_s(attempts)
    assert 0.0 <= delay <= most
    assert delay <= base * 2.0 ** min(attempts - 1, 100)


def test_delays_are_spread_over_all_of_their_range() -> None:
    backoff = Backoff(1.0, 100.0, Random(1))
    delays = sorted(backoff.delay_s(4) for _ in range(2000))
    assert delays[0] < 0.1
    assert delays[-1] > 7.9
    assert sum(delays) / len(delays) == pytest.approx(4.0, rel=0.05)


@given(st.floats(0.001, 1e5), st.integers(1, 100))
def test_nobody_comes_back_before_the_provider_wants_it(retry_after: float, attempts: int) -> None:
    backoff = Backoff(1.0, 60.0, Random(attempts))
    assert retry_after <= backoff.delay_s(attempts, retry_after) <= retry_after + 60.0


def test_the_same_seed_gives_the_same_delays() -> None:
    one, other = (Backoff(1.0, 60.0, Random(5)) for _ in range(2))
    assert [one.delay_s(n) for n in range(1, 9)] == [other.delay_s(n) for n in range(1, 9)]


@pytest.mark.parametrize(("base", "most"), [(0.0, 1.0), (1.0, 0.0), (float("nan"), 1.0)])
def test_an_impossible_backoff_is_refused(base: float, most: float) -> None:
    with pytest.raises(ValueError, match="no backoff"):
        Backoff(base, most, Random(1))
