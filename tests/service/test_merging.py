"""Heads that are merged, tails that are built, trained, compacted and replaced, behind searches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyrope.clock import SystemClock
from pyrope.config import Settings
from pyrope.engine.auto import SearchCosts
from pyrope.engine.base import SearchOptions
from pyrope.errors import NoIndexError, PyropeError
from pyrope.service.definition import IndexDefinition
from pyrope.service.index import OpenIndex
from pyrope.service.search import Search
from pyrope.service.service import Service
from pyrope.service.writes import Condition, PutVectors, RemoveVectors
from pyrope.testing.clock import ManualClock
from pyrope.types import IndexType

DIM = 16
TAILED = [IndexType.HNSW, IndexType.HNSW_SQ8, IndexType.IVF_FLAT, IndexType.IVF_PQ]
HEAD = 50
# Two bits a dimension tell little apart where there are few dimensions.
RECALL = dict.fromkeys(IndexType, 0.9) | {IndexType.IVF_PQ: 0.6}

Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts services on one directory, one after another."""
    running: list[Service] = []

    async def start_service(**engine: Any) -> Service:
        if running:
            await running.pop().stop()
        options = {"head_vectors": HEAD, **engine}
        service = Service(
            Settings(data_dir=tmp_path / "data", engine=options),  # type: ignore[arg-type]
            SystemClock(),
            lambda id_: id_,
        )
        await service.start()
        running.append(service)
        await service.loaded()
        return service

    yield start_service
    for service in running:
        await service.stop()


async def make(service: Service, kind: IndexType, **more: Any) -> OpenIndex:
    definition = IndexDefinition(name="i", dim=DIM, type=kind, **more)
    await service.create_index("default", definition)
    return service.index("default", b"i")


def rows_of(count: int, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, DIM))
    points = centres[rng.integers(20, size=count)] + 0.5 * rng.standard_normal((count, DIM))
    return points.astype("<f4")


def names_of(count: int) -> list[bytes]:
    return [b"v%d" % number for number in range(count)]


async def put(index: OpenIndex, ids: list[bytes], rows: Any) -> int | None:
    future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    index.write(PutVectors(ids, rows, None, 0, Condition.ALWAYS, future))
    return await future


async def remove(index: OpenIndex, ids: list[bytes]) -> int | None:
    future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    index.write(RemoveVectors(ids, future))
    return await future


async def search(index: OpenIndex, query: Any, count: int = 10) -> list[bytes]:
    (hits,) = await index.search("test", query.tobytes(), Search(count, SearchOptions()))
    return list(hits.ids)


async def settled(index: OpenIndex) -> None:
    """Return when the merger has nothing more to do."""
    async with asyncio.timeout(60):
        while index.merger.running:
            await asyncio.sleep(0.005)


async def recall(index: OpenIndex, model: dict[bytes, Any], queries: Any) -> float:
    ids, matrix = list(model), np.array(list(model.values()), np.float64)
    matrix /= np.linalg.norm(matrix, axis=1)[:, None]
    right = 0
    for query in queries:
        best = np.argsort(-(matrix @ query))[:10]
        right += len({ids[i] for i in best} & set(await search(index, query)))
    return right / (10 * len(queries))


@pytest.mark.parametrize("kind", TAILED)
async def test_what_is_written_is_merged_by_itself_and_found_all_the_time(
    start: Start, kind: IndexType
) -> None:
    index = await make(await start(), kind)
    names, rows = names_of(4000), rows_of(4000)
    for first in range(0, 4000, 500):
        some = slice(first, first + 500)
        await put(index, names[some], rows[some])
        for number in (first, first + 499):
            assert names[number] in await search(index, rows[number])
    await settled(index)
    assert index.active_type is kind
    assert index.engine.head_count <= 2 * HEAD
    assert index.engine.head_count + index.engine.tail_count == 4000
    model = dict(zip(names, rows, strict=True))
    assert await recall(index, model, rows_of(20, 1)) >= RECALL[kind]


async def test_the_last_of_the_head_is_merged_once_writes_have_paused(tmp_path: Path) -> None:
    clock = ManualClock()
    settings = Settings(data_dir=tmp_path, engine={"head_vectors": HEAD})  # type: ignore[arg-type]
    service = Service(settings, clock, lambda id_: id_)
    await service.start()
    try:
        await service.loaded()
        index = await make(service, IndexType.HNSW_SQ8)
        await put(index, names_of(2000), rows_of(2000))
        await service.build_index("default", b"i")
        await put(index, names_of(HEAD), rows_of(HEAD, 2))
        index.merger.nudge()
        await settled(index)
        assert index.engine.head_count == HEAD
        clock.advance(2)
        index.merger.nudge()
        await settled(index)
        assert (index.engine.head_count, index.engine.tail_count) == (0, 2000)
    finally:
        await service.stop()


@pytest.mark.parametrize("kind", TAILED)
async def test_a_build_merges_everything_and_leaves_no_tombstones(
    start: Start, kind: IndexType
) -> None:
    service = await start()
    index = await make(service, kind)
    names, rows = names_of(2500), rows_of(2500)
    await put(index, names, rows)
    await service.build_index("default", b"i")
    assert (index.engine.head_count, index.engine.tail_count) == (0, 2500)
    await put(index, names[:30], rows_of(30, 7))
    await remove(index, names[30:60])
    assert index.engine.deleted_count == 60
    await service.build_index("default", b"i")
    assert (index.engine.head_count, index.engine.tail_count) == (0, 2470)
    assert index.engine.deleted_count == 0


@pytest.mark.parametrize("kind", TAILED)
async def test_a_build_of_a_few_vectors_merges_them_too(start: Start, kind: IndexType) -> None:
    service = await start()
    index = await make(service, kind)
    await service.build_index("default", b"i")
    await put(index, names_of(3), rows_of(3))
    await service.build_index("default", b"i")
    assert (index.engine.head_count, index.engine.tail_count) == (0, 3)
    assert len(await search(index, rows_of(1, 3)[0])) == 3


@pytest.mark.parametrize("kind", [*TAILED, IndexType.FLAT])
async def test_a_restart_brings_head_and_tail_back(start: Start, kind: IndexType) -> None:
    service = await start()
    index = await make(service, kind)
    names, rows = names_of(2500), rows_of(2500)
    model = dict(zip(names, rows, strict=True))
    await put(index, names, rows)
    await service.build_index("default", b"i")
    tail = index.engine.tail_count
    # What is in the saved tail is partly gone, partly changed, when the server stops.
    await remove(index, names[:40])
    fresh = rows_of(40, 9)
    await put(index, names[40:80], fresh)
    for name in names[:40]:
        del model[name]
    model.update(zip(names[40:80], fresh, strict=True))
    service = await start()
    index = service.index("default", b"i")
    assert len(index) == len(model)
    if kind is not IndexType.FLAT:
        assert index.active_type is kind
        # The merger may have begun with the forty that were put since.
        assert tail - 80 <= index.engine.tail_count <= tail - 40
    for name, row in list(model.items())[::50]:
        assert name in await search(index, row)
    assert await recall(index, model, rows_of(20, 1)) >= RECALL[kind]


async def test_a_lost_tail_is_built_anew_while_the_index_serves(
    start: Start, tmp_path: Path
) -> None:
    service = await start()
    index = await make(service, IndexType.HNSW)
    names, rows = names_of(2000), rows_of(2000)
    await put(index, names, rows)
    await service.build_index("default", b"i")
    await service.stop(save_graphs=False)
    for file in (tmp_path / "data" / "indexes").glob("*/graph*"):
        file.unlink()
    service = await start()
    index = service.index("default", b"i")
    assert index.merger.running
    assert index.active_type == "FLAT"
    assert (await search(index, rows[5], 1)) == [names[5]]
    await settled(index)
    assert index.active_type == "HNSW"
    assert index.engine.tail_count == 2000


async def test_tombstones_beyond_a_share_are_compacted_away(start: Start) -> None:
    service = await start(compact_share=0.5)
    index = await make(service, IndexType.HNSW)
    names, rows = names_of(3000), rows_of(3000)
    await put(index, names, rows)
    await service.build_index("default", b"i")
    await remove(index, names[:1400])
    await settled(index)
    assert index.engine.deleted_count == 1400
    await remove(index, names[1400:1800])
    await settled(index)
    assert (index.engine.deleted_count, index.engine.tail_count) == (0, 1200)
    model = dict(zip(names[1800:], rows[1800:], strict=True))
    assert await recall(index, model, rows_of(20, 1)) >= 0.95


@pytest.mark.parametrize("kind", TAILED)
async def test_writes_beside_merges_and_builds_lose_and_double_nothing(
    start: Start, kind: IndexType
) -> None:
    service = await start(merge_slice_ms=0.5)
    index = await make(service, kind)
    rng = np.random.default_rng(5)
    model: dict[bytes, Any] = {}
    names = names_of(2000)
    rows = rows_of(2000)
    await put(index, names, rows)
    model.update(zip(names, rows, strict=True))

    async def write() -> None:
        for step in range(60):
            some = [names[number] for number in rng.integers(2000, size=20)]
            some = list(dict.fromkeys(some))
            if step % 3:
                fresh = rows_of(len(some), 100 + step)
                await put(index, some, fresh)
                model.update(zip(some, fresh, strict=True))
            else:
                await remove(index, some)
                for name in some:
                    model.pop(name, None)
            number = int(rng.integers(2000))
            if names[number] in model:
                assert names[number] in await search(index, model[names[number]])

    async def build() -> None:
        for _ in range(3):
            await service.build_index("default", b"i")
            await asyncio.sleep(0.01)

    await asyncio.gather(write(), build())
    await settled(index)
    assert len(index) == len(model) == len(index.engine)
    assert index.engine.head_count + index.engine.tail_count == len(model)
    for name, row in list(model.items())[::20]:
        assert name in await search(index, row)
    assert await recall(index, model, rows_of(20, 1)) >= RECALL[kind]


async def test_an_index_with_lists_is_exact_until_it_is_trained(start: Start) -> None:
    service = await start()
    index = await make(service, IndexType.IVF_FLAT, nlist=64)
    await put(index, names_of(500), rows_of(500))
    await settled(index)
    assert index.active_type == "FLAT"
    assert index.engine.parameters == {}
    (hits,) = await index.search("test", rows_of(1, 3).tobytes(), Search(5, SearchOptions()))
    assert hits.exact
    await put(index, names_of(5000)[500:], rows_of(4500, 2))
    await settled(index)
    assert index.active_type == "IVF_FLAT"
    assert index.engine.parameters["nlist"] == 64
    (hits,) = await index.search("test", rows_of(1, 3).tobytes(), Search(5, SearchOptions()))
    assert not hits.exact


async def test_an_index_of_type_auto_scans_first_and_has_a_graph_later(start: Start) -> None:
    service = await start()
    index = await make(service, IndexType.AUTO)
    spec = index.spec
    # As if measured: what a busy machine measures is another matter.
    key = (spec.metric, spec.dim, spec.m, spec.ef_construction, spec.ef)
    service._costs[key] = SearchCosts(0.0, scan_row=1e-6, graph=1e-4, graph_count=1000)
    await put(index, names_of(900), rows_of(900))
    await settled(index)
    assert index.active_type == "FLAT"
    assert index.always_scans
    await put(index, names_of(5_000)[900:], rows_of(4_100, 2))
    await settled(index)
    assert index.active_type in (IndexType.HNSW, IndexType.HNSW_SQ8)
    assert index.engine.head_count <= 2 * HEAD
    kind = index.active_type
    await service.build_index("default", b"i")
    service = await start()
    assert service.index("default", b"i").active_type is kind


async def test_a_merge_that_fails_leaves_an_index_that_is_searched_in_full(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start()
    index = await make(service, IndexType.HNSW)
    names, rows = names_of(600), rows_of(600)
    await put(index, names[:300], rows[:300])
    await service.build_index("default", b"i")

    def fail(*_: object) -> None:
        raise MemoryError

    assert index.engine.tail is not None
    monkeypatch.setattr(index.engine.tail, "insert", fail)
    await put(index, names[300:], rows[300:])
    await settled(index)
    assert index.active_type == "FLAT"
    assert (index.engine.head_count, index.engine.tail_count) == (600, 0)
    assert (await search(index, rows[10], 1)) == [names[10]]
    # A build tries again.
    await service.build_index("default", b"i")
    assert (index.engine.head_count, index.engine.tail_count) == (0, 600)


async def test_a_tail_serves_on_and_is_merged_into_when_another_cannot_be_built(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start()
    index = await make(service, IndexType.HNSW)
    names, rows = names_of(3000), rows_of(3000)
    await put(index, names[:2000], rows[:2000])
    await service.build_index("default", b"i")

    def fail(*_: object) -> Any:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(index, "new_tail", fail)
        await remove(index, names[:5])
        with pytest.raises(PyropeError, match="cannot be built"):
            await service.build_index("default", b"i")
        assert index.active_type == "HNSW"
        assert (index.engine.tail_count, index.engine.deleted_count) == (1995, 5)
        await put(index, names[2000:], rows[2000:])
        await settled(index)
        assert index.engine.head_count <= 2 * HEAD
        assert index.engine.tail_count >= 2995 - 2 * HEAD
        assert index.active_type == "HNSW"
    await service.build_index("default", b"i")
    assert (index.engine.tail_count, index.engine.deleted_count) == (2995, 0)


async def test_a_build_ends_though_vectors_are_replaced_all_the_time(start: Start) -> None:
    service = await start()
    index = await make(service, IndexType.HNSW)
    names, rows = names_of(2000), rows_of(2000)
    await put(index, names, rows)
    await service.build_index("default", b"i")
    await remove(index, names[:10])
    building = asyncio.create_task(service.build_index("default", b"i"))
    replaced = 0
    async with asyncio.timeout(30):
        while not building.done():
            some = slice(10 + replaced % 1900, 20 + replaced % 1900)
            await put(index, names[some], rows[some])
            replaced += 10
        await building
    assert replaced
    assert len(index.engine) == 1990


async def test_a_build_ends_though_vectors_come_faster_than_they_are_merged(start: Start) -> None:
    service = await start(head_vectors=0, merge_slice_ms=1)
    index = await make(service, IndexType.HNSW)
    rows = rows_of(500)
    await put(index, names_of(500), rows)
    building = asyncio.create_task(service.build_index("default", b"i"))
    steps = 0
    async with asyncio.timeout(30):
        while not building.done():
            await put(index, [b"%d-%d" % (steps, number) for number in range(100)], rows[:100])
            await search(index, rows[steps % 500])
            steps += 1
        await building
    assert index.engine.tail_count >= 500


async def test_an_index_is_in_use_for_a_moment_after_a_search(tmp_path: Path) -> None:
    clock = ManualClock()
    service = Service(Settings(data_dir=tmp_path / "data"), clock, lambda id_: id_)
    await service.start()
    await service.loaded()
    index = await make(service, IndexType.HNSW)
    await put(index, names_of(3), rows_of(3))
    told = [index.in_use]
    await search(index, rows_of(1)[0])
    told.append(index.in_use)
    clock.advance(1.1)
    told.append(index.in_use)
    assert told == [False, True, False]
    await service.stop()


async def test_how_many_lists_are_visited_can_be_left_to_the_training_again(start: Start) -> None:
    service = await start()
    index = await make(service, IndexType.IVF_FLAT, nlist=16, nprobe=1)
    await put(index, names_of(2000), rows_of(2000))
    await service.build_index("default", b"i")
    await service.alter_index("default", b"i", nprobe=0)
    assert index.engine.parameters["nprobe"] > 1


async def test_a_build_that_fails_says_so(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await start()
    index = await make(service, IndexType.HNSW)
    await put(index, names_of(10), rows_of(10))

    def fail(*_: object) -> Any:
        raise MemoryError

    monkeypatch.setattr(index, "new_tail", fail)
    with pytest.raises(PyropeError, match="cannot be built"):
        await service.build_index("default", b"i")
    assert len(await search(index, rows_of(1)[0])) == 10


async def test_a_build_of_an_index_that_is_dropped_ends_with_an_error(start: Start) -> None:
    service = await start()
    index = await make(service, IndexType.HNSW)
    await put(index, names_of(3000), rows_of(3000))
    building = asyncio.create_task(service.build_index("default", b"i"))
    while not index.merger.running:
        await asyncio.sleep(0)
    assert await service.drop_index("default", b"i")
    with pytest.raises(NoIndexError):
        await building
