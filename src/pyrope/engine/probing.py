"""How many inverted lists to visit, which of them, and when a scan costs less.

Costs are in rows, as in `pyrope.engine.beam`.
"""

from __future__ import annotations

from math import cbrt, ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from pyrope.engine.inverted_lists import NONE

# Of a search: before all, and of a query: its table of distances to codes.
_CALL, _QUERY = 450.0, 100.0
_CENTROID, _LIST = 0.2, 3.0
_CODE, _VECTOR, _SIFTED, _RERANKED = 0.02, 0.6, 0.01, 2.2

WIDEN = 3
"""How many times as many lists come next, where those before held too few."""


def first_probes(nprobe: int, wanted: int, matching: int, entries: int, nlist: int) -> int:
    """Lists to visit so that the recall is that of an unfiltered search, and enough are found.

    The recall stays about the same if the lists grow with the cube root of the inverse share of
    what takes part (measured: see `pyrope.engine.ivf`). Of p lists, ``p matching / nlist`` vectors
    take part on average; there should be `wanted`, with three standard deviations to spare (of a
    Poisson distribution).

    Args:
        nprobe: lists that an unfiltered search would visit.
        wanted: vectors to find, at most `matching`.
        matching: vectors that take part, at least 1.
        entries: places taken in all lists, at least `matching`.
        nlist: lists there are.
    """
    for_recall = nprobe * cbrt(entries / matching)
    for_width = (wanted + 3 * sqrt(wanted)) * nlist / matching
    # A rounding error is not worth a list.
    return min(nlist, ceil(max(for_recall, for_width) - 1e-6))


def nearest_lists(affinities: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The `count` lists with the largest affinities for each query, shape (n, count), unordered."""
    nlist = affinities.shape[1]
    if count >= nlist:
        return np.tile(np.arange(nlist), (len(affinities), 1))
    partition = np.argpartition(affinities, nlist - count, axis=1)
    return np.ascontiguousarray(partition[:, nlist - count :])


def fit_lists(
    affinities: NDArray[np.float32],
    probes: NDArray[np.int64],
    sizes: NDArray[np.int64],
    most: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of the lists to visit, nearest first, those that fit: whoever is too long is passed over.

    Args:
        affinities: shape (n, nlist).
        probes: shape (n, p).
        sizes: vectors in each list, shape (nlist,).
        most: how many vectors of all lists together may be compared, shape (n,).

    Returns:
        Shape (n, p), `NONE` in the place of lists that do not fit; and how many vectors there are
        in the others, shape (n,).
    """
    order = np.argsort(-np.take_along_axis(affinities, probes, axis=1), axis=1, kind="stable")
    probes = np.take_along_axis(probes, order, axis=1)
    lengths = sizes[probes]
    taken = np.zeros(len(probes), dtype=np.int64)
    for column in range(probes.shape[1]):
        length = lengths[:, column]
        fits = taken + length <= most
        taken += np.where(fits, length, 0)
        probes[~fits, column] = NONE
    return probes, taken


def lists_cost(
    queries: int,
    probes: int,
    *,
    nlist: int,
    entries: int,
    matching: int,
    reranked: int,
    compressed: bool,
) -> float:
    """Of a search in lists.

    Args:
        queries: how many.
        probes: lists visited for each.
        nlist: lists there are.
        entries: places taken in all of them.
        matching: those that take part.
        reranked: vectors that are scored again for each query.
        compressed: lists hold codes.
    """
    visited = entries * probes / nlist
    compared = _CODE * visited if compressed else _VECTOR * visited * matching / entries
    each = _QUERY + _CENTROID * nlist + _LIST * probes + _SIFTED * visited + _RERANKED * reranked
    return _CALL + queries * (each + compared)
