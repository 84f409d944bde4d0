"""What every engine promises: the `VectorIndex` protocol and the records it speaks in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pyrope.types import Float32Matrix, Mask, Metric, Slots


class DamagedIndexError(Exception):
    """A saved index cannot be used: it is cut short, or was made for another definition."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Effort of one search. None: the engine's own default.

    An engine names the options that it honours in `VectorIndex.honours`; the others have no
    effect on it, so whoever takes them from a client refuses what the engine does not honour.

    Attributes:
        ef: candidates that a graph search keeps.
        nprobe: inverted lists visited.
        max_scans: upper bound on distance computations, at least 1: comparisons of the query with
            vectors, in full or compressed, with centroids, and once more where it re-ranks.
    """

    ef: int | None = None
    nprobe: int | None = None
    max_scans: int | None = None


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Answers to n queries, nearest first.

    Attributes:
        slots: int64, shape (n, w), where w is k or the number of vectors that take part,
            whichever is less; -1 where a row has fewer (always at its end).
        scores: float32, shape (n, w), in the metric's own unit (cosine, inner product, Euclidean
            distance); NaN where slots is -1.
    """

    slots: NDArray[np.int64]
    scores: NDArray[np.float32]

    @staticmethod
    def nothing(queries: int, width: int = 0) -> Neighbours:
        """Rows that hold no neighbour, to be filled in or returned as they are."""
        return Neighbours(
            np.full((queries, width), -1, dtype=np.int64),
            np.full((queries, width), np.nan, dtype=np.float32),
        )


@dataclass(frozen=True, slots=True)
class PreparedUpsert:
    """What `VectorIndex.prepare_upsert` leaves for `VectorIndex.insert`.

    Not what was asked for, slot by slot: a vector that needs no linking is missing here, and a
    node that another slot inherits is added.

    Attributes:
        slots: the labels to link, without duplicates.
        vectors: float32, shape (len(slots), dim), in the engine's own form (may be normalised).
    """

    slots: Slots
    vectors: Float32Matrix

    def __len__(self) -> int:
        return len(self.slots)

    def split(self, parts: int) -> list[PreparedUpsert]:
        """At most `parts` pieces of about equal size, none empty."""
        bounds = np.linspace(0, len(self), min(parts, len(self)) + 1).astype(int).tolist()
        return [PreparedUpsert(self.slots[a:b], self.vectors[a:b]) for a, b in pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """Counters since the index was made.

    Attributes:
        graph_queries_total: queries answered by a graph.
        scan_queries_total: queries answered by a scan, because that was asked for or cheaper.
        widened_queries_total: queries whose beam held too few that take part, and was widened.
        fallback_queries_total: of the scans, those made because the graph gave too few.
    """

    graph_queries_total: int = 0
    scan_queries_total: int = 0
    widened_queries_total: int = 0
    fallback_queries_total: int = 0

    def __add__(self, other: EngineStatistics) -> EngineStatistics:
        return EngineStatistics(
            self.graph_queries_total + other.graph_queries_total,
            self.scan_queries_total + other.scan_queries_total,
            self.widened_queries_total + other.widened_queries_total,
            self.fallback_queries_total + other.fallback_queries_total,
        )


class VectorSource(Protocol):
    """The raw vectors, as clients sent them, by slot."""

    def view(self) -> Float32Matrix:
        """Every slot's row, shape (capacity, dim), read-only and without a copy.

        Rows of slots that hold no vector contain anything. The view stays valid (but may miss
        slots added since) after the source has grown.
        """
        ...


class VectorIndex(Protocol):
    """An index over slots.

    Three groups of calls. Readers may run at the same time as one another, in any threads.
    `insert` may run at the same time as other `insert` calls, and as nothing else. Writers need
    the index to themselves. The caller sees to it.

    Native work runs in the calling thread alone and releases the GIL unless said otherwise: to
    use several cores, the caller splits a batch over several threads, each of which has called
    `pyrope.engine.init_worker_thread` once.

    Vectors are float32, shape (n, dim), C-contiguous, and their squared norms are finite and below
    a quarter of float32's range, so that no score leaves it; their raw rows have been written to
    the `VectorSource` before they are added here.
    """

    @property
    def metric(self) -> Metric: ...

    @property
    def dim(self) -> int: ...

    @property
    def honours(self) -> frozenset[str]:
        """Names of the fields of `SearchOptions` that this engine honours."""
        ...

    # -- readers ----------------------------------------------------------------------------------

    def search(
        self, queries: Float32Matrix, k: int, options: SearchOptions, allowed: Mask | None = None
    ) -> Neighbours:
        """The k nearest of each query, approximately if that is what the engine is.

        Args:
            queries: shape (n, dim).
            k: at least 1; may exceed the number of vectors.
            allowed: where given, only slots that are True there take part; may be shorter than
                the number of slots (what lies beyond takes no part).
        """
        ...

    def search_exact(
        self, queries: Float32Matrix, k: int, allowed: Mask | None = None
    ) -> Neighbours:
        """The k nearest of each query by a full scan; equal scores by ascending slot."""
        ...

    def __len__(self) -> int:
        """Vectors that a search can find."""
        ...

    @property
    def deleted_count(self) -> int:
        """Tombstones: places that hold memory and slow searches, but stand for no vector."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Anonymous memory held, in bytes (an estimate from the structure's own arithmetic)."""
        ...

    def statistics(self) -> EngineStatistics: ...

    # -- insert -----------------------------------------------------------------------------------

    def insert(self, part: PreparedUpsert) -> None:
        """Link one piece of what `prepare_upsert` returned (see there)."""
        ...

    # -- writers ----------------------------------------------------------------------------------

    def prepare_upsert(self, slots: Slots, vectors: Float32Matrix) -> PreparedUpsert:
        """The first half of an upsert: everything but the slow part.

        `slots` has no duplicates. The second half is `insert` with each piece of the result's
        `split`, in as many threads. Until the last piece is in, no reader and no writer may run;
        if one fails, the index is to be thrown away.
        """
        ...

    def upsert(self, slots: Slots, vectors: Float32Matrix) -> None:
        """Add vectors, or replace those whose slots are in use: both halves, in this thread."""
        ...

    def delete(self, slots: Slots) -> None:
        """Remove vectors; slots that hold none are passed over."""
        ...


class TailIndex(VectorIndex, Protocol):
    """An index whose structure takes long to build, and is therefore worth a file of its own.

    It stands behind an exact head (`pyrope.engine.head_tail`), which feeds it slice by slice. A
    slot that it is given does not change: an update of a vector comes as another slot.
    """

    @property
    def live(self) -> Mask:
        """Slots that a search can find, shape (capacity,); not to be written to."""
        ...

    @property
    def training_size(self) -> int:
        """Vectors that `train` makes use of, at most; 0: it need not be called."""
        ...

    def train(self, sample: Float32Matrix) -> None:
        """Learn what must be known before the first vector is added; takes seconds.

        Args:
            sample: raw vectors like those to come, shape (n, dim), at least one. Duplicates, zero
                vectors and fewer vectors than lists are all right.
        """
        ...

    @property
    def parameters(self) -> dict[str, int]:
        """What was chosen in training and clients may know: nlist, nprobe, pqm."""
        ...

    @property
    def worn(self) -> bool:
        """Whether what was learnt does not fit the vectors any more, so that a rebuild pays."""
        ...

    def save(self, path: str) -> None:
        """Write the file, holding the GIL throughout (a reader).

        Raises:
            OSError: it could not be written whole.
        """
        ...

    def load(self, path: str, live: Slots, unchanged: Slots) -> Slots:
        """Fill this index, which must be empty (and need not be trained), from a file of `save`.

        Args:
            path: the file. That it is undamaged has been checked.
            live: the slots that hold vectors, without duplicates.
            unchanged: those of `live` that were written before the file was: what the file holds
                for them is true. A file may hold other slots; they are left out.

        Returns:
            Those of `live` that the index does not hold yet, ascending.

        Raises:
            OSError: the file cannot be read.
            DamagedIndexError: it is of another definition, or cannot be loaded.
        """
        ...

    def save_forked(self, path: str, forked: Callable[[], None]) -> None:
        """Write the file from a forked process, and wait for it without the GIL (a reader).

        Args:
            path: of the file.
            forked: called in this thread as soon as the child has its copy of the index:
                writers may go on from then on. It is called once, if the fork succeeds.

        Raises:
            OSError: the process could not be forked, or the file not be written whole.
        """
        ...
