"""What requests to an index cost its tenant, by the index as it is now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pyrope.engine.base import SearchOptions
from pyrope.engine.factory import TailOptions
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.tenants.cost import REQUEST, CostModel
from pyrope.tenants.cost import Search as Work
from pyrope.types import IndexSpec, IndexType


class Priced(Protocol):
    """The index that is asked.

    Attributes:
        active_type: the type in force.
    """

    spec: IndexSpec
    engine: HeadTailIndex
    active_type: IndexType

    @property
    def sequence(self) -> int:
        """Number of the last write."""
        ...

    def __len__(self) -> int: ...


# Kinds of searches whose price is kept until the index is another one.
_PRICES = 256
# Binary digits of a number of vectors that count: a price does not follow every single write.
_DIGITS = 10


def _rounded(count: int) -> int:
    """A number of vectors, to within a thousandth or two of it."""
    unimportant = max(0, count.bit_length() - _DIGITS)
    return count >> unimportant << unimportant


class IndexCosts:
    """All methods are for the event loop; see `pyrope.tenants.cost` for the formula."""

    def __init__(self, index: Priced, options: TailOptions) -> None:
        self._index = index
        self._options = options
        self._model: CostModel | None = None
        self._of: tuple[object, ...] = ()
        # Of the index, when it was looked at last: its writes, what has come into its tail or gone,
        # its vectors and those in the head.
        self._sequence = self._tail_changes = -1
        self._spec: IndexSpec | None = None
        self._state = (0, 0)
        self._priced: CostModel | None = None
        self._prices: dict[tuple[Any, ...], float] = {}

    def search(
        self,
        count: int,
        options: SearchOptions,
        *,
        exact: bool,
        matching: int | None,
        queries: int = 1,
    ) -> float:
        """Units of a request that no cache answered.

        Args:
            count: hits wanted of each query.
            options: effort.
            exact: scan everything.
            matching: vectors that the filter let through; None: there is none.
            queries: in the request.
        """
        return REQUEST + self._work(
            count, options.ef, options.nprobe, options.max_scans, exact, matching, queries
        )

    def saved(self, count: int, options: SearchOptions, *, exact: bool) -> float:
        """Units that a cached answer spares, at the least: as if there were no filter."""
        return self._work(count, options.ef, options.nprobe, options.max_scans, exact, None, 1)

    def cached(self, rescored: int, queries: int = 1) -> float:
        """Units of an answer from a cache, of which so many candidates were scored again.

        Args:
            queries: in the request, which share what one costs beside its work.
        """
        return self._now().cached(rescored) - REQUEST * (queries - 1) / queries

    def add(self, vectors: int) -> float:
        """Units to add or replace vectors in one request."""
        return self._now().add(len(self._index), vectors)

    def change(self, vectors: int) -> float:
        """Units to delete vectors, or change their attributes, in one request."""
        return self._now().delete(vectors)

    def _work(self, *asked: Any) -> float:
        """Units of what is asked, as `saved` orders it; the same is asked again and again."""
        index = self._index
        if (
            index.sequence != self._sequence
            or index.engine.tail_changes != self._tail_changes
            or index.spec is not self._spec
        ):
            self._look()
        price = self._prices.get(asked)
        if price is None:
            state = self._state
            if len(self._prices) >= _PRICES:
                self._prices.clear()
            count, ef, nprobe, max_scans, exact, matching, queries = asked
            price = self._prices[asked] = self._now().work(
                Work(
                    live=state[0],
                    k=count,
                    head=min(state[1], state[0]),
                    ef=ef,
                    nprobe=nprobe,
                    max_scans=max_scans,
                    matching=None if matching is None else min(matching, state[0]),
                    exact=exact,
                    queries=queries,
                )
            )
        return price

    def _look(self) -> None:
        """See whether the index has become one with other prices."""
        index = self._index
        self._sequence, self._tail_changes = index.sequence, index.engine.tail_changes
        state = _rounded(len(index)), _rounded(index.engine.head_count)
        if state != self._state or index.spec is not self._spec or self._now() is not self._priced:
            self._state, self._spec, self._priced = state, index.spec, self._now()
            self._prices.clear()

    def _now(self) -> CostModel:
        index = self._index
        # Not the tail itself, which would live on when another has taken its place.
        chosen = index.engine.parameters
        of = (index.spec.ef, index.spec.nprobe, index.active_type, *chosen.values())
        if self._model is None or of != self._of:
            self._model, self._of = self._made(chosen), of
        return self._model

    def _made(self, chosen: Mapping[str, int]) -> CostModel:
        index = self._index
        spec, kind = index.spec, index.active_type
        factors = {
            IndexType.HNSW_SQ8: self._options.sq8_rerank_factor,
            IndexType.IVF_PQ: self._options.pq_rerank_factor,
        }
        return CostModel(
            kind,
            spec.dim,
            m=spec.m,
            ef_construction=spec.ef_construction,
            ef=spec.ef,
            nlist=chosen.get("nlist", 0),
            nprobe=spec.nprobe or chosen.get("nprobe", 0),
            pqm=chosen.get("pqm", 0),
            rerank_factor=max(1.0, factors.get(kind, 1.0)),
        )
