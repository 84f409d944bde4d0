"""The clusters of one index: learnt in the background, pushed by clients, kept across restarts.

Joins the registry (`pyrope.semantic.registry`), which knows and counts, with the engine, whose
vectors the centroids are learnt from, with the thread in which that is done, and with the store,
which keeps what clients have pushed. What was learnt is not kept: after a restart it is learnt
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pyrope.clock import Clock
from pyrope.config import ClusterSettings
from pyrope.engine.executor import Executor
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.errors import CommandError, NoIndexError
from pyrope.log import get_logger
from pyrope.semantic.centroids import Centroids, choose_count
from pyrope.semantic.drift import Drift
from pyrope.semantic.registry import CentroidSource, SemanticClusterRegistry
from pyrope.service.cluster_learning import Learnt, Seen, judge, learn
from pyrope.storage.group_commit import GroupCommitter
from pyrope.storage.store import MAX_SIDE_BYTES, PutSide, SideRecord
from pyrope.storage.vector_file import VectorFile
from pyrope.types import Float32Matrix, IndexSpec, Metric, Slots

_log = get_logger(__name__)

SIDE_KIND = 2
"""Of side records: centroids that were pushed, under the one key that there is."""

_SIDE_KEY = b"centroids"
# Other numbers of centroids would suit the index so much better that they are learnt anew.
_GROWN, _SHRUNK = 2, 4


@dataclass(frozen=True, slots=True)
class ClusterServices:
    """What clusters need of the rest of the server.

    Attributes:
        background: one thread for what takes seconds.
        spawn: runs a coroutine as a task that the server waits for when it stops.
    """

    background: Executor
    committer: GroupCommitter
    clock: Clock
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    settings: ClusterSettings


class Clustered(Protocol):
    """The index.

    Attributes:
        closed: it is going away: what takes long gives up.
    """

    spec: IndexSpec
    engine: HeadTailIndex
    vectors: VectorFile
    closed: bool


class IndexClusters:
    """All methods are for the event loop.

    Attributes:
        registry: everything that is known.
    """

    def __init__(self, index: Clustered, services: ClusterServices) -> None:
        spec = index.spec
        self._index = index
        self._services = services
        self._settings = services.settings
        self.registry = SemanticClusterRegistry(
            spec.metric,
            spec.dim,
            services.settings,
            services.clock,
            rows=lambda slots: index.vectors.view()[slots],
            threshold=lambda: index.spec.cache.hot_writes or None,
            seed=spec.uid,
        )
        self._drift: Drift | None = None
        # Centroids that would have suited the index when those in force were made.
        self._suited = 1
        self._looked_at = float("-inf")
        self._activity_seen = 0
        # Held while centroids are made or changed, so that these happen one after another.
        self._changing = asyncio.Lock()
        self._look: asyncio.Task[None] | None = None
        self._changes: set[asyncio.Task[None]] = set()

    # -- what caches ask --------------------------------------------------------------------------

    def assign(self, vector: NDArray[np.float32] | bytes) -> int:
        """The cluster of a raw vector, shape (dim,), or of its little-endian float32 bytes."""
        return self.registry.assign(vector)

    def wrote(self, slots: Slots) -> None:
        """Vectors have come to these slots, for new ids or in place of others."""
        self.registry.wrote(slots)

    def removed(self, slots: Slots) -> None:
        """The vectors in these slots are deleted or have expired; their rows are still there."""
        self.registry.removed(slots)

    def queried(self, vector: NDArray[np.float32] | bytes, times: int = 1) -> None:
        """See `SemanticClusterRegistry.queried`."""
        self.registry.queried(vector, times)

    def ttl(self, cluster: int, base_s: float | None = None) -> float:
        """The TTL in force for a cluster, in seconds; 0: for ever.

        Args:
            base_s: None: that of the index's policy.

        Raises:
            IndexError: there is no such cluster.
        """
        return self.registry.ttl(cluster, self.base_ttl_s if base_s is None else base_s)

    def ttl_of(self, vector: NDArray[np.float32] | bytes) -> float:
        """The TTL in force for the cluster of a vector, in seconds; 0: for ever."""
        registry = self.registry
        if self.ttl_is_known:
            return registry.cold_ttl(self.base_ttl_s)
        return registry.ttl(registry.assign(vector), self.base_ttl_s)

    @property
    def ttl_is_known(self) -> bool:
        """Whether all clusters have the same TTL, so that `ttl_of` costs nothing."""
        return self.registry.is_cold or not self.base_ttl_s

    @property
    def longest_ttl_s(self) -> float:
        """What no TTL in force exceeds, in seconds; 0: for ever."""
        return self.registry.longest_ttl(self.base_ttl_s)

    @property
    def base_ttl_s(self) -> float:
        """The TTL of the index's policy, in seconds; 0: for ever."""
        return self._index.spec.cache.ttl_s

    def value_factor(self, vector: bytes) -> float:
        """See `SemanticClusterRegistry.value_factor`."""
        return self.registry.value_factor(vector)

    @property
    def threshold(self) -> float:
        """Writes in the window from which a cluster counts as hot."""
        return self.registry.threshold

    @property
    def window_s(self) -> float:
        """Seconds that writes are counted for."""
        return self._settings.window_s

    @property
    def epoch(self) -> int:
        """Another number whenever centroids have changed, and with them what clusters are."""
        return self.registry.epoch

    @property
    def nbytes(self) -> int:
        return self.registry.nbytes

    @property
    def looking(self) -> bool:
        """Whether a look is under way, or what came of it."""
        return self._look is not None

    # -- looking after them -----------------------------------------------------------------------

    def nudge(self) -> None:
        """See whether centroids are due or have drifted; to be called now and then, costs nothing.

        A look is taken at most once per interval, and only where something was written or asked.
        """
        if self._look is None and not self._index.closed and self._due():
            self._look = self._services.spawn(self._look_after())

    def _due(self) -> bool:
        registry = self.registry
        if registry.source is CentroidSource.PUSHED or registry.activity == self._activity_seen:
            return False
        if registry.centroids is None and len(self._index.engine) < self._settings.min_vectors:
            return False
        now = self._services.clock.monotonic()
        return now - self._looked_at >= self._settings.drift_interval_s

    async def _look_after(self) -> None:
        try:
            async with self._changing:
                if self._index.closed or self.registry.source is CentroidSource.PUSHED:
                    return
                self._looked_at = self._services.clock.monotonic()
                self._activity_seen = self.registry.activity
                seen = self._seen()
                self.registry.forget_recent()
                if await self._drifted(seen):
                    await self._learn(seen)
        except NoIndexError:
            pass  # it is going away
        except Exception as error:  # noqa: BLE001 - whatever it is, those in force stay so
            _log.error("clusters cannot be learnt", index=self._index.spec.name, exc_info=error)
        finally:
            self._look = None

    async def _drifted(self, seen: Seen) -> bool:
        """Whether other centroids are wanted."""
        centroids, drift = self.registry.centroids, self._drift
        if centroids is None or drift is None:
            return True
        suited = self._suits(len(self._index.engine))
        if suited >= _GROWN * self._suited or suited * _SHRUNK <= self._suited:
            return True
        index, run = self._index, self._services.background.run
        _, fit = await run(judge, centroids, index.engine, index.vectors, seen)
        return drift.has_come(fit, self._settings.drift_factor)

    def _suits(self, vectors: int) -> int:
        return choose_count(vectors, self._settings.max_centroids)

    def _seen(self) -> Seen:
        registry = self.registry
        seed = self._index.spec.uid + registry.epoch
        return Seen(*registry.recent(), seed)

    async def _learn(self, seen: Seen) -> None:
        """Make centroids of what there is, and go by them; called with `_changing` held."""
        index, services = self._index, self._services
        learnt = await services.background.run(
            learn, index.spec.metric, index.engine, index.vectors, seen, self._settings
        )
        self._check_open()
        if self.registry.source is CentroidSource.PUSHED:
            # What is learnt is not kept: after a restart it is learnt again.
            await services.committer.commit(PutSide(index.spec.uid, SIDE_KIND, _SIDE_KEY, None))
        if learnt is None:
            self._drift, self._suited = None, 1
            if self.registry.centroids is not None:
                self.registry.clear()
            return
        self._install(learnt)

    def _install(self, learnt: Learnt) -> None:
        self.registry.install(learnt.centroids, learnt.source, learnt.shares)
        self._drift, self._suited = Drift(learnt.fit), learnt.suited
        _log.info(
            "clusters changed",
            index=self._index.spec.name,
            clusters=len(learnt.centroids),
            source=learnt.source.value,
        )

    # -- what clients ask -------------------------------------------------------------------------

    async def rebuild(self) -> None:
        """Learn centroids of the vectors and queries there are; they are in force on return.

        An index without vectors has none afterwards. Cancelling does not stop it.

        Raises:
            NoIndexError: the index was dropped meanwhile, or the server is stopping.
            MisconfError: the disk refuses; the centroids that were pushed stay.
        """
        await self._begin(self._rebuild())

    async def push(self, rows: Float32Matrix) -> None:
        """Go by these centroids, durably, until others are pushed, or `rebuild`.

        Cancelling does not stop it.

        Args:
            rows: shape (n, dim), finite, with squared norms below a quarter of float32's range.

        Raises:
            CommandError: they are too many, or one has no direction although the metric is COSINE.
            NoIndexError: the index was dropped meanwhile, or the server is stopping.
            MisconfError: the disk refuses; nothing has changed.
        """
        most = self._settings.max_centroids
        if len(rows) > most:
            raise CommandError(f"{len(rows)} centroids: at most {most} are allowed")
        if rows.nbytes > MAX_SIDE_BYTES - len(_SIDE_KEY):
            raise CommandError(
                f"{rows.nbytes} bytes of centroids: at most {MAX_SIDE_BYTES} are allowed"
            )
        if self._index.spec.metric is Metric.COSINE and not rows.any(axis=1).all():
            raise CommandError("a centroid of zeros has no direction, which COSINE needs")
        await self._begin(self._push(rows))

    async def drain(self) -> None:
        """Return when what clients have asked for is done, one way or another."""
        while self._changes:
            await asyncio.wait(self._changes)

    async def stop(self) -> None:
        """Return when nothing runs any more; the index has been marked as closed."""
        await self.drain()
        if self._look is not None:
            await asyncio.wait([self._look])

    async def restore(self, records: list[SideRecord]) -> None:
        """Take up what was pushed before the restart, if anything was."""
        for record in records:
            if record.kind == SIDE_KIND and record.key == _SIDE_KEY:
                rows = np.frombuffer(record.value, "<f4").reshape(-1, self._index.spec.dim)
                self._install(await self._measured(rows))

    async def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Have it done, whether or not the client stays."""
        task = self._services.spawn(work)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        # A client that has gone does not ask for the outcome.
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(task)

    async def _rebuild(self) -> None:
        async with self._changing:
            self._check_open()
            self._looked_at = self._services.clock.monotonic()
            await self._learn(self._seen())

    async def _push(self, rows: Float32Matrix) -> None:
        async with self._changing:
            self._check_open()
            learnt = await self._measured(rows)
            self._check_open()
            change = PutSide(self._index.spec.uid, SIDE_KIND, _SIDE_KEY, rows.tobytes())
            await self._services.committer.commit(change)
            self._install(learnt)

    async def _measured(self, rows: Float32Matrix) -> Learnt:
        index, run = self._index, self._services.background.run
        centroids = await run(Centroids, index.spec.metric, rows)
        shares, fit = await run(judge, centroids, index.engine, index.vectors, self._seen())
        return Learnt(centroids, CentroidSource.PUSHED, shares, fit, len(rows))

    def _check_open(self) -> None:
        if self._index.closed:
            name = self._index.spec.name
            raise NoIndexError(f"the index '{name}' has been dropped, or the server is stopping")
