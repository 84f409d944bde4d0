"""One open index: what it holds, and who may touch it when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrope.cache.write_log import WriteLog
from pyrope.clock import Clock
from pyrope.config import AliasSettings
from pyrope.engine.attributes import parse_attributes
from pyrope.engine.base import TailIndex
from pyrope.engine.batcher import Batcher, Piece
from pyrope.engine.columns import AttributeColumns
from pyrope.engine.factory import TailOptions, create_tail
from pyrope.engine.filter import Filter, MaskCache
from pyrope.engine.gate import Gate
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.engine.lanes import Lanes
from pyrope.errors import BusyError, NoIndexError
from pyrope.metrics import ServerCounters
from pyrope.service.aliases import Aliases
from pyrope.service.cacheable import CacheServices
from pyrope.service.caching import IndexCache
from pyrope.service.clusters import ClusterServices, IndexClusters
from pyrope.service.costs import IndexCosts
from pyrope.service.merging import Merger, MergeServices
from pyrope.service.remembered.dependencies import Consequences
from pyrope.service.remembered.memory import IndexMemory
from pyrope.service.remembered.services import RememberServices
from pyrope.service.search import (
    Found,
    Hits,
    Search,
    SearchRequest,
    hits_wanted,
    run_batch,
)
from pyrope.service.state import IndexState
from pyrope.service.totals import IndexTotals
from pyrope.service.writer import IndexWriter
from pyrope.service.writes import Write
from pyrope.storage.group_commit import GroupCommitter
from pyrope.storage.store import RecordColumns
from pyrope.storage.vector_file import VectorFile
from pyrope.tracing.tracer import WriteTracer
from pyrope.types import CachePolicy, IndexSpec, IndexType, Mask, Metric, Slots

# Taking a deleted vector's place in a graph costs about six times what a new place costs (2.4
# against 0.4 ms at 384 dimensions, benchmarks/micro_engine.py), so places are kept in reserve.
_GRAPH_REUSE_ABOVE = 0.1
_GRAPHS_THAT_OVERWRITE = (IndexType.HNSW, IndexType.AUTO)
# A client, of any index, that asks now and then is not to find a long slice of merging in its way.
_QUIET_SECONDS = 1.0
# After the last write, until the head is merged to its last vector.
_RESTING_SECONDS = 2.0
# Attributes read in one go on the loop: 2 ms at the most.
_JUDGED_BYTES = 128 * 1024
# Of what a query takes, the share that the newest batch has in it.
_NEWEST = 0.125
# Deleted in one go on the loop: a millisecond at the most.
_DELETED_AT_ONCE = 256
# How long a batch may take while other tenants search too, as nothing interrupts it. A thread that
# is handed one has waited for the GIL; much shorter ones are hardly worth that.
_CONTENDED_BATCH_SECONDS = 0.004
# A scan reads every row, however few queries a batch has: with fewer it is mostly reading.
_CONTENDED_SCAN_QUERIES = 16


@dataclass(frozen=True, slots=True)
class IndexServices:
    """What an index needs of the rest of the server."""

    lanes: Lanes
    committer: GroupCommitter
    clock: Clock
    counters: Callable[[], ServerCounters]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    encode_id: Callable[[bytes], bytes]
    batch_max: int
    queue_limit: Callable[[], int]
    merging: MergeServices
    tail_options: TailOptions
    caching: CacheServices
    aliases: AliasSettings
    clusters: ClusterServices
    remember: RememberServices
    tracer: WriteTracer | None = None


class OpenIndex:
    """An index that is loaded. All methods are for the event loop, unless they say otherwise.

    Attributes:
        engine: holds a vector for each slot that `state.ids` binds.
        active_type: what its tail is; FLAT while it has none, and is searched in full.
        saved_changes: `engine.tail_changes` when the tail was last saved.
        merger: moves its head into its tail.
        cache: of its answers.
        aliases: of its queries.
        clusters: of its vectors.
        remembered: what a language model has answered; None: nothing ever was.
        closed: it has been dropped, or the server is stopping: what takes long gives up.

    Args:
        spec: what was asked for.
        vectors: the raw rows.
        engine: filled by the caller to match what `restore` is given.
        services: shared with the other indexes.
    """

    def __init__(
        self, spec: IndexSpec, vectors: VectorFile, engine: HeadTailIndex, services: IndexServices
    ) -> None:
        self.spec = spec
        self.vectors = vectors
        self.engine = engine
        self.state = IndexState(
            services.encode_id,
            reuse_above=_GRAPH_REUSE_ABOVE if spec.type in _GRAPHS_THAT_OVERWRITE else 0.0,
        )
        self.active_type = IndexType.FLAT
        self.saved_changes = 0
        self.closed = False
        self._services = services
        self._lane = services.lanes.lane(spec.tenant)
        # What a query of a batch takes, of late, and whether the last one scanned; by threads.
        self._query_seconds = 0.0
        self._scanned = False
        self._masks = MaskCache(self.state.columns)
        self._writer = IndexWriter(
            spec.uid,
            spec.name,
            self,
            executor=self._lane,
            committer=services.committer,
            spawn=services.spawn,
            counters=services.counters,
            clock=services.clock,
            tracer=services.tracer,
        )
        self.batcher: Batcher[SearchRequest, Found] = Batcher(
            run=self._lane.submit,
            work=self._search_batch,
            deliver=self._deliver,
            threads=self._lane.threads,
            # Of a graph, one batch runs in each thread and one is ready for it, so that no thread
            # waits for the loop. A scan gains more from larger batches.
            parallel=self._lane.threads * (1 if spec.type is IndexType.FLAT else 2),
            room=self._room,
            observe=self._count_batch,
        )
        self.merger = Merger(self, self._lane, services.merging)
        self.cache = IndexCache(self, services.caching, spec.tenant, spec.uid)
        self.aliases = Aliases(
            spec.uid,
            spec.name,
            settings=services.aliases,
            clock=services.clock,
            committer=services.committer,
            spawn=services.spawn,
        )
        self.clusters = IndexClusters(self, services.clusters)
        self.remembered: IndexMemory | None = None
        self.costs = IndexCosts(self, services.tail_options)
        self._removed: set[int] | None = None
        self._final: IndexTotals | None = None
        self._written_at = float("-inf")

    # -- what it holds ----------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.state.ids)

    @property
    def memory_bytes(self) -> int:
        """Memory of what it holds beside cached answers, in bytes, by the structures it is in.

        Rows in a file are not counted, as the system drops those pages when it needs memory; rows
        of an index in memory are.
        """
        parts = (self.engine, self.state, self.vectors, self.aliases)
        remembered = 0 if self.remembered is None else self.remembered.nbytes
        caches = self.clusters.nbytes + self.log.nbytes + self.cache.near.shared_bytes
        return sum(part.memory_bytes for part in parts) + caches + remembered

    @property
    def memory(self) -> IndexMemory:
        """What a language model has answered, and what is known of its errors."""
        if self.remembered is None:
            # Most indexes never have any, and there may be very many.
            self.remembered = IndexMemory(self, self._services.remember)
        return self.remembered

    @property
    def log(self) -> WriteLog:
        return self.cache.log

    @property
    def sequence(self) -> int:
        """Number of the last write that has been applied."""
        return self._writer.sequence

    @property
    def always_scans(self) -> bool:
        """Whether every search is a full scan by choice, not for want of a tail."""
        scans = (IndexType.FLAT, IndexType.AUTO)
        return self.active_type is IndexType.FLAT and self.spec.type in scans

    @property
    def unsaved_changes(self) -> int:
        """Vectors that have come into the tail, or gone from it, since it was saved."""
        return self.engine.tail_changes - self.saved_changes

    @property
    def queued_requests(self) -> int:
        waiting = self.batcher.queued + len(self._writer) + self.aliases.queued
        return waiting if self.remembered is None else waiting + self.remembered.queued

    def vector(self, id_: bytes) -> bytes | None:
        """The vector of an id as it was sent, little-endian float32; None without one."""
        slot = self.state.ids.slot(id_)
        return None if slot is None else self.vectors.view()[slot].tobytes()

    def attributes_of(self, id_: bytes) -> bytes | None:
        slot = self.state.ids.slot(id_)
        return None if slot is None else self.state.attributes.get(slot)

    def count_into(self, totals: IndexTotals) -> None:
        """Add what it has done."""
        if self._final is None:
            totals.count(self)
        else:
            totals.add(self._final)

    def settle(self) -> IndexTotals:
        """It is dropped: what it has done until now is what it has done."""
        if self._final is None:
            self._final = IndexTotals()
            self._final.count(self)
        return self._final

    # -- searching --------------------------------------------------------------------------------

    def search(
        self,
        client: Hashable,
        queries: bytes,
        asked: Search,
        *,
        timeout: float | None = None,
    ) -> SearchRequest:
        """The hits nearest to each of n queries; cancelling drops what has not started.

        Args:
            client: whose turn it takes among those that search.
            queries: n·dim little-endian float32, n at least 1.
            asked: of each query.
            timeout: seconds after which the outcome is BusyError instead.

        Raises:
            BusyError: too many requests wait for this index already.
        """
        if self.closed:
            raise _dropped(self.spec)
        weight = len(queries) // (4 * self.spec.dim)
        self.check_queue(weight)
        self.remove_expired()
        now = self._services.clock.monotonic()
        request = SearchRequest(client, queries, weight, asked, now)
        if timeout is not None:
            timer = asyncio.get_running_loop().call_later(timeout, _time_out, request)
            request.add_done_callback(lambda _: timer.cancel())
        self._services.counters().searches_total += weight
        self.batcher.submit(request)
        return request

    def check_queue(self, requests: int = 1) -> None:
        """Raises BusyError unless so many more requests may wait for this index."""
        waiting = self.queued_requests
        if waiting + requests > self._services.queue_limit():
            raise BusyError(
                f"{waiting} requests wait for index '{self.spec.name}' already; retry with backoff"
            )

    def _search_batch(self, pieces: list[Piece[SearchRequest]]) -> list[Found | BaseException]:
        """In an executor's thread."""
        monotonic = self._services.clock.monotonic
        began = monotonic()
        found = run_batch(pieces, self.engine, self._mask_of, monotonic)
        each = (monotonic() - began) / sum([stop - start for _, start, stop in pieces])
        self._query_seconds += _NEWEST * (each - self._query_seconds)
        self._scanned = self.active_type is IndexType.FLAT or pieces[0].request.asked.exact
        return found

    def _count_batch(
        self, pieces: Sequence[Piece[SearchRequest]], answers: Sequence[Found | BaseException]
    ) -> None:
        """On the loop, once a batch."""
        counters = self._services.counters()
        if len(pieces) == 1:
            # A client alone, which is to notice nothing.
            (_, start, stop), found = pieces[0], answers[0]
            counters.batch_sizes.record(stop - start)
            if type(found) is Found:
                counters.queued.record(found.began_at - pieces[0].request.queued_at)
                counters.searched.record(found.ended_at - found.began_at)
            return
        waited = counters.queued.record
        queries = 0
        calls: list[float] = []
        for (request, start, stop), found in zip(pieces, answers, strict=True):
            queries += stop - start
            if type(found) is Found:
                began_at = found.began_at
                waited(began_at - request.queued_at)
                # Those that share a native call have its times.
                if began_at not in calls:
                    calls.append(began_at)
                    counters.searched.record(found.ended_at - began_at)
        counters.batch_sizes.record(queries)

    def _room(self) -> int:
        """How many queries a batch may hold now."""
        most = self._services.batch_max
        if not self._lane.is_contended():
            return most
        worth = int(_CONTENDED_BATCH_SECONDS / max(self._query_seconds, 1e-6))
        return min(most, max(worth, _CONTENDED_SCAN_QUERIES if self._scanned else 1))

    def _mask_of(self, filter_: Filter) -> Mask:
        return self._masks.mask(filter_, self.state.ids.slot_count)

    def _deliver(self, piece: Piece[SearchRequest], found: Found) -> None:
        """On the loop, before any write can come in between the search and the naming of hits."""
        request = piece.request
        queued = found.began_at - request.queued_at
        took = found.ended_at - found.began_at
        hits: list[Hits] = []
        for slots, scores, whole in zip(found.slots, found.scores, found.whole, strict=True):
            ids, slots, scores, stored = self._named(slots, scores, request.asked)  # noqa: PLW2901
            whole = whole and len(ids) == len(slots)  # noqa: PLW2901
            hits.append(
                Hits(ids, scores, stored, found.exact, queued, took, slots, whole, found.matching)
            )
        request.answer(piece.start, hits)

    def _named(
        self, slots: list[int], scores: list[float], asked: Search
    ) -> tuple[list[bytes], list[int], list[float], list[bytes | None]]:
        """Ids, slots, scores and attributes of what has not expired."""
        encoded, attributes = self.state.ids.encoded, self.state.attributes.get
        ids = encoded(slots)
        if None in ids:  # expired while the search was under way
            kept = [position for position, id_ in enumerate(ids) if id_ is not None]
            slots = [slots[position] for position in kept]
            scores = [scores[position] for position in kept]
            ids = encoded(slots)
        stored = [attributes(slot) for slot in slots] if asked.with_attributes else []
        return ids, slots, scores, stored  # type: ignore[return-value]  # no None is left

    def alter(self, spec: IndexSpec) -> None:
        """Go by another definition, which differs in what may be altered."""
        self.spec = spec
        self.cache.follow_policy()
        if self.remembered is not None:
            self.remembered.follow_policy()

    # -- what its caches need ---------------------------------------------------------------------

    @property
    def metric(self) -> Metric:
        return self.spec.metric

    @property
    def dim(self) -> int:
        return self.spec.dim

    @property
    def label(self) -> str:
        """What a log names it by."""
        return f"{self.spec.tenant}/{self.spec.name}"

    @property
    def norm_bound(self) -> float:
        """See `HeadTailIndex.norm_bound`."""
        return self.engine.norm_bound

    @property
    def busy(self) -> bool:
        """Whether searches wait or run."""
        return self.batcher.busy

    @property
    def policy(self) -> CachePolicy:
        return self.spec.cache

    def name(self, slots: list[int], scores: list[float], asked: Search, *, exact: bool) -> Hits:
        """Hits of slots that hold vectors, nearest first, cut to what is asked."""
        kept = hits_wanted(slots, scores, asked, self.spec.metric)
        ids, slots, scores, stored = self._named(slots[:kept], scores[:kept], asked)
        return Hits(ids, scores, stored, exact, 0.0, 0.0, slots, whole=False)

    def scores(
        self, query: bytes, slots: Slots, nearest: int, *, exact: bool
    ) -> NDArray[np.float32]:
        """Scores of slots that hold vectors, shape (n,); see `HeadTailIndex.scores`."""
        return self.engine.scores(np.frombuffer(query, "<f4")[None], slots, nearest, exact=exact)

    def live(self, slots: Slots) -> Slots:
        """Those of the slots that hold a vector; it may have expired."""
        return self.engine.live(slots)

    def taking_part(self, slots: Slots, filter_: Filter | None) -> Slots | None:
        """Those of the slots that can be named now, and match the filter.

        None where attributes are too long to be judged on the loop.
        """
        listed = slots.tolist()
        named = self.state.ids.encoded(listed)
        if filter_ is None:
            return slots[np.array([id_ is not None for id_ in named], np.bool_)]
        get = self.state.attributes.get
        stored = [
            None if id_ is None else get(slot) for slot, id_ in zip(listed, named, strict=True)
        ]
        if sum([len(raw) for raw in stored if raw is not None]) > _JUDGED_BYTES:
            return None
        # Not those that searches read: a thread may be changing them.
        columns = AttributeColumns()
        for row, raw in enumerate(stored):
            if raw is not None:
                attributes = parse_attributes(raw)
                selected = [name for name in filter_.fields if name in attributes]
                columns.set(row, {name: attributes[name] for name in selected})
        return slots[filter_.mask(columns, len(listed))]

    def search_cost(self, asked: Search) -> float:
        """Units that an answer from the caches spares, about."""
        return self.costs.saved(asked.count, asked.options, exact=asked.exact)

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
        tracer = self._services.tracer
        if tracer is not None:
            tracer.follow(write.future)

    @property
    def gate(self) -> Gate:
        return self.batcher.gate

    @property
    def in_use(self) -> bool:
        """Whether it or another is searched now, or was a moment ago."""
        return self.batcher.busy or self._lane.idle_seconds < _QUIET_SECONDS

    @property
    def at_rest(self) -> bool:
        """Whether nothing has been written for a while."""
        return self._services.clock.monotonic() - self._written_at >= _RESTING_SECONDS

    def written(self) -> None:
        """Something has been written: see whether the merger has work."""
        self._written_at = self._services.clock.monotonic()
        self.merger.nudge()

    async def delete_slots(self, slots: Sequence[int]) -> None:
        """Take vectors out of the engine, with the index to itself."""
        gone = np.array(slots, np.int64)
        if len(gone) <= _DELETED_AT_ONCE:
            self.engine.delete(gone)
        else:
            await self._lane.run(self.engine.delete, gone)
        if self._removed is not None:
            self._removed.update(slots)

    def remove_expired(self) -> None:
        """Take out what has expired by now. From here on nobody can name it."""
        due = self.state.next_expiry_ms()
        if due is None:
            return
        now_ms = int(self._services.clock.wall() * 1000)
        if due <= now_ms:
            ids, slots = self.state.take_expired(now_ms, self._writer.touched)
            if slots:
                self.log.gone(slots)
                self.clusters.removed(np.array(slots, np.int64))
                self._services.counters().vectors_expired_total += len(slots)
                self._writer.delete_expired(slots, self.consequences(ids))

    def consequences(self, ids: Iterable[bytes]) -> Consequences | None:
        """What else ends with a change of these vectors; see `Dependencies.consequences`."""
        return self._services.remember.dependencies.consequences(self.spec.uid, ids)

    # -- merging ----------------------------------------------------------------------------------

    def new_tail(self, kind: IndexType, count: int) -> TailIndex:
        """An empty tail for about so many vectors."""
        return create_tail(self.spec, kind, self.vectors, count, self._services.tail_options)

    def watch_removals(self) -> set[int]:
        """A set to which every slot is added whose vector goes, until `watch_no_more`."""
        self._removed = set()
        return self._removed

    def watch_no_more(self) -> None:
        self._removed = None

    # -- restoring and closing --------------------------------------------------------------------

    def restore(self, columns: RecordColumns, damaged: Slots) -> None:
        """Take up what the store holds; in any thread, before anyone sees the index.

        What has expired or is damaged is left out, and the next write deletes it from the store.

        Args:
            damaged: slots whose row is not the one that was written.
        """
        now_ms = int(self._services.clock.wall() * 1000)
        self._writer.restore(columns.sequence, self.state.restore(columns, damaged, now_ms))

    def tail_restored(self) -> None:
        """The engine has what the store and the saved tail hold."""
        self.saved_changes = self.engine.tail_changes
        self.merger.nudge()

    def refuse_queued(self) -> None:
        """Refuse the requests that have not started, as the index is about to be dropped."""
        error = _dropped(self.spec)
        self.batcher.fail_queued(error)
        self._writer.fail_queued(error)
        self.aliases.fail_queued(error)

    async def drain(self) -> None:
        """Return once every write that was queued is through."""
        await self._writer.drain()
        await self.aliases.drain()
        await self.clusters.drain()
        if self.remembered is not None:
            await self.remembered.drain()

    async def close(self) -> None:
        """Refuse what waits, wait for what runs, and give the memory back.

        The index is not used after this.
        """
        self.closed = True
        self.refuse_queued()
        await self.drain()
        await self.merger.stop()
        await self.clusters.stop()
        self.cache.close()
        self.aliases.close()
        if self.remembered is not None:
            await self.remembered.close()
        await self.gate.enter_exclusive()
        # Not left to the garbage collector, which may take its time: a graph is large, and a mapped
        # file holds a descriptor.
        del self.engine, self.vectors
        self.gate.leave_exclusive()


def _dropped(spec: IndexSpec) -> NoIndexError:
    return NoIndexError(f"the index '{spec.name}' has been dropped, or the server is stopping")


def _time_out(request: SearchRequest) -> None:
    if not request.done():
        request.set_exception(BusyError("timeout"))
