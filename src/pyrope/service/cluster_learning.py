"""Where the clusters of an index are: what takes long about them, for the background thread."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyrope.config import ClusterSettings
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.engine.ivf import IvfIndex
from pyrope.engine.ivf_training import train_centroids
from pyrope.semantic.centroids import Centroids, choose_count
from pyrope.semantic.drift import Fit, mean_distance, unevenness
from pyrope.semantic.registry import CentroidSource
from pyrope.storage.vector_file import VectorFile
from pyrope.types import Float32Matrix, Metric, Slots

# Vectors that centroids are learnt from: enough for FAISS' k-means, in bounded memory.
_SAMPLE_PER_CENTROID, _LEAST_PER_CENTROID = 40, 4
_SAMPLE_BYTES = 32 * 2**20
# Vectors by which shares and fit are judged.
_JUDGED = 2048
# Of a vector's squared norm: what is larger comes of a rounding in k-means that has run away.
_SQUARED_NORM_MAX = float(np.finfo(np.float32).max) / 4


class Seen(NamedTuple):
    """What is handed to the background thread.

    Attributes:
        written: slots that vectors came to of late.
        queries: of late, shape (n, dim).
        seed: of the samples.
    """

    written: Slots
    queries: Float32Matrix
    seed: int


class Learnt(NamedTuple):
    """Centroids, and what the index looked like when they were made.

    Attributes:
        shares: of the index's vectors in each cluster; None where it has none.
        suited: how many centroids would suit the number of its vectors.
    """

    centroids: Centroids
    source: CentroidSource
    shares: NDArray[np.float64] | None
    fit: Fit
    suited: int


def learn(
    metric: Metric,
    engine: HeadTailIndex,
    vectors: VectorFile,
    seen: Seen,
    settings: ClusterSettings,
) -> Learnt | None:
    """Centroids for an index; None where there is nothing to learn them from.

    Takes half a second at 256 centroids of 384 dimensions.
    """
    live = engine.live_slots()
    suited = choose_count(len(live), settings.max_centroids)
    tail = engine.tail
    lists = tail.centroids() if isinstance(tail, IvfIndex) else None
    if lists is not None:
        rows, source = _usable(lists, metric), CentroidSource.LISTS
        if len(rows) > settings.max_centroids:
            rows = _clustered(metric, rows, suited)
    else:
        source = CentroidSource.KMEANS
        size = _sample_size(suited, vectors.dim)
        sample = vectors.view()[_drawn(live, size, seen.seed)]
        if len(live):
            sample = np.concatenate([sample, seen.queries[:size]])
        rows = _clustered(metric, sample, suited)
    if not len(live) or not len(rows):
        return None
    centroids = Centroids(metric, rows)
    shares, fit = judge(centroids, engine, vectors, seen)
    return Learnt(centroids, source, shares, fit, suited)


def _sample_size(centroids: int, dim: int) -> int:
    return max(
        min(_SAMPLE_PER_CENTROID * centroids, _SAMPLE_BYTES // (4 * dim)),
        _LEAST_PER_CENTROID * centroids,
    )


def _drawn(slots: Slots, size: int, seed: int) -> Slots:
    """So many of the slots, or all, ascending."""
    if len(slots) <= size:
        return slots
    return np.sort(np.random.default_rng(seed).choice(slots, size, replace=False))


def _clustered(metric: Metric, rows: Float32Matrix, count: int) -> Float32Matrix:
    """By k-means; for IP by distance, since that is what vectors are assigned by."""
    rows = _usable(rows, metric)
    if not len(rows):
        return rows
    quantizer = train_centroids(Metric.L2 if metric is Metric.IP else metric, rows, count)
    return _usable(quantizer.reconstruct_n(0, quantizer.ntotal), metric)


def _usable(rows: Float32Matrix, metric: Metric) -> Float32Matrix:
    """Those that a centroid may be made of."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows)
    good = squares < _SQUARED_NORM_MAX
    if metric is Metric.COSINE:
        good &= rows.any(axis=1)
    return rows if good.all() else np.ascontiguousarray(rows[good])


def judge(
    centroids: Centroids, engine: HeadTailIndex, vectors: VectorFile, seen: Seen
) -> tuple[NDArray[np.float64] | None, Fit]:
    """Of the index's vectors the share in each cluster, and how all fits.

    Takes 30 ms at 256 centroids of 384 dimensions.
    """
    live, view = engine.live_slots(), vectors.view()
    drawn = _drawn(live, _JUDGED, seen.seed)
    clusters = centroids.assign_many(view[drawn])
    shares = None
    if len(drawn):
        shares = np.bincount(clusters, minlength=len(centroids)) / len(drawn)
    written = np.intersect1d(seen.written, live, assume_unique=True)
    fit = Fit(
        written=mean_distance(centroids, view[written]),
        queried=mean_distance(centroids, seen.queries),
        uneven=unevenness(clusters, len(centroids)),
    )
    return shares, fit
