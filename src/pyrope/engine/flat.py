"""FLAT: no structure at all, every search a full scan (FAISS kernels). Exact, and cheap to write.

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

    # What a bound on distance computations should mean for an exact engine is not decided: it
    # could only make an answer wrong. So FLAT honours none.
    honours: frozenset[str] = frozenset()
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
        return self.search_exact(queries, k, allowed)

    def search_exact(
        self, queries: Float32Matrix, k: int, allowed: Mask | None = None
    ) -> Neighbours:
        with self._lock:
            self._queries_total += len(queries)
        return self._scan.search(queries, k, allowed)

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
