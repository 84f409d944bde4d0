"""What is asked of an index and written to it, in which order: all drawn with a seed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import data
from benchmarks.harness.data import Dataset, Float32Matrix
from benchmarks.harness.paraphrases import Paraphrases

SUCCESSORS = (0.6, 0.2, 0.1, 0.1)
"""Chances of what may follow a query in a session, the likeliest first."""

SESSION_LENGTH = 8
"""Queries of a session on average; it ends after each with one chance in so many."""

SESSIONS_AT_ONCE = 50

LAG = 0.1
"""Mean time between the queries of a pair, as a share of a trace's length."""


class Kind(IntEnum):
    """What a step does. A write takes a vector from `Trace.written` unless it deletes."""

    SEARCH = 0
    ADD = 1
    UPDATE = 2
    DELETE = 3


@dataclass(frozen=True, slots=True)
class Trace:
    """Steps, n of them.

    Attributes:
        name: for the report.
        base: float32, shape (count, dim); row i is stored under the id ``i`` before the first step.
        queries: float32, shape (m, dim).
        written: vectors of adds and updates in the order of the steps, shape (w, dim).
        kinds: int64, shape (n,): a `Kind` each.
        what: int64, shape (n,): of a search the row of its query, of a write the id.
        tags: int64, shape (n,): of a search its session, or the pair whose second query it is;
            -1: neither.
        options: further arguments of each search.
    """

    name: str
    base: Float32Matrix
    queries: Float32Matrix
    written: Float32Matrix
    kinds: NDArray[np.int64]
    what: NDArray[np.int64]
    tags: NDArray[np.int64]
    options: tuple[bytes, ...] = ()

    @property
    def searches(self) -> int:
        return int((self.kinds == Kind.SEARCH).sum())

    @property
    def writes(self) -> int:
        return len(self.kinds) - self.searches


def zipf(dataset: Dataset, searches: int, exponent: float, writes: float, seed: int) -> Trace:
    """Queries whose popularity falls as ``1 / rank ** exponent``, independent of one another.

    Args:
        writes: their share of all steps, from 0 to below 1.
    """
    generator = np.random.default_rng([seed, 1])
    asked = _by_popularity(generator, len(dataset.queries), exponent, searches)
    name = f"Zipf {exponent:g}, {writes:.0%} writes"
    return _with_writes(name, dataset, asked, np.full(searches, -1), writes, seed)


def sessions(dataset: Dataset, searches: int, exponent: float, writes: float, seed: int) -> Trace:
    """Sessions side by side: a first query by popularity, each next one by what was asked last.

    Each query has a few that may follow it, themselves drawn by popularity.
    """
    generator = np.random.default_rng([seed, 2])
    number = len(dataset.queries)
    chances = np.array(SUCCESSORS)
    followers = _by_popularity(generator, number, exponent, number * len(chances))
    followers = followers.reshape(number, len(chances))
    starts = iter(_by_popularity(generator, number, exponent, searches))
    places = generator.integers(SESSIONS_AT_ONCE, size=searches)
    branches = generator.choice(len(chances), size=searches, p=chances / chances.sum())
    ends = generator.random(searches) < 1 / SESSION_LENGTH
    last = [-1] * SESSIONS_AT_ONCE
    names = list(range(SESSIONS_AT_ONCE))
    asked, tags = np.empty(searches, np.int64), np.empty(searches, np.int64)
    for step, (place, branch) in enumerate(zip(places, branches, strict=True)):
        before = last[place]
        asked[step] = next(starts) if before < 0 else followers[before, branch]
        tags[step] = names[place]
        last[place] = int(asked[step])
        if ends[step]:
            last[place] = -1
            names[place] += SESSIONS_AT_ONCE
    return _with_writes(f"sessions, {writes:.0%} writes", dataset, asked, tags, writes, seed)


def paraphrased(pairs: Paraphrases, options: tuple[bytes, ...], writes: float, seed: int) -> Trace:
    """The first query of each pair at a random time, the second some time after it."""
    generator = np.random.default_rng([seed, 3])
    number = len(pairs.cached)
    first = generator.random(number)
    second = first + generator.exponential(LAG, number)
    order = np.argsort(np.concatenate([first, second]), kind="stable")
    asked = order
    tags = np.where(order >= number, order - number, -1)
    dataset = Dataset(pairs.description, pairs.base, np.vstack([pairs.cached, pairs.new]))
    words = " ".join(option.decode() for option in options)
    name = f"paraphrases, {words}, {writes:.0%} writes"
    return _with_writes(name, dataset, asked, tags, writes, seed, options)


def _by_popularity(
    generator: np.random.Generator, number: int, exponent: float, size: int
) -> NDArray[np.int64]:
    """Rows of so many queries, by Zipf's law; which of them are popular is drawn as well."""
    weights = np.arange(1, number + 1) ** -float(exponent)
    ranks = generator.choice(number, size=size, p=weights / weights.sum())
    drawn: NDArray[np.int64] = generator.permutation(number)[ranks]
    return drawn


def _with_writes(
    name: str,
    dataset: Dataset,
    asked: NDArray[np.int64],
    asked_tags: NDArray[np.int64],
    share: float,
    seed: int,
    options: tuple[bytes, ...] = (),
) -> Trace:
    """Searches in their order, and writes among them at random places.

    A write is an add, an update or a delete, equally likely; what is updated or deleted is drawn
    from what there is.
    """
    generator = np.random.default_rng([seed, 4])
    writes = round(len(asked) * share / (1 - share))
    steps = len(asked) + writes
    places = generator.choice(steps, size=writes, replace=False)
    kinds, what = np.zeros(steps, np.int64), np.empty(steps, np.int64)
    kinds[places] = generator.integers(Kind.ADD, Kind.DELETE + 1, size=writes)
    tags = np.full(steps, -1, np.int64)
    is_search = kinds == Kind.SEARCH
    what[is_search], tags[is_search] = asked, asked_tags
    alive = list(range(len(dataset.base)))
    newest = len(alive)
    for step in np.flatnonzero(~is_search):
        if len(alive) < 2:
            kinds[step] = Kind.ADD
        if kinds[step] == Kind.ADD:
            what[step] = newest
            alive.append(newest)
            newest += 1
            continue
        place = int(generator.integers(len(alive)))
        what[step] = alive[place]
        if kinds[step] == Kind.DELETE:
            alive[place] = alive[-1]
            alive.pop()
    vectors = int(np.isin(kinds, (Kind.ADD, Kind.UPDATE)).sum())
    written = data.newcomers(dataset, vectors, seed)
    return Trace(name, dataset.base, dataset.queries, written, kinds, what, tags, options)
