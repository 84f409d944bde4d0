from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pyrope.embed.backoff import pause_s


@given(st.integers(1, 50), st.integers())
def test_a_pause_is_within_what_doubles_each_time(attempt: int, seed: int) -> None:
    most = 10.0 if attempt > 7 else 0.1 * 2 ** (attempt - 1)
    assert 0 <= pause_s(attempt, None, Random(seed)) <= most


@given(st.integers(1, 50), st.floats(0, 1e6), st.integers())
def test_what_the_provider_asks_for_comes_before_it(
    attempt: int, retry_after_s: float, seed: int
) -> None:
    assert retry_after_s <= pause_s(attempt, retry_after_s, Random(seed)) <= retry_after_s + 10
