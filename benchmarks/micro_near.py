"""What it takes to find cached queries near a new one, and how many are found.

    python -m benchmarks.micro_near [--shared DIR] [--count N ...]

Compares a scan of all codes (`NearTable.find_by_code`), probes of buckets over the same codes
(multi-probe LSH, Lv et al., VLDB 2007), and clusters (`NearTable.find_by_cluster`, 256 centroids,
the nearest four). Cached: the first queries of paraphrases, among vectors of the index. Searched
for: the second queries, within the distance of cosine 0.9; found counts those whose first query is
among the results. Prints Markdown; one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations
from math import sqrt
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.arguments import absolute, positive
from benchmarks.harness.paraphrases import load
from pyrope.cache.near_tables import NearTable
from pyrope.cache.simhash import SimHash
from pyrope.types import Float32Matrix, Metric

REACH = sqrt(2 - 2 * 0.9)
LIMIT = 4
EXAMINED = 64
CENTROIDS, PROBED = 256, 4
QUERIES = 1000
# Keys of so many bits, cut from the codes one after another, and bits that a probe may flip.
BUCKETS = ((16, 1), (16, 2), (8, 1))

Find = Callable[[NDArray[np.float32]], NDArray[np.int64]]


class Buckets:
    """Tables by parts of a code, as dicts of lists: what multi-probe LSH comes to in Python."""

    def __init__(self, simhash: SimHash, rows: Float32Matrix, bits: int, flips: int) -> None:
        self._simhash = simhash
        self._rows = rows
        self._mask = (1 << bits) - 1
        self._shifts = range(0, 64, bits)
        self._probes = [
            sum(1 << bit for bit in flipped)
            for count in range(flips + 1)
            for flipped in combinations(range(bits), count)
        ]
        self._tables: list[dict[int, list[int]]] = []
        self._codes = simhash.codes(rows)
        for shift in self._shifts:
            table: dict[int, list[int]] = defaultdict(list)
            for row, code in enumerate(self._codes.tolist()):
                table[(code >> shift) & self._mask].append(row)
            self._tables.append(dict(table))

    def find(self, query: NDArray[np.float32]) -> NDArray[np.int64]:
        packed = self._simhash.code(query)
        code = int(packed)
        seen: set[int] = set()
        for table, shift in zip(self._tables, self._shifts, strict=True):
            key = (code >> shift) & self._mask
            for probe in self._probes:
                if found := table.get(key ^ probe):
                    seen.update(found)
        rows = np.fromiter(seen, dtype=np.int64, count=len(seen))
        if len(rows) > EXAMINED:
            gaps = np.bitwise_count(self._codes[rows] ^ packed)
            rows = rows[gaps.argpartition(EXAMINED - 1)[:EXAMINED]]
        differences = self._rows[rows] - query
        distances = np.sqrt(np.einsum("ij,ij->i", differences, differences))
        near = (distances <= REACH).nonzero()[0]
        nearest: NDArray[np.int64] = rows[near[distances[near].argsort()[:LIMIT]]]
        return nearest


def measure(find: Find, queries: Float32Matrix, wanted: NDArray[np.int64]) -> str:
    """Median and 99th percentile in microseconds, and the part that is found."""
    times = []
    found = 0
    for query, number in zip(queries, wanted.tolist(), strict=True):
        start = time.perf_counter()
        numbers = find(query)
        times.append(time.perf_counter() - start)
        found += number in numbers
    slow = statistics.quantiles(times, n=100)[98]
    return f"{statistics.median(times) * 1e6:.0f} | {slow * 1e6:.0f} | {found / len(wanted):.3f}"


def centroids_of(rows: Float32Matrix) -> faiss.IndexFlatIP:
    clustering = faiss.Clustering(rows.shape[1], CENTROIDS)
    clustering.niter, clustering.seed, clustering.spherical = 8, 5, True
    clustering.min_points_per_centroid = 1  # fewer would be commented on, on standard error
    index = faiss.IndexFlatIP(rows.shape[1])
    clustering.train(rows, index)
    return index


def by_code(table: NearTable) -> Find:
    return lambda query: table.find_by_code(query, LIMIT, REACH)[0]


def by_cluster(table: NearTable, probed: dict[bytes, NDArray[np.int32]]) -> Find:
    return lambda query: table.find_by_cluster(query, probed[bytes(query)], LIMIT, REACH)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=absolute, default=Path("../shared").resolve())
    parser.add_argument("--count", type=positive, nargs="+", default=[1_000, 10_000, 50_000])
    arguments = parser.parse_args()

    data = load(arguments.shared, 4000, 7)
    close = np.flatnonzero(data.cosines >= 0.9)[:QUERIES]
    if min(arguments.count) < len(close):
        parser.error(f"at least {len(close)} queries are cached")
    # Those that are looked for come first, and are in every table.
    cached = np.concatenate([data.cached[close], data.base])
    queries, wanted = data.new[close], np.arange(len(close))
    print(f"{data.description}; {len(close):,} queries\n")
    print("| cached | way | µs | p99 µs | found |")
    print("| ---: | --- | ---: | ---: | ---: |")
    simhash = SimHash(cached.shape[1], 7)
    for count in arguments.count:
        rows = cached[: min(count, len(cached))]
        index = centroids_of(rows[-20_000:])
        clusters = index.search(rows, 1)[1][:, 0].tolist()
        table = NearTable(Metric.COSINE, rows.shape[1], simhash, EXAMINED)
        for number, (row, cluster) in enumerate(zip(rows, clusters, strict=True)):
            table.add(number, row, cluster)
        probed = dict(
            zip(map(bytes, queries), index.search(queries, PROBED)[1].astype(np.int32), strict=True)
        )
        ways: dict[str, Find] = {
            "scan of codes": by_code(table),
            "clusters": by_cluster(table, probed),
        }
        for bits, flips in BUCKETS:
            name = f"buckets of {bits} bits, up to {flips} flipped"
            ways[name] = Buckets(simhash, rows, bits, flips).find
        for name, find in ways.items():
            print(f"| {len(rows):,} | {name} | {measure(find, queries, wanted)} |", flush=True)
        print(f"| {len(rows):,} | (the table takes {table.nbytes / 1e6:.1f} MB) | | | |")


if __name__ == "__main__":
    main()
