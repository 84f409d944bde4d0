"""The use cases, where several of them meet."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from pyrope.clock import Clock, SystemClock
from pyrope.config import Settings
from pyrope.engine.base import SearchOptions
from pyrope.errors import MisconfError, NoIndexError
from pyrope.service.definition import IndexDefinition
from pyrope.service.index import OpenIndex
from pyrope.service.search import Search
from pyrope.service.service import Service
from pyrope.service.writes import Condition, PutVectors, RemoveVectors
from pyrope.testing.clock import ManualClock
from pyrope.types import IndexType

DIM = 8


async def started(data: Path | None = None, clock: Clock | None = None) -> Service:
    settings: dict[str, Any] = {"in_memory": True} if data is None else {"data_dir": data}
    service = Service(Settings(**settings), clock or SystemClock(), lambda id_: id_)
    await service.start()
    await service.loaded()
    return service


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = await started()
    yield service
    await service.stop()


async def make(service: Service, name: str = "i", type_: IndexType = IndexType.HNSW) -> OpenIndex:
    await service.create_index("default", IndexDefinition(name=name, dim=DIM, type=type_))
    return service.index("default", name.encode())


def vectors(seed: int, count: int) -> Any:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype("<f4")


async def put(
    index: OpenIndex,
    ids: list[bytes],
    rows: Any,
    *,
    expires_at_ms: int = 0,
    condition: Condition = Condition.ALWAYS,
) -> int | None:
    future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    index.write(PutVectors(ids, rows, None, expires_at_ms, condition, future))
    return await future


async def remove(index: OpenIndex, ids: list[bytes]) -> int | None:
    future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    index.write(RemoveVectors(ids, future))
    return await future


async def search(index: OpenIndex, query: Any, count: int = 10) -> list[bytes]:
    (hits,) = await index.search("test", query.tobytes(), Search(count, SearchOptions(ef=64)))
    return hits.ids


NAMES = [b"v%d" % number for number in range(1500)]


async def test_a_rebuild_beside_updates_loses_and_doubles_nothing(service: Service) -> None:
    index = await make(service)
    await put(index, NAMES, vectors(1, 1500))
    await remove(index, NAMES[:1])
    await put(index, NAMES[:1], vectors(1, 1))
    await remove(index, [b"v1"])
    updated = vectors(2, 1500)
    await asyncio.gather(index.merger.finish(), put(index, NAMES, updated))
    assert len(index.engine) == 1500
    for number in range(0, 1500, 97):
        found = await search(index, updated[number])
        assert len(found) == 10
        assert found[0] == NAMES[number]


async def test_a_rebuild_is_saved_though_nothing_was_written_since(tmp_path: Path) -> None:
    service = await started(tmp_path)
    index = await make(service)
    await put(index, NAMES, vectors(1, 1500))
    await remove(index, NAMES[:200])
    await service.save_graphs()
    await service.build_index("default", b"i")
    assert index.engine.deleted_count == 0
    await service.stop()
    service = await started(tmp_path)
    assert service.index("default", b"i").engine.deleted_count == 0
    await service.stop()


async def test_dropping_an_index_while_graphs_are_saved_leaves_nobody_waiting(
    tmp_path: Path,
) -> None:
    service = await started(tmp_path)
    for name in ("a", "b", "c"):
        await put(await make(service, name), NAMES, vectors(1, 1500))
    saving = asyncio.create_task(service.save_graphs())
    await asyncio.sleep(0)
    assert await service.drop_index("default", b"b")
    async with asyncio.timeout(30):
        await saving
        await service.stop()
    service = await started(tmp_path)
    assert service.index_names("default") == ["a", "c"]
    await service.stop()


async def test_a_drop_does_not_wait_for_a_rebuild(service: Service) -> None:
    index = await make(service)
    await put(index, NAMES, vectors(1, 1500))
    await remove(index, NAMES[:5])
    building = asyncio.create_task(service.build_index("default", b"i"))
    while not index.merger.running:
        await asyncio.sleep(0)
    assert await service.drop_index("default", b"i")
    with pytest.raises(NoIndexError):
        await building


async def test_an_index_whose_creation_fails_is_not_there_after_a_restart_either(
    tmp_path: Path,
) -> None:
    service = await started(tmp_path)
    blocked = tmp_path / "indexes"
    blocked.rename(tmp_path / "elsewhere")
    blocked.write_text("in the way")
    with pytest.raises(MisconfError):
        await make(service, "a")
    assert service.index_names("default") == []
    blocked.unlink()
    (tmp_path / "elsewhere").rename(blocked)
    await make(service, "a", IndexType.FLAT)
    await service.stop()
    service = await started(tmp_path)
    assert service.index("default", b"a").spec.type is IndexType.FLAT
    await service.stop()


async def test_searches_are_full_though_vectors_expire_beneath_them() -> None:
    clock = ManualClock()
    service = await started(clock=clock)
    index = await make(service, type_=IndexType.FLAT)
    query = vectors(5, 1)[0]
    await put(index, NAMES[:100], vectors(1, 100))
    for round_ in range(20):
        due = int(clock.wall() * 1000) + 500
        near = query + 0.001 * vectors(round_, 20)
        await put(index, [b"x%d" % n for n in range(20)], near, expires_at_ms=due)
        assert (await search(index, query))[0].startswith(b"x")
        clock.advance(1)
        found = await search(index, query)
        assert len(found) == 10
        assert all(id_.startswith(b"v") for id_ in found)
    await service.stop()


async def test_a_condition_is_not_decided_on_what_has_expired() -> None:
    clock = ManualClock()
    service = await started(clock=clock)
    index = await make(service)
    due = int(clock.wall() * 1000) + 500
    await put(index, [b"a"], vectors(1, 1), expires_at_ms=due)
    clock.advance(1)
    assert await put(index, [b"a"], vectors(2, 1), condition=Condition.IF_THERE) is None
    assert await put(index, [b"a"], vectors(2, 1), condition=Condition.IF_NEW) == 1
    await service.stop()


async def test_many_writers_and_searchers_agree_with_a_dict(tmp_path: Path) -> None:
    """Each task owns its ids, so that a plain dict says what every id holds."""
    service = await started(tmp_path)
    index = await make(service)
    model: dict[bytes, Any] = {}

    async def write(task: int) -> None:
        rng = np.random.default_rng(task)
        names = [b"t%d-%d" % (task, number) for number in range(12)]
        for step in range(40):
            name = names[rng.integers(12)]
            if rng.random() < 0.3:
                assert await remove(index, [name]) == (model.pop(name, None) is not None)
            else:
                row = vectors(task * 1000 + step, 1)
                assert await put(index, [name], row) == (0 if name in model else 1)
                model[name] = row[0]
                assert (await search(index, row[0], 1)) == [name]

    async def disturb() -> None:
        for _ in range(4):
            await index.merger.finish()
            await service.saver.save([index])
            await asyncio.sleep(0.02)

    await asyncio.gather(disturb(), *(write(task) for task in range(8)))
    for _ in range(2):
        index = service.index("default", b"i")
        assert len(index) == len(model)
        for name, row in model.items():
            assert index.vector(name) == row.tobytes()
            assert await search(index, row, 1) == [name]
        await service.stop()
        service = await started(tmp_path)
    await service.stop()


async def test_a_drop_that_waits_for_its_index_holds_no_other_index_up(service: Service) -> None:
    index = await make(service, "slow")
    await index.gate.enter_exclusive()  # as training or a save may have it
    dropping = asyncio.create_task(service.drop_index("default", b"slow"))
    async with asyncio.timeout(10):
        while service.index_names("default"):
            await asyncio.sleep(0)
        await make(service, "other")
    assert not dropping.done()
    index.gate.leave_exclusive()
    assert await dropping


def test_the_loop_scores_in_its_own_thread_alone() -> None:
    """Threads of OpenMP cost more than the few rows of a repair, and spin beside the engine's."""
    seen: list[int] = []

    async def start_and_stop() -> None:
        service = await started()
        seen.append(faiss.omp_get_max_threads())
        await service.stop()

    # How many there are is known to each thread apart.
    thread = threading.Thread(target=lambda: asyncio.run(start_and_stop()))
    thread.start()
    thread.join()
    assert seen == [1]
