"""The ceilings: engines in this process, no network, no ids, no durability."""

from __future__ import annotations

import importlib.metadata
import itertools
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import hnswlib
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.data import Float32Matrix
from benchmarks.harness.servers import EF_CONSTRUCTION, K, M
from benchmarks.harness.sweep import EF, Effort

_faiss: Any = faiss
"""Classes that its annotations know nothing or something else of."""

THREADS = 2
BATCHES = (16, 32)
RERANKED = 2 * K
"""Of an 8-bit graph: candidates whose scores are computed again in float32."""

_LARGEST_CODE = 127


class BareEngine(ABC):
    """An engine searched by two threads, each with batches of queries of its own."""

    label: str
    index_type: str
    """The type of Pyrope's whose ceiling it is."""
    settings: str
    effort: Effort

    def __init__(self, base: Float32Matrix, queries: Float32Matrix) -> None:
        """An empty index.

        Args:
            base: float32, shape (n, dim), unit length.
            queries: float32, shape (number of queries, dim), unit length.
        """
        self.base = base
        self.queries = queries

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def build(self) -> None:
        """Add every vector, with both threads."""

    @abstractmethod
    def set_effort(self, effort: int) -> None: ...

    @abstractmethod
    def search(self, queries: Float32Matrix) -> NDArray[np.int64]:
        """Ids of the K nearest, shape (len(queries), K), in the calling thread alone."""

    def ingest(self) -> float:
        """Build the index; seconds."""
        began = time.perf_counter()
        self.build()
        return time.perf_counter() - began

    def search_all(self, effort: int) -> tuple[NDArray[np.int64], float]:
        """Every query once: the ids, shape (queries, K), and queries per second."""
        self.set_effort(effort)
        began = time.perf_counter()
        with _pool() as pool:
            found = list(pool.map(self.search, self._batches(BATCHES[-1])))
        return np.concatenate(found), len(self.queries) / (time.perf_counter() - began)

    def search_for(self, effort: int, seconds: float, batch: int) -> float:
        """Go round the queries for that long; queries per second."""
        self.set_effort(effort)
        batches = self._batches(batch)
        began = time.perf_counter()
        deadline = began + seconds

        def loop(offset: int) -> int:
            done = 0
            mine = itertools.cycle(batches[offset::THREADS] or batches)
            while time.perf_counter() < deadline:
                done += len(self.search(next(mine)))
            return done

        with _pool() as pool:
            total = sum(pool.map(loop, range(THREADS)))
        return total / (time.perf_counter() - began)

    def _batches(self, size: int) -> list[Float32Matrix]:
        return [self.queries[first : first + size] for first in range(0, len(self.queries), size)]


class BareHnsw(BareEngine):
    """hnswlib: a graph over float32 vectors."""

    label = "bare hnswlib"
    index_type = "HNSW"
    settings = f"M {M}, ef_construction {EF_CONSTRUCTION}, {THREADS} threads"
    effort = EF

    def __init__(self, base: Float32Matrix, queries: Float32Matrix) -> None:
        super().__init__(base, queries)
        # Inner product over unit vectors is what the cosine space comes to, without the copy.
        self._index = hnswlib.Index(space="ip", dim=base.shape[1])

    def version(self) -> str:
        return importlib.metadata.version("hnswlib")

    def build(self) -> None:
        self._index.init_index(
            max_elements=len(self.base), M=M, ef_construction=EF_CONSTRUCTION, random_seed=100
        )
        self._index.add_items(self.base, num_threads=THREADS)

    def set_effort(self, effort: int) -> None:
        self._index.set_ef(effort)

    def search(self, queries: Float32Matrix) -> NDArray[np.int64]:
        labels, _ = self._index.knn_query(queries, k=K, num_threads=1)
        return np.asarray(labels, dtype=np.int64)


class BareSq8(BareEngine):
    """FAISS: a graph over 8-bit codes, whose best candidates are re-ranked in float32.

    One scale for all components, as `pyrope.engine.codes` has it: codes reach half as far again as
    the largest component that 99 % of the vectors have; what lies beyond is clipped.
    """

    label = "bare FAISS SQ8"
    index_type = "HNSW_SQ8"
    settings = (
        f"IndexHNSWSQ, QT_8bit_direct_signed, M {M}, efConstruction {EF_CONSTRUCTION}, "
        f"best {RERANKED} re-ranked, {THREADS} threads"
    )
    effort = EF

    def __init__(self, base: Float32Matrix, queries: Float32Matrix) -> None:
        super().__init__(base, queries)
        reach = 1.5 * np.quantile(np.abs(base).max(axis=1), 0.99)
        self._scale = np.float32(_LARGEST_CODE / reach)
        kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
        self._index = _faiss.IndexHNSWSQ(base.shape[1], kind, M, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = EF_CONSTRUCTION
        self._parameters = _faiss.SearchParametersHNSW()

    def version(self) -> str:
        return importlib.metadata.version("faiss-cpu")

    def build(self) -> None:
        # In a thread of its own: the number of OpenMP threads is a property of the thread that
        # sets it, and idle ones spin for a while.
        worker = threading.Thread(target=self._add)
        worker.start()
        worker.join()
        if self._index.ntotal != len(self.base):
            raise RuntimeError(f"FAISS took {self._index.ntotal} of {len(self.base)} vectors")

    def set_effort(self, effort: int) -> None:
        self._parameters = _faiss.SearchParametersHNSW(efSearch=effort)

    def search(self, queries: Float32Matrix) -> NDArray[np.int64]:
        _, labels = self._index.search(self._codes(queries), RERANKED, params=self._parameters)
        scores = np.einsum("qrd,qd->qr", self.base[labels], queries)
        scores[labels < 0] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        return np.take_along_axis(np.asarray(labels, dtype=np.int64), best, axis=1)

    def _add(self) -> None:
        faiss.omp_set_num_threads(THREADS)
        self._index.train(self.base[:1])
        self._index.add(self._codes(self.base))

    def _codes(self, vectors: Float32Matrix) -> Float32Matrix:
        codes: Float32Matrix = np.rint(vectors * self._scale)
        codes.clip(-_LARGEST_CODE, _LARGEST_CODE, out=codes)
        return codes


BARE_ENGINES: tuple[type[BareEngine], ...] = (BareHnsw, BareSq8)


def _pool() -> ThreadPoolExecutor:
    """Two threads in which FAISS uses no others."""
    return ThreadPoolExecutor(THREADS, initializer=lambda: faiss.omp_set_num_threads(1))
