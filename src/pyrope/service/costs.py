"""What requests to an index cost its tenant, by the index as it is now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pyrope.engine.factory import TailOptions
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.service.search import Search
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

    def __len__(self) -> int: ...


class IndexCosts:
    """All methods are for the event loop; see `pyrope.tenants.cost` for the formula."""

    def __init__(self, index: Priced, options: TailOptions) -> None:
        self._index = index
        self._options = options
        self._model: CostModel | None = None
        self._of: tuple[object, ...] = ()

    def search(self, asked: Search, matching: int | None, queries: int = 1) -> float:
        """Units of a request that no cache answered.

        Args:
            matching: vectors that the filter let through; None: there is none.
            queries: in the request.
        """
        return self._now().search(self._work(asked, matching, queries))

    def saved(self, asked: Search) -> float:
        """Units that a cached answer spares, at the least: as if there were no filter."""
        return self._now().work(self._work(asked, None, 1))

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

    def _work(self, asked: Search, matching: int | None, queries: int) -> Work:
        index = self._index
        options = asked.options
        return Work(
            live=len(index),
            k=asked.count,
            head=index.engine.head_count,
            ef=options.ef,
            nprobe=options.nprobe,
            max_scans=options.max_scans,
            matching=matching,
            exact=asked.exact,
            queries=queries,
        )

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
