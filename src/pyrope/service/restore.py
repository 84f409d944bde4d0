"""Bringing an index back: records, rows, and a graph that is loaded or built anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyrope.engine.base import DamagedIndexError, VectorIndex
from pyrope.engine.executor import Executor
from pyrope.engine.factory import create_engine, load_engine
from pyrope.log import get_logger
from pyrope.service.graphs import graph_meta
from pyrope.service.index import IndexServices, OpenIndex
from pyrope.service.linking import link_all
from pyrope.storage.codec import damaged_rows
from pyrope.storage.graph_file import load_graph_meta, verify_graph
from pyrope.storage.store import RecordColumns, Store
from pyrope.storage.vector_file import VectorFile
from pyrope.types import IndexSpec, IndexType, Slots

_log = get_logger(__name__)

_PROGRESS_INTERVAL_S = 2.0


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

    Vectors whose record or row is damaged are left out; the log says which.
    """
    columns = await storage.run(store.load, spec.uid)
    vectors = await storage.run(store.vectors, spec.uid, spec.dim)
    progress.total_vectors += len(columns)
    damaged = await storage.run(damaged_rows, columns, vectors.view())
    if len(damaged) or len(columns.damaged):
        _report_damage(spec, columns, damaged)
    index = OpenIndex(spec, vectors, create_engine(spec, vectors), services)
    await services.executor.run(index.restore, columns, damaged)
    live = np.flatnonzero(index.state.ids.bound_slots())
    path = store.graph_path(spec.uid)
    if spec.type is IndexType.HNSW and path is not None and len(live):
        index.engine, missing, saved_at = await services.executor.run(
            _load_graph, path, spec, vectors, index, columns, live
        )
        index.saved_sequence = saved_at
    else:
        missing = live
    progress.loaded_vectors += len(live) - len(missing)
    await _link(index.engine, missing, vectors, services, progress, spec)
    return index


def _load_graph(
    path: Path,
    spec: IndexSpec,
    vectors: VectorFile,
    index: OpenIndex,
    columns: RecordColumns,
    live: Slots,
) -> tuple[VectorIndex, Slots, int]:
    """The saved graph, the slots that it lacks, and the sequence at which it was saved.

    Where there is no graph that can be used: an empty engine, all slots, and 0.
    """
    saved = load_graph_meta(path)
    if isinstance(saved, str):
        reason: str | None = saved
    else:
        expected = graph_meta(spec, columns.sequence, index.state.ids.slot_count)
        reason = verify_graph(saved, expected)
        if reason is None:
            try:
                engine, missing = load_engine(spec, vectors, str(saved.file), live)
            except (DamagedIndexError, OSError) as error:
                reason = f"damaged: {error}"
            else:
                return engine, missing, saved.meta.sequence
    _log.warning("graph is built anew", index=spec.name, reason=reason, vectors=len(live))
    return index.engine, live, 0


async def _link(
    engine: VectorIndex,
    slots: Slots,
    vectors: VectorFile,
    services: IndexServices,
    progress: Progress,
    spec: IndexSpec,
) -> None:
    """Add vectors to an engine, and say from time to time how far that is."""
    monotonic = services.clock.monotonic
    began = told_at = monotonic()
    done = 0

    def linked(count: int) -> None:
        nonlocal done, told_at
        done += count
        progress.loaded_vectors += count
        now = monotonic()
        if now - told_at >= _PROGRESS_INTERVAL_S:
            told_at = now
            left = (len(slots) - done) * (now - began) / done
            _log.info(
                "building",
                index=spec.name,
                vectors=done,
                of=len(slots),
                percent=round(100 * done / len(slots)),
                seconds_left=round(left),
            )

    await link_all(services.executor, engine, vectors, slots, linked=linked)


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
