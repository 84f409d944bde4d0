"""Side records: what is kept with an index besides its vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from pyrope.errors import MisconfError
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.side_records import decode_sides, encode_side, side_key
from pyrope.storage.store import (
    MAX_SIDE_BYTES,
    DropIndex,
    PutIndex,
    PutSide,
    SideRecord,
    SideRecords,
    StorageError,
)
from pyrope.storage.vector_file import VectorFile
from storage.store_samples import DIM, puts, stored_records


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore.open(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def uid(store: LmdbStore) -> int:
    made = store.next_uid()
    store.commit([PutIndex(made, b"spec")])
    return made


def abandon(store: LmdbStore) -> None:
    """End a store as a killed process would: nothing is moved, nothing synced."""
    store._abort()
    store._pending.clear()
    store.close()


def sides(store: LmdbStore, uid: int) -> dict[tuple[int, bytes], bytes]:
    loaded = store.load_side(uid)
    assert not loaded.damaged
    return {(kind, key): value for kind, key, value in loaded.records}


def test_a_side_record_is_put_replaced_and_removed(store: LmdbStore, uid: int) -> None:
    store.commit([PutSide(uid, 1, b"key", b"one"), PutSide(uid, 1, b"other", b"")])
    store.commit([PutSide(uid, 1, b"key", b"two"), PutSide(uid, 2, b"key", b"of another kind")])
    assert sides(store, uid) == {
        (1, b"key"): b"two",
        (1, b"other"): b"",
        (2, b"key"): b"of another kind",
    }
    store.commit([PutSide(uid, 1, b"key", None), PutSide(uid, 1, b"nobody", None)])
    assert sides(store, uid) == {(1, b"other"): b"", (2, b"key"): b"of another kind"}


def test_changes_of_one_commit_take_effect_in_order(store: LmdbStore, uid: int) -> None:
    store.commit([PutSide(uid, 1, b"key", None), PutSide(uid, 1, b"key", b"one")])
    assert sides(store, uid) == {(1, b"key"): b"one"}
    store.commit([PutSide(uid, 1, b"key", b"two"), PutSide(uid, 1, b"key", None)])
    assert sides(store, uid) == {}


def test_keys_may_be_longer_than_those_of_lmdb(store: LmdbStore, uid: int) -> None:
    keys = [b"k" * 100_000, b"k" * 100_001, b""]
    store.commit([PutSide(uid, 1, key, b"%d" % len(key)) for key in keys])
    assert sides(store, uid) == {(1, key): b"%d" % len(key) for key in keys}


@pytest.mark.parametrize("nbytes", [10, 5_000_000])
def test_side_records_small_and_large_survive_a_crash(
    store: LmdbStore, uid: int, tmp_path: Path, nbytes: int
) -> None:
    value = b"0123456789" * (nbytes // 10)
    store.commit([PutSide(uid, 1, b"gone", b"soon")])
    store.commit([PutSide(uid, 2, b"key", value), PutSide(uid, 1, b"gone", None)])
    abandon(store)
    again = LmdbStore.open(tmp_path / "data")
    assert sides(again, uid) == {(2, b"key"): value}
    again.close()


def test_a_small_one_waits_for_the_log_alone_and_a_large_one_bypasses_it(
    store: LmdbStore, uid: int
) -> None:
    assert store._log is not None
    before = store._log.nbytes
    store.commit([PutSide(uid, 1, b"key", b"value")])
    after = store._log.nbytes
    assert before < after < before + 500
    generation = store._log.generation
    store.commit([PutSide(uid, 1, b"key", bytes(10**6))])
    assert store._log.generation != generation
    assert store._log.nbytes == 0


def test_they_are_in_one_commit_with_records_all_or_none(store: LmdbStore, uid: int) -> None:
    store.commit([puts(uid, [0]), PutSide(uid, 1, b"key", b"value")])
    with pytest.raises(StorageError, match="in use"):
        store.commit([PutSide(uid, 1, b"key", None), puts(uid, [0])])
    assert sides(store, uid) == {(1, b"key"): b"value"}
    assert list(stored_records(store, uid)) == [0]


def test_a_disk_that_refuses_leaves_them_as_they_were(store: LmdbStore, uid: int) -> None:
    store.commit([puts(uid, [0]), PutSide(uid, 1, b"key", b"value")])

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VectorFile, "sync", refuse)
        patch.setattr("pyrope.storage.commit_log.os.fdatasync", refuse)
        for value in (b"other", None, bytes(10**6)):
            with pytest.raises(MisconfError, match="nothing of this write was kept"):
                store.commit([PutSide(uid, 1, b"key", value)])
    assert sides(store, uid) == {(1, b"key"): b"value"}
    store.commit([PutSide(uid, 1, b"key", b"other")])
    assert sides(store, uid) == {(1, b"key"): b"other"}


def test_a_side_record_of_an_index_that_does_not_exist_is_refused(
    store: LmdbStore, uid: int
) -> None:
    for change in (PutSide(uid + 1, 1, b"key", b"value"), PutSide(uid + 1, 1, b"key", None)):
        with pytest.raises(StorageError, match="no index"):
            store.commit([change])
    with pytest.raises(StorageError, match="no index"):
        store.commit([DropIndex(uid), PutSide(uid, 1, b"key", b"value")])
    assert store.indexes() == [(uid, b"spec")]


def test_indexes_do_not_see_one_anothers(store: LmdbStore, uid: int) -> None:
    other = store.next_uid()
    store.commit([PutIndex(other, b""), PutSide(uid, 1, b"a", b"1"), PutSide(other, 1, b"a", b"2")])
    assert sides(store, uid) == {(1, b"a"): b"1"}
    assert sides(store, other) == {(1, b"a"): b"2"}


def stored_sides(data_dir: Path) -> int:
    """Side records in a closed store, whoever they belong to."""
    env = lmdb.open(str(data_dir / "records.mdb"), subdir=False, max_dbs=8)
    with env.begin(db=env.open_db(b"side")) as txn:
        count: int = txn.stat(env.open_db(b"side", txn=txn))["entries"]
    env.close()
    return count


def test_they_go_with_their_index_in_bounded_steps(
    store: LmdbStore, uid: int, tmp_path: Path
) -> None:
    kept = store.next_uid()
    store.commit([PutIndex(kept, b""), PutSide(kept, 1, b"key", b"value")])
    store.commit([puts(uid, range(15)), *(PutSide(uid, 1, b"%d" % n, b"") for n in range(25))])
    store.commit([DropIndex(uid)])
    steps = 0
    while store.garbage_left:
        store.collect_garbage(limit=10)
        steps += 1
    # 40 records at 10 a step, one to find that there are no more, one to find no more garbage.
    assert steps == 6
    assert sides(store, kept) == {(1, b"key"): b"value"}
    store.close()
    assert stored_sides(tmp_path / "data") == 1


def test_those_of_a_drop_before_a_crash_are_collected_after_it(
    store: LmdbStore, uid: int, tmp_path: Path
) -> None:
    store.commit([PutSide(uid, 1, b"%d" % number, b"") for number in range(25)])
    store.commit([DropIndex(uid)])
    store.collect_garbage(limit=10)
    abandon(store)
    again = LmdbStore.open(tmp_path / "data")
    for _ in range(4):  # 15 that are left at 10 a step, and one to find that nothing is
        again.collect_garbage(limit=10)
    assert not again.garbage_left
    again.close()
    assert stored_sides(tmp_path / "data") == 0


def test_a_damaged_one_is_counted_and_goes_when_its_key_is_put_again(
    store: LmdbStore, uid: int, tmp_path: Path
) -> None:
    store.commit([PutSide(uid, 1, b"a", b"value"), PutSide(uid, 1, b"b", b"value")])
    store.close()
    data = tmp_path / "data"
    env = lmdb.open(str(data / "records.mdb"), subdir=False, max_dbs=8)
    with env.begin(write=True, db=env.open_db(b"side")) as txn:
        key = side_key(PutSide(uid, 1, b"a", None))
        stored = bytearray(txn.get(key) or b"")
        stored[-1] ^= 1
        txn.put(key, bytes(stored))
    env.close()
    again = LmdbStore.open(data)
    assert again.load_side(uid) == SideRecords([SideRecord(1, b"b", b"value")], damaged=1)
    again.commit([PutSide(uid, 1, b"a", b"whole")])
    assert sides(again, uid) == {(1, b"a"): b"whole", (1, b"b"): b"value"}
    again.close()


def test_every_damaged_byte_is_noticed() -> None:
    change = PutSide(1, 2, b"key", b"value")
    key = side_key(change)
    stored = encode_side(key, change.key, b"value")
    assert decode_sides([(key, stored)]) == SideRecords([SideRecord(2, b"key", b"value")], 0)
    for position in range(len(stored)):
        damaged = bytearray(stored)
        damaged[position] ^= 0x55
        assert decode_sides([(key, bytes(damaged))]) == SideRecords([], 1)
        assert decode_sides([(key, stored[:position])]) == SideRecords([], 1)
    misplaced = side_key(PutSide(1, 2, b"another", b"value"))
    assert decode_sides([(misplaced, stored)]) == SideRecords([], 1)


def test_one_of_a_newer_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    change = PutSide(1, 2, b"key", b"value")
    key = side_key(change)
    with monkeypatch.context() as patch:
        patch.setattr("pyrope.storage.side_records._VERSION", 2)
        stored = encode_side(key, change.key, b"value")
    with pytest.raises(StorageError, match="has format 2 and this Pyrope knows format 1"):
        decode_sides([(key, stored)])


@pytest.mark.parametrize("kind", [-1, 256])
def test_a_kind_that_is_no_byte_cannot_be_made(kind: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 255"):
        PutSide(1, kind, b"key", None)


def test_a_side_record_that_is_too_large_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="at most"):
        PutSide(1, 1, b"key", bytes(MAX_SIDE_BYTES - 2))


def test_the_map_grows_as_they_come(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path / "data", map_bytes=128 * 1024)
    uid = store.next_uid()
    store.commit([PutIndex(uid, b""), puts(uid, [0])])
    for number in range(40):
        store.commit([PutSide(uid, 1, b"%d" % number, bytes(20_000))])
    store.commit([PutSide(uid, 2, b"large", bytes(3 * 10**6))])
    assert len(sides(store, uid)) == 41
    assert store.vectors(uid, DIM).capacity
    store.close()
