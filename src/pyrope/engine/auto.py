"""TYPE AUTO: which engine suits an index of this size, on this machine and in this memory.

The rules; none of their steps is ever taken back:

1. FLAT while a scan costs no more than twice what a search in a graph would (`switch_count`). The
   factor is hysteresis, as the change is for good, and allows for what else a graph takes: time to
   build, memory, and answers that are not exact.
2. Then HNSW_SQ8 from 192 dimensions on, and HNSW below, as long as its graph takes no more than a
   quarter of the memory that there is.
3. HNSW becomes HNSW_SQ8 when its graph has come to take half of the memory (the two are there at
   the same time while one is built from the other), but not below 16 dimensions.

Rules 2 and 3 come from 100,000 sentence embeddings and projections of them onto their first
principal components, searched on one core in batches of 16, M 16, beams of 64, the best 20 of
HNSW_SQ8 re-ranked. HNSW_SQ8 answered 0.75 times as many queries as HNSW at 8 dimensions, 0.84 at
16, 0.6 at 64 and 128, 1.0 at 192, 1.3 at 256 and 1.4 at 384, at the same recall within 0.005. At 8
dimensions its codes are so coarse that recall stopped at 0.998, and they save least. (The machine
was busy with other things, so that the second digit means little.)
``python -m benchmarks.micro_engine --only types`` measures the two engines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log2

import hnswlib
import numpy as np

from pyrope.engine.exact import ExactScan
from pyrope.engine.normalise import row_norms, unit_rows
from pyrope.engine.slot_table import SlotTable
from pyrope.types import Float32Matrix, IndexType, Metric

LEAST_SWITCH, MOST_SWITCH = 1000, 100_000
"""Bounds of `switch_count`: whatever was measured, it was measured once, on a busy machine."""

_HYSTERESIS = 2.0
# What a doubling of the graph adds to the time of a search, in parts of the time measured. It is
# 0.26 at 384 dimensions between 2,000 and 16,000 vectors, where caches are outgrown, 0.10 at 64.
_GROWTH = 0.25

_SQ8_IS_FASTER, _SQ8_IS_POSSIBLE = 192, 16
_COMFORTABLE, _TIGHT = 0.25, 0.5

# Vectors to measure on: so many if they can be made and linked in the time, and at least a few.
_ROWS, _LEAST_ROWS, _VALUES = 2000, 8, 2**22
_BUILD_SECONDS, _SEARCH_SECONDS = 0.6, 0.1
_BATCHES, _BATCH, _RUNS, _K = 4, 8, 20, 10
# Embeddings lie near a surface of few dimensions. With 24, the graph of 2,000 made-up rows takes
# what one of 2,000 sentence embeddings takes, within 15 %, at 16 to 384 dimensions.
_INTRINSIC = 24


@dataclass(frozen=True, slots=True)
class SearchCosts:
    """What one query of a batch of 8 costs, in seconds of one core.

    Attributes:
        scan_fixed: a scan, whatever it scans.
        scan_row: each row of a scan.
        graph: a beam on a graph of `graph_count` nodes.
        graph_count: at least 1.
    """

    scan_fixed: float
    scan_row: float
    graph: float
    graph_count: int

    def of_scan(self, count: int) -> float:
        """Seconds for a scan of `count` rows."""
        return self.scan_fixed + self.scan_row * count

    def of_graph(self, count: int) -> float:
        """Seconds for a beam on a graph of `count` nodes, which grow with its logarithm."""
        return self.graph * max(1 + _GROWTH * log2(count / self.graph_count), _GROWTH)


def measure_costs(
    metric: Metric,
    dim: int,
    m: int,
    ef_construction: int,
    ef: int,
    *,
    seed: int,
    monotonic: Callable[[], float],
) -> SearchCosts:
    """Time scans and beams over some made-up vectors, in this thread.

    Takes 0.1 to 1 second, and 40 MB at most, up to 32,768 dimensions; beyond that a few seconds.
    With M 16 and EF 64, `switch_count` came out between 4,000 and 8,500 at 16 to 4,096 dimensions.
    There is room for few vectors of more than 10,000, and the figures are rough.

    Args:
        metric, dim, m, ef_construction, ef: as of the index.
        seed: of the vectors.
        monotonic: tells the time in seconds.
    """
    generator = np.random.default_rng(seed)
    rows = min(max(_VALUES // dim, _LEAST_ROWS), _ROWS)
    inner = min(dim, _INTRINSIC)
    surface = generator.standard_normal((inner, dim), dtype=np.float32)
    made = generator.standard_normal((rows + _BATCHES * _BATCH, inner), dtype=np.float32) @ surface
    if metric is Metric.COSINE:
        made = unit_rows(made)
    vectors, batches = made[:rows], made[rows:].reshape(_BATCHES, _BATCH, dim)
    graph = hnswlib.Index("l2" if metric is Metric.L2 else "ip", dim)
    graph.init_index(rows, M=m, ef_construction=ef_construction, random_seed=seed % 2**31)
    began, count = monotonic(), 0
    while count < rows and (count < _LEAST_ROWS or monotonic() - began < _BUILD_SECONDS):
        graph.add_items(vectors[count], num_threads=1)
        count += 1

    def seconds(search: Callable[[Float32Matrix], object]) -> float:
        """Of one query; the least, which the other work of a busy machine moves least."""
        times: list[float] = []
        while len(times) < _RUNS and sum(times) < _SEARCH_SECONDS:
            start = monotonic()
            search(batches[len(times) % _BATCHES])
            times.append(monotonic() - start)
        return min(times) / _BATCH

    # A wider beam than that would take in all of the graph.
    beam = min(ef, max(count // 4, 1))
    of_beam = seconds(lambda some: graph.knn_query(some, k=beam, num_threads=1))
    table = SlotTable()
    table.put(np.arange(count), row_norms(vectors[:count]))
    scan = ExactScan(metric, dim, _Rows(vectors), table)
    few = count // 4
    of_few = seconds(lambda some: scan.search(some, _K, limit=few))
    of_all = seconds(lambda some: scan.search(some, _K))
    of_row = max(of_all - of_few, 0.0) / (count - few)
    return SearchCosts(max(of_all - of_row * count, 0.0), of_row, of_beam * ef / beam, count)


def switch_count(costs: SearchCosts) -> int:
    """Vectors from which an index should have a graph, from `LEAST_SWITCH` to `MOST_SWITCH`."""
    count = LEAST_SWITCH
    while count < MOST_SWITCH:
        if costs.of_scan(count) > _HYSTERESIS * costs.of_graph(count):
            return count
        count += max(count // 20, 1)
    return MOST_SWITCH


def graph_bytes(kind: IndexType, count: int, dim: int, m: int) -> int:
    """Memory that a graph takes beside the raw rows, in bytes: vectors or codes, links, the rest.

    Args:
        kind: HNSW or HNSW_SQ8.
        count: nodes.
        dim: as of the index.
        m: as of the index.
    """
    vector = 4 * dim + 100 if kind is IndexType.HNSW else dim + 60
    return count * (vector + 8 * m)


def choose_type(
    count: int,
    dim: int,
    costs: SearchCosts,
    m: int,
    memory_budget_bytes: int | None,
    now: IndexType,
) -> IndexType:
    """What an index of TYPE AUTO should be: FLAT, HNSW or HNSW_SQ8 (see the module's rules).

    Args:
        count: vectors in it.
        dim, m: as of the index.
        costs: of searches in such an index, on this machine.
        memory_budget_bytes: what the index may take in all; None: there is no limit.
        now: what it is.
    """
    if now is IndexType.FLAT and count < switch_count(costs):
        return now
    if now is IndexType.HNSW_SQ8:
        return now
    if now is IndexType.FLAT and dim >= _SQ8_IS_FASTER:
        return IndexType.HNSW_SQ8
    if memory_budget_bytes is None or dim < _SQ8_IS_POSSIBLE:
        return IndexType.HNSW
    share = _TIGHT if now is IndexType.HNSW else _COMFORTABLE
    fits = graph_bytes(IndexType.HNSW, count, dim, m) <= share * memory_budget_bytes
    return IndexType.HNSW if fits else IndexType.HNSW_SQ8


class _Rows:
    """The source of the scan."""

    def __init__(self, rows: Float32Matrix) -> None:
        self._rows = rows

    def view(self) -> Float32Matrix:
        return self._rows
