"""What the caches of an index are made with, and what they count."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pyrope.cache.value_cache import ValueCache
from pyrope.clock import Clock
from pyrope.config import CacheSettings
from pyrope.engine.filter import Filter
from pyrope.semantic.centroids import Centroids
from pyrope.service.aliases import Aliases
from pyrope.service.clusters import IndexClusters
from pyrope.service.flights import Searched
from pyrope.service.kept import Kept
from pyrope.service.search import Hits, Search
from pyrope.types import CachePolicy, Float32Matrix, Metric, Slots


@dataclass(slots=True)
class CacheStatistics:
    """Counters since the index was opened.

    Attributes:
        hits: by level.
        misses: searches that were looked up and not found.
        repairs: hits that had to catch up with writes.
        stale: entries that could not.
        uncached: searches that did not want the caches.
        saved: cost units that searches would have taken that hits have spared. Replies that are
            sent again for the very same bytes count as much as the latest of them that was learnt.
        certified, estimated: recall of the hits that are near or by an alias, added up by level.
    """

    hits: dict[str, int]
    misses: int = 0
    repairs: int = 0
    stale: int = 0
    uncached: int = 0
    saved: float = 0.0
    certified: dict[str, float] = field(default_factory=dict)
    estimated: dict[str, float] = field(default_factory=dict)


class Cacheable(Searched, Protocol):
    """The index whose answers are kept."""

    @property
    def metric(self) -> Metric: ...

    @property
    def dim(self) -> int: ...

    @property
    def policy(self) -> CachePolicy: ...

    @property
    def norm_bound(self) -> float:
        """What no vector's norm exceeds; only of an index of METRIC IP."""
        ...

    @property
    def label(self) -> str:
        """What a log names it by."""
        ...

    def name(self, slots: list[int], scores: list[float], asked: Search, *, exact: bool) -> Hits:
        """Hits of slots that hold vectors, cut to what is asked."""
        ...

    def scores(
        self, query: bytes, slots: Slots, nearest: int, *, exact: bool
    ) -> NDArray[np.float32]:
        """Scores of live slots, shape (n,); of the `nearest` best as a search would give them."""
        ...

    def live(self, slots: Slots) -> Slots:
        """Those of the slots that hold a vector; it may have expired."""
        ...

    def taking_part(self, slots: Slots, filter_: Filter | None) -> Slots | None:
        """Those of the slots that can be named now, and match the filter; None: too much work."""
        ...

    def remove_expired(self) -> None:
        """Take out what has expired by now."""
        ...

    def search_cost(self, asked: Search) -> float:
        """Distances that a search computes, about."""
        ...

    @property
    def busy(self) -> bool:
        """Whether searches wait or run."""
        ...

    @property
    def clusters(self) -> IndexClusters: ...

    @property
    def aliases(self) -> Aliases: ...


@dataclass(frozen=True, slots=True)
class CacheServices:
    """What the caches of an index need of the rest of the server.

    Attributes:
        cache: where all answers are.
        assign_many: assigns rows to centroids, off the loop.
    """

    cache: ValueCache[Kept]
    settings: CacheSettings
    clock: Clock
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    assign_many: Callable[[Centroids, Float32Matrix], Awaitable[NDArray[Any]]]
