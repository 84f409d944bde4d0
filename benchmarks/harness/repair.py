"""What it costs to bring a cached answer up to date, in this process and without a network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.data import Float32Matrix
from benchmarks.harness.servers import K, ServerError
from benchmarks.harness.truth import TIE
from pyrope.clock import SystemClock
from pyrope.config import Settings
from pyrope.service.answers import Answer, CachedSearch, CacheMode, CacheWish
from pyrope.service.definition import IndexDefinition
from pyrope.service.index import OpenIndex
from pyrope.service.search import Search
from pyrope.service.service import Service
from pyrope.service.writes import NO_ATTRIBUTES, Condition, PutVectors
from pyrope.types import IndexType, Metric

BEHIND = (0, 10, 100, 1000)
"""Writes that an entry has to catch up with."""

ADDS, UPDATES = "adds", "updates"

_BATCH = 1000
"""Vectors written at a time."""

_TENANT, _INDEX = "default", "repair"


@dataclass(frozen=True, slots=True)
class Repaired:
    """Hits that had so much to catch up with.

    Attributes:
        writes: adds or updates.
        behind: how many.
        hits: measured.
        lost: entries that had to be searched for again, as one of their results was updated.
        median_us: from the call to its answer; p99_us and fresh_us likewise, the latter of a full
            search for the same. None without hits.
    """

    writes: str
    behind: int
    hits: int
    lost: int
    median_us: float | None = None
    p99_us: float | None = None
    fresh_us: float | None = None


def measure(base: Float32Matrix, queries: Float32Matrix, written: Float32Matrix) -> list[Repaired]:
    """Fill a FLAT index with `base`, cache the queries' answers, write, and time the next hits.

    Every repaired answer is compared with that of a full search: the same scores, up to rounding.

    Args:
        written: at least `_BATCH` vectors to be added, or to take the place of others.

    Raises:
        ServerError: an answer was not repaired, or not right.
    """
    return asyncio.run(_measure(base, queries, written))


@asynccontextmanager
async def _open(dim: int) -> AsyncIterator[OpenIndex]:
    service = Service(Settings(in_memory=True), SystemClock(), lambda id_: id_)
    await service.start()
    try:
        await service.loaded()
        definition = IndexDefinition(_INDEX, dim, Metric.COSINE, IndexType.FLAT)
        await service.create_index(_TENANT, definition)
        yield service.index(_TENANT, _INDEX.encode())
    finally:
        await service.stop()


async def _measure(
    base: Float32Matrix, queries: Float32Matrix, written: Float32Matrix
) -> list[Repaired]:
    found = []
    async with _open(base.shape[1]) as index:
        await _write(index, 0, base)
        fresh = len(base)
        blobs = [query.tobytes() for query in queries]
        for blob in blobs:
            await _search(index, blob, CacheMode.AUTO)
        for writes in (ADDS, UPDATES):
            for behind in BEHIND:
                first = fresh if writes == ADDS else 0
                fresh += behind if writes == ADDS else 0
                await _write(index, first, written[:behind])
                found.append(await _hit_all(index, blobs, writes, behind))
    return found


async def _hit_all(index: OpenIndex, blobs: Sequence[bytes], writes: str, behind: int) -> Repaired:
    times: list[float] = []
    hits: dict[bytes, Answer] = {}
    lost = 0
    for blob in blobs:
        began = time.perf_counter()
        answer = index.cache.search("repair", blob, Search(K), CacheWish())
        took = time.perf_counter() - began
        if isinstance(answer, CachedSearch):
            await answer
            lost += 1
            continue
        times.append(took)
        hits[blob] = answer[0]
        if answer[0].source.repaired is not bool(behind):
            raise ServerError(f"an entry {behind} {writes} behind says otherwise")
    full = [await _compare(index, blob, hit) for blob, hit in hits.items()]
    if not hits:
        return Repaired(writes, behind, 0, lost)
    p50, p99 = (float(one) * 1e6 for one in np.percentile(times, [50, 99]))
    return Repaired(writes, behind, len(times), lost, p50, p99, float(np.median(full)) * 1e6)


async def _compare(index: OpenIndex, query: bytes, hit: Answer) -> float:
    """Hold a hit against a full search; the seconds that one took."""
    began = time.perf_counter()
    truth = await _search(index, query, CacheMode.OFF)
    took = time.perf_counter() - began
    said, right = hit.hits.scores, truth.hits.scores
    if len(said) != len(right) or np.abs(np.subtract(said, right)).max() > TIE:
        raise ServerError("an answer was repaired wrongly")
    return took


async def _search(index: OpenIndex, query: bytes, mode: CacheMode) -> Answer:
    answers = index.cache.search("repair", query, Search(K), CacheWish(mode))
    return (await answers if isinstance(answers, CachedSearch) else answers)[0]


async def _write(index: OpenIndex, first: int, vectors: Float32Matrix) -> None:
    for start in range(0, len(vectors), _BATCH):
        rows = np.ascontiguousarray(vectors[start : start + _BATCH])
        ids = [b"%d" % (first + start + number) for number in range(len(rows))]
        future = asyncio.get_running_loop().create_future()
        nothing = [NO_ATTRIBUTES] * len(ids)
        index.write(PutVectors(ids, rows, nothing, 0, Condition.ALWAYS, future))
        await future
