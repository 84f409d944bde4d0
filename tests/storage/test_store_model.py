"""LmdbStore against a dict: random commits, drops, collections, reopens, backups under way."""

from __future__ import annotations

import tempfile
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pyrope.storage.backup import BackupTarget, write_backup
from pyrope.storage.backup_files import Work
from pyrope.storage.backup_restore import restore_backup
from pyrope.storage.codec import damaged_rows
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.snapshot import Snapshot, SnapshotLostError
from pyrope.storage.store import (
    Change,
    DropIndex,
    DropMeta,
    PutIndex,
    PutMeta,
    PutSide,
    Record,
    SideRecord,
    WriteBatch,
)
from storage.store_samples import DIM, rows, stored_records

_MAP_BYTES = 256 * 1024  # small, so that growth is part of the game


@dataclass
class Model:
    """Meta records, and per index what belongs to it.

    That is blob, sequence, side records, and by slot record and its row's seed.
    """

    blobs: dict[int, bytes] = field(default_factory=dict)
    sequences: dict[int, int] = field(default_factory=dict)
    records: dict[int, dict[int, tuple[Record, int]]] = field(default_factory=dict)
    sides: dict[int, dict[tuple[int, bytes], bytes]] = field(default_factory=dict)
    metas: dict[str, dict[bytes, bytes]] = field(
        default_factory=lambda: {"a": {}, "a.b": {}, "b": {}}
    )

    def check(self, store: LmdbStore) -> None:
        """Assert that a store holds this and nothing else."""
        assert store.indexes() == sorted(self.blobs.items())
        for space, metas in self.metas.items():
            assert store.load_meta(space) == sorted(metas.items())
        for uid, records in self.records.items():
            sides = store.load_side(uid)
            assert not sides.damaged
            expected = [SideRecord(*key, value) for key, value in self.sides[uid].items()]
            assert sorted(sides.records) == sorted(expected)
            columns = store.load(uid)
            assert columns.sequence == self.sequences[uid]
            held = stored_records(store, uid)
            assert held == {slot: record for slot, (record, _) in records.items()}
            view = store.vectors(uid, DIM).view()
            assert not len(damaged_rows(columns, view))
            for slot, (_, seed) in records.items():
                assert np.array_equal(view[slot], rows([seed])[0])


class StoreAgainstDict(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._dir = tempfile.TemporaryDirectory()
        self._folder = Path(self._dir.name)
        self._data = self._folder / "data"
        self._store = LmdbStore.open(self._data, map_bytes=_MAP_BYTES)
        self._model = Model()
        self._backup: tuple[Snapshot, Model] | None = None
        self._seed = 0

    @initialize()
    def one_index(self) -> None:
        self.create(b"first")

    @rule(blob=st.binary(max_size=30))
    def create(self, blob: bytes) -> None:
        uid = self._store.next_uid()
        assert uid not in self._model.sequences
        self._store.commit([PutIndex(uid, blob)])
        self._model.blobs[uid] = blob
        self._model.sequences[uid] = 0
        self._model.records[uid] = {}
        self._model.sides[uid] = {}

    @precondition(lambda self: self._model.blobs)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        """One commit of batches to several indexes: updates, amends, deletes, as a service would.

        Slots freed by this commit are not used again in it.
        """
        uids = data.draw(
            st.lists(st.sampled_from(sorted(self._model.blobs)), min_size=1, max_size=3)
        )
        busy = {uid: set(self._model.records[uid]) for uid in uids}
        sides = [self._draw_side(data, uid) for uid in uids]
        metas = self._draw_metas(data, 10)
        batches = [self._draw_batch(data, uid, busy[uid]) for uid in uids]
        self._store.commit([*sides, *batches, *metas])

    @rule(data=st.data(), nbytes=st.sampled_from([0, 200, 100_000]))
    def change_metas(self, data: st.DataObject, nbytes: int) -> None:
        """Meta records alone; some too large for the log."""
        self._store.commit(self._draw_metas(data, nbytes))

    def _draw_metas(self, data: st.DataObject, nbytes: int) -> list[Change]:
        keys = st.sampled_from([b"", b"a", b"\0", b"long" * 100])
        changes: list[Change] = []
        for space, key, goes in data.draw(
            st.lists(st.tuples(st.sampled_from(sorted(self._model.metas)), keys, st.booleans()))
        ):
            self._seed += 1
            if goes:
                self._model.metas[space].pop(key, None)
                changes.append(DropMeta(space, key))
            else:
                self._model.metas[space][key] = b"%d" % self._seed + bytes(nbytes)
                changes.append(PutMeta(space, key, self._model.metas[space][key]))
        return changes

    @precondition(lambda self: self._model.blobs)
    @rule(data=st.data(), nbytes=st.sampled_from([0, 10, 300, 400_000]))
    def put_sides(self, data: st.DataObject, nbytes: int) -> None:
        """Side records alone; some too large for the log."""
        uids = data.draw(
            st.lists(st.sampled_from(sorted(self._model.blobs)), min_size=1, max_size=4)
        )
        self._store.commit([self._draw_side(data, uid, nbytes) for uid in uids])

    def _draw_side(self, data: st.DataObject, uid: int, nbytes: int = 10) -> PutSide:
        kind = data.draw(st.sampled_from([0, 1, 255]))
        key = data.draw(st.sampled_from([b"", b"a", b"b", b"long" * 300]))
        self._seed += 1
        value = data.draw(st.sampled_from([None, b"%d" % self._seed + bytes(nbytes)]))
        if value is None:
            self._model.sides[uid].pop((kind, key), None)
        else:
            self._model.sides[uid][kind, key] = value
        return PutSide(uid, kind, key, value)

    def _draw_batch(self, data: st.DataObject, uid: int, busy: set[int]) -> WriteBatch:
        records = self._model.records[uid]
        self._model.sequences[uid] += 1
        sequence = self._model.sequences[uid]
        held = st.lists(st.sampled_from(sorted(records)), unique=True, max_size=4)
        deletes = data.draw(held) if records else []
        for slot in deletes:
            del records[slot]
        amended = data.draw(held) if records else []
        amended = [slot for slot in amended if slot in records]
        attributes = data.draw(st.sampled_from([b"", b'{"a":1}', b" " * 3_000]))
        amends = [
            records[slot][0]._replace(sequence=sequence, attributes=attributes) for slot in amended
        ]
        for record in amends:
            records[record.slot] = (record, records[record.slot][1])
        slots = sorted(data.draw(st.sets(st.integers(0, 60), max_size=12)) - busy)
        busy.update(slots)
        puts = [
            Record(slot, data.draw(st.binary(max_size=12)), sequence, slot, attributes)
            for slot in slots
        ]
        seeds = range(self._seed, self._seed + len(puts))
        self._seed += len(puts)
        for record, seed in zip(puts, seeds, strict=True):
            records[record.slot] = (record, seed)
        return WriteBatch(uid, sequence, puts, rows(seeds) if puts else None, amends, deletes)

    @precondition(lambda self: len(self._model.blobs) > 1)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        uid = data.draw(st.sampled_from(sorted(self._model.blobs)))
        self._store.commit([DropIndex(uid)])
        del self._model.blobs[uid], self._model.records[uid], self._model.sides[uid]

    @rule(limit=st.integers(1, 20))
    def collect_garbage(self, limit: int) -> None:
        self._store.collect_garbage(limit)

    @rule()
    def reopen(self) -> None:
        self._store.close()
        self._backup = None
        self._store = LmdbStore.open(self._data, map_bytes=_MAP_BYTES)

    @precondition(lambda self: self._backup is None)
    @rule()
    def begin_backup(self) -> None:
        self._backup = self._store.begin_snapshot([], self._folder), deepcopy(self._model)

    @precondition(lambda self: self._backup is not None)
    @rule()
    def finish_backup(self) -> None:
        """It holds what there was when it began, whatever has happened since."""
        assert self._backup is not None
        snapshot, model = self._backup
        self._backup = None
        with tempfile.TemporaryDirectory() as folder:
            target = BackupTarget(Path(folder) / "backup", self._data)
            try:
                write_backup(snapshot, target, 0, Work())
            except SnapshotLostError:
                return
            finally:
                self._store.end_snapshot()
            restored = Path(folder) / "restored"
            restore_backup(target.path, restored, Work())
            store = LmdbStore.open(restored, map_bytes=_MAP_BYTES)
            model.check(store)
            store.close()

    @invariant()
    def store_and_model_agree(self) -> None:
        self._model.check(self._store)

    def teardown(self) -> None:
        self._store.close()
        self._dir.cleanup()


TestStoreAgainstDict = StoreAgainstDict.TestCase
TestStoreAgainstDict.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
