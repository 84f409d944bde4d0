"""The commit log: whole entries count, in order, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrope.errors import MisconfError
from pyrope.storage.codec import damaged_rows
from pyrope.storage.commit_log import CommitLog, Entry, Operation, Rows
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.store import PutIndex, StorageError, WriteBatch
from pyrope.storage.vector_file import VectorFile
from storage.store_samples import DIM, puts, record, rows, stored_records

OPERATIONS = st.builds(
    Operation, st.integers(0, 1), st.binary(max_size=20), st.none() | st.binary(max_size=50)
)


@st.composite
def some_rows(draw: st.DrawFn) -> Rows:
    count, dim = draw(st.integers(0, 5)), draw(st.integers(1, 5))
    values = draw(st.lists(st.floats(width=32), min_size=count * dim, max_size=count * dim))
    return Rows(
        draw(st.integers(0, 2**63)),
        np.arange(count, dtype=np.int64) * 7,
        np.array(values, np.float32).reshape(count, dim),
    )


ENTRIES = st.lists(
    st.builds(Entry, st.lists(OPERATIONS, max_size=5), st.lists(some_rows(), max_size=3)),
    max_size=6,
)


def plain(entries: list[Entry]) -> list[object]:
    return [
        (list(e.operations), [(r.uid, r.slots.tolist(), r.vectors.tobytes()) for r in e.rows])
        for e in entries
    ]


def reread(path: Path, generation: int = 1) -> list[Entry]:
    log = CommitLog(path, generation)
    entries = list(log.entries())
    log.close()
    return entries


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(ENTRIES, ENTRIES)
def test_what_was_appended_is_there_at_the_next_opening(
    tmp_path_factory: pytest.TempPathFactory, first: list[Entry], second: list[Entry]
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    for entries in (first, second):
        log = CommitLog(path, 1)
        list(log.entries())
        for entry in entries:
            log.append(entry)
        log.close()
    assert plain(reread(path)) == plain(first + second)


def entry(number: int) -> Entry:
    return Entry([Operation(1, b"k%d" % number, b"v" * number)], [])


def test_entries_of_another_generation_do_not_count(tmp_path: Path) -> None:
    log = CommitLog(tmp_path / "log", 1)
    for number in range(5):
        log.append(entry(number))
    log.restart(2)
    assert reread(tmp_path / "log", 2) == []
    log.append(entry(9))
    log.close()
    assert plain(reread(tmp_path / "log", 2)) == plain([entry(9)])
    # What is left of the first generation behind it is not taken for its continuation.
    assert reread(tmp_path / "log", 1) == []


def test_an_entry_that_is_cut_short_or_damaged_anywhere_does_not_count(tmp_path: Path) -> None:
    log = CommitLog(tmp_path / "log", 1)
    sizes = [0]
    for number in range(3):
        log.append(entry(number))
        sizes.append(log.nbytes)
    log.close()
    content = (tmp_path / "log").read_bytes()
    for position in range(sizes[2], sizes[3]):
        (tmp_path / "cut").write_bytes(content[:position])
        assert plain(reread(tmp_path / "cut")) == plain([entry(0), entry(1)])
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        (tmp_path / "damaged").write_bytes(damaged)
        assert plain(reread(tmp_path / "damaged")) == plain([entry(0), entry(1)])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    store = LmdbStore.open(tmp_path / "data")
    yield store
    store.close()


def made(store: LmdbStore) -> int:
    uid = store.next_uid()
    store.commit([PutIndex(uid, b"")])
    store.vectors(uid, DIM)
    return uid


def abandon(store: LmdbStore) -> None:
    """End a store as a killed process would: nothing is moved, nothing synced."""
    store._abort()
    store._pending.clear()
    store.close()


def test_a_small_commit_waits_for_the_log_alone(
    store: LmdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = made(store)
    file = store.vectors(uid, DIM)
    monkeypatch.setattr(file, "sync", lambda: pytest.fail("the vector file was synced"))
    store.commit([puts(uid, [0, 1])])
    assert sorted(stored_records(store, uid)) == [0, 1]
    assert np.array_equal(file.view()[:2], rows([0, 1]))
    monkeypatch.undo()


def test_what_only_the_log_holds_is_there_after_a_crash(store: LmdbStore, tmp_path: Path) -> None:
    uid = made(store)
    store.commit([puts(uid, [0, 1, 2])])
    store.commit([WriteBatch(uid, 5, deletes=[1])])
    # The slot is used again before its delete has come to its place, and its row lost.
    store.commit([puts(uid, [1], sequence=6)])
    expected = stored_records(store, uid)
    abandon(store)
    path = tmp_path / "data" / "indexes" / str(uid) / "vectors.f32"
    path.write_bytes(bytes(path.stat().st_size))
    again = LmdbStore.open(tmp_path / "data")
    assert stored_records(again, uid) == expected
    assert again.load(uid).sequence == 6
    file = again.vectors(uid, DIM)
    assert not len(damaged_rows(again.load(uid), file.view()))
    again.commit([puts(uid, [7], sequence=7)])
    again.close()
    once_more = LmdbStore.open(tmp_path / "data")
    assert sorted(stored_records(once_more, uid)) == [0, 1, 2, 7]
    once_more.close()


def test_a_full_log_is_emptied_and_goes_on(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "data", log_bytes=64 * 1024)
    uid = made(store)
    for slot in range(400):
        store.commit([puts(uid, [slot], sequence=slot + 1)])
    assert (tmp_path / "data" / "commits.log").stat().st_size <= 2**20
    abandon(store)
    again = LmdbStore.open(tmp_path / "data")
    assert sorted(stored_records(again, uid)) == list(range(400))
    again.close()


def test_a_refused_change_leaves_what_the_log_holds(store: LmdbStore) -> None:
    uid = made(store)
    store.commit([puts(uid, [0])])
    with pytest.raises(Exception, match="in use"):
        store.commit([puts(uid, [1]), puts(uid, [0])])
    assert sorted(stored_records(store, uid)) == [0]
    store.commit([puts(uid, [1])])
    assert sorted(stored_records(store, uid)) == [0, 1]


def test_a_log_that_cannot_be_written_is_done_without(
    store: LmdbStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = made(store)
    store.commit([puts(uid, [0])])
    log = store._log
    assert log is not None

    def fail(size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "_reserve", fail)
    store.commit([puts(uid, [1])])
    abandon(store)
    again = LmdbStore.open(tmp_path / "data")
    assert sorted(stored_records(again, uid)) == [0, 1]
    again.close()


def test_a_disk_that_refuses_log_and_checkpoint_refuses_the_write_alone(
    store: LmdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = made(store)
    store.commit([puts(uid, [0])])
    assert store._log is not None
    file = store.vectors(uid, DIM)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store._log, "_reserve", fail)
    monkeypatch.setattr(file, "sync", fail)
    for _ in range(2):
        with pytest.raises(MisconfError, match="nothing of this write was kept"):
            store.commit([puts(uid, [1])])
    assert sorted(stored_records(store, uid)) == [0]
    monkeypatch.undo()
    store.commit([puts(uid, [1])])
    assert sorted(stored_records(store, uid)) == [0, 1]
    assert record(0).id in {r.id for r in stored_records(store, uid).values()}


def test_a_recovery_that_fails_half_way_loses_nothing(
    store: LmdbStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = made(store)
    store.commit([puts(uid, [0])])
    store.commit([puts(uid, [1])])
    abandon(store)
    path = tmp_path / "data" / "indexes" / str(uid) / "vectors.f32"
    path.write_bytes(bytes(path.stat().st_size))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(VectorFile, "write", fail)
        with pytest.raises(StorageError, match="No space left"):
            LmdbStore.open(tmp_path / "data")
    again = LmdbStore.open(tmp_path / "data")
    assert sorted(stored_records(again, uid)) == [0, 1]
    assert np.array_equal(again.vectors(uid, DIM).view()[:2], rows([0, 1]))
    again.close()
