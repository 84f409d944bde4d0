"""MemoryLog: the same interface, the last entries only, nothing on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrope.storage.chained_entry import EMPTY
from pyrope.storage.chained_log import ChainedLog, EntryLog
from pyrope.storage.memory_log import MemoryLog


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=10), st.data())
def test_it_answers_as_a_log_on_disk_as_far_as_it_remembers(
    tmp_path_factory: pytest.TempPathFactory, batches: list[int], data: st.DataObject
) -> None:
    on_disk: EntryLog = ChainedLog.open(tmp_path_factory.mktemp("log"), rotate_bytes=500, at=1.0)
    in_memory: EntryLog = MemoryLog(max_entries=1_000)
    short: EntryLog = MemoryLog(max_entries=3)
    for number, size in enumerate(batches):
        payloads = [{"number": number, "of": [size]}] * size
        heads = {log.append(payloads, float(number)) for log in (on_disk, in_memory, short)}
        assert heads == {on_disk.head}
    everything = in_memory.read(0, 1_000)
    assert short.read(0, 1_000) == everything[-3:]
    after, before = data.draw(st.integers(0, 60)), data.draw(st.none() | st.integers(0, 60))
    limit = data.draw(st.integers(1, 10))
    assert in_memory.read(after, limit) == on_disk.read(after, limit)
    page = on_disk.read_newest(before, limit)
    assert in_memory.read_newest(before, limit) == page
    remembered = {entry.seq for entry in everything[-3:]}
    assert short.read_newest(before, limit) == [e for e in page if e.seq in remembered]
    on_disk.close()


def test_it_refuses_what_a_log_on_disk_refuses(tmp_path: Path) -> None:
    log = MemoryLog(max_entries=10)
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        log.append([{"fine": 1}, {"bytes": b""}], 1.0)
    with pytest.raises(ValueError, match="no time of day"):
        log.append([{"fine": 1}], float("inf"))
    with pytest.raises(ValueError, match="entries, not 0"):
        log.read(0, 0)
    assert log.head == EMPTY
    log.close()
    with pytest.raises(RuntimeError, match="closed"):
        log.append([{"fine": 1}], 1.0)
