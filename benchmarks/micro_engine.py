"""Engines alone: what scans, beams, filters, deletes, writes and saves cost, and what they find.

``python -m benchmarks.micro_engine [--vectors 100000] [--shared DIR] [--only NAME ...]`` prints
one line a figure, the best of its runs (the machine may be busy with something else). The scans
and single beams run on one core; building and what says so on two.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.data import Float32Matrix, load
from pyrope.engine import init_worker_thread
from pyrope.engine.auto import measure_costs, switch_count
from pyrope.engine.base import Neighbours, SearchOptions
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.engine.hnsw import HnswIndex
from pyrope.engine.hnsw_sq8 import HnswSq8Index
from pyrope.engine.normalise import unit_rows
from pyrope.types import Mask, Metric

K = 10
EF = 64
DEFAULT = SearchOptions(ef=EF)


class Rows:
    """A source that does not change."""

    def __init__(self, rows: Float32Matrix) -> None:
        self._rows = rows

    def view(self) -> Float32Matrix:
        return self._rows


def best(call: Callable[[], object], runs: int = 5) -> float:
    """Seconds of the fastest of some runs, after one to warm up."""
    call()
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def show(what: str, figure: str) -> None:
    print(f"{what:<60}{figure}", flush=True)


def recall(found: Neighbours, truth: Neighbours) -> float:
    pairs = zip(found.slots, truth.slots, strict=True)
    return sum(np.intersect1d(a, b).size for a, b in pairs) / truth.slots.size


def hnsw(metric: Metric, rows: Float32Matrix) -> HnswIndex:
    return HnswIndex(metric, rows.shape[1], Rows(rows), m=16, ef_construction=200, ef=EF)


def build(index: HnswIndex | HnswSq8Index, rows: Float32Matrix, batch: int) -> float:
    """Fill an index from two threads; vectors a second."""
    began = time.perf_counter()
    with ThreadPoolExecutor(2, initializer=init_worker_thread) as pool:
        for first in range(0, len(rows), batch):
            slots = np.arange(first, min(first + batch, len(rows)))
            list(pool.map(index.insert, index.prepare_upsert(slots, rows[slots]).split(2)))
    return len(rows) / (time.perf_counter() - began)


def measure_scans(rows: Float32Matrix, queries: Float32Matrix) -> None:
    count, dim = rows.shape
    for number in (1, 8, 32):
        for name, kind in (("IP", faiss.METRIC_INNER_PRODUCT), ("L2", faiss.METRIC_L2)):
            seconds = best(lambda: faiss.knn(queries[:number], rows, K, kind))  # noqa: B023
            show(f"faiss.knn, {name}, {number} queries", f"{1e3 * seconds:9.2f} ms")
    for metric in Metric:
        flat = HeadTailIndex(metric, dim, Rows(rows))
        flat.upsert(np.arange(count), rows)
        for number, k in ((1, 10), (2, 10), (8, 10), (32, 10), (64, 10), (1, 1000), (32, 1000)):
            seconds = best(lambda: flat.search_exact(queries[:number], k))  # noqa: B023
            show(f"scan, {metric.value}, {number} queries, k {k}", f"{1e3 * seconds:9.2f} ms")
    flat = HeadTailIndex(Metric.COSINE, dim, Rows(rows))
    flat.upsert(np.arange(count), rows)
    for matches in (1, 100, 1000, 10_000, count // 2):
        allowed = np.zeros(count, np.bool_)
        allowed[np.linspace(0, count - 1, matches).astype(int)] = True
        for number in (1, 32):
            seconds = best(lambda: flat.search_exact(queries[:number], K, allowed))  # noqa: B023
            show(f"scan of {matches} allowed, {number} queries", f"{1e6 * seconds:9.0f} us")


def measure_beams(index: HnswIndex, rows: Float32Matrix, queries: Float32Matrix) -> None:
    truth = index.search_exact(queries, K)
    for ef in (16, 64, 128, 256, 1024):
        options = SearchOptions(ef=ef)
        for batch in (1, 16):
            found: list[Neighbours] = []

            def run() -> None:
                found[:] = [  # noqa: B023
                    index.search(queries[first : first + batch], K, options)  # noqa: B023
                    for first in range(0, len(queries), batch)  # noqa: B023
                ]

            seconds = best(run, 3) / len(queries)
            every = np.concatenate([one.slots for one in found])
            share = recall(Neighbours(every, truth.scores), truth)
            show(
                f"beam of {ef}, batches of {batch}",
                f"{1e6 * seconds:9.0f} us a query, recall {share:.4f}",
            )


def masks(rows: Float32Matrix) -> list[tuple[str, Mask]]:
    """Filters of every selectivity: at random, near one vector, and far from it."""
    generator = np.random.default_rng(7)
    distances = np.einsum("ij,j->i", rows, rows[0])
    order = np.argsort(-distances)
    made: list[tuple[str, Mask]] = []
    for share in (0.001, 0.01, 0.05, 0.1, 0.3, 0.6, 0.9):
        matches = int(share * len(rows))
        made.append((f"random {share:.1%}", generator.random(len(rows)) < share))
        for name, some in (("nearest", order[:matches]), ("furthest", order[-matches:])):
            mask = np.zeros(len(rows), np.bool_)
            mask[some] = True
            made.append((f"{name} {share:.1%}", mask))
    return made


def measure_filters(index: HnswIndex, rows: Float32Matrix, queries: Float32Matrix) -> None:
    """Queries are of all kinds, and half of them near the vector that masks are near to or far."""
    generator = np.random.default_rng(8)
    near = rows[:1] + 0.03 * generator.standard_normal((64, rows.shape[1]), dtype=np.float32)
    queries = np.concatenate([queries[:64], near.astype(np.float32)])
    for name, mask in masks(rows):
        truth = index.search_exact(queries, K, mask)
        for batch in (1, 16):
            before = index.statistics()
            found: list[NDArray[np.int64]] = []

            def run() -> None:
                found[:] = [  # noqa: B023
                    index.search(queries[first : first + batch], K, DEFAULT, mask).slots  # noqa: B023
                    for first in range(0, len(queries), batch)  # noqa: B023
                ]

            seconds = best(run, 2) / len(queries)
            after = index.statistics()
            scans = after.scan_queries_total - before.scan_queries_total
            share = recall(Neighbours(np.concatenate(found), truth.scores), truth)
            show(
                f"filter, {name}, batches of {batch}",
                f"{1e6 * seconds:9.0f} us a query, recall {share:.4f}, "
                f"{scans / (3 * len(queries)):4.0%} scanned",
            )


def measure_deletes(rows: Float32Matrix, queries: Float32Matrix) -> None:
    rows = rows[:20_000]
    index = hnsw(Metric.COSINE, rows)
    build(index, rows, 256)
    order = np.random.default_rng(9).permutation(len(rows))
    for share in (0.1, 0.3, 0.6, 0.8):
        index.delete(order[: int(share * len(rows))])
        truth = index.search_exact(queries, K)
        began = time.perf_counter()
        found = [index.search(query[None], K, DEFAULT).slots for query in queries]
        seconds = (time.perf_counter() - began) / len(queries)
        share_found = recall(Neighbours(np.concatenate(found), truth.scores), truth)
        show(
            f"{share:.0%} of 20,000 deleted, batches of 1",
            f"{1e6 * seconds:9.0f} us a query, recall {share_found:.4f}",
        )
    slots = order[:2000]
    again = queries[np.arange(2000) % len(queries)] + 0.01 * rows[slots]
    index.delete(slots)
    began = time.perf_counter()
    index.upsert(slots, np.ascontiguousarray(again, np.float32))
    show("reuse of a deleted slot", f"{(time.perf_counter() - began) / 2:9.2f} ms, one thread")


def measure_equals(rows: Float32Matrix, queries: Float32Matrix) -> None:
    rows = rows[:20_000]
    for copies in (0, 500, 10_000):
        mixed = np.concatenate([np.repeat(rows[:1], copies, axis=0), rows])
        index = hnsw(Metric.COSINE, mixed)
        rate = build(index, mixed, 256)
        truth = index.search_exact(queries, K)
        share = recall(index.search(queries, K, DEFAULT), truth)
        show(f"20,000 after {copies} equal ones", f"{rate:9.0f} built/s, recall {share:.4f}")


def longest_gap(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds that a call takes, and the longest time for which it kept the GIL."""
    gap, stop = [0.0], threading.Event()

    def tick() -> None:
        last = time.perf_counter()
        while not stop.wait(0.0005):
            now = time.perf_counter()
            gap[0] = max(gap[0], now - last)
            last = now

    ticker = threading.Thread(target=tick)
    ticker.start()
    began = time.perf_counter()
    call()
    seconds = time.perf_counter() - began
    stop.set()
    ticker.join()
    return seconds, gap[0]


def measure_files(index: HnswIndex, rows: Float32Matrix) -> None:
    slots = np.arange(len(rows))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "graph")
        other = hnsw(Metric.COSINE, rows)
        for name, call in (
            ("save", lambda: index.save(path)),
            ("forked save", lambda: index.save_forked(path, lambda: None)),
            ("load", lambda: other.load(path, slots, slots)),
        ):
            seconds, gap = longest_gap(call)
            show(name, f"{1e3 * seconds:9.1f} ms, others held up {1e3 * gap:.1f} ms at most")


def measure_types(rows: Float32Matrix, queries: Float32Matrix) -> None:
    """HNSW against HNSW_SQ8 on projections, and where TYPE AUTO would go from scans to a graph."""
    _, _, axes = np.linalg.svd(rows[:10_000] - rows[:10_000].mean(axis=0), full_matrices=False)
    for dim in (8, 16, 64, 128, 192, 256, rows.shape[1]):
        # The first so many principal components.
        some, asked = unit_rows(rows @ axes[:dim].T), unit_rows(queries @ axes[:dim].T)
        costs = measure_costs(Metric.COSINE, dim, 16, 200, EF, seed=1, monotonic=time.monotonic)
        show(
            f"{dim} dimensions",
            f"a scan {1e6 * costs.scan_fixed:.0f} us and {1e9 * costs.scan_row:.1f} ns a row, "
            f"a beam {1e6 * costs.graph:.0f} us: AUTO makes a graph at {switch_count(costs)}",
        )
        source, options = Rows(some), {"m": 16, "ef_construction": 200, "ef": EF}
        kinds = (
            ("HNSW", HnswIndex(Metric.COSINE, dim, source, **options)),
            ("HNSW_SQ8", HnswSq8Index(Metric.COSINE, dim, source, rerank_factor=2, **options)),
        )
        for name, index in kinds:
            index.train(some[: max(index.training_size, 1)])
            rate = build(index, some, 1024)
            truth = index.search_exact(asked, K)
            parts = [asked[first : first + 16] for first in range(0, len(asked), 16)]
            slots = [index.search(part, K, DEFAULT).slots for part in parts]
            share = recall(Neighbours(np.concatenate(slots), truth.scores), truth)
            seconds = best(lambda: [index.search(part, K, DEFAULT) for part in parts])  # noqa: B023
            show(
                f"{name}, {dim} dimensions, beam of {EF}, batches of 16",
                f"{1e6 * seconds / len(asked):9.0f} us a query, recall {share:.4f}, "
                f"build {rate:.0f} vectors/s",
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parts = ["scans", "beams", "filters", "deletes", "equals", "files", "types"]
    parser.add_argument("--only", nargs="*", choices=parts)
    arguments = parser.parse_args()
    wanted = set(arguments.only or parts)
    init_worker_thread()
    data = load(arguments.shared, arguments.vectors, 512, 1)
    rows, queries = data.base, data.queries
    show(data.description, "")
    if "scans" in wanted:
        measure_scans(rows, queries)
    if wanted & {"beams", "filters", "files"}:
        index = hnsw(Metric.COSINE, rows)
        rate = build(index, rows, 32)
        show("build, slices of 32, two threads", f"{rate:9.0f} vectors/s")
        show("memory by own arithmetic", f"{index.memory_bytes / 2**20:9.1f} MiB")
        if "beams" in wanted:
            measure_beams(index, rows, queries)
        if "filters" in wanted:
            measure_filters(index, rows, queries)
        if "files" in wanted:
            measure_files(index, rows)
    if "types" in wanted:
        measure_types(rows, queries)
    if "deletes" in wanted:
        measure_deletes(rows, queries)
    if "equals" in wanted:
        measure_equals(rows, queries)


if __name__ == "__main__":
    main()
