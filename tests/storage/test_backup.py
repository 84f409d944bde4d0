"""Backups of a store: of one moment, whatever goes on, and restored whole or not at all."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest

from pyrope.storage.backup import BackupTarget, write_backup
from pyrope.storage.backup_files import CancelledError, Work
from pyrope.storage.backup_manifest import (
    BackupFile,
    Manifest,
    encode_manifest,
    load_manifest,
)
from pyrope.storage.backup_restore import restore_backup
from pyrope.storage.chained_entry import EMPTY
from pyrope.storage.chained_log import ChainedLog
from pyrope.storage.codec import damaged_rows
from pyrope.storage.data_dir import InUseError
from pyrope.storage.graph_file import GraphMeta, load_graph_meta, save_graph
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.snapshot import SnapshotLostError, quiet_snapshot
from pyrope.storage.store import DropIndex, PutIndex, PutMeta, StorageError, WriteBatch
from storage.crash_workload import UIDS, Workload
from storage.store_samples import open_descriptors, puts, record, stored_records
from storage.test_crash import assert_holds

AT = 1_700_000_000.0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(data: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore.open(data)
    yield opened
    opened.close()


class Interrupted(Work):
    """Does something after each block."""

    def __init__(self, then: Callable[[], object]) -> None:
        super().__init__()
        self._then = then

    def step(self, nbytes: int) -> None:
        super().step(nbytes)
        self._then()


def back_up(
    store: LmdbStore, tmp_path: Path, work: Work | None = None, name: str = "backup"
) -> tuple[Path, Manifest]:
    """A backup of an open store."""
    target = BackupTarget(tmp_path / name, store._data_dir)
    snapshot = store.begin_snapshot(["audit"], target.partial)
    try:
        return target.path, write_backup(snapshot, target, AT, work or Work())
    finally:
        store.end_snapshot()


def back_up_quietly(data: Path, tmp_path: Path) -> tuple[Path, Manifest]:
    """A backup of a directory that no server has open."""
    target = BackupTarget(tmp_path / "backup", data)
    with quiet_snapshot(data, ["audit"], target.partial) as snapshot:
        return target.path, write_backup(snapshot, target, AT, Work())


def restored(backup: Path, tmp_path: Path) -> LmdbStore:
    restore_backup(backup, tmp_path / "restored", Work())
    return LmdbStore.open(tmp_path / "restored")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# -- one moment ----------------------------------------------------------------------------------


@pytest.mark.parametrize("log_bytes", [0, 2**16, 2**22])
def test_commits_between_any_two_blocks_are_not_in_it(
    data: Path, tmp_path: Path, log_bytes: int
) -> None:
    store = LmdbStore.open(data, log_bytes=log_bytes)
    workload = Workload()
    for _ in range(10):
        store.commit(workload.next_changes())
    before = deepcopy(workload)
    work = Interrupted(lambda: store.commit(workload.next_changes()))
    backup, _ = back_up(store, tmp_path, work)
    assert workload.steps > before.steps + 3
    assert_holds(store, workload)
    store.close()
    copy = restored(backup, tmp_path)
    assert_holds(copy, before)
    copy.close()


def test_rows_replaced_by_another_thread_are_neither_torn_nor_new(
    store: LmdbStore, tmp_path: Path
) -> None:
    dim, count = 4096, 300

    def batch(sequence: int, slots: range, gone: range) -> WriteBatch:
        vectors = np.full((len(slots), dim), sequence, np.float32)
        records = [record(slot, id_=b"%d" % (slot % count), sequence=sequence) for slot in slots]
        return WriteBatch(1, sequence, records, vectors, (), list(gone))

    # All vectors are at 0 to 299 and at 300 to 599 in turn: every commit replaces all the others.
    halves = range(count), range(count, 2 * count)
    store.vectors(1, dim)
    store.commit([PutIndex(1, b"spec")])
    store.commit([batch(1, halves[0], halves[1])])
    store.commit([batch(2, halves[1], halves[0])])
    target = BackupTarget(tmp_path / "backup", store._data_dir)
    snapshot = store.begin_snapshot([], target.partial)
    work = Work()
    copying = threading.Thread(target=write_backup, args=(snapshot, target, AT, work))
    copying.start()
    sequence = 2
    while copying.is_alive():
        sequence += 1
        store.commit([batch(sequence, halves[sequence % 2 == 0], halves[sequence % 2])])
    copying.join()
    store.end_snapshot()
    assert sequence > 4
    copy = restored(target.path, tmp_path)
    columns = copy.load(1)
    view = copy.vectors(1, dim).view()
    assert columns.sequence == 2
    assert columns.slots.tolist() == list(halves[1])
    assert not len(damaged_rows(columns, view))
    assert (view[halves[1]] == 2).all()
    copy.close()


def test_what_the_log_holds_is_in_it(store: LmdbStore, tmp_path: Path) -> None:
    store.commit([PutIndex(1, b"spec")])
    store.commit([puts(1, [3])])
    assert store._pending
    backup, manifest = back_up(store, tmp_path)
    assert "commits.log" in {file.path for file in manifest.files}
    copy = restored(backup, tmp_path)
    assert list(stored_records(copy, 1)) == [3]
    copy.close()


def test_an_index_dropped_meanwhile_is_in_it_and_goes_afterwards(
    store: LmdbStore, data: Path, tmp_path: Path
) -> None:
    store.commit([PutIndex(1, b"spec")])
    store.commit([puts(1, [0, 5])])
    dropped: list[bool] = []

    def drop() -> None:
        if not dropped:
            store.commit([DropIndex(1)])
            dropped.append(store.garbage_left)
            store.collect_garbage()

    backup, manifest = back_up(store, tmp_path, Interrupted(drop))
    assert dropped == [False]
    assert manifest.indexes == 1
    copy = restored(backup, tmp_path)
    assert list(stored_records(copy, 1)) == [0, 5]
    copy.close()
    assert store.garbage_left
    store.collect_garbage()
    assert not (data / "indexes" / "1").exists()


def growing(store: LmdbStore, commits: int) -> None:
    for number in range(commits):
        store.commit([PutMeta("a", b"%d" % number, bytes(50_000))])


def test_a_map_that_grows_before_the_records_are_copied_loses_it(
    data: Path, tmp_path: Path
) -> None:
    store = LmdbStore.open(data, map_bytes=256 * 2**10)
    store.commit([PutIndex(1, b"spec")])
    store.commit([puts(1, range(100))])
    with pytest.raises(SnapshotLostError):
        back_up(store, tmp_path, Interrupted(lambda: growing(store, 10)))
    assert not list(tmp_path.glob("backup*"))
    back_up(store, tmp_path)
    store.close()


def test_a_map_that_grows_after_the_records_are_copied_does_no_harm(
    data: Path, tmp_path: Path
) -> None:
    store = LmdbStore.open(data, map_bytes=256 * 2**10)
    store.commit([PutIndex(1, b"spec")])
    store.commit([puts(1, range(100))])
    blocks: list[int] = []
    sizes = {store._env.info()["map_size"]}

    def grow() -> None:
        blocks.append(1)
        if len(blocks) > 2:
            growing(store, 10)
            sizes.add(store._env.info()["map_size"])

    backup, _ = back_up(store, tmp_path, Interrupted(grow))
    assert len(sizes) > 1
    store.close()
    copy = restored(backup, tmp_path)
    assert list(stored_records(copy, 1)) == list(range(100))
    assert copy.load_meta("a") == []
    copy.close()


def test_an_index_created_or_first_opened_meanwhile_does_no_harm(
    store: LmdbStore, data: Path, tmp_path: Path
) -> None:
    store.commit([PutIndex(1, b"spec")])
    store.commit([puts(1, range(10))])
    store.close()
    store = LmdbStore.open(data)
    steps: list[int] = []

    def write() -> None:
        steps.append(len(steps) + 2)
        store.commit([PutIndex(steps[-1], b"new")])
        store.commit([puts(steps[-1], range(5))])
        # Nobody had opened the file of index 1 when it all began.
        slots = range(10 * len(steps), 10 * len(steps) + 10)
        gone = list(range(slots[0] - 10, slots[0]))
        again = [record(slot - 10, sequence=steps[-1]) for slot in slots]
        store.commit([WriteBatch(1, steps[-1], deletes=gone)])
        store.commit([WriteBatch(1, steps[-1], again, np.zeros((10, 8), np.float32))])
        store.commit([puts(1, slots, sequence=steps[-1])])

    backup, manifest = back_up(store, tmp_path, Interrupted(write))
    store.close()
    assert manifest.indexes == 1
    copy = restored(backup, tmp_path)
    assert [uid for uid, _ in copy.indexes()] == [1]
    assert list(stored_records(copy, 1)) == list(range(10))
    assert not len(damaged_rows(copy.load(1), copy.vectors(1, 8).view()))
    copy.close()


def test_a_chained_log_is_in_it_up_to_that_moment(
    store: LmdbStore, data: Path, tmp_path: Path
) -> None:
    log = ChainedLog.open(data / "audit", rotate_bytes=2**20, at=AT, expect=EMPTY)
    head = log.append([{"act": "before"}], AT)
    backup, _ = back_up(
        store, tmp_path, Interrupted(lambda: log.append([{"act": "meanwhile"}], AT))
    )
    log.close()
    restored(backup, tmp_path).close()
    folder = tmp_path / "restored" / "audit"
    again = ChainedLog.open(folder, rotate_bytes=2**20, at=AT, expect=head)
    assert [entry.payload["act"] for entry in again.read(0, 10)] == ["before"]
    again.close()


def test_nothing_is_held_when_it_is_over(store: LmdbStore, tmp_path: Path) -> None:
    store.commit([PutIndex(1, b"spec")])
    store.commit([puts(1, range(10))])
    before = open_descriptors()
    back_up(store, tmp_path)
    assert open_descriptors() == before
    assert store._env.readers().count("\n") <= 2
    back_up(store, tmp_path, name="another")


def test_only_one_is_made_at_a_time(store: LmdbStore, tmp_path: Path) -> None:
    store.begin_snapshot([], tmp_path)
    with pytest.raises(StorageError, match="copied already"):
        store.begin_snapshot([], tmp_path)
    store.end_snapshot()


def test_a_store_that_is_closed_meanwhile_ends_it(store: LmdbStore, tmp_path: Path) -> None:
    store.commit([PutIndex(1, b"spec")])
    store.begin_snapshot([], tmp_path)
    store.close()


# -- graphs --------------------------------------------------------------------------------------


def save_graph_at(store: LmdbStore, sequence: int, content: bytes = b"graph") -> None:
    meta = GraphMeta(1, sequence, 10, "HNSW", 8, "COSINE", 16, 200)

    def write(path: str) -> None:
        Path(path).write_bytes(content)

    save_graph(store.graph_path(1), write, meta)


@pytest.mark.parametrize("sequence", [1, 2, 3])
def test_a_saved_graph_is_in_it_unless_it_is_younger(
    store: LmdbStore, tmp_path: Path, sequence: int
) -> None:
    store.commit([PutIndex(1, b"spec")])
    store.commit([puts(1, [0])])
    store.commit([puts(1, [1], sequence=2)])  # in the log, not in LMDB
    save_graph_at(store, sequence)
    backup, _ = back_up(store, tmp_path)
    restored(backup, tmp_path).close()
    saved = load_graph_meta(tmp_path / "restored" / "indexes" / "1" / "graph")
    if sequence > 2:
        assert saved == "missing"
        assert not list((tmp_path / "restored" / "indexes" / "1").glob("graph*"))
        return
    assert not isinstance(saved, str)
    assert saved.meta.sequence == sequence
    assert saved.file.read_bytes() == b"graph"


# -- a directory that no server has open ---------------------------------------------------------


def test_a_quiet_directory_is_copied_as_it_is_with_the_log_of_a_crash(
    data: Path, tmp_path: Path
) -> None:
    store = LmdbStore.open(data)
    workload = Workload()
    for _ in range(10):
        store.commit(workload.next_changes())
    assert store._pending
    store._abort()
    store._pending.clear()  # closing would make a checkpoint
    store.close()
    before = tree(data)
    backup, manifest = back_up_quietly(data, tmp_path)
    assert {name: content for name, content in tree(data).items() if name != "LOCK"} == {
        name: content for name, content in before.items() if name != "LOCK"
    }
    assert (manifest.indexes, manifest.created_at, manifest.data_format) == (len(UIDS), AT, 4)
    copy = restored(backup, tmp_path)
    assert_holds(copy, workload)
    copy.close()


def test_a_directory_that_a_server_has_open_is_not_copied_behind_its_back(
    store: LmdbStore, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(InUseError), quiet_snapshot(data, [], tmp_path):
        pass


@pytest.mark.parametrize("older", [1, 2, 3])
def test_an_older_format_is_copied_as_it_is_and_taken_over_after_the_restore(
    data: Path, tmp_path: Path, older: int
) -> None:
    store = LmdbStore.open(data)
    store.commit([PutIndex(1, b"spec")])
    store.commit([puts(1, [0])])
    store.close()
    set_format(data, older)
    if older == 1:
        (data / "commits.log").unlink()
    backup, manifest = back_up_quietly(data, tmp_path)
    assert manifest.data_format == older
    copy = restored(backup, tmp_path)
    assert list(stored_records(copy, 1)) == [0]
    copy.close()


def set_format(data: Path, number: int) -> None:
    env = lmdb.open(str(data / "records.mdb"), subdir=False, max_dbs=8)
    with env.begin(write=True) as txn:
        txn.put(b"format", number.to_bytes(8, "big"), db=env.open_db(b"meta", txn=txn))
        if number < 3:
            txn.drop(env.open_db(b"side", txn=txn))
        if number < 4:
            txn.drop(env.open_db(b"meta_records", txn=txn))
    env.close()


def test_a_directory_of_a_newer_format_is_not_copied(data: Path, tmp_path: Path) -> None:
    LmdbStore.open(data).close()
    set_format(data, 5)
    with pytest.raises(StorageError, match="has format 5 and this Pyrope knows format 4"):
        back_up_quietly(data, tmp_path)
    assert not list(tmp_path.glob("backup*"))


def test_a_directory_without_data_of_pyrope_is_not_copied(data: Path, tmp_path: Path) -> None:
    data.mkdir()
    with pytest.raises(StorageError, match="holds no data of Pyrope"):
        back_up_quietly(data, tmp_path)
    (data / "records.mdb").write_bytes(b"something else" * 1000)
    with (
        pytest.raises(StorageError, match="no file of LMDB's"),
        quiet_snapshot(data, [], tmp_path),
    ):
        pass


def test_records_that_have_lost_their_end_are_not_copied(data: Path, tmp_path: Path) -> None:
    store = LmdbStore.open(data)
    store.commit([PutIndex(1, b"spec")])
    store.commit([puts(1, range(500))])
    store.close()
    os.truncate(data / "records.mdb", 12 * 4096)
    with pytest.raises(StorageError, match="has lost its end"):
        back_up_quietly(data, tmp_path)


def test_a_damaged_log_is_told_of_by_its_own_name(data: Path, tmp_path: Path) -> None:
    store = LmdbStore.open(data)
    store.commit([PutIndex(1, b"spec")])
    for slot in range(3):
        store.commit([puts(1, [slot], sequence=slot + 1)])
    store._abort()
    store._pending.clear()
    store.close()
    with (data / "commits.log").open("r+b") as file:
        file.seek(30)
        file.write(b"\xff\xff")
    with pytest.raises(StorageError) as raised:
        back_up_quietly(data, tmp_path)
    assert str(raised.value).startswith(f"{data / 'commits.log'} is damaged at byte 0")


# -- where it goes -------------------------------------------------------------------------------


def test_a_folder_with_something_in_it_is_left_alone(store: LmdbStore, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    back_up(store, tmp_path)  # an empty one is as good as none
    before = tree(tmp_path / "backup")
    with pytest.raises(StorageError, match="exists already"):
        back_up(store, tmp_path)
    assert tree(tmp_path / "backup") == before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("data/backup", "is in the data directory"),
        ("data/indexes/backup", "is in the data directory"),
        ("nowhere/backup", "make it first"),
    ],
)
def test_a_place_that_will_not_do_is_refused(
    store: LmdbStore, data: Path, tmp_path: Path, path: str, message: str
) -> None:
    with pytest.raises(StorageError, match=message):
        BackupTarget(tmp_path / path, data)
    with pytest.raises(StorageError, match="absolute"):
        BackupTarget(Path("backup"), data)


def test_two_backups_to_one_place_are_not_mixed(
    store: LmdbStore, data: Path, tmp_path: Path
) -> None:
    BackupTarget(tmp_path / "backup", data)
    with pytest.raises(StorageError, match=r"backup\.partial is there"):
        BackupTarget(tmp_path / "backup", data)


def test_nothing_is_left_of_one_that_was_cancelled(store: LmdbStore, tmp_path: Path) -> None:
    store.commit([PutIndex(1, b"spec")])
    work = Work()
    work.cancel()
    with pytest.raises(CancelledError):
        back_up(store, tmp_path, work)
    assert not list(tmp_path.glob("backup*"))
    back_up(store, tmp_path)


def test_a_row_that_could_not_be_kept_fails_the_backup_and_not_the_commit(
    store: LmdbStore, tmp_path: Path
) -> None:
    store.commit([PutIndex(1, b"spec")])
    store.commit([puts(1, range(10))])
    target = BackupTarget(tmp_path / "backup", store._data_dir)
    snapshot = store.begin_snapshot([], target.partial)
    snapshot._spool.close()  # as unwritable as a full disk

    class Full:
        def append(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None: ...

    kept = snapshot.kept_rows(1)
    assert kept is not None
    kept._spool = Full()  # type: ignore[assignment]
    store.commit([WriteBatch(1, 2, deletes=[0])])
    store.commit([puts(1, [0], sequence=3)])
    with pytest.raises(OSError, match="No space left"):
        write_backup(snapshot, target, AT, Work())
    store.end_snapshot()
    assert not target.partial.exists()
    assert len(stored_records(store, 1)) == 10


def test_what_is_sparse_stays_sparse_and_private(store: LmdbStore, tmp_path: Path) -> None:
    store.commit([PutIndex(1, b"spec")])
    store.commit([puts(1, [0])])
    store.vectors(1, 8).ensure(4_000_000)
    backup, _ = back_up(store, tmp_path)
    restored(backup, tmp_path).close()
    for folder in (backup / "data", tmp_path / "restored"):
        stat = (folder / "indexes" / "1" / "vectors.f32").stat()
        assert stat.st_size > 100_000_000
        assert stat.st_blocks * 512 < 5_000_000
    for path in (backup, *backup.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


# -- restoring -----------------------------------------------------------------------------------


@pytest.fixture
def backup(store: LmdbStore, tmp_path: Path) -> Path:
    store.commit([PutIndex(1, b"spec")])
    store.commit([puts(1, range(50))])
    return back_up(store, tmp_path)[0]


def refused(backup: Path, tmp_path: Path, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        restore_backup(backup, tmp_path / "restored", Work())
    assert not (tmp_path / "restored").exists()


def test_every_file_is_looked_at_before_anything_is_written(backup: Path, tmp_path: Path) -> None:
    files = [path for path in (backup / "data").rglob("*") if path.is_file()]
    assert len(files) == 3
    for path in files:
        content = path.read_bytes()
        for damage, message in (
            (content[: len(content) // 2], "is damaged: it has"),
            (content + b"\0", "is damaged: it has"),
            (content[:-1] + bytes([content[-1] ^ 1]), "does not have its checksum"),
            (None, "is missing"),
        ):
            path.unlink()
            if damage is not None:
                path.write_bytes(damage)
            refused(backup, tmp_path, f"{path.name} .*{message}")
            path.write_bytes(content)
    restored(backup, tmp_path).close()


def test_links_out_of_a_backup_are_not_followed(backup: Path, tmp_path: Path) -> None:
    vectors = backup / "data" / "indexes" / "1" / "vectors.f32"
    vectors.rename(tmp_path / "elsewhere")
    vectors.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        restore_backup(backup, tmp_path / "restored", Work())
    vectors.unlink()
    vectors.parent.rmdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "folder" / "vectors.f32")
    vectors.parent.symlink_to(tmp_path / "folder")
    refused(backup, tmp_path, "leads out of the backup")


def test_a_folder_that_is_no_backup_is_refused(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    refused(tmp_path / "foreign", tmp_path, "is no backup of Pyrope")
    for content in (b"", b"something else\n{}", b"pyrope-backup\n", b"pyrope-backup x y\n{}"):
        (tmp_path / "foreign" / "MANIFEST").write_bytes(content)
        refused(tmp_path / "foreign", tmp_path, "is no manifest")


def test_a_damaged_manifest_is_refused(backup: Path, tmp_path: Path) -> None:
    path = backup / "MANIFEST"
    content = path.read_bytes()
    for damaged in (content[:-10], content.replace(b'"size"', b'"sive"', 1), content + b" "):
        path.write_bytes(damaged)
        refused(backup, tmp_path, "MANIFEST is damaged")


def test_a_backup_of_a_newer_pyrope_is_refused(backup: Path, tmp_path: Path) -> None:
    path = backup / "MANIFEST"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"pyrope-backup 1 ", b"pyrope-backup 2 new "))
    refused(backup, tmp_path, "backup of format 2 and this Pyrope knows formats up to 1")
    path.write_bytes(content)
    manifest = load_manifest(backup)
    path.write_bytes(encode_manifest(replace(manifest, data_format=5)))
    refused(backup, tmp_path, "have format 5 and this Pyrope knows formats up to 4")


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "indexes/../../x", "", "a\0b"])
def test_a_manifest_that_names_files_elsewhere_is_refused(
    backup: Path, tmp_path: Path, path: str
) -> None:
    there = load_manifest(backup)
    rewrite(backup, there, [*there.files, BackupFile(path, 1, "0" * 32)])
    refused(backup, tmp_path, "outside of the backup")
    (backup / "MANIFEST").write_bytes(encode_manifest(replace(there, folders=[path])))
    refused(backup, tmp_path, "outside of the backup")


def test_a_manifest_that_makes_no_sense_is_refused(backup: Path, tmp_path: Path) -> None:
    there = load_manifest(backup)
    rewrite(backup, there, [*there.files, there.files[0]])
    refused(backup, tmp_path, "names a file twice")
    rewrite(backup, there, [])
    refused(backup, tmp_path, "names no records.mdb")


def rewrite(backup: Path, manifest: Manifest, files: list[BackupFile]) -> None:
    """Give a backup a manifest with other files, and the right checksum."""
    (backup / "MANIFEST").write_bytes(encode_manifest(replace(manifest, files=files)))


def test_a_directory_with_something_in_it_is_left_alone(
    backup: Path, store: LmdbStore, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="is not empty"):
        restore_backup(backup, data, Work())
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="is no directory"):
        restore_backup(backup, tmp_path / "file", Work())
    assert len(stored_records(store, 1)) == 50


def test_an_empty_directory_will_do_even_one_that_is_a_file_system(
    backup: Path, tmp_path: Path
) -> None:
    (tmp_path / "restored" / "lost+found").mkdir(parents=True)
    copy = restored(backup, tmp_path)
    assert len(stored_records(copy, 1)) == 50
    copy.close()


def test_a_restore_that_fails_in_the_middle_leaves_an_empty_directory(
    backup: Path, tmp_path: Path
) -> None:
    (tmp_path / "restored").mkdir()
    total = load_manifest(backup).nbytes

    class Failing(Work):
        def step(self, nbytes: int) -> None:
            super().step(nbytes)
            if self.done_bytes > 1.5 * total:
                raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        restore_backup(backup, tmp_path / "restored", Failing())
    assert [path.name for path in (tmp_path / "restored").iterdir()] == ["LOCK"]
    restored(backup, tmp_path).close()


def test_what_a_killed_restore_leaves_is_no_data_directory(backup: Path, tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:  # the child ends before records.mdb has its name

        class Dying(Work):
            def step(self, nbytes: int) -> None:
                super().step(nbytes)
                if self.done_bytes == self.total_bytes:
                    os._exit(9)

        restore_backup(backup, tmp_path / "restored", Dying())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    with pytest.raises(StorageError, match="was in use: bring the data directory back"):
        LmdbStore.open(tmp_path / "restored")
    with pytest.raises(StorageError, match="a restore that did not end"):
        restore_backup(backup, tmp_path / "restored", Work())


def test_the_manifest_can_be_read_by_people_and_programs(backup: Path) -> None:
    line, _, body = (backup / "MANIFEST").read_text().partition("\n")
    assert line.startswith("pyrope-backup 1 ")
    told = json.loads(body)
    assert told["created_at"] == AT
    assert told["data_format"] == 4
    assert {file["path"] for file in told["files"]} == {
        "records.mdb",
        "commits.log",
        "indexes/1/vectors.f32",
    }
