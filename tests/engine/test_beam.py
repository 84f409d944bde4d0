"""How many distances a beam costs, and which beam a number of distances buys."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest

from engine_oracle import clustered
from pyrope.engine import init_worker_thread
from pyrope.engine.beam import beam_distances, bounded_beam
from pyrope.engine.code_graph import CodeGraph
from pyrope.types import Float32Matrix, Metric


def codes(kind: str, count: int, dim: int) -> Float32Matrix:
    normal = np.random.default_rng(1).standard_normal((count, dim)).astype(np.float32)
    spread = normal if kind == "normal" else clustered(count, dim, 2)
    return np.clip(np.rint(30 * spread), -127, 127).astype(np.float32)


@pytest.mark.parametrize("kind", ["normal", "clustered"])
@pytest.mark.parametrize(("m", "dim"), [(4, 32), (16, 16), (16, 96), (48, 16)])
@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
def test_a_search_computes_no_more_distances_than_its_beam_may_cost(
    kind: str, m: int, dim: int, metric: Metric
) -> None:
    init_worker_thread()
    vectors = codes(kind, 3000, dim)
    graph = CodeGraph(metric, dim, m, 40)
    graph.add(vectors, 1)
    far = 3 * codes("normal", 20, dim)
    counts: Any = faiss.cvar
    for beam in (1, 5, 20, 100, 3000):
        for query in np.concatenate([vectors[:20], far]):
            counts.hnsw_stats.reset()
            graph.search(query[None], 1, beam)
            assert 0 < counts.hnsw_stats.ndis <= beam_distances(beam, m, 3000)


@pytest.mark.parametrize("m", [2, 4, 16, 64, 512])
@pytest.mark.parametrize("nodes", [1, 100, 10_000, 10**7])
def test_a_bounded_beam_is_the_widest_that_keeps_within(m: int, nodes: int) -> None:
    for max_scans in (1, 10, 100, 400, 1000, 5000, 10**5, 10**9):
        beam = bounded_beam(max_scans, m, nodes)
        assert 0 <= beam <= nodes
        assert not beam or beam_distances(beam, m, nodes) <= max_scans
        assert beam == nodes or beam_distances(beam + 1, m, nodes) > max_scans - 1
