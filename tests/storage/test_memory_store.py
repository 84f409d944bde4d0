"""MemoryStore: the same interface, nothing on disk, nothing to load."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest

from pyrope.storage.memory_store import MemoryStore
from pyrope.storage.store import (
    DropIndex,
    DropMeta,
    PutIndex,
    PutMeta,
    PutSide,
    SideRecords,
    StorageError,
    Store,
)
from storage.store_samples import open_descriptors, puts, rows


@pytest.fixture
def store() -> Iterator[Store]:
    opened = MemoryStore()
    yield opened
    opened.close()


def test_committed_rows_are_in_the_vector_file(store: Store) -> None:
    uid = store.next_uid()
    store.commit([PutIndex(uid, b"spec"), puts(uid, [0, 7])])
    assert store.indexes() == [(uid, b"spec")]
    assert np.array_equal(store.vectors(uid, 8).view()[[0, 7]], rows([0, 7]))
    assert store.disk_bytes() > 0


def test_there_are_no_records_to_load_and_no_place_for_a_graph(store: Store) -> None:
    uid = store.next_uid()
    store.commit([PutIndex(uid, b""), puts(uid, [0])])
    store.commit([PutSide(uid, 1, b"key", b"value")])
    assert len(store.load(uid)) == 0
    assert store.load_side(uid) == SideRecords([], 0)
    assert store.graph_path(uid) is None


def test_meta_records_are_kept_and_change_with_their_commit_or_not_at_all(store: Store) -> None:
    store.commit([PutMeta("space", b"b", b"1"), PutMeta("space", b"a", b"2")])
    store.commit([PutMeta("space", b"b", b"3"), DropMeta("space", b"nobody")])
    with pytest.raises(StorageError, match="no index"):
        store.commit([DropMeta("space", b"a"), PutSide(7, 1, b"key", b"value")])
    assert store.load_meta("space") == [(b"a", b"2"), (b"b", b"3")]
    store.commit([DropMeta("space", b"a"), DropMeta("elsewhere", b"a")])
    assert store.load_meta("space") == [(b"b", b"3")]
    assert store.get_meta("space", b"b") == b"3"
    assert store.get_meta("space", b"a") is None
    assert store.load_meta("elsewhere") == []


def test_dropping_an_index_frees_its_memory_once_its_views_are_gone(store: Store) -> None:
    uid = store.next_uid()
    before = open_descriptors()
    store.commit([PutIndex(uid, b""), puts(uid, [0])])
    view = store.vectors(uid, 8).view()
    store.commit([DropIndex(uid)])
    assert store.indexes() == []
    assert store.disk_bytes() == 0
    assert not store.garbage_left
    assert np.array_equal(view[0], rows([0])[0])
    del view
    gc.collect()
    assert open_descriptors() == before


def test_uids_differ(store: Store) -> None:
    assert len({store.next_uid() for _ in range(100)}) == 100


def test_a_write_to_an_index_that_does_not_exist_changes_nothing(store: Store) -> None:
    uid = store.next_uid()
    for change in (puts(uid + 1, [0]), PutSide(uid + 1, 1, b"key", b"value")):
        with pytest.raises(StorageError, match="no index"):
            store.commit([PutIndex(uid, b""), change])
    assert store.indexes() == []


def test_a_vector_file_has_one_dimension(store: Store) -> None:
    store.vectors(1, 8)
    with pytest.raises(StorageError, match="8 dimensions, not 9"):
        store.vectors(1, 9)
