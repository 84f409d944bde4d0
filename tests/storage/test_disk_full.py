"""A disk that is full: MISCONF, reads go on, nothing is lost, and it ends by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pyrope.storage.codec import damaged_rows
from pyrope.storage.lmdb_store import LmdbStore
from storage.full_disk_workload import DIM
from storage.store_samples import stored_records

_TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("kind", ["rows", "records", "catalogue", "metas"])
def test_writes_are_refused_while_the_disk_is_full_and_accepted_afterwards(
    tmp_path: Path, kind: str
) -> None:
    child = subprocess.run(
        [sys.executable, "-m", "storage.full_disk_workload", str(tmp_path), kind],
        cwd=_TESTS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    uid, commits = map(int, child.stdout.split())
    store = LmdbStore.open(tmp_path)
    records = stored_records(store, uid)
    if kind == "catalogue":
        assert [uid for uid, _ in store.indexes()] == [uid, *range(uid + 1, uid + commits + 1)]
    elif kind == "metas":
        assert len(store.load_meta("space")) == commits
    else:
        assert len(records) == commits * (100 if kind == "rows" else 1)
        assert not len(damaged_rows(store.load(uid), store.vectors(uid, DIM).view()))
    store.close()
