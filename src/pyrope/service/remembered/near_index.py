"""The vectors of one large scope: an engine of its own, searched off the loop in natural batches.

It is what every index is made of (`pyrope.engine.head_tail`, `pyrope.service.merging`): a head that
is scanned and, once a scan costs more than a search of one, a graph that is built and fed in the
background. Its rows are in shared memory. Nothing of it is on disk: after a restart the vectors
come from the entries' records, and the graph is built anew while scans answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrope.engine.base import Neighbours, SearchOptions, TailIndex
from pyrope.engine.batcher import Batcher, Piece
from pyrope.engine.factory import TailOptions, create_tail
from pyrope.engine.gate import Gate
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.engine.lanes import Lane
from pyrope.errors import NoIndexError
from pyrope.semantic.remembered.entry import Entry
from pyrope.service.merging import Merger, MergeServices
from pyrope.service.remembered.rows import Near
from pyrope.storage.vector_file import VectorFile
from pyrope.types import Float32Matrix, IndexSpec, IndexType, Metric

_RESTING_SECONDS, _QUIET_SECONDS = 2.0, 1.0
# A batch while other tenants search too: nothing interrupts it.
_CONTENDED_BATCH = 8
# A beam of 32 finds the nearest of 30,000 prompts 999 times in 1,000, in two thirds of the time
# that one of 64 takes for all 1,000; who misses one asks the model, as if it were not there.
_M, _EF_CONSTRUCTION, _EF = 16, 100, 32


@dataclass(frozen=True, slots=True)
class NearServices:
    """What it needs of the rest of the server.

    Attributes:
        lane: of its tenant.
        batch_max: queries in one batch.
        spawn: runs a coroutine as a task that the owner waits for.
    """

    lane: Lane
    merging: MergeServices
    tail_options: TailOptions
    batch_max: int
    monotonic: Callable[[], float]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class NearRequest(asyncio.Future[list[Near]]):
    """A query on its way; resolves to the entries nearest to it, nearest first."""

    weight = 1

    def __init__(self, client: object, query: NDArray[np.float32], count: int) -> None:
        super().__init__()
        self.client = client
        self.query = query
        self.count = count


class _Found:
    """Slots and scores of one query."""

    __slots__ = ("scores", "slots")

    def __init__(self, slots: list[int], scores: list[float]) -> None:
        self.slots = slots
        self.scores = scores


class NearIndex:
    """All methods are for the event loop.

    Args:
        of: the index whose responses these are; it lends its name and tenant.

    Raises:
        OSError: the system has no memory for it, or no file descriptor.
    """

    def __init__(self, of: IndexSpec, services: NearServices) -> None:
        self.spec = IndexSpec(
            uid=of.uid,
            tenant=of.tenant,
            name=of.name,
            dim=of.dim,
            metric=Metric.COSINE,
            type=IndexType.AUTO,
            m=_M,
            ef_construction=_EF_CONSTRUCTION,
            ef=_EF,
            created_at=of.created_at,
        )
        self.vectors = VectorFile.in_memory(of.dim, f"pyrope-remembered-{of.uid}")
        self.engine = HeadTailIndex(Metric.COSINE, of.dim, self.vectors)
        self.active_type = IndexType.FLAT
        self.closed = False
        self._services = services
        self._lane = services.lane
        self._entries: list[Entry | None] = []
        self._free: list[int] = []
        self._count = 0
        # Slots to be taken out of the engine, and the task that does so.
        self._gone: list[int] = []
        self._removing: asyncio.Task[None] | None = None
        self._removed: set[int] | None = None
        self._written_at = float("-inf")
        # The loop does as much for each recall as a search takes: more threads at a time would keep
        # it from the GIL, and hold up what they hurry (2,200 recalls a second instead of 1,900).
        threads = max(1, self._lane.threads // 2)
        self.batcher: Batcher[NearRequest, _Found] = Batcher(
            run=self._lane.submit,
            work=self._search_batch,
            deliver=self._deliver,
            threads=threads,
            parallel=threads,
            room=self._room,
        )
        self.merger = Merger(self, self._lane, services.merging)

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Memory beside the vectors of entries that are there."""
        beside = self.vectors.memory_bytes - 4 * self.spec.dim * self._count
        return max(beside, 0) + self.engine.memory_bytes + 8 * len(self._entries)

    # -- searching --------------------------------------------------------------------------------

    def search(self, client: object, query: NDArray[np.float32], count: int) -> NearRequest:
        """Find the entries nearest to a unit vector, shape (dim,)."""
        request = NearRequest(client, query, count)
        self.batcher.submit(request)
        return request

    def _search_batch(self, pieces: list[Piece[NearRequest]]) -> list[_Found]:
        """In a thread."""
        queries = np.stack([piece.request.query for piece in pieces])
        count = max(piece.request.count for piece in pieces)
        found: Neighbours = self.engine.search(queries, count, SearchOptions())
        return [
            _Found(slots, scores)
            for slots, scores in zip(found.slots.tolist(), found.scores.tolist(), strict=True)
        ]

    def _deliver(self, piece: Piece[NearRequest], found: _Found) -> None:
        request, entries = piece.request, self._entries
        near = [
            Near(entry, min(score, 1.0))
            for slot, score in zip(found.slots, found.scores, strict=True)
            if slot >= 0 and (entry := entries[slot]) is not None
        ]
        request.set_result(near[: request.count])

    def _room(self) -> int:
        return _CONTENDED_BATCH if self._lane.is_contended() else self._services.batch_max

    # -- changing ---------------------------------------------------------------------------------

    def vector(self, entry: Entry) -> NDArray[np.float32]:
        """Shape (dim,)."""
        row: NDArray[np.float32] = self.vectors.view()[entry.place].copy()
        return row

    def add(self, entries: Sequence[Entry], vectors: Float32Matrix) -> None:
        """Let searches find entries by their unit vectors.

        Raises:
            OSError: the system has no memory for them; nothing has changed.
        """
        # Those that were freed have been taken out of the engine.
        reused = self._free[-len(entries) :] if self._free else []
        first = len(self._entries)
        taken = [*reused, *range(first, first + len(entries) - len(reused))]
        slots = np.array(taken, np.int64)
        self.vectors.write(slots, vectors)
        del self._free[len(self._free) - len(reused) :]
        self._entries += [None] * (len(entries) - len(reused))
        for slot, entry in zip(taken, entries, strict=True):
            self._entries[slot] = entry
            entry.place = slot
        self.engine.append(slots, vectors)
        self._count += len(entries)
        self._written_at = self._services.monotonic()
        self.merger.nudge()

    def remove(self, entry: Entry) -> None:
        """Let no search find an entry any more; from this very turn of the loop on."""
        self._entries[entry.place] = None
        self._gone.append(entry.place)
        entry.place = -1
        self._count -= 1
        if self._removing is None and not self.closed:
            self._removing = self._services.spawn(self._remove())

    async def _remove(self) -> None:
        """Take slots out of the engine; what comes in meanwhile goes with the next round."""
        try:
            while self._gone:
                slots, self._gone = self._gone, []
                await self.gate.enter_exclusive()
                try:
                    await self._lane.run(self.engine.delete, np.array(slots, np.int64))
                    if self._removed is not None:
                        self._removed.update(slots)
                finally:
                    self.gate.leave_exclusive()
                self._free += slots
        finally:
            self._removing = None
        self.merger.nudge()

    # -- what its merger asks ---------------------------------------------------------------------

    @property
    def gate(self) -> Gate:
        return self.batcher.gate

    @property
    def in_use(self) -> bool:
        return self.batcher.busy or self._lane.idle_seconds < _QUIET_SECONDS

    @property
    def at_rest(self) -> bool:
        return self._services.monotonic() - self._written_at >= _RESTING_SECONDS

    def new_tail(self, kind: IndexType, count: int) -> TailIndex:
        return create_tail(self.spec, kind, self.vectors, count, self._services.tail_options)

    def watch_removals(self) -> set[int]:
        self._removed = set()
        return self._removed

    def watch_no_more(self) -> None:
        self._removed = None

    # -- closing ----------------------------------------------------------------------------------

    async def close(self) -> None:
        """Refuse what waits, wait for what runs, and give the memory back."""
        self.closed = True
        self.batcher.fail_queued(NoIndexError(f"the index '{self.spec.name}' has been dropped"))
        if self._removing is not None:
            await asyncio.wait([self._removing])
        await self.merger.stop()
        await self.gate.enter_exclusive()
        self.vectors.close()
        del self.engine, self.vectors
        self.gate.leave_exclusive()
