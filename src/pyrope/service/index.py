"""One open index: what it holds, and who may touch it when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyrope.clock import Clock
from pyrope.engine.base import SearchOptions, VectorIndex
from pyrope.engine.batcher import Batcher
from pyrope.engine.executor import Executor
from pyrope.engine.factory import create_engine
from pyrope.engine.filter import Filter, MaskCache
from pyrope.engine.gate import Gate
from pyrope.errors import BusyError, NoIndexError
from pyrope.metrics import ServerCounters
from pyrope.service.linking import link_all
from pyrope.service.search import Found, Hits, SearchRequest, run_batch
from pyrope.service.state import IndexState
from pyrope.service.writer import IndexWriter
from pyrope.service.writes import Write
from pyrope.storage.group_commit import GroupCommitter
from pyrope.storage.store import RecordColumns
from pyrope.storage.vector_file import VectorFile
from pyrope.types import IndexSpec, IndexType, Mask, Slots

# Taking a deleted vector's place in a graph costs about six times what a new place costs (2.4
# against 0.4 ms at 384 dimensions, benchmarks/micro_engine.py), so places are kept in reserve.
_GRAPH_REUSE_ABOVE = 0.1
# Of an engine that only takes note of rows; the loop binds their ids, with attributes in 5 ms.
_FLAT_SLICE = 256
# Before every sequence, so that a rebuilt graph counts as changed.
_NEVER_SAVED = -1


@dataclass(frozen=True, slots=True)
class IndexServices:
    """What an index needs of the rest of the server."""

    executor: Executor
    committer: GroupCommitter
    clock: Clock
    counters: Callable[[], ServerCounters]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    encode_id: Callable[[bytes], bytes]
    batch_max: int
    write_slice: int
    queue_limit: Callable[[], int]


class OpenIndex:
    """An index that is loaded. All methods are for the event loop, unless they say otherwise.

    Attributes:
        engine: holds a vector for each slot that `state.ids` binds.
        saved_sequence: write sequence at which the graph was last saved.
        closed: it has been dropped, or the server is stopping: what takes long gives up.

    Args:
        spec: what was asked for.
        vectors: the raw rows.
        engine: filled by the caller to match what `restore` is given.
        services: shared with the other indexes.
    """

    def __init__(
        self, spec: IndexSpec, vectors: VectorFile, engine: VectorIndex, services: IndexServices
    ) -> None:
        graph = spec.type is IndexType.HNSW
        self.spec = spec
        self.vectors = vectors
        self.engine = engine
        self.state = IndexState(
            services.encode_id, reuse_above=_GRAPH_REUSE_ABOVE if graph else 0.0
        )
        self.saved_sequence = 0
        self.closed = False
        self._services = services
        self._masks = MaskCache(self.state.columns)
        self._slice = services.write_slice if graph else _FLAT_SLICE
        self._writer = IndexWriter(
            spec.uid,
            spec.name,
            self,
            executor=services.executor,
            committer=services.committer,
            slice_size=self._slice,
            spawn=services.spawn,
            counters=services.counters,
        )
        self.batcher: Batcher[SearchRequest, Found] = Batcher(
            run=services.executor.run,
            work=self._search_batch,
            deliver=self._deliver,
            # Of a graph, one batch runs in each thread and one is ready for it, so that no thread
            # waits for the loop. A scan gains more from larger batches.
            parallel=services.executor.threads * (2 if graph else 1),
            batch_max=services.batch_max,
        )
        self._rebuild: asyncio.Task[None] | None = None
        self._changed_slots: set[int] | None = None

    # -- what it holds ----------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.state.ids)

    @property
    def memory_bytes(self) -> int:
        """Anonymous memory of engine, ids and attributes, in bytes (estimated)."""
        return self.engine.memory_bytes + self.state.memory_bytes

    @property
    def sequence(self) -> int:
        """Number of the last write that has been applied."""
        return self._writer.sequence

    @property
    def unsaved_changes(self) -> int:
        """Writes since the graph was saved."""
        return self.sequence - self.saved_sequence

    @property
    def queued_requests(self) -> int:
        return self.batcher.queued + len(self._writer)

    def vector(self, id_: bytes) -> bytes | None:
        """The vector of an id as it was sent, little-endian float32; None without one."""
        slot = self.state.ids.slot(id_)
        return None if slot is None else self.vectors.view()[slot].tobytes()

    def attributes_of(self, id_: bytes) -> bytes | None:
        slot = self.state.ids.slot(id_)
        return None if slot is None else self.state.attributes.get(slot)

    # -- searching --------------------------------------------------------------------------------

    def search(  # noqa: PLR0913 - a search has this many parts
        self,
        client: Hashable,
        query: bytes,
        count: int,
        options: SearchOptions,
        *,
        exact: bool = False,
        filter_: Filter | None = None,
        epsilon: float | None = None,
        with_attributes: bool = False,
        timeout: float | None = None,
    ) -> asyncio.Future[Hits]:
        """The hits nearest to `query`. Cancelling the future before the search starts drops it.

        Args:
            timeout: seconds after which the future gets BusyError instead.

        Raises:
            BusyError: too many requests wait for this index already.
        """
        self.check_queue()
        self.remove_expired()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Hits] = loop.create_future()
        now = self._services.clock.monotonic()
        request = SearchRequest(
            client, future, query, count, options, exact, filter_, epsilon, with_attributes, now
        )
        if timeout is not None:
            timer = loop.call_later(timeout, _time_out, future)
            future.add_done_callback(lambda _: timer.cancel())
        self._services.counters().searches_total += 1
        self.batcher.submit(request)
        return future

    def check_queue(self, requests: int = 1) -> None:
        """Raises BusyError unless so many more requests may wait for this index."""
        waiting = self.queued_requests
        if waiting + requests > self._services.queue_limit():
            raise BusyError(
                f"{waiting} requests wait for index '{self.spec.name}' already; retry with backoff"
            )

    def _search_batch(self, requests: list[SearchRequest]) -> list[Found | BaseException]:
        """In an executor's thread."""
        return run_batch(requests, self.engine, self._mask_of, self._services.clock.monotonic)

    def _mask_of(self, filter_: Filter) -> Mask:
        return self._masks.mask(filter_, self.state.ids.slot_count)

    def _deliver(self, request: SearchRequest, found: Found) -> None:
        """On the loop, before any write can come in between the search and the naming of hits."""
        slots, scores = found.slots, found.scores
        ids = self.state.ids.encoded(slots)
        if None in ids:  # expired while the search was under way
            kept = [position for position, id_ in enumerate(ids) if id_ is not None]
            slots = [slots[position] for position in kept]
            scores = [scores[position] for position in kept]
            ids = self.state.ids.encoded(slots)
        stored = self.state.attributes
        request.future.set_result(
            Hits(
                ids,  # type: ignore[arg-type]  # no None is left
                scores,
                [stored.get(slot) for slot in slots] if request.with_attributes else [],
                request.exact or self.spec.type is IndexType.FLAT,
                found.began_at - request.queued_at,
                found.ended_at - found.began_at,
            )
        )

    # -- writing ----------------------------------------------------------------------------------

    def write(self, write: Write) -> None:
        """Queue a write; its future resolves when it is durable and every search sees it.

        Cancelling the future before the write's batch has begun drops it. The future raises
        MisconfError when the disk refuses and NoIndexError when the index is dropped first.

        Raises:
            BusyError: too many requests wait for this index already.
        """
        self.check_queue()
        self.remove_expired()
        self._writer.submit(write)

    @property
    def gate(self) -> Gate:
        return self.batcher.gate

    @property
    def searches_waiting(self) -> bool:
        return self.batcher.busy

    def note_changed(self, slots: Sequence[int]) -> None:
        if self._changed_slots is not None:
            self._changed_slots.update(slots)

    def remove_expired(self) -> None:
        """Take out what has expired by now. From here on nobody can name it."""
        due = self.state.next_expiry_ms()
        if due is None:
            return
        now_ms = int(self._services.clock.wall() * 1000)
        if due <= now_ms:
            slots = self.state.take_expired(now_ms, self._writer.touched)
            if slots:
                self._services.counters().vectors_expired_total += len(slots)
                self._writer.delete_expired(slots)

    # -- rebuilding -------------------------------------------------------------------------------

    async def rebuild(self) -> bool:
        """Replace the engine with a fresh one without tombstones, while this one goes on serving.

        Vectors are linked into the fresh engine piece by piece; what is written meanwhile is noted
        and caught up with, the last of it with the index to itself. Returns whether there was
        anything to do.

        Raises:
            NoIndexError: the index was dropped meanwhile, or the server is stopping.
        """
        while self._rebuild is not None:
            await asyncio.wait([self._rebuild])
        if self.closed:
            raise _dropped(self.spec)
        if not self.engine.deleted_count:
            return False
        self._rebuild = self._services.spawn(self._build_fresh())
        self._rebuild.add_done_callback(self._rebuilt)
        # Shielded: a client that goes away does not undo an hour's work.
        await asyncio.shield(self._rebuild)
        if self.closed:
            raise _dropped(self.spec)
        return True

    def _rebuilt(self, _: object) -> None:
        self._rebuild = None

    @property
    def rebuilding(self) -> bool:
        return self._rebuild is not None

    async def _build_fresh(self) -> None:
        fresh = create_engine(self.spec, self.vectors, len(self))
        changed: set[int] = set()
        self._changed_slots = changed
        try:
            await self._link(fresh, np.flatnonzero(self.state.ids.bound_slots()))
            while len(changed) > self._slice and not self.closed:
                self._changed_slots, behind = set(), changed
                changed = self._changed_slots
                await self._catch_up(fresh, behind)
            if self.closed:
                return
            await self.gate.enter_exclusive()
            try:
                if not self.closed:
                    await self._catch_up(fresh, changed)
                    self.engine = fresh
                    self.saved_sequence = _NEVER_SAVED
            finally:
                self.gate.leave_exclusive()
        finally:
            self._changed_slots = None

    async def _link(self, fresh: VectorIndex, slots: Slots) -> None:
        await link_all(
            self._services.executor, fresh, self.vectors, slots, go_on=lambda: not self.closed
        )

    async def _catch_up(self, fresh: VectorIndex, slots: set[int]) -> None:
        """Bring slots of a fresh engine to what they are now."""
        bound = self.state.ids.bound_slots()
        changed = np.fromiter(slots, np.int64, len(slots))
        await self._services.executor.run(fresh.delete, changed)
        await self._link(fresh, changed[bound[changed]])

    # -- restoring and closing --------------------------------------------------------------------

    def restore(self, columns: RecordColumns, damaged: Slots) -> None:
        """Take up what the store holds; in any thread, before anyone sees the index.

        What has expired or is damaged is left out, and the next write deletes it from the store.

        Args:
            damaged: slots whose row is not the one that was written.
        """
        now_ms = int(self._services.clock.wall() * 1000)
        self._writer.restore(columns.sequence, self.state.restore(columns, damaged, now_ms))

    def refuse_queued(self) -> None:
        """Refuse the requests that have not started, as the index is about to be dropped."""
        error = _dropped(self.spec)
        self.batcher.fail_queued(error)
        self._writer.fail_queued(error)

    async def drain(self) -> None:
        """Return once every write that was queued is through."""
        await self._writer.drain()

    async def close(self) -> None:
        """Refuse what waits, wait for what runs, and give the memory back.

        The index is not used after this.
        """
        self.closed = True
        self.refuse_queued()
        await self.drain()
        if self._rebuild is not None:
            await asyncio.wait([self._rebuild])
        await self.gate.enter_exclusive()
        # Not left to the garbage collector, which may take its time: a graph is large, and a mapped
        # file holds a descriptor.
        del self.engine, self.vectors
        self.gate.leave_exclusive()


def _dropped(spec: IndexSpec) -> NoIndexError:
    return NoIndexError(f"the index '{spec.name}' has been dropped, or the server is stopping")


def _time_out(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(BusyError("timeout"))
