"""The use cases: indexes by name, from the first start to the last save."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray

from pyrope.cache.value_cache import ValueCache
from pyrope.clock import Clock
from pyrope.config import Settings
from pyrope.engine import init_worker_thread
from pyrope.engine.auto import SearchCosts, measure_costs
from pyrope.engine.executor import Executor
from pyrope.engine.factory import TailOptions
from pyrope.engine.fair_queue import FairQueue
from pyrope.engine.free_memory import SettledWork, give_back_free_memory
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.engine.lanes import NORMAL_WEIGHT, Lanes
from pyrope.errors import (
    CommandError,
    ExistsError,
    LoadingError,
    PyropeError,
)
from pyrope.log import get_logger
from pyrope.metrics import ServerCounters
from pyrope.semantic.centroids import Centroids
from pyrope.semantic.remembered.entry import Documents
from pyrope.service.admission import WriteAdmission
from pyrope.service.audit import SERVER, Actor
from pyrope.service.backups import Backups
from pyrope.service.cacheable import CacheServices
from pyrope.service.catalogue import Catalogue
from pyrope.service.clusters import ClusterServices
from pyrope.service.definition import (
    IndexDefinition,
    check_norms,
    check_nprobe,
    check_options,
)
from pyrope.service.embedders import Embedders
from pyrope.service.graphs import GraphSaver
from pyrope.service.guarding import LatencyGuard
from pyrope.service.index import IndexServices, OpenIndex
from pyrope.service.kept import Kept
from pyrope.service.merging import MergeOptions, MergeServices
from pyrope.service.remembered.budget import RememberBudget
from pyrope.service.remembered.dependencies import Dependencies
from pyrope.service.remembered.judging import FactsCache
from pyrope.service.remembered.leases import Holders
from pyrope.service.remembered.near_index import NearServices
from pyrope.service.remembered.services import RememberServices
from pyrope.service.restore import Progress, restore_index
from pyrope.service.spec_record import decode_spec, encode_spec, plain_spec
from pyrope.service.tenancy import Holdings, Tenancy
from pyrope.storage.group_commit import CommitStatistics, GroupCommitter
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.memory_store import MemoryStore
from pyrope.storage.store import Change, DropIndex, PutIndex, PutMeta, Store
from pyrope.tenants.limits import Priority, TenantLimits
from pyrope.timers import Schedule, on_loop
from pyrope.tracing.tracer import WriteTracer
from pyrope.types import (
    CachePolicy,
    Float32Matrix,
    IndexSpec,
    Metric,
)

if TYPE_CHECKING:
    from pyrope.service.advising import Advisor

_log = get_logger(__name__)

INDEX_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_SWEEP_INTERVAL_S = 0.1
# Of the threads' time, where tenants compete for it.
_WEIGHTS = {
    Priority.HIGH: 2 * NORMAL_WEIGHT,
    Priority.NORMAL: NORMAL_WEIGHT,
    Priority.LOW: NORMAL_WEIGHT // 2,
}
# Of the draws that spread the expiry of answers and choose which to compare.
_CACHE_SEED = 20
# Of the draws that choose which remembered responses go, and spread the ends of their lives.
_REMEMBER_SEED = 40
# Indexes swept in one turn of the loop: some 10 us each, when there is nothing to do.
_SWEPT_INDEXES = 50
# Answers looked at in one sweep: a tenth of a millisecond.
_SWEPT_ANSWERS = 1000
# Space of meta records that mean nothing.
_PROBES = "probes"
# Looking at every file takes 20 us an index, in the thread that commits.
_DISK_COUNT_INTERVAL_S = 10.0

T = TypeVar("T")


class Service:
    """Everything that Pyrope does, without the wire.

    Args:
        encode_id: makes the form in which search results name ids.
        tracer: told of writes; None: nobody is.
        schedule: sets timers on the clock.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        encode_id: Callable[[bytes], bytes],
        tracer: WriteTracer | None = None,
        schedule: Schedule = on_loop,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.counters = ServerCounters()
        self.progress = Progress()
        self.loading = True
        self._encode_id = encode_id
        self._tracer = tracer
        self._catalogue = catalogue = Catalogue()
        self._admission = admission = WriteAdmission(settings, clock, catalogue)
        # As they are, since each command needs some of them.
        self.indexes, self.indexes_of = catalogue.indexes, catalogue.of_tenant
        self.index, self.find_index = catalogue.get, catalogue.find
        self.index_names = catalogue.names
        self.counted, self.totals = catalogue.counted, catalogue.totals
        self.admit_vectors, self.admit_bytes = admission.admit_vectors, admission.admit_bytes
        self._tasks: set[asyncio.Task[Any]] = set()
        self._background: list[asyncio.Task[None]] = []
        self._changing = asyncio.Lock()
        jobs = FairQueue(settings.thread_count)
        self._executor = Executor(
            settings.thread_count, name="pyrope-engine", initializer=init_worker_thread, jobs=jobs
        )
        self.lanes = Lanes(self._executor, jobs, clock.monotonic)
        self._storage = Executor(1, name="pyrope-storage")
        self._builder = Executor(1, name="pyrope-build", initializer=init_worker_thread)
        self.embedders = Embedders(settings.embed, clock, run=self.run, spawn=self._spawn)
        engine = settings.engine
        self._merge_services = MergeServices(
            background=self._builder,
            clock=clock,
            spawn=self._spawn,
            options=MergeOptions(
                head_vectors=engine.head_vectors,
                slice_seconds=engine.merge_slice_ms / 1000,
                compact_share=engine.compact_share,
            ),
            search_costs=self._search_costs,
            memory_left=lambda: admission.memory_left,
        )
        self.cache: ValueCache[Kept] = ValueCache(
            settings.cache.max_bytes,
            clock=clock,
            random=Random(_CACHE_SEED),  # noqa: S311 - no secret
        )
        self._schedule = schedule
        self._dependencies = Dependencies()
        self._remember_budget = RememberBudget(settings.remember)
        self._lease_holders = Holders()
        self._facts = FactsCache()
        self._costs: dict[tuple[Metric, int, int, int, int], SearchCosts] = {}
        self.tenancy = Tenancy(
            settings,
            clock,
            run=self._storage.run,
            commit=self._commit,
            holdings=self._holdings,
            on_limits=self._follow_limits,
        )
        self.guard = LatencyGuard(settings.guardrail, clock)
        self.backups = Backups(
            None if settings.in_memory else Path(settings.data_dir),
            clock,
            store=self._opened,
            run=self._storage.run,
            audit=lambda: self.tenancy.audit,
            spawn=self._spawn,
        )
        self.advisor = self._new_advisor()
        self._store: Store | None = None
        self._committer: GroupCommitter | None = None
        self._saver: GraphSaver | None = None
        self._settled = SettledWork()
        self._disk_bytes = 0
        self.dropped_total = 0

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store and begin to load. Raises StorageError if the directory cannot be used."""
        # The loop scores a few vectors itself, when an answer catches up with writes.
        init_worker_thread()
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
        try:
            await self.tenancy.start(self._store)
        except BaseException:
            await self._committer.stop()
            await self._storage.run(self._store.close)
            self._store = None
            await self._builder.stop()
            await self._storage.stop()
            await self._executor.stop()
            raise
        if self.advisor is not None:
            self.advisor.start()
        # What reading 100,000 tenants has taken meanwhile is 40 MB.
        await self._give_back_memory()
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
        self.backups.cancel()
        if self.advisor is not None:
            await self.advisor.stop()
        # Whoever waits for a text to be embedded is told, and nothing comes of it any more.
        await self.embedders.stop()
        for index in self.indexes():
            index.closed = True  # a rebuild gives up
        for index in self.indexes():
            await index.drain()
            if index.remembered is not None:
                await index.remembered.flush()
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self.tenancy.stop()
        if self._committer is not None:
            await self._committer.stop()
        if self._saver is not None:
            if save_graphs and not self.loading:
                await self._saver.save(self.indexes(), at_exit=True)
            await self._saver.stop()
        for index in self.indexes():
            await index.close()
        self._catalogue.clear()
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
        specs = [decode_spec(blob) for _, blob in await self._storage.run(store.indexes)]
        services = self._services()
        for spec in specs:
            index = await restore_index(spec, store, self._storage, services, self.progress)
            self._open(index)
            self.embedders.begin(spec)
        by_uid = {index.spec.uid: index for index in self.indexes()}
        for index in by_uid.values():
            if index.remembered is not None:
                await index.remembered.link(partial(_are_there, by_uid))
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

    async def _sweep_indexes(self) -> None:
        for number, index in enumerate(self.indexes()):
            if number % _SWEPT_INDEXES == _SWEPT_INDEXES - 1:
                await asyncio.sleep(0)
            if self._catalogue.is_open(index):
                index.remove_expired()
                index.merger.nudge()
                index.aliases.sweep()
                index.cache.sweep(_SWEPT_ANSWERS)
                index.clusters.nudge()
            if index.remembered is not None:
                # Some milliseconds, where much has expired.
                await asyncio.sleep(0)
                if self._catalogue.is_open(index):
                    index.remembered.sweep()

    async def _sweep(self) -> None:
        """Now and then: take out what has expired, merge what rests, save what has changed."""
        counted_at = float("-inf")
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_S)
            if self.loading:
                continue
            await self._sweep_indexes()
            self.cache.sweep(_SWEPT_ANSWERS)
            if self.advisor is not None:
                self.advisor.tick()
            self.guard.evaluate()
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
        indexes = self.indexes()
        return len(indexes) + sum(one.sequence + one.engine.tail_changes for one in indexes)

    async def _count_disk(self) -> None:
        try:
            self._disk_bytes = await self._storage.run(self._opened().disk_bytes)
        except OSError as error:
            _log.warning("the space on disk cannot be counted", error=str(error))

    def _open(self, index: OpenIndex) -> None:
        """Let commands name an index."""
        self._catalogue.open(index)
        if self.advisor is not None:
            self.advisor.attach(index)

    def _shut(self, index: OpenIndex) -> None:
        """Let no command name an index any more."""
        self._catalogue.shut(index)
        if self.advisor is not None:
            self.advisor.detach(index)

    def _new_advisor(self) -> Advisor | None:
        """What asks a language model; None where there is none, and then nothing is imported."""
        if self.settings.llm.provider == "off":
            return None
        from pyrope.service.advising import Advisor  # noqa: PLC0415

        return Advisor(self.settings, self.clock, self.tenancy, run=self.run)

    # -- what there is ----------------------------------------------------------------------------

    @property
    def memory_bytes(self) -> int:
        """Memory of all indexes, in bytes; an estimate at most a tenth of a second old."""
        return self._admission.memory_bytes

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

    # -- changing what there is -------------------------------------------------------------------

    async def create_index(
        self,
        tenant: str,
        definition: IndexDefinition,
        *,
        if_new: bool = False,
        actor: Actor = SERVER,
    ) -> None:
        """Create an index, durably.

        Args:
            actor: who does it, for the audit trail; likewise below.
            if_new: an index that is there already with the same definition is no error.

        Raises:
            ExistsError, CommandError: the name is taken; too many indexes.
            NoAuthError: the tenant has been dropped.
            MisconfError: the disk refuses.
        """
        async with self._changing:
            self.tenancy.check_stays(tenant)
            there = self.find_index(tenant, definition.name.encode())
            if there is not None:
                if if_new and definition.describes(there.spec):
                    return
                raise ExistsError(
                    f"index '{definition.name}' exists already"
                    + (" with another definition" if if_new else "")
                )
            limit = self.settings.limits.indexes
            if len(self._catalogue) >= limit:
                raise CommandError(f"{limit} indexes exist already, which is the limit")
            self._admission.admit_write(0)
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
                async with self.tenancy.audit.act(
                    actor, "index.create", tenant, spec.name, None, plain_spec(spec)
                ):
                    await self._commit(PutIndex(uid, encode_spec(spec)))
            except BaseException:
                await self._storage.run(store.discard, uid)
                raise
            engine = HeadTailIndex(spec.metric, spec.dim, vectors)
            self._open(OpenIndex(spec, vectors, engine, self._services()))

    async def drop_index(self, tenant: str, name: bytes, *, actor: Actor = SERVER) -> bool:
        """Drop an index, durably. Returns whether it was there.

        Raises:
            MisconfError: the disk refuses; the index stays.
        """
        async with self._changing:
            index = self.find_index(tenant, name)
            if index is None:
                return False
            # No command can name it from here on, so that nothing is added while it drains.
            self._shut(index)
            try:
                with self._catalogue.leaving(index):
                    await self._drop(index, actor)
            except BaseException:
                if index.remembered is not None:
                    index.remembered.attach()
                self._open(index)
                raise
            self._admission.forget_estimate()
            self.dropped_total += 1
        # Training that is under way ends in seconds; others may create and drop meanwhile.
        await index.close()
        return True

    async def _drop(self, index: OpenIndex, actor: Actor) -> None:
        """Drop an index that no command can name any more, durably."""
        index.refuse_queued()
        await index.drain()
        spec = index.spec
        if index.remembered is not None:
            index.remembered.detach()
        async with self.tenancy.audit.act(
            actor, "index.drop", spec.tenant, spec.name, plain_spec(spec)
        ):
            await self._commit_drop(spec.uid)

    async def _commit_drop(self, uid: int) -> None:
        """Drop an index and, with it, what was made from its vectors."""
        consequences = self._dependencies.consequences_of_drop(uid)
        if consequences is None:
            await self._commit(DropIndex(uid))
            return
        try:
            await self._commit(DropIndex(uid), *consequences.changes)
        except BaseException:
            consequences.refused()
            raise
        consequences.kept()

    async def drop_all(self, tenant: str, actor: Actor = SERVER) -> None:
        """Drop every index of a tenant, those that are being created among them."""
        async with self._changing:
            names = self.index_names(tenant)
        for name in names:
            await self.drop_index(tenant, name.encode(), actor=actor)

    async def alter_index(
        self,
        tenant: str,
        name: bytes,
        *,
        ef: int | None = None,
        nprobe: int | None = None,
        change_policy: Callable[[CachePolicy], CachePolicy] | None = None,
        precondition: Callable[[IndexSpec], None] | None = None,
        actor: Actor = SERVER,
    ) -> None:
        """Change what searches of an index go by, durably, for all that come after it.

        Args:
            ef, nprobe: as in `IndexSpec`; None: as it is.
            change_policy: makes another cache policy of the one in force.
            precondition: called with the definition in force, which nobody else changes until this
                is over; what it raises is raised, and nothing has changed.

        Raises:
            NoIndexError: there is no such index.
            CommandError: a field means nothing to its type, NPROBE exceeds its NLIST, or near hits
                are wanted of inner products with vectors whose norms are too unequal.
            MisconfError: the disk refuses.
        """
        async with self._changing:
            index = self.index(tenant, name)
            if precondition is not None:
                precondition(index.spec)
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
                wanted = spec.cache.min_recall
                if wanted and wanted != index.policy.min_recall and spec.metric is Metric.IP:
                    mean = await self.run(index.engine.mean_norm)
                    check_norms(index.norm_bound, mean)
            check_nprobe(spec.nprobe, spec.nlist)
            async with self.tenancy.audit.act(
                actor, "index.alter", tenant, spec.name, plain_spec(index.spec), plain_spec(spec)
            ):
                await self._commit(PutIndex(spec.uid, encode_spec(spec)))
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

    async def check_disk(self) -> None:
        """See whether the disk takes writes: where it has refused the last one, another is tried.

        Raises:
            MisconfError: it does not.
        """
        if self.commit_statistics().is_refused:
            await self._commit(PutMeta(_PROBES, b"disk", b""))

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

    async def _commit(self, *changes: Change) -> None:
        if self._committer is None:
            raise RuntimeError("the service has not been started")
        await self._committer.commit(*changes)

    def _holdings(self, tenant: str) -> Holdings:
        """What a tenant keeps now."""
        indexes = self.indexes_of(tenant)
        return Holdings(
            sum(len(index) for index in indexes),
            sum(index.memory_bytes for index in indexes),
            self.cache.tenant_bytes(tenant),
        )

    def _follow_limits(self, tenant: str, limits: TenantLimits) -> None:
        self.cache.set_tenant_max_bytes(tenant, limits.cache_bytes)
        self.lanes.set_weight(tenant, _WEIGHTS[limits.priority])

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

    def _services(self) -> IndexServices:
        if self._committer is None:
            raise RuntimeError("the service has not been started")
        return IndexServices(
            lanes=self.lanes,
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
            remember=RememberServices(
                settings=self.settings.remember,
                committer=self._committer,
                clock=self.clock,
                run=self.run,
                spawn=self._spawn,
                schedule=self._schedule,
                near=self._near_services,
                dependencies=self._dependencies,
                budget=self._remember_budget,
                holders=self._lease_holders,
                facts=self._facts,
                verifier=lambda: None if self.advisor is None else self.advisor.recalls,
                random=Random(_REMEMBER_SEED),  # noqa: S311 - no secret
            ),
            tracer=self._tracer,
        )

    def _near_services(self, tenant: str) -> NearServices:
        return NearServices(
            lane=self.lanes.lane(tenant),
            merging=self._merge_services,
            tail_options=TailOptions(
                sq8_rerank_factor=self.settings.engine.sq8_rerank_factor,
                pq_rerank_factor=self.settings.engine.pq_rerank_factor,
            ),
            batch_max=self.settings.engine.batch_max,
            monotonic=self.clock.monotonic,
            spawn=self._spawn,
        )

    def client_gone(self, client: int) -> None:
        """A connection is no more, or as new: the leases that it held go to those who wait."""
        self._lease_holders.gone(client)

    def _assign_many(
        self, centroids: Centroids, rows: Float32Matrix
    ) -> asyncio.Future[NDArray[Any]]:
        return self._builder.run(centroids.assign_many, rows)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run what a command goes on with: `stop` waits for it."""
        return self._spawn(work)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that `stop` waits for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _are_there(by_uid: Mapping[int, OpenIndex], documents: Documents) -> bool:
    """Whether an index is there, and has all of some vectors."""
    index = by_uid.get(documents.uid)
    return index is not None and all(id_ in index.state.ids for id_ in documents.ids)
