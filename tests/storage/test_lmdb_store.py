"""LmdbStore: what was committed is there after a reopen, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np
import pytest

from pyrope.storage.codec import damaged_rows
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.store import (
    DropIndex,
    PutIndex,
    PutMeta,
    PutSide,
    SideRecords,
    StorageError,
    WriteBatch,
)
from storage.store_samples import open_descriptors, puts, record, rows, stored_records


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore.open(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def uid(store: LmdbStore) -> int:
    """An index that exists."""
    made = store.next_uid()
    store.commit([PutIndex(made, b"spec")])
    return made


def reopen(store: LmdbStore, tmp_path: Path) -> LmdbStore:
    store.close()
    return LmdbStore.open(tmp_path / "data")


def collect_all_garbage(store: LmdbStore, limit: int = 5_000) -> int:
    """Collect until nothing is left; the number of steps it took."""
    steps = 0
    while store.garbage_left:
        store.collect_garbage(limit)
        steps += 1
    return steps


def edit(data_dir: Path, database: bytes, key: bytes, value: bytes) -> None:
    """Put a value into a closed store, past everything that guards it."""
    env = lmdb.open(str(data_dir / "records.mdb"), subdir=False, max_dbs=8)
    with env.begin(write=True, db=env.open_db(database)) as txn:
        txn.put(key, value)
    env.close()


def test_an_index_its_records_and_its_rows_survive_a_reopen(
    store: LmdbStore, uid: int, tmp_path: Path
) -> None:
    store.commit([puts(uid, [0, 1, 5], sequence=3)])
    store = reopen(store, tmp_path)
    columns = store.load(uid)
    assert store.indexes() == [(uid, b"spec")]
    assert columns.sequence == 3
    assert stored_records(store, uid) == {s: record(s, sequence=3) for s in (0, 1, 5)}
    view = store.vectors(uid, 8).view()
    assert np.array_equal(view[[0, 1, 5]], rows([0, 1, 5]))
    assert not len(damaged_rows(columns, view))
    store.close()


def test_replacing_the_catalogue_entry_keeps_the_records(store: LmdbStore, uid: int) -> None:
    store.commit([puts(uid, [0])])
    store.commit([PutIndex(uid, b"altered")])
    assert store.indexes() == [(uid, b"altered")]
    assert list(stored_records(store, uid)) == [0]


def test_an_amended_record_keeps_the_checksum_of_its_row(store: LmdbStore, uid: int) -> None:
    store.commit([puts(uid, [4])])
    amended = record(4, sequence=2, attributes=b'{"year": 1980}')
    store.commit([WriteBatch(uid, 2, amends=[amended])])
    assert stored_records(store, uid) == {4: amended}
    assert not len(damaged_rows(store.load(uid), store.vectors(uid, 8).view()))


def test_a_delete_advances_the_sequence_though_it_leaves_no_record(
    store: LmdbStore, uid: int
) -> None:
    store.commit([puts(uid, [0, 1], sequence=2)])
    store.commit([WriteBatch(uid, 3, deletes=[0, 77])])
    assert store.load(uid).sequence == 3
    assert list(stored_records(store, uid)) == [1]


def test_indexes_do_not_see_one_anothers_records(store: LmdbStore, uid: int) -> None:
    other = store.next_uid()
    store.commit([PutIndex(other, b""), puts(uid, [0, 1]), puts(other, [1, 2])])
    assert list(stored_records(store, uid)) == [0, 1]
    assert list(stored_records(store, other)) == [1, 2]


def test_a_slot_put_and_deleted_in_one_commit_may_be_put_again_in_it(
    store: LmdbStore, uid: int
) -> None:
    second = WriteBatch(uid, 2, [record(0, id_=b"second")], rows([99]))
    store.commit([puts(uid, [0]), WriteBatch(uid, 2, deletes=[0]), second])
    assert stored_records(store, uid)[0].id == b"second"
    assert np.array_equal(store.vectors(uid, 8).view()[0], rows([99])[0])
    assert not len(damaged_rows(store.load(uid), store.vectors(uid, 8).view()))


@pytest.mark.parametrize("freed_first", [False, True])
def test_a_put_at_a_slot_that_committed_state_refers_to_is_refused_before_its_row_is_written(
    store: LmdbStore, uid: int, *, freed_first: bool
) -> None:
    store.commit([puts(uid, [0, 1])])
    other = WriteBatch(uid, 2, [record(1, id_=b"other")], rows([99]))
    free = [WriteBatch(uid, 2, deletes=[1])] if freed_first else []
    with pytest.raises(StorageError, match="in use"):
        store.commit([*free, other])
    assert stored_records(store, uid)[1].id == b"id-1"
    assert np.array_equal(store.vectors(uid, 8).view()[1], rows([1])[0])


def test_a_slot_is_free_once_its_delete_is_committed(store: LmdbStore, uid: int) -> None:
    store.commit([puts(uid, [0])])
    store.commit([WriteBatch(uid, 2, deletes=[0])])
    store.commit([WriteBatch(uid, 3, [record(0, id_=b"other")], rows([99]))])
    assert stored_records(store, uid)[0].id == b"other"


def test_two_puts_of_one_batch_at_one_slot_are_refused(store: LmdbStore, uid: int) -> None:
    with pytest.raises(StorageError, match="in use"):
        store.commit([puts(uid, [3, 3])])
    assert not len(store.load(uid))


def test_one_refused_change_refuses_the_whole_commit(store: LmdbStore, uid: int) -> None:
    amend_nothing = WriteBatch(uid, 2, amends=[record(9)])
    with pytest.raises(StorageError, match="no record at slot 9"):
        store.commit([puts(uid, [0]), PutIndex(uid, b"altered"), amend_nothing])
    assert store.indexes() == [(uid, b"spec")]
    assert not len(store.load(uid))


def test_a_write_to_an_index_that_does_not_exist_is_refused(store: LmdbStore, uid: int) -> None:
    with pytest.raises(StorageError, match="no index"):
        store.commit([puts(uid + 1, [0])])
    with pytest.raises(StorageError, match="no index"):
        store.commit([DropIndex(uid), puts(uid, [0])])
    assert store.indexes() == [(uid, b"spec")]


def test_a_vector_file_has_one_dimension(store: LmdbStore, uid: int) -> None:
    store.commit([puts(uid, [0])])
    with pytest.raises(StorageError, match="8 dimensions, not 9"):
        store.vectors(uid, 9)
    assert store.vectors(uid, 8) is store.vectors(uid, 8)


@pytest.mark.parametrize(
    "vectors",
    [None, rows([1, 2]), rows([1]).astype(np.float64), rows([1])[0], rows(range(8)).T[:1]],
)
def test_a_batch_whose_rows_do_not_fit_its_puts_cannot_be_made(
    vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]],
) -> None:
    with pytest.raises(ValueError, match=r"need as many rows|C-contiguous"):
        WriteBatch(1, 1, [record(0)], vectors)


def test_the_map_grows_as_records_come(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "data", map_bytes=128 * 1024)
    uid = store.next_uid()
    store.commit([PutIndex(uid, b"")])
    attributes = b"{" + b" " * 20_000 + b"}"
    for first in range(0, 60, 20):
        slots = range(first, first + 20)
        records = [record(slot, attributes=attributes) for slot in slots]
        store.commit([WriteBatch(uid, 1, records, rows(slots))])
    assert len(store.load(uid)) == 60
    store.close()
    again = LmdbStore.open(tmp_path / "data", map_bytes=128 * 1024)
    again.commit([WriteBatch(uid, 2, [record(60, attributes=attributes)], rows([60]))])
    assert len(again.load(uid)) == 61
    again.close()


def test_uids_are_never_given_out_twice(store: LmdbStore, tmp_path: Path) -> None:
    given = [store.next_uid() for _ in range(70)]
    store.commit([PutIndex(given[-1], b""), DropIndex(given[-1])])
    store = reopen(store, tmp_path)
    given += [store.next_uid() for _ in range(3)]
    assert len(set(given)) == len(given)
    store.close()


def test_a_dropped_index_gives_its_space_back(store: LmdbStore, uid: int) -> None:
    kept = store.next_uid()
    before = store.disk_bytes()
    matrix = np.random.default_rng(0).standard_normal((2_000, 384)).astype(np.float32)
    store.commit([PutIndex(kept, b"kept"), puts(kept, [0])])
    batch = WriteBatch(uid, 1, [record(slot) for slot in range(2_000)], matrix)
    store.commit([batch])
    graph_path = store.graph_path(uid)
    graph_path.with_suffix(".meta").write_bytes(b"a graph")
    assert store.disk_bytes() - before > matrix.nbytes
    store.commit([DropIndex(uid)])
    assert store.indexes() == [(kept, b"kept")]
    assert collect_all_garbage(store, limit=700) >= 3
    assert not graph_path.parent.exists()
    # What remains is LMDB's own pages, which it uses again.
    assert store.disk_bytes() - before < matrix.nbytes / 5
    assert not len(store.load(uid))
    assert list(stored_records(store, kept)) == [0]


def test_the_space_that_dropped_records_had_is_used_again(store: LmdbStore) -> None:
    sizes = []
    for _ in range(6):
        uid = store.next_uid()
        records = [record(slot, attributes=b" " * 500) for slot in range(300)]
        store.commit([PutIndex(uid, b""), WriteBatch(uid, 1, records, rows(range(300)))])
        store.commit([DropIndex(uid)])
        collect_all_garbage(store)
        sizes.append(store.disk_bytes())
    assert sizes[-1] <= sizes[1] * 1.25


def test_garbage_of_a_drop_before_a_restart_is_collected_after_it(
    store: LmdbStore, uid: int, tmp_path: Path
) -> None:
    store.commit([puts(uid, range(50))])
    store.commit([DropIndex(uid)])
    store.collect_garbage(limit=10)
    store = reopen(store, tmp_path)
    assert store.garbage_left
    with pytest.raises(StorageError, match="dropped"):
        store.commit([PutIndex(uid, b"again")])
    collect_all_garbage(store, limit=10)
    assert not len(store.load(uid))
    store.close()


def test_dropping_an_index_that_does_not_exist_leaves_no_garbage(
    store: LmdbStore, uid: int
) -> None:
    store.commit([DropIndex(uid + 1)])
    store.collect_garbage()
    assert not store.garbage_left
    assert store.indexes() == [(uid, b"spec")]


def test_files_of_an_index_whose_creation_was_not_committed_are_removed_at_open(
    store: LmdbStore, uid: int, tmp_path: Path
) -> None:
    store.commit([puts(uid, [0])])
    orphan = store.next_uid()
    store.vectors(orphan, 8).ensure(10)
    directory = store.graph_path(orphan).parent
    assert directory.exists()
    store = reopen(store, tmp_path)
    assert not directory.exists()
    assert list(stored_records(store, uid)) == [0]
    store.close()


def test_a_second_server_cannot_open_the_directory(store: LmdbStore, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"in use by another server .process {os.getpid()}"):
        LmdbStore.open(tmp_path / "data")
    reopen(store, tmp_path).close()


def test_a_newer_format_is_refused_and_left_as_it_is(
    store: LmdbStore, uid: int, tmp_path: Path
) -> None:
    store.commit([puts(uid, [0])])
    store.close()
    files = sorted((tmp_path / "data" / "indexes").rglob("*"))
    edit(tmp_path / "data", b"meta", b"format", (5).to_bytes(8, "big"))
    for _ in range(2):
        with pytest.raises(StorageError, match=r"has format 5 and this Pyrope knows format 4"):
            LmdbStore.open(tmp_path / "data")
    assert sorted((tmp_path / "data" / "indexes").rglob("*")) == files


@pytest.mark.parametrize("older", [1, 2, 3])
def test_an_older_format_is_taken_over_with_what_its_log_holds(
    store: LmdbStore, uid: int, tmp_path: Path, older: int
) -> None:
    store.commit([puts(uid, [0])])
    store._abort()
    store._pending.clear()
    store.close()
    data = tmp_path / "data"
    env = lmdb.open(str(data / "records.mdb"), subdir=False, max_dbs=8)
    with env.begin(write=True) as txn:
        txn.put(b"format", older.to_bytes(8, "big"), db=env.open_db(b"meta", txn=txn))
        if older < 3:
            txn.drop(env.open_db(b"side", txn=txn))
        txn.drop(env.open_db(b"meta_records", txn=txn))
    env.close()
    again = LmdbStore.open(data)
    assert list(stored_records(again, uid)) == [0]
    assert again.load_side(uid) == SideRecords([], 0)
    assert again.load_meta("space") == []
    again.commit([PutSide(uid, 1, b"key", b"value"), PutMeta("space", b"key", b"value")])
    again.close()
    env = lmdb.open(str(data / "records.mdb"), subdir=False, max_dbs=8)
    with env.begin(db=env.open_db(b"meta")) as txn:
        assert txn.get(b"format") == (4).to_bytes(8, "big")
    env.close()


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "records.mdb").write_bytes(b"something else entirely" * 1000)
    with pytest.raises(StorageError, match="cannot be used"):
        LmdbStore.open(tmp_path)


@pytest.mark.parametrize("left", [None, b""])
def test_a_used_directory_without_its_records_is_refused_and_left_as_it_is(
    store: LmdbStore, uid: int, tmp_path: Path, left: bytes | None
) -> None:
    store.commit([puts(uid, [0])])
    store.close()
    path = tmp_path / "data" / "records.mdb"
    path.unlink()
    if left is not None:
        path.write_bytes(left)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"records.mdb is missing or empty"):
            LmdbStore.open(tmp_path / "data")
    assert (tmp_path / "data" / "indexes" / str(uid) / "vectors.f32").stat().st_size


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be used"):
        LmdbStore.open(tmp_path / "data")


def test_a_damaged_record_is_named_and_can_be_deleted(
    store: LmdbStore, uid: int, tmp_path: Path
) -> None:
    store.commit([puts(uid, [0, 1, 2])])
    store.close()
    edit(tmp_path / "data", b"records", uid.to_bytes(8, "big") + (1).to_bytes(4, "big"), b"?")
    store = LmdbStore.open(tmp_path / "data")
    columns = store.load(uid)
    assert columns.damaged.tolist() == [1]
    assert columns.slots.tolist() == [0, 2]
    store.commit([WriteBatch(uid, 2, deletes=columns.damaged.tolist())])
    assert not len(store.load(uid).damaged)
    store.close()


def test_a_damaged_row_is_named(store: LmdbStore, uid: int, tmp_path: Path) -> None:
    store.commit([puts(uid, [0, 1, 2])])
    store.close()
    with (tmp_path / "data" / "indexes" / str(uid) / "vectors.f32").open("r+b") as file:
        file.seek(32 + 7)
        file.write(b"\xff")
    store = LmdbStore.open(tmp_path / "data")
    assert damaged_rows(store.load(uid), store.vectors(uid, 8).view()).tolist() == [1]
    store.close()


def test_everything_made_is_private_to_its_owner(
    store: LmdbStore, uid: int, tmp_path: Path
) -> None:
    store.commit([puts(uid, [0])])
    made = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
    assert len(made) >= 6
    for path in made:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


def test_a_closed_store_leaves_nothing_open(tmp_path: Path) -> None:
    before = open_descriptors()
    store = LmdbStore.open(tmp_path / "data")
    uid = store.next_uid()
    store.commit([PutIndex(uid, b"")])
    assert open_descriptors() > before
    store.close()
    store.close()
    assert open_descriptors() == before


def test_a_store_that_cannot_be_read_says_so(store: LmdbStore, uid: int) -> None:
    store.close()
    with pytest.raises(StorageError, match="cannot be read"):
        store.load(uid)
    with pytest.raises(StorageError, match="cannot be read"):
        store.indexes()
