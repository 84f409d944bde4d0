"""The log of writes that cached answers catch up with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.cache.write_log import WriteLog

KINDS = ("added", "gone", "changed")


def write(log: WriteLog, kind: str, slots: list[int]) -> None:
    getattr(log, kind)(np.array(slots, np.int64))


writes = st.lists(
    st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 2**32 - 1), max_size=12)),
    max_size=60,
)


@given(writes, st.integers(1, 400), st.data())
def test_what_came_since_a_position_is_what_a_plain_list_says(
    done: list[tuple[str, list[int]]], capacity: int, data: Any
) -> None:
    log, model = WriteLog(capacity), []
    for kind, slots in done:
        write(log, kind, slots)
        model += [(kind, slot) for slot in slots]
    assert log.position == len(model)
    position = data.draw(st.integers(0, len(model)))
    since = log.since(position)
    if since is None:
        # It may forget a whole batch that is as long as it is.
        longest = max((len(slots) for _, slots in done), default=0)
        assert len(model) - position > capacity - longest
        return
    for kind in KINDS:
        expected = [slot for what, slot in model[position:] if what == kind]
        assert getattr(since, kind).tolist() == expected


def test_what_is_as_long_as_the_capacity_allows_is_kept() -> None:
    log = WriteLog(1000)
    for slot in range(5000):
        log.added(np.array([slot]))
    since = log.since(4001)
    assert since is not None
    assert since.added.tolist() == list(range(4001, 5000))
    assert log.since(3999) is None


def test_nothing_from_before_a_gap_is_kept() -> None:
    log = WriteLog(100)
    log.gone([1])
    before = log.position
    log.forget()
    log.gone([2])
    assert log.since(before) is None
    since = log.since(before + 1)
    assert since is not None
    assert since.gone.tolist() == [2]


def test_it_takes_memory_for_what_it_holds() -> None:
    log = WriteLog(1_000_000)
    log.added(np.arange(100))
    assert log.nbytes <= 4096


def test_a_log_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        WriteLog(0)
