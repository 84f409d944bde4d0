"""Searches of every kind on engines in this process, and the CPU time that each of them takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise, product
from typing import Any

import numpy as np

from benchmarks.harness.clusters import Clusters
from pyrope.engine.base import SearchOptions, TailIndex
from pyrope.engine.factory import TailOptions, create_tail
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.tenants.coefficients import MEASURED, Coefficients
from pyrope.tenants.cost import CostModel, Search
from pyrope.types import Float32Matrix, IndexSpec, IndexType, Mask, Metric

TYPES = (
    IndexType.FLAT,
    IndexType.HNSW,
    IndexType.HNSW_SQ8,
    IndexType.IVF_FLAT,
    IndexType.IVF_PQ,
)
OPTIONS = TailOptions(sq8_rerank_factor=2.0, pq_rerank_factor=4.0)
M, EF_CONSTRUCTION, EF = 16, 100, 64
"""Of graphs. A wider beam while they are built would take longer, and change searches little."""

QUERIES = 64
BATCH = 16
SHARES = (0.5, 0.1, 0.01)
"""Of the vectors, what filters let through, drawn at random."""

_RUNS = 3
_INSERTED = 1024


@dataclass(frozen=True, slots=True)
class Size:
    """Vectors and dimensions of an index."""

    count: int
    dim: int

    def __str__(self) -> str:
        return f"{self.count}x{self.dim}"


class Work(Enum):
    """What is done: a search; scoring k candidates of a near hit again; adding a vector."""

    SEARCH = "search"
    RESCORING = "near hit"
    INSERTION = "insertion"


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of work with one index.

    Attributes:
        asked: what it will touch, as the cost model takes it.
        share: of the vectors, what its filter lets through; None: it has none.
        work: of an insertion, `asked.live` vectors are there before.
    """

    kind: IndexType
    size: Size
    asked: Search
    share: float | None = None
    work: Work = Work.SEARCH


@dataclass(frozen=True, slots=True)
class Measured:
    """A case and its CPU time.

    Attributes:
        chosen: nlist, nprobe and pqm of an index that is trained.
        seconds: of CPU, for one request: all its queries, or one vector.
    """

    case: Case
    chosen: dict[str, int]
    seconds: float

    def model(self, coefficients: Coefficients = MEASURED) -> CostModel:
        """The model of its index."""
        factors = {
            IndexType.HNSW_SQ8: OPTIONS.sq8_rerank_factor,
            IndexType.IVF_PQ: OPTIONS.pq_rerank_factor,
        }
        return CostModel(
            self.case.kind,
            self.case.size.dim,
            m=M,
            ef_construction=EF_CONSTRUCTION,
            ef=EF,
            rerank_factor=factors.get(self.case.kind, 1.0),
            coefficients=coefficients,
            **self.chosen,
        )

    def units(self, model: CostModel) -> float:
        """What the model makes of it, without what a request costs outside the engine."""
        asked = self.case.asked
        if self.case.work is Work.RESCORING:
            return model.rescoring(asked.k)
        if self.case.work is Work.INSERTION:
            return model.insertion(asked.live)
        return model.work(asked)


class _Rows:
    """The source of an index that does not change."""

    def __init__(self, rows: Float32Matrix) -> None:
        self._rows = rows

    def view(self) -> Float32Matrix:
        return self._rows


def cases(kind: IndexType, size: Size, nlist: int) -> Iterator[Case]:
    """Everything that is searched for in an index of this type and size."""
    count = size.count

    def case(share: float | None = None, head: int = 0, **asked: Any) -> Case:
        matching = None if share is None else round(share * count)
        return Case(kind, size, Search(count + head, head=head, matching=matching, **asked), share)

    if kind is IndexType.FLAT:
        for k, queries in product((1, 10, 100), (1, BATCH)):
            yield case(k=k, queries=queries)
        for share in SHARES:
            yield case(share, k=10)
        yield case(k=10, max_scans=count // 4)
        return
    efforts: list[dict[str, int]]
    if kind.has_lists:
        efforts = [{"nprobe": n} for n in (1, 4, 16, 64) if n <= nlist]
    else:
        efforts = [{"ef": ef} for ef in (16, 64, 192, 512)]
    for effort in efforts:
        for k in (1, 10, 100):
            yield case(k=k, **effort)
        yield case(k=10, queries=BATCH, **effort)
        yield case(k=10, max_scans=1500, **effort)
        yield case(k=10, max_scans=6000, **effort)
    for share, effort in product(SHARES, efforts[:3]):
        yield case(share, k=10, **effort)
    for head in (200, 1500):
        yield case(k=10, head=head, **efforts[1])
    yield case(k=10, queries=BATCH, head=1500, **efforts[1])
    yield case(k=10, exact=True)
    yield case(0.1, k=10, exact=True)
    for kept in (100, 200):
        yield Case(kind, size, Search(count, kept), work=Work.RESCORING)


class Engines:
    """The vectors of one size and seed, and one index of each type over them."""

    def __init__(self, size: Size, seed: int) -> None:
        clusters = Clusters(size.dim, seed)
        self.size = size
        self._seed = seed
        self._rows = clusters.newcomers(size.count + 2048)
        self._queries = clusters.queries(QUERIES)
        generator = np.random.default_rng(seed)
        draws = generator.random(size.count)
        self._masks: dict[float, Mask] = {}
        for share in SHARES:
            mask = np.zeros(size.count, np.bool_)
            mask[np.argsort(draws)[: round(share * size.count)]] = True
            self._masks[share] = mask

    def measure(self, kind: IndexType, least_seconds: float) -> Iterator[Measured]:
        """Searches one after another.

        Args:
            least_seconds: of CPU time that each run of a case takes, of which the best counts.
        """
        tail = None
        if kind is not IndexType.FLAT:
            tail = self._trained(kind)
            seconds = self._fill(tail)
            asked = Search(self.size.count, 1)
            insertion = Case(kind, self.size, asked, work=Work.INSERTION)
            yield Measured(insertion, tail.parameters, seconds)
        chosen = {} if tail is None else tail.parameters
        engines: dict[int, HeadTailIndex] = {}
        for case in cases(kind, self.size, chosen.get("nlist", 0)):
            head = case.asked.head
            if head not in engines:
                engine = HeadTailIndex(Metric.COSINE, self.size.dim, _Rows(self._rows))
                engine.restore(np.arange(self.size.count + head), tail)
                engines[head] = engine
            yield Measured(case, chosen, self._seconds(engines[head], case, least_seconds))

    def _seconds(self, engine: HeadTailIndex, case: Case, least_seconds: float) -> float:
        """CPU seconds of one request."""
        asked = case.asked
        options = SearchOptions(asked.ef, asked.nprobe, asked.max_scans)
        allowed = None if case.share is None else self._masks[case.share]
        batches = self._queries.reshape(-1, asked.queries, self.size.dim)

        candidates = np.linspace(0, self.size.count - 1, asked.k).astype(np.int64)

        def search(batch: Float32Matrix) -> None:
            if case.work is Work.RESCORING:
                engine.scores(batch, candidates, 10, exact=False)
            elif asked.exact:
                engine.search_exact(batch, asked.k, allowed)
            else:
                engine.search(batch, asked.k, options, allowed)

        search(batches[0])
        best = float("inf")
        for _ in range(_RUNS):
            began, done, spent = time.process_time(), 0, 0.0
            # Whole rounds only would make slow cases longer than fast ones need to be.
            while spent < least_seconds:
                for batch in batches[done % len(batches) :][:4]:
                    search(batch)
                    done += 1
                spent = time.process_time() - began
            best = min(best, spent / done)
        return best

    def _trained(self, kind: IndexType) -> TailIndex:
        count = self.size.count
        spec = IndexSpec(
            uid=1,
            tenant="",
            name="",
            dim=self.size.dim,
            metric=Metric.COSINE,
            type=kind,
            m=M,
            ef_construction=EF_CONSTRUCTION,
            ef=EF,
            created_at=0.0,
        )
        tail = create_tail(spec, kind, _Rows(self._rows), count, OPTIONS)
        order = np.random.default_rng(self._seed).permutation(count)
        tail.train(self._rows[np.sort(order[: max(tail.training_size, 1)])])
        return tail

    def _fill(self, tail: TailIndex) -> float:
        """Insert the vectors; CPU seconds of one of the last."""
        count = self.size.count
        last = min(_INSERTED, count // 4)
        bounds = [*range(0, count - last, _INSERTED), count - last, count]
        seconds = 0.0
        for first, stop in pairwise(bounds):
            began = time.process_time()
            tail.upsert(np.arange(first, stop), self._rows[first:stop])
            seconds = time.process_time() - began
        return seconds / last
