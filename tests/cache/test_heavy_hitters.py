"""Keys that come often are counted, in bounded memory, and forgotten in the end."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.cache.heavy_hitters import HeavyHitters

KEYS = st.lists(st.integers(0, 12), max_size=60)


def test_with_places_for_all_counts_are_exact() -> None:
    counted: HeavyHitters[str] = HeavyHitters(3)
    assert [counted.add(key) for key in "abacab"] == [1, 1, 2, 1, 3, 2]
    assert (counted.count("a"), counted.count("d"), len(counted)) == (3, 0, 3)


@given(keys=KEYS, places=st.integers(1, 8))
def test_a_count_is_never_too_high_and_who_has_a_large_share_has_a_place(
    keys: list[int], places: int
) -> None:
    counted: HeavyHitters[int] = HeavyHitters(places)
    seen: Counter[int] = Counter()
    # So many that none is halved.
    for key in keys[: 9 * places]:
        seen[key] += 1
        assert 1 <= counted.add(key) <= seen[key]
        assert len(counted) <= places
    total = seen.total()
    for key, count in seen.items():
        assert counted.count(key) <= count
        if count > total / places:
            assert counted.count(key) > 0


def test_counts_fade() -> None:
    counted: HeavyHitters[int] = HeavyHitters(100)
    for _ in range(80):
        counted.add(0)
    for key in range(1, 90):
        for _ in range(11):
            counted.add(key)
    assert counted.count(0) == 40
    for _ in range(20):
        for key in range(1, 90):
            counted.add(key)
    assert counted.count(0) == 20


def test_what_has_faded_away_leaves_its_place() -> None:
    counted: HeavyHitters[int] = HeavyHitters(4)
    for key in range(3):
        counted.add(key)
    for _ in range(80):
        counted.add(3)
    assert len(counted) == 1


def test_forgetting_all_begins_anew() -> None:
    counted: HeavyHitters[int] = HeavyHitters(2)
    counted.add(1)
    counted.clear()
    assert (len(counted), counted.count(1), counted.add(2)) == (0, 0, 1)


def test_there_has_to_be_a_place() -> None:
    with pytest.raises(ValueError, match="0 places"):
        HeavyHitters(0)
