"""Who has series of their own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyrope.http.metrics.places import Places


@given(st.lists(st.integers(0, 9)), st.integers(0, 4))
def test_places_go_to_the_first_that_come_for_good(comers: list[int], most: int) -> None:
    places: Places[int] = Places(most)
    first = list(dict.fromkeys(comers))[:most]
    for comer in comers:
        assert places.take(comer) == (comer in first)
        assert (comer in places) == (comer in first)
    assert list(places) == first
