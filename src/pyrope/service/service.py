"""The use cases: indexes by name, from the first start to the last save."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from numpy.typing import NDArray

from pyrope.cache.value_cache import ValueCache
from pyrope.clock import Clock
from pyrope.config import Settings
from pyrope.engine import init_worker_thread
from pyrope.engine.auto import SearchCosts, measure_costs
from pyrope.engine.executor import Executor
from pyrope.engine.factory import TailOptions
from pyrope.engine.free_memory import SettledWork, give_back_free_memory
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.errors import (
    CommandError,
    ExistsError,
    LoadingError,
    NoIndexError,
    OutOfMemoryError,
    PyropeError,
)
from pyrope.log import get_logger
from pyrope.metrics import ServerCounters
from pyrope.semantic.centroids import Centroids
from pyrope.service.caching import CacheServices
from pyrope.service.clusters import ClusterServices
from pyrope.service.definition import (
    IndexDefinition,
    check_nprobe,
    check_options,
    check_policy,
)
from pyrope.service.graphs import GraphSaver
from pyrope.service.index import IndexServices, OpenIndex
from pyrope.service.merging import MergeOptions, MergeServices
from pyrope.service.near_levels import Kept
from pyrope.service.restore import Progress, restore_index
from pyrope.storage.group_commit import CommitStatistics, GroupCommitter
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.memory_store import MemoryStore
from pyrope.storage.store import DropIndex, PutIndex, Store
from pyrope.types import (
    CacheLevel,
    CachePolicy,
    Float32Matrix,
    IndexSpec,
    IndexType,
    Metric,
)

_log = get_logger(__name__)

INDEX_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
# Estimating the memory of every index takes a few microseconds each, so it is not done per write.
_MEMORY_ESTIMATE_AGE_S = 0.1
_SWEEP_INTERVAL_S = 0.1
# Of the draws that spread the expiry of answers and choose which to compare.
_CACHE_SEED = 20
# Answers looked at in one sweep: a tenth of a millisecond.
_SWEPT_ANSWERS = 1000
# Looking at every file takes 20 us an index, in the thread that commits.
_DISK_COUNT_INTERVAL_S = 10.0

T = TypeVar("T")


class Service:
    """Everything that Pyrope does, without the wire.

    Args:
        encode_id: makes the form in which search results name ids.
    """

    def __init__(
        self, settings: Settings, clock: Clock, encode_id: Callable[[bytes], bytes]
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.counters = ServerCounters()
        self.progress = Progress()
        self.loading = True
        self._encode_id = encode_id
        self._indexes: dict[tuple[str, str], OpenIndex] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._background: list[asyncio.Task[None]] = []
        self._changing = asyncio.Lock()
        self._executor = Executor(
            settings.thread_count, name="pyrope-engine", initializer=init_worker_thread
        )
        self._storage = Executor(1, name="pyrope-storage")
        self._builder = Executor(1, name="pyrope-build", initializer=init_worker_thread)
        engine = settings.engine
        self._merge_services = MergeServices(
            executor=self._executor,
            background=self._builder,
            clock=clock,
            spawn=self._spawn,
            options=MergeOptions(
                head_vectors=engine.head_vectors,
                slice_seconds=engine.merge_slice_ms / 1000,
                compact_share=engine.compact_share,
            ),
            search_costs=self._search_costs,
            memory_left=self._memory_left,
        )
        self.cache: ValueCache[Kept] = ValueCache(
            settings.cache.max_bytes,
            clock=clock,
            random=Random(_CACHE_SEED),  # noqa: S311 - no secret
        )
        self._costs: dict[tuple[Metric, int, int, int, int], SearchCosts] = {}
        self._store: Store | None = None
        self._committer: GroupCommitter | None = None
        self._saver: GraphSaver | None = None
        self._settled = SettledWork()
        self._memory_bytes = 0
        self._memory_at = float("-inf")
        self._disk_bytes = 0

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store and begin to load. Raises StorageError if the directory cannot be used."""
        self._executor.start()
        self._storage.start()
        self._builder.start()
        try:
            self._store = await self._storage.run(self._open_store)
        except BaseException:
            await self._builder.stop()
            await self._storage.stop()
            await self._executor.stop()
            raise
        self._committer = GroupCommitter(
            self._store,
            self._storage.run,
            self.clock,
            max_group_bytes=self.settings.storage.commit_max_bytes,
        )
        await self._committer.start()
        self._saver = GraphSaver(self._store, self.clock)
        self._saver.start()
        self._background = [
            asyncio.create_task(self._load(), name="load"),
            asyncio.create_task(self._sweep(), name="sweep"),
        ]

    async def stop(self, *, save_graphs: bool = True) -> None:
        """Finish the writes that were accepted, save the graphs, close everything. Idempotent."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._background = []
        if self._store is None:
            return
        for index in self.indexes():
            index.closed = True  # a rebuild gives up
        for index in self.indexes():
            await index.drain()
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._committer is not None:
            await self._committer.stop()
        if self._saver is not None:
            if save_graphs and not self.loading:
                await self._saver.save(self.indexes(), at_exit=True)
            await self._saver.stop()
        for index in self.indexes():
            await index.close()
        self._indexes.clear()
        await self._storage.run(self._store.close)
        self._store = None
        await self._builder.stop()
        await self._executor.stop()
        await self._storage.stop()

    def _open_store(self) -> Store:
        if self.settings.in_memory:
            return MemoryStore()
        return LmdbStore.open(Path(self.settings.data_dir))

    async def _load(self) -> None:
        began = self.clock.monotonic()
        store = self._opened()
        specs = [_decode_spec(blob) for _, blob in await self._storage.run(store.indexes)]
        services = self._services()
        for spec in specs:
            index = await restore_index(spec, store, self._storage, services, self.progress)
            self._indexes[spec.tenant, spec.name] = index
        self.loading = False
        if specs:
            _log.info(
                "loaded",
                indexes=len(specs),
                vectors=self.progress.loaded_vectors,
                seconds=round(self.clock.monotonic() - began, 3),
            )

    async def loaded(self) -> None:
        """Return when loading is over. Raises what stopped it."""
        await asyncio.shield(self._background[0])

    async def _sweep(self) -> None:
        """Now and then: take out what has expired, merge what rests, save what has changed."""
        counted_at = float("-inf")
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_S)
            if self.loading:
                continue
            for index in self.indexes():
                index.remove_expired()
                index.merger.nudge()
                index.aliases.sweep()
                index.cache.sweep(_SWEPT_ANSWERS)
                index.clusters.nudge()
            self.cache.sweep(_SWEPT_ANSWERS)
            now = self.clock.monotonic()
            if self._settled.ended(self._work_done(), now):
                self._spawn(self._give_back_memory())
            if not self.saver.saving:
                due = self.saver.due(self.indexes(), self.settings.storage)
                if due:
                    self._spawn(self.saver.save(due))
            if now - counted_at >= _DISK_COUNT_INTERVAL_S:
                counted_at = now
                await self._count_disk()

    async def _give_back_memory(self) -> None:
        await self._builder.run(give_back_free_memory)

    def _work_done(self) -> int:
        """Another number whenever something has been written, merged or dropped."""
        indexes = self._indexes.values()
        return len(indexes) + sum(one.sequence + one.engine.tail_changes for one in indexes)

    async def _count_disk(self) -> None:
        try:
            self._disk_bytes = await self._storage.run(self._opened().disk_bytes)
        except OSError as error:
            _log.warning("the space on disk cannot be counted", error=str(error))

    # -- what there is ----------------------------------------------------------------------------

    def indexes(self) -> list[OpenIndex]:
        return list(self._indexes.values())

    def indexes_of(self, tenant: str) -> list[OpenIndex]:
        return [index for (owner, _), index in self._indexes.items() if owner == tenant]

    def index_names(self, tenant: str) -> list[str]:
        return sorted(name for owner, name in self._indexes if owner == tenant)

    def find_index(self, tenant: str, name: bytes) -> OpenIndex | None:
        return self._indexes.get((tenant, _text(name)))

    def index(self, tenant: str, name: bytes) -> OpenIndex:
        """Raises NoIndexError."""
        found = self._indexes.get((tenant, _text(name)))
        if found is None:
            raise NoIndexError(f"no such index '{_text(name)}'")
        return found

    @property
    def memory_bytes(self) -> int:
        """Memory of all indexes, in bytes; an estimate at most a tenth of a second old."""
        now = self.clock.monotonic()
        if now - self._memory_at >= _MEMORY_ESTIMATE_AGE_S:
            self._memory_bytes = sum(index.memory_bytes for index in self._indexes.values())
            self._memory_at = now
        return self._memory_bytes

    @property
    def disk_bytes(self) -> int:
        """Bytes on disk when they were last counted."""
        return self._disk_bytes

    def commit_statistics(self) -> CommitStatistics:
        if self._committer is None:
            raise RuntimeError("the service has not been started")
        return self._committer.statistics()

    @property
    def saver(self) -> GraphSaver:
        if self._saver is None:
            raise RuntimeError("the service has not been started")
        return self._saver

    # -- admission --------------------------------------------------------------------------------

    def admit_write(self, added_bytes: int) -> None:
        """Raises OutOfMemoryError when `added_bytes` more would exceed maxmemory."""
        limit = self.settings.maxmemory
        if limit and self.memory_bytes + added_bytes > limit:
            raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")

    # -- changing what there is -------------------------------------------------------------------

    async def create_index(
        self, tenant: str, definition: IndexDefinition, *, if_new: bool = False
    ) -> None:
        """Create an index, durably.

        Args:
            if_new: an index that is there already with the same definition is no error.

        Raises:
            ExistsError, CommandError: the name is taken; too many indexes.
            MisconfError: the disk refuses.
        """
        async with self._changing:
            there = self._indexes.get((tenant, definition.name))
            if there is not None:
                if if_new and definition.describes(there.spec):
                    return
                raise ExistsError(
                    f"index '{definition.name}' exists already"
                    + (" with another definition" if if_new else "")
                )
            limit = self.settings.limits.indexes
            if len(self._indexes) >= limit:
                raise CommandError(f"{limit} indexes exist already, which is the limit")
            self.admit_write(0)
            store = self._opened()
            uid = await self._storage.run(store.next_uid)
            spec = IndexSpec(
                uid=uid,
                tenant=tenant,
                created_at=self.clock.wall(),
                **{field.name: getattr(definition, field.name) for field in fields(definition)},
            )
            # The file first: once the catalogue names an index, nothing may fail any more.
            vectors = await self._storage.run(store.vectors, uid, spec.dim)
            try:
                await self._commit(PutIndex(uid, _encode_spec(spec)))
            except BaseException:
                await self._storage.run(store.discard, uid)
                raise
            engine = HeadTailIndex(spec.metric, spec.dim, vectors)
            self._indexes[tenant, spec.name] = OpenIndex(spec, vectors, engine, self._services())

    async def drop_index(self, tenant: str, name: bytes) -> bool:
        """Drop an index, durably. Returns whether it was there.

        Raises:
            MisconfError: the disk refuses; the index stays.
        """
        async with self._changing:
            key = (tenant, _text(name))
            if key not in self._indexes:
                return False
            # No command can name it from here on, so that nothing is added while it drains.
            index = self._indexes.pop(key)
            try:
                index.refuse_queued()
                await index.drain()
                await self._commit(DropIndex(index.spec.uid))
            except BaseException:
                self._indexes[key] = index
                raise
            self._memory_at = float("-inf")
        # Training that is under way ends in seconds; others may create and drop meanwhile.
        await index.close()
        return True

    async def drop_all(self, tenant: str) -> None:
        """Drop every index of a tenant."""
        for name in self.index_names(tenant):
            await self.drop_index(tenant, name.encode())

    async def alter_index(
        self,
        tenant: str,
        name: bytes,
        *,
        ef: int | None = None,
        nprobe: int | None = None,
        change_policy: Callable[[CachePolicy], CachePolicy] | None = None,
    ) -> None:
        """Change what searches of an index go by, durably, for all that come after it.

        Args:
            ef, nprobe: as in `IndexSpec`; None: as it is.
            change_policy: makes another cache policy of the one in force.

        Raises:
            NoIndexError: there is no such index.
            CommandError: a field means nothing to its type, or NPROBE exceeds its NLIST.
            MisconfError: the disk refuses.
        """
        async with self._changing:
            index = self.index(tenant, name)
            given = {"ef": ef, "nprobe": nprobe}
            check_options(
                index.spec.type, [field for field, value in given.items() if value is not None]
            )
            spec = replace(
                index.spec,
                ef=index.spec.ef if ef is None else ef,
                nprobe=index.spec.nprobe if nprobe is None else nprobe,
            )
            if change_policy is not None:
                spec = replace(spec, cache=change_policy(spec.cache))
                check_policy(spec.metric, spec.cache)
            check_nprobe(spec.nprobe, spec.nlist)
            await self._commit(PutIndex(spec.uid, _encode_spec(spec)))
            index.alter(spec)

    async def build_index(self, tenant: str, name: bytes) -> None:
        """Merge what an index has in its head now, train it, and remove its tombstones.

        It goes on serving meanwhile.

        Raises:
            NoIndexError: it was dropped meanwhile, or the server is stopping.
            PyropeError: it failed.
        """
        index = self.index(tenant, name)
        await index.merger.finish()
        await self.saver.save([index])

    async def save_graphs(self) -> None:
        """Save every graph that has changed. Raises PyropeError when one cannot be saved."""
        saver = self.saver
        await saver.save(self.indexes())
        if saver.error:
            raise PyropeError(saver.error)

    def begin_save_graphs(self) -> None:
        """Begin to save in the background. Raises PyropeError when that is under way."""
        if self.saver.saving:
            raise PyropeError("Background save already in progress")
        self._spawn(self.saver.save(self.indexes()))

    def check_loaded(self) -> None:
        """Raises LoadingError until everything is loaded."""
        if self.loading:
            raise LoadingError("Pyrope is loading the dataset in memory")

    def run(self, function: Callable[..., T], *args: object) -> asyncio.Future[T]:
        """Run something slow in a thread of the engine's executor."""
        return self._executor.run(function, *args)

    # -- within -----------------------------------------------------------------------------------

    def _opened(self) -> Store:
        if self._store is None:
            raise RuntimeError("the service has not been started")
        return self._store

    async def _commit(self, change: PutIndex | DropIndex) -> None:
        if self._committer is None:
            raise RuntimeError("the service has not been started")
        await self._committer.commit(change)

    async def _search_costs(self, spec: IndexSpec) -> SearchCosts:
        """What a search of such an index costs on this machine; measured once."""
        key = (spec.metric, spec.dim, spec.m, spec.ef_construction, spec.ef)
        costs = self._costs.get(key)
        if costs is None:
            costs = await self._builder.run(
                partial(measure_costs, *key, seed=spec.uid, monotonic=self.clock.monotonic)
            )
            self._costs[key] = costs
        return costs

    def _memory_left(self) -> int | None:
        """Bytes that indexes may still take; None: there is no limit."""
        limit = self.settings.maxmemory
        return max(0, limit - self.memory_bytes) if limit else None

    def _services(self) -> IndexServices:
        if self._committer is None:
            raise RuntimeError("the service has not been started")
        return IndexServices(
            executor=self._executor,
            committer=self._committer,
            clock=self.clock,
            counters=lambda: self.counters,
            spawn=self._spawn,
            encode_id=self._encode_id,
            batch_max=self.settings.engine.batch_max,
            queue_limit=lambda: self.settings.limits.queued_requests,
            merging=self._merge_services,
            tail_options=TailOptions(
                sq8_rerank_factor=self.settings.engine.sq8_rerank_factor,
                pq_rerank_factor=self.settings.engine.pq_rerank_factor,
            ),
            caching=CacheServices(
                cache=self.cache,
                settings=self.settings.cache,
                clock=self.clock,
                spawn=self._spawn,
                assign_many=self._assign_many,
            ),
            aliases=self.settings.aliases,
            clusters=ClusterServices(
                background=self._builder,
                committer=self._committer,
                clock=self.clock,
                spawn=self._spawn,
                settings=self.settings.clusters,
            ),
        )

    def _assign_many(
        self, centroids: Centroids, rows: Float32Matrix
    ) -> asyncio.Future[NDArray[Any]]:
        return self._builder.run(centroids.assign_many, rows)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that `stop` waits for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _text(name: bytes) -> str:
    """A name to look up. One that is too long to be an index's is cut, and still too long."""
    return name[:256].decode(errors="replace")


def _encode_spec(spec: IndexSpec) -> bytes:
    plain = asdict(spec)
    plain["cache"]["levels"] = sorted(spec.cache.levels)
    return json.dumps(plain).encode()


def _decode_spec(blob: bytes) -> IndexSpec:
    plain = json.loads(blob)
    plain["metric"] = Metric(plain["metric"])
    plain["type"] = IndexType(plain["type"])
    # Absent from what was written before there were caches.
    policy = plain.pop("cache", {})
    if "levels" in policy:
        policy["levels"] = frozenset(map(CacheLevel, policy["levels"]))
    return IndexSpec(**plain, cache=CachePolicy(**policy))
