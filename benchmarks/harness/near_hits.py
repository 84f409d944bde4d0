"""Near hits as a server would make them: an exact neighbourhood, scored again for another query."""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.paraphrases import Paraphrases
from pyrope.cache.certificate import distances_of, proven_count, reach_of, strain_of
from pyrope.cache.near_tables import upper_distance
from pyrope.engine.kernels import pair_scores
from pyrope.types import Float32Matrix, Metric, Slots

# Queries scored at a time: bounds the rows gathered in float64.
_CHUNK = 64
# More than are kept are searched for in float32, so that rounding costs no candidate.
_SPARE = 50

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Searched:
    """Exact neighbours of queries, by float64 scores.

    Attributes:
        slots: int64, shape (queries, wide), nearest first.
        scores: float32 cosines, shape (queries, wide).
    """

    slots: Slots
    scores: Float32Matrix


@dataclass(frozen=True, slots=True)
class Hits:
    """Near hits of some k and number of candidates, one for each pair.

    Attributes:
        recall: of the k true results, the part that is in the answer.
        proven: of the k results, the part that is proven.
        by_chords: what the triangle inequality of chords would prove.
        radius: distance of the furthest candidate from the cached query.
        distance: between the queries.
        furthest: distance of the last result to the new query.
        strain: as `strain_of` has it.
        refuted: results that were proven and are not among the true ones.
    """

    recall: Floats
    proven: Floats
    by_chords: Floats
    radius: Floats
    distance: Floats
    furthest: Floats
    strain: Floats
    refuted: int


def search(
    index: faiss.IndexFlatIP, base: Float32Matrix, queries: Float32Matrix, wide: int
) -> Searched:
    """A full scan, its best scored again in float64."""
    _, slots = index.search(queries, wide + _SPARE)
    scores = rescored(base, queries, slots)
    order = np.lexsort((slots, -scores), axis=1)[:, :wide]
    return Searched(
        np.take_along_axis(slots, order, axis=1), np.take_along_axis(scores, order, axis=1)
    )


def rescored(base: Float32Matrix, queries: Float32Matrix, slots: Slots) -> Float32Matrix:
    """Cosines of queries with rows of slots, of the shape of `slots`."""
    scores = np.empty(slots.shape, dtype=np.float32)
    width = slots.shape[1]
    for first in range(0, len(queries), _CHUNK):
        some = slice(first, first + _CHUNK)
        pairs = pair_scores(
            Metric.COSINE, np.repeat(queries[some], width, axis=0), base[slots[some].ravel()]
        )
        scores[some] = pairs.reshape(-1, width)
    return scores


def near_hits(
    data: Paraphrases, before: Searched, again: Float32Matrix, truth: Slots, kept: int, k: int
) -> Hits:
    """What the first `kept` candidates make of the second queries.

    Args:
        data: the pairs.
        before: neighbours of the first queries.
        again: scores of those for the second queries.
        truth: of the second queries, their nearest slots.
        kept: candidates.
        k: results.
    """
    slots, scores = before.slots[:, :kept], again[:, :kept]
    best = np.lexsort((slots, -scores), axis=1)[:, :k]
    answer = np.take_along_axis(slots, best, axis=1)
    distances = distances_of(Metric.COSINE, np.take_along_axis(scores, best, axis=1))
    there = (answer[:, :, None] == truth[:, None, :k]).any(axis=2)
    radius = distances_of(Metric.COSINE, before.scores[:, kept - 1])
    dim = data.base.shape[1]
    computed = np.linalg.norm(data.cached - data.new, axis=1)
    distance = np.array([upper_distance(Metric.COSINE, dim, float(d)) for d in computed])
    proven = distances < reach_of(Metric.COSINE, radius, distance)[:, None]
    return Hits(
        recall=there.mean(axis=1),
        proven=proven_count(Metric.COSINE, radius, distance, distances, k) / k,
        by_chords=(distances < (radius - distance)[:, None]).mean(axis=1),
        radius=radius,
        distance=distance,
        furthest=distances[:, -1],
        strain=strain_of(Metric.COSINE, radius, distance, distances[:, -1]),
        refuted=int((proven & ~there).sum()),
    )
