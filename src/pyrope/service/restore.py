"""Bringing an index back: records, rows, and the saved tail, if there is one.

What the tail lacks is in the head, so that an index answers in full as soon as its records are
read, and the merger catches up while it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyrope.engine.base import DamagedIndexError, TailIndex
from pyrope.engine.executor import Executor
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.log import get_logger
from pyrope.service import aliases
from pyrope.service.graphs import graph_meta
from pyrope.service.index import IndexServices, OpenIndex
from pyrope.service.remembered import memory
from pyrope.storage.codec import damaged_rows
from pyrope.storage.graph_file import load_graph_meta, verify_graph
from pyrope.storage.store import RecordColumns, Store
from pyrope.types import IndexSpec, IndexType, Slots

_log = get_logger(__name__)

_MISSING = "missing"


@dataclass(slots=True)
class Progress:
    """How far loading is, in vectors."""

    loaded_vectors: int = 0
    total_vectors: int = 0


async def restore_index(
    spec: IndexSpec,
    store: Store,
    storage: Executor,
    services: IndexServices,
    progress: Progress,
) -> OpenIndex:
    """Open an index as the store holds it.

    Vectors whose record or row is damaged are left out; the log says which. So are side records.
    """
    columns = await storage.run(store.load, spec.uid)
    vectors = await storage.run(store.vectors, spec.uid, spec.dim)
    progress.total_vectors += len(columns)
    damaged = await storage.run(damaged_rows, columns, vectors.view())
    if len(damaged) or len(columns.damaged):
        _report_damage(spec, columns, damaged)
    executor = services.lanes.lane(spec.tenant)
    index = OpenIndex(spec, vectors, HeadTailIndex(spec.metric, spec.dim, vectors), services)
    await executor.run(index.restore, columns, damaged)
    side = await storage.run(store.load_side, spec.uid)
    if side.damaged:
        _log.error("side records are damaged on disk and left out", index=spec.name, n=side.damaged)
    kept = [record for record in side.records if record.kind == aliases.SIDE_KIND]
    await executor.run(index.aliases.restore, kept)
    remembered = [record for record in side.records if record.kind in memory.KINDS]
    others = [record for record in side.records if record.kind not in memory.KINDS]
    # Of responses there may be a gigabyte: each is read and let go.
    side.records.clear()
    if remembered:
        await executor.run(index.memory.decode, remembered)
        await index.memory.restore()
    live = await executor.run(_live_slots, index)
    tail: TailIndex | str = _MISSING
    path = store.graph_path(spec.uid)
    if spec.type is not IndexType.FLAT and path is not None and len(live):
        tail = await executor.run(_load_tail, path, index, columns, live)
    found = None if isinstance(tail, str) else tail
    await executor.run(index.engine.restore, live, found)
    index.tail_restored()
    await index.clusters.restore(others)
    # An index that is too small for a tail never had one.
    if isinstance(tail, str) and (tail != _MISSING or index.merger.running):
        _log.warning("graph is built anew", index=spec.name, reason=tail, vectors=len(live))
    progress.loaded_vectors += len(live)
    return index


def _live_slots(index: OpenIndex) -> Slots:
    return np.flatnonzero(index.state.ids.bound_slots())


def _load_tail(
    path: Path, index: OpenIndex, columns: RecordColumns, live: Slots
) -> TailIndex | str:
    """The saved tail, without what it holds wrongly; or why there is none that can be used."""
    spec = index.spec
    saved = load_graph_meta(path)
    if isinstance(saved, str):
        return saved
    kind = IndexType(saved.meta.type)
    if spec.type not in (kind, IndexType.AUTO):
        return f"of type {kind.value}"
    expected = graph_meta(spec, kind, columns.sequence, index.state.ids.slot_count)
    reason = verify_graph(saved, expected)
    if reason is not None:
        return reason
    # A record that is older than the file names a row that the engine had seen by then.
    unchanged = columns.slots[columns.sequences <= saved.meta.sequence]
    tail = index.new_tail(kind, len(live))
    try:
        tail.load(str(saved.file), live, np.intersect1d(unchanged, live))
    except (DamagedIndexError, OSError) as error:
        return f"damaged: {error}"
    index.active_type = kind
    return tail


def _report_damage(spec: IndexSpec, columns: RecordColumns, damaged: Slots) -> None:
    by_slot = dict(zip(columns.slots.tolist(), columns.ids, strict=True))
    ids = [by_slot[slot].decode(errors="replace") for slot in damaged.tolist()[:10]]
    _log.error(
        "vectors are damaged on disk and left out",
        index=spec.name,
        records=len(columns.damaged),
        rows=len(damaged),
        first_ids=ids,
    )
