"""The clusters of one index: where they are, how much is written to each, how long answers live.

Clusters are what caches go by where single vectors are too many: entries near a centroid are found
through it, and live shorter where much is written. Nothing that is right depends on them. An index
that is small, or new, has one cluster, number 0, for everything.

What takes long (learning centroids, looking for drift) happens elsewhere
(`pyrope.service.clusters`); here are the facts, for the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from pyrope.clock import Clock
from pyrope.config import ClusterSettings
from pyrope.semantic.advice import ClusterAdvice
from pyrope.semantic.centroids import Centroids
from pyrope.semantic.drift import LEAST_ROWS
from pyrope.semantic.recent import RecentQueries, RecentSlots
from pyrope.semantic.ttl import FactorsInForce, default_threshold, ttl_factor
from pyrope.semantic.write_heat import WriteHeat
from pyrope.types import Float32Matrix, Metric, Slots

# Products of numbers in one call on the loop: 0.2 ms. Of larger batches a sample is looked at.
_PRODUCTS_AT_ONCE = 2**21
_ROWS_AT_ONCE = 512
# A query of an index that has no clusters yet costs nothing to pass over.
_SLOTS = 512


class CentroidSource(Enum):
    """Where centroids come from."""

    NONE = "none"
    KMEANS = "k-means"
    LISTS = "lists"
    PUSHED = "pushed"


class SemanticClusterRegistry:
    """All methods are for the event loop, and take microseconds.

    Args:
        metric, dim: of the index.
        settings: read whenever they are needed, but for the window and the size of the sample.
        clock: of the window.
        rows: the raw rows of slots, shape (n, dim).
        threshold: writes from which a cluster is hot, as the index's policy has it; None: derived.
        seed: of the samples.

    Attributes:
        centroids: None where everything is cluster 0.
        source: of the centroids.
        epoch: counts changes of the centroids, from 0. Numbers of clusters of another epoch mean
            nothing.
        activity: counts writes and queries, to tell whether there were any.
        advice: what a language model has said about clusters; it moves TTLs within their bounds.
    """

    def __init__(
        self,
        metric: Metric,
        dim: int,
        settings: ClusterSettings,
        clock: Clock,
        *,
        rows: Callable[[Slots], Float32Matrix],
        threshold: Callable[[], float | None],
        seed: int,
    ) -> None:
        self.centroids: Centroids | None = None
        self.source = CentroidSource.NONE
        self.epoch = 0
        self.activity = 0
        self.advice = ClusterAdvice(clock)
        self._metric = metric
        self._dim = dim
        self._settings = settings
        self._rows = rows
        self._policy_threshold = threshold
        self._random = np.random.default_rng(seed)
        self._heat = WriteHeat(1, settings.window_s, clock.monotonic)
        self._factors = FactorsInForce(1)
        self._shares: NDArray[np.float64] | None = None
        self._queries = RecentQueries(dim, settings.query_sample, self._random)
        self._written = RecentSlots(_SLOTS)

    def __len__(self) -> int:
        """Number of clusters, at least 1."""
        return len(self._heat)

    @property
    def nbytes(self) -> int:
        """Memory of centroids, samples and counts."""
        parts = (self._heat, self._factors, self._queries, self._written)
        total = sum(part.nbytes for part in parts)
        if self.centroids is not None:
            total += self.centroids.nbytes
        return total if self._shares is None else total + self._shares.nbytes

    # -- where things belong ----------------------------------------------------------------------

    def assign(self, vector: NDArray[np.float32] | bytes) -> int:
        """The cluster of a raw vector, shape (dim,), or its little-endian float32 bytes."""
        if self.centroids is None:
            return 0
        if isinstance(vector, bytes):
            vector = np.frombuffer(vector, "<f4")
        return self.centroids.assign(vector)

    def score(self, vector: NDArray[np.float32], cluster: int) -> float | None:
        """How near a vector is to a cluster's centroid: see `Centroids.score`; None without one."""
        return None if self.centroids is None else self.centroids.score(vector, cluster)

    def share(self, cluster: int) -> float | None:
        """Of the index's vectors, those in a cluster when its centroids were made, about.

        From 0 to 1; None where that is not known.
        """
        if self.centroids is None:
            return 1.0
        return None if self._shares is None else float(self._shares[cluster])

    # -- what happens -----------------------------------------------------------------------------

    def wrote(self, slots: Slots) -> None:
        """Vectors have come to these slots: new ones, or others than their ids had before."""
        if len(slots):
            self._written.add(self._count(slots))

    def removed(self, slots: Slots) -> None:
        """The vectors in these slots are deleted, or have expired; their rows are still there."""
        if len(slots):
            self._count(slots)

    def _count(self, slots: Slots) -> Slots:
        """Count a write to the cluster of each slot, or of a sample; the slots that were counted.

        A sample is drawn with replacement, and each of it stands for as many.
        """
        count = len(slots)
        self.activity += count
        if self.centroids is None:
            self._heat.add(0, count)
            return slots
        most = _PRODUCTS_AT_ONCE // (len(self.centroids) * self._dim)
        most = min(max(most, 1), _ROWS_AT_ONCE)
        if count > most:
            slots = slots[self._random.integers(count, size=most)]
        clusters = self.centroids.assign_many(self._rows(slots))
        self._heat.add_many(clusters, count / len(slots))
        return slots

    def queried(self, vector: NDArray[np.float32] | bytes, times: int = 1) -> None:
        """Somebody has searched for this raw vector, shape (dim,), or its bytes.

        Args:
            times: searches, of which this is one.
        """
        self.activity += times
        self._queries.offer(vector, times)

    def recent(self) -> tuple[Slots, Float32Matrix]:
        """Slots that were written, and a sample of the queries, shape (n, dim), of late.

        The slots may have been deleted since.
        """
        return self._written.slots(), self._queries.rows()

    def forget_recent(self) -> None:
        """Begin those samples anew, but for one that tells too little as yet."""
        for sample in (self._written, self._queries):
            if len(sample) >= LEAST_ROWS:
                sample.clear()

    # -- heat and TTL -----------------------------------------------------------------------------

    def writes(self, cluster: int) -> float:
        """Writes to a cluster in the window. Raises IndexError for a cluster that is not there."""
        return self._heat.of(cluster)

    @property
    def threshold(self) -> float:
        """Writes in the window from which a cluster counts as hot."""
        given = self._policy_threshold()
        if given is not None:
            return given
        settings = self._settings
        return default_threshold(
            self._heat.total, len(self), settings.hot_factor, settings.hot_min_writes
        )

    @property
    def is_cold(self) -> bool:
        """Whether nothing has been written in the window, nor advised: all clusters are alike."""
        return not self._heat.total and not len(self.advice)

    def cold_ttl(self, base_s: float) -> float:
        """The TTL of a cluster without any heat, in seconds; see `ttl`."""
        return base_s * ttl_factor(0.0, self._settings.ttl_floor, self._settings.ttl_ceiling)

    def longest_ttl(self, base_s: float) -> float:
        """What no TTL in force exceeds, in seconds; see `ttl`."""
        return base_s * self._settings.ttl_ceiling

    def ttl(self, cluster: int, base_s: float) -> float:
        """The TTL in force, in seconds, of what belongs to a cluster.

        Args:
            base_s: of an index without heat or cold, in seconds; 0, which is for ever, stays so.

        Raises:
            IndexError: there is no such cluster.
        """
        settings = self._settings
        ratio = self._heat.of(cluster) / self.threshold
        factor = ttl_factor(ratio, settings.ttl_floor, settings.ttl_ceiling)
        held = self._factors.settle(cluster, factor, settings.ttl_hysteresis)
        advice = self.advice.get(cluster)
        if advice is not None:
            held *= advice.ttl_factor
        return base_s * min(max(held, settings.ttl_floor), settings.ttl_ceiling)

    def value_factor(self, vector: NDArray[np.float32] | bytes) -> float:
        """What the value of an answer about a raw vector, or its bytes, is multiplied by."""
        if not len(self.advice):
            return 1.0
        advice = self.advice.get(self.assign(vector))
        return 1.0 if advice is None else advice.value_factor

    # -- other centroids --------------------------------------------------------------------------

    def install(
        self,
        centroids: Centroids,
        source: CentroidSource,
        shares: NDArray[np.float64] | None = None,
    ) -> None:
        """Go by other centroids.

        The writes of the window go along: those of a cluster to the one that its centroid is
        in now; of an index that had no centroids, to each its share.

        Args:
            shares: of the index's vectors in each cluster, shape (n,), adding up to 1; None where
                that is not known.
        """
        if self.centroids is not None:
            targets = centroids.assign_many(self.centroids.matrix)
            self._heat.move(targets, len(centroids))
        else:
            equal = np.full(len(centroids), 1 / len(centroids))
            self._heat.spread(equal if shares is None else shares)
        self._factors = FactorsInForce(len(centroids))
        self.advice.remove()
        self.centroids, self.source, self._shares = centroids, source, shares
        self.epoch += 1

    def clear(self) -> None:
        """Go without centroids: everything is cluster 0."""
        self._heat.spread(np.ones(1))
        self._factors = FactorsInForce(1)
        self.advice.remove()
        self.centroids, self.source, self._shares = None, CentroidSource.NONE, None
        self.epoch += 1
