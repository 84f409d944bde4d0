"""A deterministic run of commits, for a child to be killed in and a parent to know by heart.

As a program: ``python -m storage.crash_workload DIRECTORY FIRST_STEP`` commits one step after the
other, and writes each step's number to standard output once its commit has returned. With
``before-rows`` or ``after-rows`` and a number behind that, it kills itself in that commit, before
or after the rows are written. With ``in-recovery`` and a number, it kills itself when it has
written or synced rows so many times, those of its opening included.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pyrope.storage.commit_log import Rows
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.store import (
    Change,
    DropMeta,
    PutIndex,
    PutMeta,
    PutSide,
    Record,
    WriteBatch,
)
from pyrope.types import Float32Matrix

DIM = 64
UIDS = (1, 2)
SIDE_KIND = 7
SPACE = "ledger"
# Every so many steps the catalogue changes, which takes a checkpoint.
CATALOGUE_STEPS = 7
# So that a few commits fill the log, and some are too large for it.
LOG_BYTES = 2**18


def step_rows(step: int, count: int) -> Float32Matrix:
    return np.random.default_rng(step).standard_normal((count, DIM)).astype(np.float32)


@dataclass
class Index:
    """What one index holds: by slot the record, and the step and position its row is from.

    Attributes:
        sides: its side records, by key.
    """

    records: dict[int, tuple[Record, int, int]] = field(default_factory=dict)
    sides: dict[bytes, bytes] = field(default_factory=dict)
    sequence: int = 0


class Workload:
    """The state after some number of steps, and the changes that make the next."""

    def __init__(self) -> None:
        self.steps = 0
        self.indexes = {uid: Index() for uid in UIDS}
        self.metas: dict[bytes, bytes] = {}

    def next_changes(self) -> list[Change]:
        """Move on: vectors, updates to free slots, deletes, amends, other records, catalogue."""
        self.steps += 1
        rng = np.random.default_rng(10**6 + self.steps)
        changes: list[Change] = []
        for uid, index in self.indexes.items():
            if self.steps % CATALOGUE_STEPS == 1:
                changes.append(PutIndex(uid, b"after step %d" % self.steps))
            index.sequence = self.steps
            held = sorted(index.records)
            free = [slot for slot in range(400) if slot not in index.records]
            gone = [slot for slot in held if rng.random() < 0.3]
            for slot in gone:
                del index.records[slot]
            amended = [slot for slot in held if slot in index.records and rng.random() < 0.1]
            amends = []
            for slot in amended:
                record, step, position = index.records[slot]
                record = record._replace(attributes=b'{"step":%d}' % self.steps)
                index.records[slot] = (record, step, position)
                amends.append(record)
            taken = [slot for slot in free if rng.random() < 0.3]
            puts = [
                Record(slot, b"%d-%d" % (self.steps, slot), self.steps, 0, b"") for slot in taken
            ]
            for position, record in enumerate(puts):
                index.records[record.slot] = (record, self.steps, position)
            vectors = step_rows(self.steps, len(puts)) if puts else None
            changes.append(WriteBatch(uid, self.steps, puts, vectors, amends, gone))
            for key in (b"side %d" % (self.steps % 5), b"side %d" % (self.steps % 3)):
                value = None if rng.random() < 0.3 else b"step %d" % self.steps
                changes.append(PutSide(uid, SIDE_KIND, key, value))
                index.sides.pop(key, None)
                if value is not None:
                    index.sides[key] = value
        for key in (b"tenant %d" % number for number in rng.integers(0, 20, 5)):
            if rng.random() < 0.3:
                self.metas.pop(key, None)
                changes.append(DropMeta(SPACE, key))
            else:
                self.metas[key] = b"step %d" % self.steps
                changes.append(PutMeta(SPACE, key, self.metas[key]))
        return changes


class DyingStore(LmdbStore):
    """Ends its process in the commit of a given number, at a given point."""

    when = "never"
    commits_left = 0

    def _write_rows(self, every_rows: Iterable[Rows]) -> None:
        self.commits_left -= 1
        if not self.commits_left and self.when == "before-rows":
            os.kill(os.getpid(), signal.SIGKILL)
        super()._write_rows(every_rows)
        if not self.commits_left and self.when in ("after-rows", "in-recovery"):
            os.kill(os.getpid(), signal.SIGKILL)

    def _sync_rows(self) -> None:
        super()._sync_rows()
        if self.when == "in-recovery":
            self.commits_left -= 1
            if not self.commits_left:
                os.kill(os.getpid(), signal.SIGKILL)


def main(directory: str, first_step: str, when: str = "never", commits: str = "0") -> None:
    if when == "in-recovery":
        DyingStore.when, DyingStore.commits_left = when, int(commits)
    store = DyingStore.open(Path(directory), log_bytes=LOG_BYTES)
    if when != "in-recovery":
        store.when, store.commits_left = when, int(commits)
    workload = Workload()
    while workload.steps < int(first_step):
        workload.next_changes()
    while True:
        store.commit(workload.next_changes())
        os.write(1, b"%d\n" % workload.steps)


if __name__ == "__main__":
    main(*sys.argv[1:])
