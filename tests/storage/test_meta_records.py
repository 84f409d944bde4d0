"""Meta records: what is kept of the server as a whole, beside its indexes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from pyrope.errors import MisconfError
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.memory_store import MemoryStore
from pyrope.storage.meta_records import decode_metas, encode_meta, meta_key, space_prefix
from pyrope.storage.store import (
    MAX_META_BYTES,
    MAX_META_KEY_BYTES,
    Change,
    DropMeta,
    PutIndex,
    PutMeta,
    StorageError,
    Store,
)
from pyrope.storage.vector_file import VectorFile
from storage.store_samples import puts, stored_records


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore.open(tmp_path / "data")
    yield opened
    opened.close()


def abandon(store: LmdbStore) -> None:
    """End a store as a killed process would: nothing is moved, nothing synced."""
    store._abort()
    store._pending.clear()
    store.close()


def edit(data_dir: Path, key: bytes, new_key: bytes, value: bytes | None) -> None:
    """Move a meta record of a closed store, with another value (None: remove it)."""
    env = lmdb.open(str(data_dir / "records.mdb"), subdir=False, max_dbs=8)
    with env.begin(write=True, db=env.open_db(b"meta_records")) as txn:
        assert txn.delete(key)
        if value is not None:
            txn.put(new_key, value)
    env.close()


@pytest.mark.parametrize("kind", ["on disk", "in memory"])
def test_meta_records_are_read_by_pages(store: LmdbStore, kind: str) -> None:
    some: Store = store if kind == "on disk" else MemoryStore()
    keys = [b"", b"a", b"a\0", b"aa", b"b", b"\xff"]
    some.commit([PutMeta("usage", key, b"of " + key) for key in keys])
    some.commit([PutMeta("usag", b"z", b""), PutMeta("usage2", b"a", b""), PutMeta("v", b"", b"")])
    # The empty key is above no other.
    whole = [(key, b"of " + key) for key in keys[1:]]
    for limit in (1, 2, 10):
        found: list[tuple[bytes, bytes]] = []
        after = b""
        while page := some.page_meta("usage", after, limit):
            assert len(page) <= limit
            found += page
            after = page[-1][0]
        assert found == whole
    assert some.page_meta("usage", b"a", 2) == whole[1:3]
    assert some.page_meta("usage", b"ab", 1) == [(b"b", b"of b")]
    assert some.page_meta("nothing", b"", 5) == []


def test_a_meta_record_is_put_replaced_and_removed(store: LmdbStore) -> None:
    store.commit([PutMeta("tenants", b"b", b"one"), PutMeta("tenants", b"a", b"")])
    store.commit([PutMeta("tenants", b"b", b"two"), PutMeta("ledger", b"b", b"other space")])
    assert store.load_meta("tenants") == [(b"a", b""), (b"b", b"two")]
    assert store.load_meta("ledger") == [(b"b", b"other space")]
    store.commit([DropMeta("tenants", b"b"), DropMeta("tenants", b"nobody")])
    assert store.load_meta("tenants") == [(b"a", b"")]
    assert store.load_meta("nothing") == []
    assert store.get_meta("tenants", b"a") == b""
    assert store.get_meta("tenants", b"b") is None
    assert store.get_meta("ledger", b"b") == b"other space"


def test_changes_of_one_commit_take_effect_in_order(store: LmdbStore) -> None:
    store.commit([DropMeta("space", b"key"), PutMeta("space", b"key", b"one")])
    assert store.load_meta("space") == [(b"key", b"one")]
    store.commit([PutMeta("space", b"key", b"two"), DropMeta("space", b"key")])
    assert store.load_meta("space") == []


def test_spaces_whose_names_begin_alike_are_different(store: LmdbStore) -> None:
    store.commit([PutMeta("a", b"b", b"1"), PutMeta("ab", b"", b"2"), PutMeta("a.b", b"", b"3")])
    assert store.load_meta("a") == [(b"b", b"1")]
    assert store.load_meta("ab") == [(b"", b"2")]


@pytest.mark.parametrize("count", [3, 3_000])
def test_few_and_many_survive_a_crash(store: LmdbStore, tmp_path: Path, count: int) -> None:
    store.commit([PutMeta("space", b"gone", b"soon")])
    expected = [(b"%06d" % number, b"value" * 20) for number in range(count)]
    store.commit([*(PutMeta("space", *item) for item in expected), DropMeta("space", b"gone")])
    abandon(store)
    again = LmdbStore.open(tmp_path / "data")
    assert again.load_meta("space") == expected
    again.close()


def test_few_wait_for_the_log_alone_and_many_bypass_it(store: LmdbStore) -> None:
    assert store._log is not None
    before = store._log.nbytes
    store.commit([PutMeta("space", b"key", b"value"), DropMeta("space", b"key")])
    after = store._log.nbytes
    assert before < after < before + 500
    generation = store._log.generation
    store.commit([PutMeta("space", b"key", bytes(10**6))])
    assert store._log.generation != generation
    assert store._log.nbytes == 0


def test_they_are_in_one_commit_with_records_all_or_none(store: LmdbStore) -> None:
    uid = store.next_uid()
    store.commit([PutIndex(uid, b""), puts(uid, [0]), PutMeta("space", b"key", b"value")])
    for change in (DropMeta("space", b"key"), PutMeta("space", b"key", b"other")):
        with pytest.raises(StorageError, match="in use"):
            store.commit([change, puts(uid, [0])])
    assert store.load_meta("space") == [(b"key", b"value")]
    assert list(stored_records(store, uid)) == [0]


def test_a_disk_that_refuses_leaves_them_as_they_were(store: LmdbStore) -> None:
    uid = store.next_uid()
    store.commit([PutIndex(uid, b"")])
    store.commit([puts(uid, [0]), PutMeta("space", b"key", b"value")])

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    changes: list[Change] = [
        PutMeta("space", b"key", b"other"),
        PutMeta("space", b"new", bytes(10**6)),
        DropMeta("space", b"key"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VectorFile, "sync", refuse)
        patch.setattr("pyrope.storage.commit_log.os.fdatasync", refuse)
        for change in changes:
            with pytest.raises(MisconfError, match="nothing of this write was kept"):
                store.commit([change])
    assert store.load_meta("space") == [(b"key", b"value")]
    store.commit(changes)
    assert [key for key, _ in store.load_meta("space")] == [b"new"]


@pytest.mark.parametrize("position", [0, 7, 8, 9, -1])
def test_a_damaged_one_is_refused_with_its_name_whichever_space_is_asked_for(
    store: LmdbStore, tmp_path: Path, position: int
) -> None:
    store.commit([PutMeta("ledger", b"acme/2024-05", b"value"), PutMeta("tenants", b"acme", b"")])
    store.close()
    key = meta_key("ledger", b"acme/2024-05")
    stored = bytearray(encode_meta(key, b"value"))
    stored[position] ^= 1
    edit(tmp_path / "data", key, key, bytes(stored))
    again = LmdbStore.open(tmp_path / "data")
    for space in ("tenants", "ledger", "ledger"):
        with pytest.raises(
            StorageError,
            match="the meta record 'acme/2024-05' of the space 'ledger' is damaged: bring",
        ):
            again.load_meta(space)
    with pytest.raises(StorageError, match="'acme/2024-05' of the space 'ledger' is damaged"):
        again.get_meta("ledger", b"acme/2024-05")
    again.close()


def test_one_whose_key_is_damaged_is_not_passed_over(store: LmdbStore, tmp_path: Path) -> None:
    store.commit([PutMeta("ledger", b"acme", b"value")])
    store.close()
    key = meta_key("ledger", b"acme")
    edit(tmp_path / "data", key, meta_key("lldger", b"acme"), encode_meta(key, b"value"))
    again = LmdbStore.open(tmp_path / "data")
    with pytest.raises(StorageError, match="'acme' of the space 'lldger' is damaged"):
        again.load_meta("ledger")
    again.close()


def test_every_damaged_byte_is_noticed() -> None:
    key = meta_key("space", b"key")
    prefix = space_prefix("space")
    stored = encode_meta(key, b"value")
    assert decode_metas(prefix, [key], [stored]) == [(b"key", b"value")]
    for position in range(len(stored)):
        damaged = bytearray(stored)
        damaged[position] ^= 0x55
        for value in (bytes(damaged), stored[:position]):
            with pytest.raises(StorageError, match="'key' of the space 'space' is damaged"):
                decode_metas(prefix, [key], [value])


def test_one_of_a_newer_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    key = meta_key("space", b"key")
    with monkeypatch.context() as patch:
        patch.setattr("pyrope.storage.meta_records._HEAD", b"\x02")
        stored = encode_meta(key, b"value")
    with pytest.raises(StorageError, match="has format 2 and this Pyrope knows format 1"):
        decode_metas(space_prefix("space"), [key], [stored])


@pytest.mark.parametrize("space", ["", "Tenants", "1st", "a b", "a\0b", "ä", "a" * 33, "a\n"])
def test_a_space_with_another_name_cannot_be_made(space: str) -> None:
    with pytest.raises(ValueError, match="no name of a space"):
        PutMeta(space, b"", b"")
    with pytest.raises(ValueError, match="no name of a space"):
        DropMeta(space, b"")


def test_the_largest_ones_fit_and_no_larger_ones_can_be_made(store: LmdbStore) -> None:
    key = b"k" * MAX_META_KEY_BYTES
    space = "s" * 32
    store.commit([PutMeta(space, key, bytes(MAX_META_BYTES))])
    assert store.load_meta(space) == [(key, bytes(MAX_META_BYTES))]
    for make in (
        lambda: PutMeta(space, key + b"k", b""),
        lambda: PutMeta(space, key, bytes(MAX_META_BYTES + 1)),
        lambda: DropMeta(space, key + b"k"),
    ):
        with pytest.raises(ValueError, match="at most"):
            make()


def test_a_hundred_thousand_are_loaded_in_a_second(store: LmdbStore) -> None:
    items = [(b"tenant-%06d" % number, b"x" * 150) for number in range(100_000)]
    store.commit([PutMeta("ledger", *item) for item in items])
    began = time.process_time()
    assert store.load_meta("ledger") == items
    assert time.process_time() - began < 1.0
