"""A records file that has lost its end: an error in words, never the end of the process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from pyrope.storage.lmdb_environment import check_end, open_environment, read_meta_pages
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.store import PutIndex, PutMeta, PutSide, StorageError
from storage.store_samples import puts, stored_records

_TESTS = Path(__file__).parents[1]


def made(directory: Path) -> None:
    store = LmdbStore.open(directory, log_bytes=0)
    for number in range(3):
        uid = store.next_uid()
        store.commit([PutIndex(uid, b"spec"), puts(uid, range(200))])
        store.commit([PutMeta("space", b"%d-%d" % (uid, n), b"v" * 100) for n in range(300)])
        store.commit([PutSide(uid, 1, b"large", bytes(20_000 * number))])
    store.close()


def try_every_length(directory: Path, copy: Path) -> None:
    """Open the store with each number of pages less; print how many were refused."""
    path = directory / "records.mdb"
    pages = path.stat().st_size // 4096
    refused = 0
    for kept in range(2, pages):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(directory, copy)
        os.truncate(copy / "records.mdb", kept * 4096)
        try:
            store = LmdbStore.open(copy)
            store.load_meta("space")
            for uid, _ in store.indexes():
                store.load(uid)
                store.load_side(uid)
            store.commit([PutMeta("space", b"more", b"value")])
            store.close()
        except Exception as error:  # noqa: BLE001 - its kind is what is asked about
            refused += f"{type(error).__name__}: {error}".startswith("StorageError: ")
    print(pages - 2, refused)  # noqa: T201 - what the test reads


def test_a_file_of_any_length_is_opened_or_refused(tmp_path: Path) -> None:
    made(tmp_path / "data")
    command = [sys.executable, "-m", "storage.test_lmdb_environment"]
    command += [str(tmp_path / "data"), str(tmp_path / "copy")]
    child = subprocess.run(command, cwd=_TESTS, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    tried, refused = map(int, child.stdout.split())
    assert tried > 20
    assert refused == tried


def test_pages_that_were_never_written_need_not_be_there(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path)
    uid = store.next_uid()
    store.commit([PutIndex(uid, b"spec")])
    store.commit([puts(uid, [0]), PutSide(uid, 1, b"large", bytes(200_000))])
    store.commit([PutSide(uid, 1, b"large", None), PutMeta("space", b"key", b"value")])
    store.close()
    path = tmp_path / "records.mdb"
    counted = bytes_counted(path)
    assert path.stat().st_size < counted
    again = LmdbStore.open(tmp_path)
    assert path.stat().st_size == counted
    assert list(stored_records(again, uid)) == [0]
    assert again.load_meta("space") == [(b"key", b"value")]
    again.close()


def bytes_counted(path: Path) -> int:
    """Bytes that LMDB says its file has."""
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as env:
        pages: int = env.info()["last_pgno"] + 1
        size: int = env.stat()["psize"]
        return pages * size


if __name__ == "__main__":
    try_every_length(Path(sys.argv[1]), Path(sys.argv[2]))


def test_the_meta_pages_tell_what_lmdb_itself_tells(tmp_path: Path) -> None:
    path = tmp_path / "records.mdb"
    env = open_environment(path, 2**20)
    for number in range(5):
        with env.begin(write=True) as txn:
            txn.put(b"%d" % number, bytes(9000))
        metas = read_meta_pages(path)
        assert metas.transaction == env.info()["last_txnid"] == number + 1
        assert metas.last_page == env.info()["last_pgno"]
        assert metas.page_size == env.stat()["psize"]
        assert metas.content == path.read_bytes()[: 2 * metas.page_size]
        assert metas.nbytes == (metas.last_page + 1) * metas.page_size
    env.close()
    check_end(path, metas)


@pytest.mark.parametrize("content", [b"", bytes(100), bytes(20_000), b"text" * 5000])
def test_a_file_that_is_not_lmdbs_has_no_meta_pages(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(StorageError, match="no file of LMDB's"):
        read_meta_pages(tmp_path / "file")
