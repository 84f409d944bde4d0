"""How the queries of an engine were answered, counted in whatever thread answers them."""

from __future__ import annotations

import threading

from pyrope.engine.base import EngineStatistics


class QueryCounters:
    """Totals since it was made; see `EngineStatistics` for what they count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = EngineStatistics()

    def add(self, *, graph: int = 0, scan: int = 0, widened: int = 0, fallback: int = 0) -> None:
        with self._lock:
            self._total += EngineStatistics(graph, scan, widened, fallback)

    def read(self) -> EngineStatistics:
        return self._total
