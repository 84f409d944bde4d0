from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyrope.embed.tokens import estimate, split

_TEXTS = st.lists(st.text(max_size=50), min_size=1, max_size=20)


@given(st.integers(0, 10_000), _TEXTS)
def test_shares_add_up_and_are_nowhere_off_by_one(total: int, texts: list[str]) -> None:
    shares = split(total, texts)
    assert sum(shares) == total
    weights = [max(estimate(text), 1) for text in texts]
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - total * weight / sum(weights)) < 1


@given(st.text())
def test_an_estimate_is_a_token_for_three_bytes(text: str) -> None:
    assert 3 * (estimate(text) - 1) < len(text.encode()) <= 3 * estimate(text)
