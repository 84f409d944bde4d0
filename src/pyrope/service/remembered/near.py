"""The vectors of all scopes of one index, each scope by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pyrope.log import get_logger
from pyrope.semantic.remembered.entry import Entry
from pyrope.service.remembered.near_index import NearIndex, NearServices
from pyrope.service.remembered.rows import SCANNED_VALUES, Near, Rows
from pyrope.types import Float32Matrix, IndexSpec

_log = get_logger(__name__)

# Of a scope beside its rows (CPython 3.11): partition, dictionary, matrix, list.
_SCOPE_BYTES = 900
# Vectors handed to an engine in one turn of the loop: a millisecond.
_AT_ONCE = 512
# Estimating the engines' memory takes some microseconds each.
_ESTIMATE_AGE_S = 0.1


class NearSearch:
    """All methods are for the event loop.

    Args:
        services: of the index's tenant; made when the first scope is large enough.
    """

    def __init__(
        self, spec: IndexSpec, services: Callable[[], NearServices], monotonic: Callable[[], float]
    ) -> None:
        self._spec = spec
        self._services = services
        self._monotonic = monotonic
        self._scopes: dict[bytes, Rows[Entry] | NearIndex] = {}
        self._large: list[NearIndex] = []
        self._rows_bytes = 0
        self._large_bytes = 0
        self._estimated_at = float("-inf")
        self._most_rows = max(SCANNED_VALUES // spec.dim, 1)
        self._closing: set[asyncio.Task[None]] = set()
        self.additions = 0

    @property
    def nbytes(self) -> int:
        """Memory beside the vectors of the entries; an estimate a tenth of a second old."""
        if self._large and self._monotonic() - self._estimated_at >= _ESTIMATE_AGE_S:
            self._large_bytes = sum([one.nbytes for one in self._large])
            self._estimated_at = self._monotonic()
        return self._rows_bytes + self._large_bytes + _SCOPE_BYTES * len(self._scopes)

    def nearest(
        self, client: object, scope: bytes, query: NDArray[np.float32], count: int
    ) -> list[Near] | asyncio.Future[list[Near]]:
        """The entries of a scope nearest to a unit vector, nearest first.

        Args:
            client: whose turn it takes among those that search.
        """
        there = self._scopes.get(scope)
        if there is None:
            return []
        if isinstance(there, Rows):
            return list(map(Near, *there.nearest(query, count)))
        return there.search(client, query, count)

    def vector(self, entry: Entry) -> NDArray[np.float32] | None:
        """The vector of an entry, shape (dim,), if it is there."""
        there = self._scopes.get(entry.scope)
        return None if there is None or entry.place < 0 else there.vector(entry)

    def add(self, entry: Entry, vector: NDArray[np.float32]) -> None:
        """Let an entry be found by its unit vector."""
        self.additions += 1
        there = self._scopes.get(entry.scope)
        if there is None:
            there = self._scopes[entry.scope] = Rows(self._spec.dim)
            self._rows_bytes += there.nbytes
        if isinstance(there, Rows) and len(there) < self._most_rows:
            self._rows_bytes -= there.nbytes
            there.add(entry, vector)
            self._rows_bytes += there.nbytes
            return
        try:
            if isinstance(there, Rows):
                there = self._enlarge(entry.scope, there)
            there.add([entry], vector[None])
        except OSError as error:
            # Its own prompt finds it all the same, and the next start tries again.
            _log.error(
                "a remembered response cannot be found by near prompts",
                index=self._spec.name,
                error=str(error),
            )

    async def add_many(
        self, scope: bytes, entries: Sequence[Entry], vectors: Float32Matrix
    ) -> None:
        """Add what was remembered before, to a scope that has nothing yet."""
        if len(entries) <= self._most_rows:
            for entry, vector in zip(entries, vectors, strict=True):
                self.add(entry, vector)
            return
        large = self._scopes[scope] = NearIndex(self._spec, self._services())
        self._large.append(large)
        for start in range(0, len(entries), _AT_ONCE):
            large.add(entries[start : start + _AT_ONCE], vectors[start : start + _AT_ONCE])
            await asyncio.sleep(0)

    def remove(self, entry: Entry) -> None:
        """Let an entry be found no more."""
        there = self._scopes.get(entry.scope)
        if there is None or entry.place < 0:
            return
        if isinstance(there, NearIndex):
            there.remove(entry)
            if not len(there):
                del self._scopes[entry.scope]
                self._large.remove(there)
                self._close(there)
            return
        self._rows_bytes -= there.nbytes
        there.remove(entry)
        if len(there):
            self._rows_bytes += there.nbytes
        else:
            del self._scopes[entry.scope]

    def nudge(self) -> None:
        """See whether engines have something to merge; to be called now and then."""
        for one in self._large:
            one.merger.nudge()

    async def close(self) -> None:
        """Wait for what runs, and give the memory back."""
        large, self._large = self._large, []
        self._scopes.clear()
        self._rows_bytes = 0
        for one in large:
            await one.close()
        if self._closing:
            await asyncio.wait(self._closing)

    def _enlarge(self, scope: bytes, rows: Rows[Entry]) -> NearIndex:
        """Give a scope an engine of its own. Raises OSError; nothing has changed then."""
        large = NearIndex(self._spec, self._services())
        places = [entry.place for entry in rows.entries]
        try:
            large.add(rows.entries, rows.matrix)
        except OSError:
            for entry, place in zip(rows.entries, places, strict=True):
                entry.place = place
            large.vectors.close()
            raise
        self._rows_bytes -= rows.nbytes
        self._scopes[scope] = large
        self._large.append(large)
        return large

    def _close(self, large: NearIndex) -> None:
        task = asyncio.get_running_loop().create_task(large.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
