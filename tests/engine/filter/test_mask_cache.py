from __future__ import annotations

import numpy as np
import pytest

from pyrope.engine.columns import AttributeColumns
from pyrope.engine.filter import MaskCache, compile_filter
from pyrope.types import Mask


class CountingFilter:
    """A filter that says how often it was evaluated."""

    def __init__(self, text: str) -> None:
        self._filter = compile_filter(text)
        self.evaluations = 0

    @property
    def text(self) -> str:
        return self._filter.text

    def mask(self, columns: AttributeColumns, slots: int) -> Mask:
        self.evaluations += 1
        return self._filter.mask(columns, slots)


@pytest.fixture
def columns() -> AttributeColumns:
    columns = AttributeColumns()
    for slot in range(1000):
        columns.set(slot, {"a": slot % 2})
    return columns


def test_a_mask_is_computed_once_while_nothing_changes(columns: AttributeColumns) -> None:
    cache, odd = MaskCache(columns), CountingFilter(".a")
    first = cache.mask(odd, 1000)
    assert cache.mask(odd, 1000) is first
    assert odd.evaluations == 1
    assert first.sum() == 500


def test_a_cached_mask_cannot_be_written_to(columns: AttributeColumns) -> None:
    mask = MaskCache(columns).mask(compile_filter(".a"), 1000)
    with pytest.raises(ValueError, match="read-only"):
        mask[0] = True


def test_a_change_of_the_attributes_shows_in_the_next_mask(columns: AttributeColumns) -> None:
    cache, odd, even = MaskCache(columns), CountingFilter(".a"), CountingFilter("not .a")
    cache.mask(odd, 1000)
    cache.mask(even, 1000)
    columns.set(0, {"a": 1})
    assert cache.mask(odd, 1000).sum() == 501
    assert len(cache) == 1  # the other filter's mask is worthless too, and gone
    assert cache.mask(even, 1000).sum() == 499


def test_a_mask_of_another_length_replaces_the_former(columns: AttributeColumns) -> None:
    cache, odd = MaskCache(columns), CountingFilter(".a")
    cache.mask(odd, 1000)
    held = cache.nbytes
    assert len(cache.mask(odd, 500)) == 500
    assert len(cache) == 1
    assert cache.nbytes == held - 500


def test_the_least_recently_used_masks_make_room(columns: AttributeColumns) -> None:
    cache = MaskCache(columns, max_bytes=5000)
    filters = [CountingFilter(f".a == {n}") for n in range(4)]
    for compiled in filters[:3]:
        cache.mask(compiled, 1000)
    cache.mask(filters[0], 1000)
    cache.mask(filters[3], 1000)
    assert cache.nbytes <= 5000
    for compiled in (filters[0], filters[2], filters[3], filters[1]):
        cache.mask(compiled, 1000)
    assert [compiled.evaluations for compiled in filters] == [1, 2, 1, 1]


def test_a_mask_larger_than_the_cache_is_computed_but_not_kept(columns: AttributeColumns) -> None:
    cache, odd = MaskCache(columns, max_bytes=999), CountingFilter(".a")
    assert np.array_equal(cache.mask(odd, 1000), cache.mask(odd, 1000))
    assert odd.evaluations == 2
    assert (len(cache), cache.nbytes) == (0, 0)
