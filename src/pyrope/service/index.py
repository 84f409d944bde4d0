"""One open index: what it holds, and who may touch it when."""

from __future__ import annotations

import asyncio
import heapq
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from pyrope.clock import Clock
from pyrope.engine.attributes import parse_attributes
from pyrope.engine.base import SearchOptions, VectorIndex
from pyrope.engine.batcher import Batcher
from pyrope.engine.columns import AttributeColumns
from pyrope.engine.executor import Executor
from pyrope.engine.factory import create_engine
from pyrope.engine.filter import Filter, MaskCache
from pyrope.errors import BusyError, MisconfError, NoIndexError, PyropeError
from pyrope.log import get_logger
from pyrope.metrics import ServerCounters
from pyrope.service.ids import IdMap
from pyrope.service.linking import insert_parallel, link_all
from pyrope.service.search import Found, Hits, SearchRequest, run_batch
from pyrope.service.writes import Attributes, Plan, Stored, Write, WriteQueue, plan
from pyrope.storage.group_commit import GroupCommitter
from pyrope.storage.store import RecordColumns, WriteBatch
from pyrope.storage.vector_file import VectorFile
from pyrope.types import IndexSpec, IndexType, Mask, Slots

_log = get_logger(__name__)

# A plan is made in one go on the loop, at 1 to 2 us a vector.
_PLAN_MAX_VECTORS = 4096
# Taking a deleted vector's place in a graph costs about six times what a new place costs (2.4
# against 0.4 ms at 384 dimensions, benchmarks/micro_engine.py), so places are kept in reserve.
_GRAPH_REUSE_ABOVE = 0.1
# A slice of an engine that only copies rows: about 1 ms at 384 dimensions.
_FLAT_SLICE = 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IndexServices:
    """What an index needs of the rest of the server."""

    executor: Executor
    committer: GroupCommitter
    clock: Clock
    counters: Callable[[], ServerCounters]
    spawn: Callable[[Any], asyncio.Task[Any]]
    encode_id: Callable[[bytes], bytes]
    batch_max: int
    write_slice: int
    queue_limit: Callable[[], int]


class OpenIndex:
    """An index that is loaded. All methods are for the event loop.

    Args:
        spec: what was asked for.
        vectors: the raw rows.
        engine: filled to match `ids`.
        services: shared with the other indexes.
    """

    def __init__(
        self, spec: IndexSpec, vectors: VectorFile, engine: VectorIndex, services: IndexServices
    ) -> None:
        graph = spec.type is IndexType.HNSW
        self.spec = spec
        self.vectors = vectors
        self.engine = engine
        self.ids = IdMap(services.encode_id, reuse_above=_GRAPH_REUSE_ABOVE if graph else 0.0)
        self.columns = AttributeColumns()
        self.attributes: dict[int, bytes] = {}
        self.expires_at_ms: dict[bytes, int] = {}
        self.sequence = 0
        self.saved_sequence = 0
        self._next_sequence = 0
        self._in_batch: set[bytes] = set()
        self._changed_slots: set[int] | None = None
        self._rebuild: asyncio.Task[None] | None = None
        self.dropped = False
        self._services = services
        self._slice = services.write_slice if graph else _FLAT_SLICE
        self._expiry_heap: list[tuple[int, bytes]] = []
        self._masks = MaskCache(self.columns)
        self._writes = WriteQueue()
        self._writer: asyncio.Task[None] | None = None
        self._attribute_bytes = 0
        self._unreclaimed: list[int] = []
        self.batcher: Batcher[SearchRequest, Found] = Batcher(
            run=services.executor.run,
            work=self._search_batch,
            deliver=self._deliver,
            parallel=services.executor.threads,
            batch_max=services.batch_max,
        )

    # -- what it holds ----------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def memory_bytes(self) -> int:
        """Anonymous memory of engine, ids and attributes, in bytes (estimated)."""
        return (
            self.engine.memory_bytes
            + self.ids.memory_bytes
            + self.columns.nbytes
            + self._attribute_bytes
            + sys.getsizeof(self.attributes)
            + sys.getsizeof(self.expires_at_ms)
        )

    @property
    def expiring_count(self) -> int:
        return len(self.expires_at_ms)

    @property
    def queued_requests(self) -> int:
        return self.batcher.queued + len(self._writes)

    def vector(self, id_: bytes) -> bytes | None:
        """The vector of an id as it was sent, little-endian float32; None without one."""
        slot = self.ids.slot(id_)
        return None if slot is None else self.vectors.view()[slot].tobytes()

    def attributes_of(self, id_: bytes) -> bytes | None:
        slot = self.ids.slot(id_)
        return None if slot is None else self.attributes.get(slot)

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
        self._check_queue()
        self.remove_expired()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Hits] = loop.create_future()
        now = self._services.clock.monotonic()
        request = SearchRequest(
            client, future, query, count, options, exact, filter_, epsilon, with_attributes, now
        )
        if timeout is not None:
            request.timer = loop.call_later(timeout, _time_out, future)
        self._services.counters().searches_total += 1
        self.batcher.submit(request)
        return future

    def _check_queue(self) -> None:
        waiting = self.queued_requests
        if waiting >= self._services.queue_limit():
            raise BusyError(
                f"{waiting} requests wait for index '{self.spec.name}' already; "
                "retry with backoff"
            )

    def _search_batch(self, requests: list[SearchRequest]) -> list[Found | BaseException]:
        """In an executor's thread."""
        return run_batch(requests, self.engine, self._mask_of, self._services.clock.monotonic)

    def _mask_of(self, filter_: Filter) -> Mask:
        return self._masks.mask(filter_, self.ids.slot_count)

    def _deliver(self, request: SearchRequest, found: Found) -> None:
        """On the loop, before any write can come in between the search and the naming of hits."""
        if request.timer is not None:
            request.timer.cancel()
        slots, scores = found.slots, found.scores
        ids = self.ids.encoded(slots)
        if None in ids:  # expired while the search was under way
            kept = [position for position, id_ in enumerate(ids) if id_ is not None]
            slots = [slots[position] for position in kept]
            scores = [scores[position] for position in kept]
            ids = self.ids.encoded(slots)
        stored = self.attributes
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
        self._check_queue()
        self.remove_expired()
        self._writes.add(write)
        if self._writer is None:
            self._writer = self._services.spawn(self._write_all())

    async def _write_all(self) -> None:
        """Run batches of writes until none waits."""
        try:
            # One turn of the loop, so that writes that came in together share the first commit.
            await asyncio.sleep(0)
            while writes := self._writes.take(_PLAN_MAX_VECTORS):
                await self._write_batch(writes)
        finally:
            self._writer = None

    async def _write_batch(self, writes: list[Write]) -> None:
        self.remove_expired()
        self._in_batch = {id_ for write in writes for id_ in write.ids}
        try:
            await self._commit_and_apply(writes)
        except MisconfError as error:
            _refuse(writes, lambda: MisconfError(error.message))
        except BaseException as error:
            _refuse(writes, partial(_unfinished, error))
            if not isinstance(error, Exception):
                raise
            _log.exception("a write failed after it was accepted", index=self.spec.name)
        finally:
            self._in_batch = set()

    async def _commit_and_apply(self, writes: list[Write]) -> None:
        made = plan(
            writes, Stored(self.ids, self.attributes, self.expires_at_ms, self._next_sequence)
        )
        if made.changes_anything:
            self._next_sequence += len(made.puts) + len(made.amends) + len(made.removed)
            reclaimed, self._unreclaimed = self._unreclaimed, []
            batch = WriteBatch(
                uid=self.spec.uid,
                sequence=self._next_sequence,
                puts=made.puts,
                vectors=made.vectors(),
                amends=made.amends,
                deletes=made.left + reclaimed,
            )
            try:
                await self._services.committer.commit(batch)
            except MisconfError:
                self.ids.give_back(made.allocated())
                self._unreclaimed += reclaimed
                raise
            self.ids.give_back(reclaimed)
            await self._apply(made, batch)
            self.ids.give_back(made.left)
            self.sequence = batch.sequence
        for write, answer, _ in made.answers:
            if not write.future.done():
                write.future.set_result(answer)

    async def _apply(self, made: Plan, batch: WriteBatch) -> None:
        """Bring engine, ids, attributes and expiries to what has been committed."""
        counters = self._services.counters()
        if made.removed or made.amended:
            await self.batcher.gate.enter_exclusive()
            try:
                slots = [self._forget(id_) for id_ in made.removed]
                for slot, attributes in made.amended:
                    self._set_attributes(slot, attributes)
                if slots:
                    await self._delete(slots)
            finally:
                self.batcher.gate.leave_exclusive()
            counters.vectors_deleted_total += len(made.removed)
        if batch.vectors is None:
            return
        answers = iter(made.answers)
        pending = next(answers, None)
        for start in range(0, len(made.puts), self._slice):
            stop = min(start + self._slice, len(made.puts))
            await self.batcher.gate.enter_exclusive()
            try:
                await self._insert(made, batch, start, stop)
            finally:
                self.batcher.gate.leave_exclusive()
            while pending is not None and pending[2] <= stop:
                write, answer, _ = pending
                if not write.future.done():
                    write.future.set_result(answer)
                pending = next(answers, None)
        counters.vectors_written_total += len(made.puts)

    async def _insert(self, made: Plan, batch: WriteBatch, start: int, stop: int) -> None:
        """One slice of puts, with the index to itself."""
        records = made.puts[start:stop]
        vectors = batch.vectors
        assert vectors is not None
        slots = np.fromiter((record.slot for record in records), np.int64, len(records))
        left = [slot for record in records if (slot := self.ids.slot(record.id)) is not None]
        if left:
            await self._delete(left)
        await insert_parallel(self._services.executor, self.engine, slots, vectors[start:stop])
        if self._changed_slots is not None:
            self._changed_slots.update(slots.tolist())
        for record, attributes in zip(records, made.parsed[start:stop], strict=True):
            old = self.ids.bind(record.id, record.slot)
            if old is not None:
                self._set_attributes(old, None)
            if attributes.raw:
                self._set_attributes(record.slot, attributes)
            self._set_expiry(record.id, record.expires_at_ms)

    async def _delete(self, slots: Sequence[int]) -> None:
        array: Slots = np.array(slots, np.int64)
        await self._services.executor.run(self.engine.delete, array)
        if self._changed_slots is not None:
            self._changed_slots.update(slots)

    def _forget(self, id_: bytes) -> int:
        slot = self.ids.release(id_)
        self._set_attributes(slot, None)
        self.expires_at_ms.pop(id_, None)
        return slot

    def _set_attributes(self, slot: int, attributes: Attributes | None) -> None:
        old = self.attributes.pop(slot, None)
        if old is not None:
            self._attribute_bytes -= sys.getsizeof(old)
            self.columns.clear(slot)
        if attributes is not None and attributes.raw:
            self.attributes[slot] = attributes.raw
            self._attribute_bytes += sys.getsizeof(attributes.raw)
            self.columns.set(slot, attributes.parsed)

    def _set_expiry(self, id_: bytes, expires_at_ms: int) -> None:
        if expires_at_ms:
            self.expires_at_ms[id_] = expires_at_ms
            heapq.heappush(self._expiry_heap, (expires_at_ms, id_))
        elif self.expires_at_ms:
            self.expires_at_ms.pop(id_, None)
        # Entries of ids that were updated or removed stay until they come up; keep them few.
        if len(self._expiry_heap) > 2 * len(self.expires_at_ms) + 1024:
            self._expiry_heap = [(at, key) for key, at in self.expires_at_ms.items()]
            heapq.heapify(self._expiry_heap)

    # -- expiry -----------------------------------------------------------------------------------

    def remove_expired(self) -> None:
        """Take out what has expired by now. From here on nobody can name it."""
        heap = self._expiry_heap
        if not heap:
            return
        now_ms = int(self._services.clock.wall() * 1000)
        slots: list[int] = []
        later: list[tuple[int, bytes]] = []
        while heap and heap[0][0] <= now_ms:
            at, id_ = heapq.heappop(heap)
            if self.expires_at_ms.get(id_) != at:
                continue  # updated or removed since
            if id_ in self._in_batch:
                later.append((at, id_))  # it is being written at this moment
                continue
            del self.expires_at_ms[id_]
            slots.append(self.ids.release(id_))
        for entry in later:
            heapq.heappush(heap, entry)
        if slots:
            self._services.counters().vectors_expired_total += len(slots)
            self._services.spawn(self._delete_expired(slots))

    async def _delete_expired(self, slots: list[int]) -> None:
        """Take slots that no id leads to any more out of the engine, and then off the disk."""
        await self.batcher.gate.enter_exclusive()
        try:
            for slot in slots:
                self._set_attributes(slot, None)
            await self._delete(slots)
        finally:
            self.batcher.gate.leave_exclusive()
        if self.dropped:
            return
        batch = WriteBatch(uid=self.spec.uid, sequence=self._next_sequence, deletes=slots)
        try:
            await self._services.committer.commit(batch)
        except MisconfError:
            self._unreclaimed += slots  # the next write takes them along
        else:
            self.ids.give_back(slots)

    # -- the index as a whole -----------------------------------------------------------------------

    def restore(self, columns: RecordColumns, damaged: Slots) -> None:
        """Fill an empty index with what the store holds, except for the engine; in any thread.

        What has expired or is damaged is not taken up: its slots are reclaimed by the next write.

        Args:
            damaged: slots whose row is not the one that was written.
        """
        now_ms = int(self._services.clock.wall() * 1000)
        newest: dict[bytes, int] = {}
        unusable = set(damaged.tolist())
        unclaimed: list[int] = columns.damaged.tolist()
        slots, sequences = columns.slots.tolist(), columns.sequences.tolist()
        expiries = columns.expires_at_ms.tolist()
        for row, id_ in enumerate(columns.ids):
            if 0 < expiries[row] <= now_ms or slots[row] in unusable:
                unclaimed.append(slots[row])
                continue
            other = newest.get(id_)
            # An id is there twice if the server stopped between the expiry of the older one and
            # its removal from the disk, and the id had been added again.
            if other is not None and sequences[other] > sequences[row]:
                unclaimed.append(slots[row])
                continue
            if other is not None:
                unclaimed.append(slots[other])
            newest[id_] = row
        rows = list(newest.values())
        self.ids.restore(newest, (slots[row] for row in rows), reserved=unclaimed)
        self._unreclaimed = unclaimed
        for id_, row in newest.items():
            if raw := columns.attributes[row]:
                self._set_attributes(slots[row], Attributes(raw, parse_attributes(raw)))
            if expiries[row]:
                self._set_expiry(id_, expiries[row])
        self._next_sequence = self.sequence = columns.sequence

    # -- rebuilding -------------------------------------------------------------------------------

    async def rebuild(self) -> bool:
        """Replace the engine with a fresh one without tombstones, while this one goes on serving.

        Vectors are linked into the fresh engine slice by slice; what is written meanwhile is noted
        and caught up with, the last of it with the index to itself. Returns whether there was
        anything to do.
        """
        while self._rebuild is not None:
            await asyncio.wait([self._rebuild])
        if not self.engine.deleted_count:
            return False
        self._rebuild = self._services.spawn(self._build_fresh())
        try:
            await asyncio.shield(self._rebuild)
        finally:
            self._rebuild = None
        return True

    @property
    def rebuilding(self) -> bool:
        return self._rebuild is not None

    async def _build_fresh(self) -> None:
        executor = self._services.executor
        fresh = create_engine(self.spec, self.vectors)
        changed: set[int] = set()
        self._changed_slots = changed
        try:
            await link_all(executor, fresh, self.vectors, np.flatnonzero(self.ids.bound_slots()))
            while len(changed) > self._slice and not self.dropped:
                self._changed_slots, behind = set(), changed
                changed = self._changed_slots
                await self._catch_up(fresh, behind)
            await self.batcher.gate.enter_exclusive()
            try:
                await self._catch_up(fresh, changed)
                self.engine = fresh
            finally:
                self.batcher.gate.leave_exclusive()
        finally:
            self._changed_slots = None

    async def _catch_up(self, fresh: VectorIndex, slots: set[int]) -> None:
        """Bring slots of a fresh engine to what they are now."""
        bound = self.ids.bound_slots()
        changed = np.fromiter(slots, np.int64, len(slots))
        await self._services.executor.run(fresh.delete, changed)
        there = changed[bound[changed]]
        await link_all(self._services.executor, fresh, self.vectors, there)

    # -- saving and closing -----------------------------------------------------------------------

    @property
    def unsaved_changes(self) -> int:
        """Writes since the graph was saved."""
        return self.sequence - self.saved_sequence

    async def drain(self) -> None:
        """Return once every write that was queued is through."""
        while self._writer is not None:
            await asyncio.wait([self._writer])

    async def close(self) -> None:
        """Refuse what waits, and wait for what runs. The index is not used after this."""
        self.dropped = True
        error = NoIndexError(f"the index '{self.spec.name}' has been dropped")
        self.batcher.fail_queued(error)
        self._writes.fail(error)
        await self.drain()
        await self.batcher.gate.enter_exclusive()
        self.batcher.gate.leave_exclusive()


def _time_out(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(BusyError("timeout"))


def _refuse(writes: list[Write], make_error: Callable[[], BaseException]) -> None:
    for write in writes:
        if not write.future.done():
            write.future.set_exception(make_error())


def _unfinished(error: BaseException) -> PyropeError:
    return PyropeError(
        f"the write was interrupted ({type(error).__name__}); whether it took place shows after "
        "a restart"
    )
