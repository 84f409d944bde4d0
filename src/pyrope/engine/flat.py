"""FLAT: no structure at all, every search a full scan (FAISS kernels). Exact, and cheap to write.

A search with `max_scans` looks at so many rows only, those of the lowest slots that take part: it
is exact among them, and knows nothing of the others.

Its vectors are the rows of the `VectorSource`; it holds five bytes a slot of its own.
"""

from __future__ import annotations

import threading

from pyrope.engine.base import (
    EngineStatistics,
    Neighbours,
    PreparedUpsert,
    SearchOptions,
    VectorSource,
)
from pyrope.engine.exact import ExactScan
from pyrope.engine.normalise import row_norms
from pyrope.engine.slot_table import SlotTable
from pyrope.types import Float32Matrix, Mask, Metric, Slots


class FlatIndex:
    """The engine of `IndexType.FLAT` (see `VectorIndex`)."""

    honours = frozenset({"max_scans"})
    deleted_count = 0

    def __init__(self, metric: Metric, dim: int, source: VectorSource) -> None:
        self.metric = metric
        self.dim = dim
        self._table = SlotTable()
        self._scan = ExactScan(metric, dim, source, self._table)
        self._lock = threading.Lock()
        self._queries_total = 0

    def search(
        self, queries: Float32Matrix, k: int, options: SearchOptions, allowed: Mask | None = None
    ) -> Neighbours:
        self._count(queries)
        return self._scan.search(queries, k, allowed, limit=options.max_scans)

    def search_exact(
        self, queries: Float32Matrix, k: int, allowed: Mask | None = None
    ) -> Neighbours:
        self._count(queries)
        return self._scan.search(queries, k, allowed)

    def _count(self, queries: Float32Matrix) -> None:
        with self._lock:
            self._queries_total += len(queries)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def memory_bytes(self) -> int:
        return self._table.nbytes

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(scan_queries_total=self._queries_total)

    def prepare_upsert(self, slots: Slots, vectors: Float32Matrix) -> PreparedUpsert:
        self._table.put(slots, row_norms(vectors))
        return PreparedUpsert(slots[:0], vectors[:0])

    def insert(self, part: PreparedUpsert) -> None:
        """Nothing: `prepare_upsert` does it all, and leaves no parts."""

    def upsert(self, slots: Slots, vectors: Float32Matrix) -> None:
        self.prepare_upsert(slots, vectors)

    def delete(self, slots: Slots) -> None:
        self._table.remove(slots)
