"""How many results of a re-scored neighbourhood are proven to be what a full search would give.

A neighbourhood of a cached query holds every vector that is nearer to it than `radius`: what it
does not hold, a *stranger*, is at least that far away. For a new query at `distance` from the
cached one, no stranger is nearer than the *reach* of the neighbourhood:

L2: ``reach = radius - distance``. The triangle inequality: the way from the cached query to a
stranger is no longer than the way over the new query.

COSINE: the same inequality for angles, which are distances along the unit sphere. For chords
``2 sin(angle / 2)`` it reads ``reach = radius sqrt(1 - distance^2 / 4) - distance
sqrt(1 - radius^2 / 4)``, the sine of a difference. It proves more than the triangle inequality of
the chords (at radius 1 and distance 0.45, a reach of 0.58 instead of 0.55), and is as far as a
radius alone can lead: a stranger may be there.

IP: where no vector is longer than X, ``(x, sqrt(X^2 - |x|^2)) / X`` has unit length, and its
product with the unit vector ``(q, 0) / |q|`` is ``qx / (|q| X)`` (Bachrach et al., Speeding up the
Xbox recommender system using a Euclidean transformation for inner-product spaces, RecSys 2014,
section 3; with unit queries, Neyshabur and Srebro, On symmetric and asymmetric LSHs for inner
product search, ICML 2015). So IP is COSINE of those, and queries are compared by their directions.
X may be any bound on the norms of the vectors there are now; when it grows, the radius is computed
again from the cached score.

What is nearer than the reach is nearer than any stranger, and its place among the vectors that the
neighbourhood holds is its place among all.

Floats. A result counts as proven only if a full search could not have put a stranger before it,
whatever was rounded: true values, and the float32 scores by which results are ordered. A score is a
float32 rounding of a float64 computation: cosines are off by ``2^-25``, products divided by norms
(which may be float32 too) by ``2^-23``, distances by a part ``2^-24`` of themselves. The bounds
below are at least twice as wide; the rest covers float64 arithmetic, up to a million dimensions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyrope.types import Metric

Floats = NDArray[np.float64]

_COSINE_ERROR = 2.0**-22
_DISTANCE_ERROR = 2.0**-22
# What float32 rounds to zero is smaller.
_SMALLEST_DISTANCE = 2.0**-126
# Products with norms that multiply to less vanish among float32's denormals, before they are
# divided; to more, they overflow.
_SMALLEST_SCALE, _LARGEST_SCALE = 2.0**-100, 2.0**127


def distances_of(
    metric: Metric,
    scores: NDArray[np.float32] | np.float32,
    *,
    query_norm: float = 1.0,
    max_norm: float = 1.0,
) -> Floats:
    """Scores as distances in which certificates reckon, in float64, of the same shape.

    L2: the scores. COSINE: chords between unit vectors. IP: chords as above. NaN, about which
    nothing is ever proven, for what float32 cannot hold.

    Args:
        scores: in the metric's own unit, rounded from float64.
        query_norm: of the raw query, for IP.
        max_norm: for IP, a bound on the norms of all vectors that take part.

    Raises:
        ValueError: a product is larger than the bound on norms allows.
    """
    wide = np.asarray(scores, dtype=np.float64)
    if metric is Metric.L2:
        return np.where(np.isfinite(wide), wide, np.nan)
    if metric is Metric.IP:
        scale = query_norm * max_norm
        if not _SMALLEST_SCALE < scale < _LARGEST_SCALE:
            return np.full(wide.shape, np.nan)
        wide = wide / scale
        if wide.size and np.abs(wide).max() > 1.0 + _COSINE_ERROR:
            raise ValueError("a vector is longer than max_norm says")
    chords: Floats = np.sqrt(2.0 - 2.0 * np.clip(wide, -1.0, 1.0))
    return chords


def reach_of(metric: Metric, radius: Floats | float, distance: Floats | float) -> Floats:
    """What distances to the new query must stay below to be proven, of the broadcast shape.

    Args:
        metric: as of the index.
        radius: distance of the furthest vector held, as `distances_of` gives it; inf where the
            neighbourhood holds everything that takes part.
        distance: between the two queries, a bound that the true one does not exceed (as
            `pyrope.cache.near_tables.upper_distance` gives it).

    Returns:
        Of the distances as `distances_of` computes them; 0 where nothing is proven, inf where
        everything is.
    """
    radius, distance = np.asarray(radius, np.float64), np.asarray(distance, np.float64)
    if metric is Metric.L2:
        # Two scores are rounded, neither of them larger than the radius.
        reach = radius * (1.0 - _DISTANCE_ERROR) - distance - _SMALLEST_DISTANCE
    else:
        # A cosine that is off by e belongs to a chord whose square is off by 2 e.
        square = np.maximum(np.minimum(radius * radius, 4.0) - 2.0 * _COSINE_ERROR, 0.0)
        chord = np.minimum(distance, 2.0)
        reach = np.sqrt(square * (1.0 - chord * chord / 4.0))
        reach = np.maximum(reach - chord * np.sqrt(1.0 - square / 4.0), 0.0)
        reach = np.sqrt(np.maximum(reach * reach - 2.0 * _COSINE_ERROR, 0.0))
    return np.where(np.isposinf(radius), np.inf, np.maximum(reach, 0.0))


def proven_count(
    metric: Metric,
    radius: Floats | float,
    distance: Floats | float,
    distances: Floats,
    k: int,
) -> NDArray[np.intp]:
    """How many of the k nearest of a new query are proven, of the shape of `radius`.

    Args:
        metric: as of the index.
        radius: as in `reach_of`.
        distance: as in `reach_of`.
        distances: of what the neighbourhood holds to the new query, nearest first along the last
            axis, as `distances_of` gives them. The first k must be those that a full search would
            put first among what is held: chosen by rougher scores, a near-tie may not be, and what
            is proven against strangers is not proven against it.
        k: results wanted, at least 1.
    """
    reach = reach_of(metric, radius, distance)
    proven = distances[..., :k] < reach[..., None]
    # Scores that overflow are NaN here, but of a neighbourhood that holds everything all is known.
    proven |= np.isposinf(reach)[..., None]
    counts: NDArray[np.intp] = np.count_nonzero(proven, axis=-1)
    return counts


def strain_of(
    metric: Metric,
    radius: Floats | float,
    distance: Floats | float,
    furthest: Floats | float,
) -> Floats:
    """How much a new query asks of a neighbourhood: ``sqrt(furthest^2 + distance^2 / 2) / radius``.

    0 where all results are proven, else about 1 where the last one would just be held. If the way
    between the queries were at a right angle to the way to the results, as most directions are in
    many dimensions, a result at `furthest` from the new query would be at
    ``sqrt(furthest^2 + distance^2)`` from the cached one, and missing if that is beyond the radius.
    (At worst, straight behind the new query, it would be at ``furthest + distance``, with which
    proofs reckon.) To halve the square of the distance is measured, not derived: of a dozen
    figures known before a full search, this one told most about what is missing on sentence
    embeddings and on generated clusters together (some of them: benchmarks/near_candidates.py).

    Args:
        metric: as of the index.
        radius: as in `reach_of`; a neighbourhood that holds everything has no strain.
        distance: between the two queries.
        furthest: distance of the last result to the new query.
    """
    radius, distance, furthest = (
        np.asarray(length, np.float64) for length in (radius, distance, furthest)
    )
    needed = np.sqrt(furthest * furthest + distance * distance / 2.0)
    strain = np.full(np.broadcast_shapes(needed.shape, radius.shape), np.inf)
    # Of a radius that is not known nothing is known: NaN would have no bin.
    np.divide(needed, radius, out=strain, where=(radius > 0) & ~np.isnan(needed))
    proven = np.isposinf(radius) | (furthest < reach_of(metric, radius, distance))
    return np.where(proven, 0.0, strain)
