"""Engines by the definition of their index."""

from __future__ import annotations

from dataclasses import dataclass

from pyrope.engine.base import TailIndex, VectorSource
from pyrope.engine.hnsw import HnswIndex
from pyrope.engine.hnsw_sq8 import HnswSq8Index
from pyrope.engine.ivf import IvfIndex
from pyrope.types import IndexSpec, IndexType


@dataclass(frozen=True, slots=True)
class TailOptions:
    """What is not in the definition of an index.

    Attributes:
        sq8_rerank_factor, pq_rerank_factor: candidates scored again in full precision, for each
            result wanted, by HNSW_SQ8 and by IVF_PQ.
    """

    sq8_rerank_factor: float
    pq_rerank_factor: float


def create_tail(
    spec: IndexSpec, kind: IndexType, source: VectorSource, count: int, options: TailOptions
) -> TailIndex:
    """An empty tail, to be trained or loaded.

    Args:
        spec: the definition of its index.
        kind: what it shall be; not always `spec.type`, which may be AUTO.
        source: the raw rows of the index.
        count: vectors that it will hold soon.

    Raises:
        ValueError: there are no tails of this kind.
    """
    match kind:
        case IndexType.HNSW:
            return HnswIndex(
                spec.metric,
                spec.dim,
                source,
                m=spec.m,
                ef_construction=spec.ef_construction,
                ef=spec.ef,
                capacity=count,
            )
        case IndexType.HNSW_SQ8:
            return HnswSq8Index(
                spec.metric,
                spec.dim,
                source,
                m=spec.m,
                ef_construction=spec.ef_construction,
                ef=spec.ef,
                rerank_factor=options.sq8_rerank_factor,
                capacity=count,
            )
        case IndexType.IVF_FLAT | IndexType.IVF_PQ:
            return IvfIndex(
                spec.metric,
                spec.dim,
                source,
                compressed=kind is IndexType.IVF_PQ,
                nlist=spec.nlist,
                # Searches name it, as it may be altered; without, it is chosen.
                nprobe=0,
                pqm=spec.pqm,
                rerank_factor=options.pq_rerank_factor,
                expected=count,
            )
        case _:
            raise ValueError(f"an index of type {kind} has no tail")
