"""Records and batches that the storage tests share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pyrope.storage.store import Record, Store, WriteBatch
from pyrope.types import Float32Matrix

DIM = 8


def rows(seeds: Iterable[int], dim: int = DIM) -> Float32Matrix:
    """One row for each seed, shape (n, dim); the same seed gives the same row."""
    return np.array(
        [np.random.default_rng(seed).standard_normal(dim) for seed in seeds], np.float32
    ).reshape(-1, dim)


def record(slot: int, *, id_: bytes = b"", sequence: int = 1, attributes: bytes = b"") -> Record:
    return Record(slot, id_ or b"id-%d" % slot, sequence, 0, attributes)


def puts(uid: int, slots: Iterable[int], *, dim: int = DIM, sequence: int = 1) -> WriteBatch:
    """New records at `slots`; the slot is the seed of its row."""
    slots = list(slots)
    records = [record(slot, sequence=sequence) for slot in slots]
    return WriteBatch(uid, sequence, records, rows(slots, dim))


def stored_records(store: Store, uid: int) -> dict[int, Record]:
    """What the store holds of an index, by slot."""
    columns = store.load(uid)
    assert not len(columns.damaged)
    return {
        slot: Record(slot, id_, sequence, expires_at_ms, attributes)
        for slot, id_, sequence, expires_at_ms, attributes in zip(
            columns.slots.tolist(),
            columns.ids,
            columns.sequences.tolist(),
            columns.expires_at_ms.tolist(),
            columns.attributes,
            strict=True,
        )
    }


def open_descriptors() -> int:
    """Files that this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))
