"""The order of a commit: rows are written and synced before the records that name them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pyrope.errors import MisconfError
from pyrope.storage import data_dir, lmdb_store
from pyrope.storage.data_dir import make_directory
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.store import PutIndex, WriteBatch
from pyrope.storage.vector_file import VectorFile
from pyrope.types import Float32Matrix, Slots
from storage.store_samples import DIM, puts, rows, stored_records


class WatchedFile(VectorFile):
    """Logs what is asked of it, with the records that are committed at that moment."""

    def __init__(self, path: Path, store: LmdbStore, uid: int) -> None:
        super().__init__(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), DIM, str(path))
        self._store = store
        self._uid = uid
        self.log: list[tuple[str, list[int]]] = []
        self.failures: list[OSError] = []

    def write(self, slots: Slots, vectors: Float32Matrix) -> None:
        self.log.append(("write", sorted(stored_records(self._store, self._uid))))
        super().write(slots, vectors)

    def sync(self) -> None:
        self.log.append(("sync", sorted(stored_records(self._store, self._uid))))
        if self.failures:
            raise self.failures.pop()
        super().sync()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[LmdbStore, int, WatchedFile]]:
    store = LmdbStore.open(tmp_path / "data", log_bytes=0)
    uid = store.next_uid()
    store.commit([PutIndex(uid, b"")])
    file = WatchedFile(tmp_path / "vectors.f32", store, uid)
    store._files[uid] = file
    yield store, uid, file
    store.close()


def test_rows_are_written_and_synced_once_before_their_records_are_committed(
    watched: tuple[LmdbStore, int, WatchedFile],
) -> None:
    store, uid, file = watched
    store.commit([puts(uid, [0]), puts(uid, [1])])
    assert file.log == [("write", []), ("write", []), ("sync", [])]
    assert sorted(stored_records(store, uid)) == [0, 1]


def test_a_commit_without_rows_does_not_sync_the_vector_file(
    watched: tuple[LmdbStore, int, WatchedFile],
) -> None:
    store, uid, file = watched
    store.commit([WriteBatch(uid, 1, deletes=[3])])
    assert file.log == []


def test_rows_whose_sync_failed_are_refused_and_written_again_by_the_next_try(
    watched: tuple[LmdbStore, int, WatchedFile],
) -> None:
    store, uid, file = watched
    store.commit([puts(uid, [0])])
    file.log.clear()
    file.failures.append(OSError(5, "Input/output error"))
    with pytest.raises(MisconfError, match=r"nothing of this write was kept.*Input/output error"):
        store.commit([puts(uid, [1])])
    assert sorted(stored_records(store, uid)) == [0]
    store.commit([puts(uid, [1])])
    assert file.log == [("write", [0]), ("sync", [0])] * 2
    assert np.array_equal(file.view()[:2], rows([0, 1]))


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Directories that were made durable, in order."""
    seen: list[Path] = []
    for module in (data_dir, lmdb_store):
        monkeypatch.setattr(module, "sync_directory", seen.append)
    return seen


def test_every_directory_that_had_to_be_made_is_made_durable(
    tmp_path: Path, synced: list[Path]
) -> None:
    make_directory(tmp_path / "a" / "b" / "c")
    assert sorted(synced) == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_names_that_a_killed_server_may_not_have_made_durable_are_before_rows_go_there(
    tmp_path: Path, synced: list[Path]
) -> None:
    store = LmdbStore.open(tmp_path)
    uid = store.next_uid()
    store.commit([PutIndex(uid, b"")])
    directory = tmp_path / "indexes" / str(uid)
    directory.mkdir()
    (directory / "vectors.f32").touch()
    synced.clear()
    store.vectors(uid, DIM)
    assert set(synced) == {directory, directory.parent}
    store.close()
