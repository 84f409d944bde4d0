"""The ceiling: hnswlib in this process, no network, no ids, no durability."""

from __future__ import annotations

import importlib.metadata
import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import hnswlib
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.data import Float32Matrix
from benchmarks.harness.servers import EF_CONSTRUCTION, K, M

THREADS = 2
BATCH = 32


class BareEngine:
    """An hnswlib index searched by two threads, each with batches of 32 queries."""

    label = "bare hnswlib"
    settings = f"M {M}, ef_construction {EF_CONSTRUCTION}, {THREADS} threads, batches of {BATCH}"

    def __init__(self, base: Float32Matrix, queries: Float32Matrix) -> None:
        """An empty index.

        Args:
            base: float32, shape (n, dim), unit length.
            queries: float32, shape (number of queries, dim), unit length.
        """
        self._base = base
        self._batches = [
            (first, queries[first : first + BATCH]) for first in range(0, len(queries), BATCH)
        ]
        self._count = len(queries)
        # Inner product over unit vectors is what the cosine space comes to, without the copy.
        self._index = hnswlib.Index(space="ip", dim=base.shape[1])

    def version(self) -> str:
        return importlib.metadata.version("hnswlib")

    def ingest(self) -> float:
        """Build the index with both threads; seconds."""
        began = time.perf_counter()
        self._index.init_index(
            max_elements=len(self._base), M=M, ef_construction=EF_CONSTRUCTION, random_seed=100
        )
        self._index.add_items(self._base, num_threads=THREADS)
        return time.perf_counter() - began

    def search_all(self, ef: int) -> tuple[NDArray[np.int64], float]:
        """Every query once: the ids, shape (queries, K), and queries per second."""
        self._index.set_ef(ef)
        found = np.empty((self._count, K), dtype=np.int64)

        def one(batch: tuple[int, Float32Matrix]) -> None:
            first, queries = batch
            found[first : first + len(queries)] = self._search(queries)

        began = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(one, self._batches))
        return found, self._count / (time.perf_counter() - began)

    def search_for(self, ef: int, seconds: float) -> float:
        """Go round the queries for that long; queries per second."""
        self._index.set_ef(ef)
        began = time.perf_counter()
        deadline = began + seconds

        def loop(offset: int) -> int:
            done = 0
            mine = itertools.cycle(self._batches[offset::THREADS] or self._batches)
            while time.perf_counter() < deadline:
                done += len(self._search(next(mine)[1]))
            return done

        with ThreadPoolExecutor(THREADS) as pool:
            total = sum(pool.map(loop, range(THREADS)))
        return total / (time.perf_counter() - began)

    def _search(self, queries: Float32Matrix) -> NDArray[np.int64]:
        labels, _ = self._index.knn_query(queries, k=K, num_threads=1)
        return np.asarray(labels, dtype=np.int64)
