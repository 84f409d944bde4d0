"""Whether the bound on a beam's distances, measured on FAISS, holds for hnswlib's graphs.

hnswlib counts nothing, so its search (Malkov and Yashunin, arXiv:1603.09320, algorithms 2 and 5)
is replayed on a graph that it has saved.
"""

from __future__ import annotations

import heapq
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine_oracle import Rows, clustered
from pyrope.engine.beam import beam_distances
from pyrope.engine.hnsw import HnswIndex
from pyrope.types import Float32Matrix, Metric

COUNT, DIM = 3000, 16


@dataclass
class Graph:
    """What a file of hnswlib says: links by node, those of upper levels by node and level."""

    vectors: Float32Matrix
    links: list[list[int]]
    upper: dict[tuple[int, int], list[int]]
    entry: int
    top: int


def parse(path: Path) -> Graph:
    """By hnswlib 0.8's `saveIndex`: a header of 96 bytes, level 0, then the upper levels."""
    raw = path.read_bytes()
    count, stride, label_at, vector_at = struct.unpack_from("<4Q", raw, 16)
    top, entry, most = struct.unpack_from("<iIQ", raw, 48)
    elements = np.frombuffer(raw, np.uint8, count * stride, 96).reshape(count, stride)
    vectors = elements[:, vector_at:label_at].copy().view(np.float32)

    def links_at(position: int) -> list[int]:
        (length,) = struct.unpack_from("<H", raw, position)
        return list(struct.unpack_from(f"<{length}I", raw, position + 4))

    links = [links_at(96 + stride * node) for node in range(count)]
    upper, position, size = {}, 96 + count * stride, 4 + 4 * most
    for node in range(count):
        (held,) = struct.unpack_from("<I", raw, position)
        for level in range(held // size):
            upper[node, level + 1] = links_at(position + 4 + level * size)
        position += 4 + held
    assert position == len(raw)
    return Graph(vectors, links, upper, entry, top)


def replay(graph: Graph, query: NDArray[np.float32], ef: int) -> tuple[set[int], int]:
    """The nodes that a beam finds, and the distances that it takes."""
    far = np.square(graph.vectors - query).sum(axis=1).tolist()
    node, taken = graph.entry, 1
    for level in range(graph.top, 0, -1):
        nearer = True
        while nearer:
            near = graph.upper[node, level]
            taken += len(near)
            best = min([node, *near], key=lambda each: far[each])
            nearer, node = far[best] < far[node], best
    seen, waiting, kept = {node}, [(far[node], node)], [(-far[node], node)]
    while waiting:
        distance, node = heapq.heappop(waiting)
        if len(kept) == ef and distance > -kept[0][0]:
            break
        for each in graph.links[node]:
            if each not in seen:
                seen.add(each)
                taken += 1
                if len(kept) < ef or far[each] < -kept[0][0]:
                    heapq.heappush(waiting, (far[each], each))
                    heapq.heappush(kept, (-far[each], each))
                    if len(kept) > ef:
                        heapq.heappop(kept)
    return {each for _, each in kept}, taken


@pytest.mark.parametrize("m", [4, 16])
@pytest.mark.parametrize("shape", ["clustered", "normal"])
def test_a_beam_takes_no_more_distances_than_is_said_of_it(
    tmp_path: Path, shape: str, m: int
) -> None:
    generator = np.random.default_rng(3)
    vectors = clustered(COUNT, DIM, 1)
    if shape == "normal":
        vectors = generator.standard_normal((COUNT, DIM)).astype(np.float32)
    rows = Rows(DIM)
    rows.write(np.arange(COUNT), vectors)
    index = HnswIndex(Metric.L2, DIM, rows, m=m, ef_construction=60, ef=10)
    index.upsert(np.arange(COUNT), vectors)
    index.save(str(tmp_path / "graph"))
    graph = parse(tmp_path / "graph")
    near = vectors[:4] + 0.1 * generator.standard_normal((4, DIM))
    queries = np.concatenate([near, 20 * generator.standard_normal((3, DIM)), np.zeros((1, DIM))])
    for query in queries.astype(np.float32):
        for ef in (1, 10, 50, 200):
            found, taken = replay(graph, query, ef)
            labels, _, _ = index._beams(index._room_for(0), query[None], ef)
            # The replay is true to it, but for what rounding decides.
            assert len(found.intersection(labels[0].tolist())) >= 0.98 * ef
            assert taken <= beam_distances(ef, m, COUNT)
