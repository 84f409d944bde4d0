"""Engines by the definition of their index."""

from __future__ import annotations

from pyrope.engine.base import GraphIndex, VectorIndex, VectorSource
from pyrope.engine.flat import FlatIndex
from pyrope.engine.hnsw import HnswIndex
from pyrope.types import IndexSpec, IndexType, Slots


def create_engine(spec: IndexSpec, source: VectorSource, capacity: int = 0) -> VectorIndex:
    """An empty index.

    Args:
        spec: its definition.
        source: the raw rows of its vectors.
        capacity: vectors to have room for from the start.
    """
    if spec.type is IndexType.FLAT:
        return FlatIndex(spec.metric, spec.dim, source)
    return _graph(spec, source, capacity)


def load_engine(
    spec: IndexSpec, source: VectorSource, path: str, live: Slots
) -> tuple[GraphIndex, Slots]:
    """A graph from its file, and those of the `live` slots that remain to be upserted.

    Args:
        spec: its definition, of a type that has a graph.
        source: the raw rows, of all live slots.
        path: of a file that `GraphIndex.save` wrote, whose checksum is right.
        live: the slots that hold vectors, without duplicates.

    Raises:
        OSError: the file cannot be read.
        DamagedIndexError: it is not a graph of this definition.
        ValueError: indexes of this type have no file.
    """
    if spec.type is IndexType.FLAT:
        raise ValueError("a FLAT index has no file")
    index = _graph(spec, source, len(live))
    return index, index.load(path, live)


def _graph(spec: IndexSpec, source: VectorSource, capacity: int) -> HnswIndex:
    return HnswIndex(
        spec.metric,
        spec.dim,
        source,
        m=spec.m,
        ef_construction=spec.ef_construction,
        ef=spec.ef,
        capacity=capacity,
    )
