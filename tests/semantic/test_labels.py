"""Labels of pairs: the last one counts, whichever way round, within bounds."""

from __future__ import annotations

from math import nan

import pytest

from pyrope.semantic.labels import Label, Labels, LabelSource


def label(*, same: bool, at: float = 0.0) -> Label:
    return Label(same, 0.9, nan, LabelSource.LLM, at)


def test_a_pair_has_no_order_and_its_last_label_counts() -> None:
    labels = Labels(max_entries=10, max_bytes=10_000)
    labels.add(b"a", b"b", label(same=True, at=1))
    labels.add(b"b", b"a", label(same=False, at=2))
    found = labels.get(b"a", b"b")
    assert found is not None
    assert (found.same, found.at) == (False, 2)
    assert labels.get(b"a", b"c") is None
    told = labels.statistics()
    assert (told.entries_current, told.same_total, told.different_total) == (1, 1, 1)


def test_past_a_bound_those_go_that_came_first() -> None:
    labels = Labels(max_entries=3, max_bytes=10_000)
    for number in range(5):
        labels.add(b"a", b"%d" % number, label(same=True))
    assert [pair for pair, _ in labels] == [(b"2", b"a"), (b"3", b"a"), (b"4", b"a")]
    small = Labels(max_entries=100, max_bytes=1000)
    for number in range(50):
        small.add(b"a", b"%d" % number, label(same=True))
        assert 0 < small.nbytes <= 1000
    small.add(b"x" * 2000, b"y", label(same=True))
    assert (len(small), small.nbytes) == (0, 0)
    assert small.statistics().same_total == 51


def test_forgetting_all_keeps_what_was_counted() -> None:
    labels = Labels(max_entries=3, max_bytes=10_000)
    labels.add(b"a", b"b", label(same=False))
    labels.clear()
    assert (len(labels), labels.nbytes, labels.statistics().different_total) == (0, 0, 1)


def test_there_has_to_be_room() -> None:
    with pytest.raises(ValueError, match="0 labels"):
        Labels(max_entries=0, max_bytes=1)
