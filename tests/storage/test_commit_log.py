"""The commit log: whole entries count, in order, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrope.errors import MisconfError
from pyrope.storage.codec import damaged_rows, encode_record, index_prefix
from pyrope.storage.commit_log import CommitLog, Entry, Operation, Rows
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.store import PutIndex, StorageError, WriteBatch
from pyrope.storage.vector_file import VectorFile
from pyrope.types import Float32Matrix, Slots
from storage.store_samples import DIM, puts, record, rows, stored_records

OPERATIONS = st.builds(
    Operation, st.integers(0, 3), st.binary(max_size=20), st.none() | st.binary(max_size=50)
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
    # Who looks for the first generation is told that its beginning is gone.
    with pytest.raises(StorageError, match="damaged at byte 0"):
        reread(tmp_path / "log", 1)


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


def test_a_log_that_is_damaged_before_its_last_entry_is_refused(tmp_path: Path) -> None:
    log = CommitLog(tmp_path / "log", 2**40 + 1)
    sizes = [0]
    for number in range(4):
        log.append(entry(number))
        sizes.append(log.nbytes)
    log.close()
    content = (tmp_path / "log").read_bytes()
    for position in range(sizes[1], sizes[3]):
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        (tmp_path / "log").write_bytes(damaged)
        last_whole = sizes[1] if position < sizes[2] else sizes[2]
        with pytest.raises(StorageError, match=f"damaged at byte {last_whole}, and acknowledged"):
            reread(tmp_path / "log", 2**40 + 1)
    # What the message says helps.
    (tmp_path / "log").write_bytes(damaged[:last_whole])
    assert plain(reread(tmp_path / "log", 2**40 + 1)) == plain([entry(0), entry(1)])


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


def refuse(*_: object) -> None:
    raise OSError(5, "Input/output error")


@contextmanager
def syncs_that_fail(*, rows: bool = True, log: bool = True) -> Iterator[None]:
    """What is written stays where a process that reads it finds it, but no sync succeeds."""
    with pytest.MonkeyPatch.context() as patch:
        if rows:
            patch.setattr(VectorFile, "sync", refuse)
        if log:
            patch.setattr("pyrope.storage.commit_log.os.fdatasync", refuse)
        yield


def test_a_refused_write_is_not_there_after_a_crash(store: LmdbStore, tmp_path: Path) -> None:
    uid = made(store)
    store.commit([puts(uid, [0])])
    with syncs_that_fail():
        for change in (puts(uid, [1]), WriteBatch(uid, 2, deletes=[0])):
            with pytest.raises(MisconfError, match="nothing of this write was kept"):
                store.commit([change])
    abandon(store)
    again = LmdbStore.open(tmp_path / "data")
    assert sorted(stored_records(again, uid)) == [0]
    again.close()


def test_rows_that_are_written_again_do_not_cover_those_that_took_their_slots(
    store: LmdbStore,
) -> None:
    uid = made(store)
    store.commit([puts(uid, [0])])
    store.commit([WriteBatch(uid, 2, deletes=[0])])
    with syncs_that_fail(), pytest.raises(MisconfError):
        store.commit([PutIndex(uid, b"a checkpoint")])
    other = WriteBatch(uid, 3, [record(0, id_=b"other")], rows([99]))
    store.commit([PutIndex(uid, b"a checkpoint"), other])
    assert np.array_equal(store.vectors(uid, DIM).view()[0], rows([99])[0])
    assert not len(damaged_rows(store.load(uid), store.vectors(uid, DIM).view()))


def test_rows_that_are_written_again_show_no_older_ones_meanwhile(store: LmdbStore) -> None:
    uid = made(store)
    store.commit([puts(uid, [0])])
    store.commit([WriteBatch(uid, 2, deletes=[0])])
    store.commit([WriteBatch(uid, 3, [record(0)], rows([99]))])
    store.commit([puts(uid, [1], sequence=4)])
    write = VectorFile.write
    seen = []

    def watched(file: VectorFile, slots: Slots, vectors: Float32Matrix) -> None:
        write(file, slots, vectors)
        seen.append(file.view()[:2].copy())

    for _ in range(2):
        with syncs_that_fail(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(VectorFile, "write", watched)
            with pytest.raises(MisconfError):
                store.commit([PutIndex(uid, b"a checkpoint")])
    assert seen
    assert all(np.array_equal(view, rows([99, 1])) for view in seen)


def test_a_log_that_cannot_be_emptied_stops_growing(tmp_path: Path) -> None:
    log_bytes = 16 * 1024
    store = LmdbStore.open(tmp_path / "data", log_bytes=log_bytes)
    uid = made(store)
    taken = 0
    with syncs_that_fail(log=False), suppress(MisconfError):
        while taken < 1_000:
            store.commit([puts(uid, [taken])])
            taken += 1
    assert taken < 1_000
    assert store._log is not None
    assert store._log.nbytes < 2 * log_bytes
    assert sorted(stored_records(store, uid)) == list(range(taken))
    store.commit([puts(uid, [taken])])
    assert store._log.nbytes < log_bytes
    store.close()
    again = LmdbStore.open(tmp_path / "data")
    assert sorted(stored_records(again, uid)) == list(range(taken + 1))
    again.close()


def test_files_that_are_discarded_are_not_synced_any_more(store: LmdbStore) -> None:
    uid, other = made(store), store.next_uid()
    with syncs_that_fail(), pytest.raises(MisconfError):
        store.commit([PutIndex(other, b""), puts(other, [0])])
    store.discard(other)
    store.commit([PutIndex(uid, b"changed")])
    assert store.indexes() == [(uid, b"changed")]


def test_nothing_is_appended_behind_entries_that_may_not_be_on_disk(
    store: LmdbStore, tmp_path: Path
) -> None:
    uid = made(store)
    store.commit([puts(uid, [0])])
    abandon(store)
    log = tmp_path / "data" / "commits.log"
    with syncs_that_fail():
        again = LmdbStore.open(tmp_path / "data")
        assert sorted(stored_records(again, uid)) == [0]
        again._abort()
    again.commit([puts(uid, [1])])
    abandon(again)
    # The power fails: of a log that was read but never synced, nothing need be there.
    log.write_bytes(bytes(log.stat().st_size))
    again = LmdbStore.open(tmp_path / "data")
    assert sorted(stored_records(again, uid)) == [0, 1]
    again.close()


def test_what_was_recovered_needs_the_log_no_more(store: LmdbStore, tmp_path: Path) -> None:
    uid = made(store)
    store.commit([puts(uid, [0])])
    abandon(store)
    abandon(LmdbStore.open(tmp_path / "data"))
    log = tmp_path / "data" / "commits.log"
    log.write_bytes(bytes(log.stat().st_size))
    again = LmdbStore.open(tmp_path / "data")
    assert sorted(stored_records(again, uid)) == [0]
    again.close()


def test_bytes_that_a_client_chose_are_never_taken_for_an_entry(
    store: LmdbStore, tmp_path: Path
) -> None:
    uid = made(store)
    assert store._log is not None
    store.commit([padded(uid, 0, b" " * 300)])
    end = store._log.nbytes
    store.commit([PutIndex(uid, b"a checkpoint")])
    # The second entry of the generation after this one, which puts a record nobody wrote.
    later = CommitLog(tmp_path / "later", store._log.generation + 1)
    later.append(entry(0))
    begin = later.nbytes
    key, value = encode_record(index_prefix(uid), record(50), 0)
    later.append(Entry([Operation(1, key, value)], []))
    later.close()
    forged = (tmp_path / "later").read_bytes()[begin : later.nbytes]
    # It lies in the file where the first entry of that generation ends.
    store.commit([padded(uid, 1, bytes(end) + forged)])
    lead = (tmp_path / "data" / "commits.log").read_bytes().index(forged) - end
    store.commit([PutIndex(uid, b"a checkpoint"), WriteBatch(uid, 1, deletes=[1])])
    store.commit([padded(uid, 1, b" " * (300 + lead))])
    assert store._log.nbytes == end + lead
    abandon(store)
    again = LmdbStore.open(tmp_path / "data")
    assert sorted(stored_records(again, uid)) == [0, 1]
    again.close()


def padded(uid: int, slot: int, attributes: bytes) -> WriteBatch:
    return WriteBatch(uid, 1, [record(slot, attributes=attributes)], rows([slot]))


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
