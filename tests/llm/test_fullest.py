from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.llm.fullest import Fullest


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-9, 9)), min_size=1))
def test_the_first_is_one_of_those_with_most_room(changes: list[tuple[str, int]]) -> None:
    fullest: Fullest[str] = Fullest()
    rooms: Counter[str] = Counter()
    for holder, units in changes:
        units = max(units, -rooms[holder])  # noqa: PLW2901 - nobody gives back what he has not
        rooms[holder] += units
        fullest.add(holder, units)
        if any(rooms.values()):
            assert rooms[fullest.first()] == max(rooms.values())
        else:
            with pytest.raises(LookupError):
                fullest.first()


def test_who_has_nothing_is_forgotten() -> None:
    fullest: Fullest[int] = Fullest()
    for holder in range(100):
        fullest.add(holder, holder + 1)
    for holder in range(100):
        fullest.add(holder, -holder - 1)
    assert not fullest._rooms
    assert not fullest._buckets
