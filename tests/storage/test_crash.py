"""kill -9 in the middle of commits: what was acknowledged is there, and half a commit never is."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyrope.storage.codec import damaged_rows
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.store import SideRecord
from storage.crash_workload import (
    CATALOGUE_STEPS,
    DIM,
    SIDE_KIND,
    SPACE,
    UIDS,
    Workload,
    step_rows,
)
from storage.store_samples import stored_records

_TESTS = Path(__file__).parents[1]


def run_until_killed(directory: Path, first_step: int, acknowledged: int) -> int:
    """Let a child commit, kill it after so many acknowledgements; the last step it printed."""
    command = [sys.executable, "-m", "storage.crash_workload", str(directory), str(first_step)]
    with subprocess.Popen(command, cwd=_TESTS, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for _ in range(acknowledged):
            assert child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split()
    assert child.returncode == -signal.SIGKILL
    return first_step + acknowledged + len(rest)


def run_until_dead(directory: Path, first_step: int, when: str, commits: int) -> int:
    """Let a child kill itself in its commit number `commits`; the last step it printed."""
    command = [sys.executable, "-m", "storage.crash_workload", str(directory), str(first_step)]
    command += [when, str(commits)]
    child = subprocess.run(command, cwd=_TESTS, stdout=subprocess.PIPE, check=False)
    assert child.returncode == -signal.SIGKILL
    return first_step + len(child.stdout.split())


def step_in(store: LmdbStore) -> int:
    """The step whose state a store claims to hold, by the sequences of its indexes."""
    (step,) = {store.load(uid).sequence for uid in UIDS}
    catalogued = (step - 1) // CATALOGUE_STEPS * CATALOGUE_STEPS + 1
    assert {blob for _, blob in store.indexes()} == {b"after step %d" % catalogued}
    return step


def assert_holds(store: LmdbStore, workload: Workload) -> None:
    assert store.load_meta(SPACE) == sorted(workload.metas.items())
    for uid in UIDS:
        index = workload.indexes[uid]
        columns = store.load(uid)
        assert columns.sequence == index.sequence
        sides = [SideRecord(SIDE_KIND, *side) for side in index.sides.items()]
        assert sorted(store.load_side(uid).records) == sorted(sides)
        expected = {slot: record for slot, (record, _, _) in index.records.items()}
        assert stored_records(store, uid) == expected
        view = store.vectors(uid, DIM).view()
        assert not len(damaged_rows(columns, view))
        for slot, (_, step, position) in index.records.items():
            assert np.array_equal(view[slot], step_rows(step, position + 1)[position])


def test_every_acknowledged_commit_survives_kill_9_and_none_is_half_there(tmp_path: Path) -> None:
    rng = random.Random(20)
    workload = Workload()
    for _ in range(8):
        acknowledged = run_until_killed(tmp_path, workload.steps, rng.randrange(1, 12))
        store = LmdbStore.open(tmp_path)
        step = step_in(store)
        assert step in {acknowledged, acknowledged + 1}  # the one in flight may be in
        while workload.steps < step:
            workload.next_changes()
        assert_holds(store, workload)
        store.close()


@pytest.mark.parametrize("when", ["before-rows", "after-rows"])
def test_a_commit_that_ends_between_its_rows_and_its_records_never_was(
    tmp_path: Path, when: str
) -> None:
    workload = Workload()
    for commits in (4, 1, 3):
        acknowledged = run_until_dead(tmp_path, workload.steps, when, commits)
        while workload.steps < acknowledged:
            workload.next_changes()
        store = LmdbStore.open(tmp_path)
        assert step_in(store) == acknowledged
        assert_holds(store, workload)
        store.close()


def test_a_recovery_that_is_killed_is_done_again(tmp_path: Path) -> None:
    workload = Workload()
    for _ in range(3):
        # Between two changes of the catalogue, so that the log is not empty.
        acknowledged = run_until_dead(tmp_path, workload.steps, "before-rows", 4)
        for writes in (1, 2):
            assert run_until_dead(tmp_path, acknowledged, "in-recovery", writes) == acknowledged
        store = LmdbStore.open(tmp_path)
        assert step_in(store) == acknowledged
        while workload.steps < acknowledged:
            workload.next_changes()
        assert_holds(store, workload)
        store.close()
