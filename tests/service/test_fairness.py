"""Tenants beside one another: threads, batches and merges."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from pyrope.clock import SystemClock
from pyrope.config import Settings
from pyrope.engine.base import SearchOptions
from pyrope.engine.lanes import NORMAL_WEIGHT
from pyrope.service.audit import SERVER
from pyrope.service.definition import IndexDefinition
from pyrope.service.index import OpenIndex
from pyrope.service.search import Search
from pyrope.service.service import Service
from pyrope.service.writes import Condition, PutVectors, RemoveVectors
from pyrope.tenants.limits import Priority
from pyrope.types import Float32Matrix, IndexType

DIM = 16
EXACT = Search(5, SearchOptions(), exact=True)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    settings = Settings(
        in_memory=True,
        threads=2,
        admin_password="an-administrator",  # type: ignore[arg-type]
        engine={"head_vectors": 20},  # type: ignore[arg-type]
    )
    made = Service(settings, SystemClock(), lambda id_: id_)
    await made.start()
    await made.loaded()
    yield made
    await made.stop()


async def make(service: Service, tenant: str, kind: IndexType = IndexType.HNSW) -> OpenIndex:
    await service.tenancy.create(SERVER, tenant, {}, None)
    await service.create_index(tenant, IndexDefinition(name="i", dim=DIM, type=kind))
    return service.index(tenant, b"i")


def rows_of(count: int, seed: int = 1) -> Float32Matrix:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype("<f4")


async def put(index: OpenIndex, ids: list[bytes], rows: Float32Matrix) -> None:
    future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    index.write(PutVectors(ids, rows, None, 0, Condition.ALWAYS, future))
    await future


async def remove(index: OpenIndex, ids: list[bytes]) -> None:
    future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    index.write(RemoveVectors(ids, future))
    await future


async def test_batches_are_short_while_tenants_search_at_the_same_time(service: Service) -> None:
    # A full scan of so many takes long enough that a batch has room for few of them.
    flood, other = await make(service, "flood", IndexType.FLAT), await make(service, "other")
    rows = rows_of(200_000)
    await put(flood, [b"%d" % number for number in range(len(rows))], rows)

    async def longest_batch() -> int:
        found = [flood.search(number, rows[number].tobytes(), EXACT) for number in range(200)]
        (first,) = await found[0]
        answers = [hits for request in found for hits in await request]
        assert [hits.ids[0] for hits in answers] == [b"%d" % number for number in range(200)]
        # Queries of one batch have taken the same time, to the last bit.
        took = [hits.search_seconds for hits in answers]
        assert first.search_seconds in took
        return max(took.count(seconds) for seconds in set(took))

    async def longest_beside(seconds: float) -> int:
        async def ask() -> None:
            while True:
                await other.search("other", rows[0].tobytes(), Search(1, SearchOptions()))

        asking = asyncio.create_task(ask())
        try:
            await asyncio.sleep(seconds)
            return await longest_batch()
        finally:
            asking.cancel()

    assert await longest_batch() == service.settings.engine.batch_max
    assert await longest_beside(0.01) <= service.settings.engine.batch_max // 2


async def test_tenants_that_write_search_and_merge_at_once_all_come_through(
    service: Service,
) -> None:
    kinds = [IndexType.HNSW, IndexType.IVF_FLAT, IndexType.FLAT, IndexType.HNSW_SQ8]

    async def live(number: int) -> None:
        index = await make(service, f"t{number}", kinds[number])
        rows = rows_of(900, number)
        for start in range(0, 900, 60):
            names = [b"%d" % row for row in range(start, start + 60)]
            await put(index, names, rows[start : start + 60])
            await remove(index, names[::7])
            found = [
                index.search(row, rows[row].tobytes(), EXACT) for row in range(start, start + 60)
            ]
            for row, request in enumerate(found, start):
                (hits,) = await request
                assert (hits.ids[0] == b"%d" % row) == (row % 60 % 7 != 0)
        await index.merger.finish()
        assert index.engine.head_count == 0 or kinds[number] is IndexType.FLAT

    async with asyncio.timeout(60):
        await asyncio.gather(*(live(number) for number in range(len(kinds))))


async def test_merging_keeps_its_slices_short_while_any_tenant_searches(service: Service) -> None:
    searched, merged = await make(service, "a"), await make(service, "b")
    await put(searched, [b"1"], rows_of(1))
    assert not merged.in_use
    await searched.search("test", rows_of(1).tobytes(), EXACT)
    assert merged.in_use


async def test_a_priority_weighs_a_tenant_s_share_of_the_threads(service: Service) -> None:
    index = await make(service, "t")
    lane = service.lanes.lane("t")
    assert index.spec.tenant == "t"
    assert lane.flow.weight == NORMAL_WEIGHT
    weights = {}
    for priority in Priority:
        await service.tenancy.set(SERVER, "t", {"priority": priority}, None)
        weights[priority] = lane.flow.weight
    assert weights == {Priority.HIGH: 4, Priority.NORMAL: 2, Priority.LOW: 1}
