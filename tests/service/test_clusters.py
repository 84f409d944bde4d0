"""Clusters that are learnt, taken from lists, pushed, kept, and learnt anew where they drift."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyrope.config import Settings
from pyrope.errors import CommandError, NoIndexError
from pyrope.semantic.registry import CentroidSource
from pyrope.service.definition import IndexDefinition
from pyrope.service.index import OpenIndex
from pyrope.service.service import Service
from pyrope.service.writes import Condition, PutVectors, RemoveVectors
from pyrope.testing.clock import ManualClock
from pyrope.types import IndexType, Metric

DIM = 8
INTERVAL = 60.0

Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Start]:
    """Starts services on one directory, one after another."""
    running: list[Service] = []

    async def start_service(**clusters: Any) -> Service:
        if running:
            await running.pop().stop()
        options = {"min_vectors": 400, "max_centroids": 32, **clusters}
        settings = Settings(data_dir=tmp_path / "data", clusters=options)  # type: ignore[arg-type]
        service = Service(settings, clock, lambda id_: id_)
        await service.start()
        running.append(service)
        await service.loaded()
        return service

    yield start_service
    for service in running:
        await service.stop()


async def make(
    service: Service, kind: IndexType = IndexType.FLAT, metric: Metric = Metric.L2, **more: Any
) -> OpenIndex:
    definition = IndexDefinition(name="i", dim=DIM, type=kind, metric=metric, **more)
    await service.create_index("default", definition)
    return service.index("default", b"i")


def rows_of(count: int, seed: int = 1, offset: float = 0.0, centres: int = 20) -> Any:
    """Around some centres, which depend on the offset."""
    middles = np.random.default_rng(int(offset)).standard_normal((centres, DIM)) * 5 + offset
    random = np.random.default_rng(seed)
    rows = middles[random.integers(centres, size=count)]
    return (rows + 0.3 * random.standard_normal((count, DIM))).astype("<f4")


async def put(index: OpenIndex, rows: Any, first: int = 0) -> None:
    ids = [b"v%d" % number for number in range(first, first + len(rows))]
    future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    index.write(PutVectors(ids, rows, None, 0, Condition.ALWAYS, future))
    await future


async def remove(index: OpenIndex, *numbers: int) -> None:
    future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    index.write(RemoveVectors([b"v%d" % number for number in numbers], future))
    await future


async def looked(index: OpenIndex) -> None:
    """Have clusters looked after, where that is due."""
    index.clusters.nudge()
    async with asyncio.timeout(30):
        while index.clusters.looking:
            await asyncio.sleep(0.002)


def heat(index: OpenIndex) -> list[int]:
    registry = index.clusters.registry
    return [round(registry.writes(cluster)) for cluster in range(len(registry))]


async def test_an_index_is_one_cluster_until_it_is_large_enough(start: Start) -> None:
    index = await make(await start())
    await put(index, rows_of(399))
    await looked(index)
    assert (index.clusters.epoch, index.clusters.assign(rows_of(1)[0])) == (0, 0)
    await put(index, rows_of(1), first=399)
    await looked(index)
    registry = index.clusters.registry
    assert (index.clusters.epoch, len(registry)) == (1, 20)
    assert registry.source is CentroidSource.KMEANS
    assert sum(heat(index)) == 400


@pytest.mark.parametrize("metric", list(Metric))
async def test_learnt_centroids_are_near_the_vectors(start: Start, metric: Metric) -> None:
    index = await make(await start(), metric=metric)
    rows = rows_of(900)
    await put(index, rows)
    await looked(index)
    centroids = index.clusters.registry.centroids
    assert centroids is not None
    assert len(centroids) == 30
    own = centroids.distances(rows, centroids.assign_many(rows)).mean()
    every = np.array([centroids.distances(rows, np.full(900, c)).mean() for c in range(30)])
    assert own < 0.4 * every.mean()
    shares = [index.clusters.registry.share(cluster) for cluster in range(30)]
    assert sum(share for share in shares if share is not None) == pytest.approx(1)


async def test_the_same_vectors_give_the_same_clusters(start: Start) -> None:
    found = []
    for _ in range(2):
        service = await start()
        index = await make(service)
        await put(index, rows_of(500))
        await index.clusters.rebuild()
        centroids = index.clusters.registry.centroids
        assert centroids is not None
        found.append(centroids.matrix)
        await service.drop_index("default", b"i")
    assert (found[0] == found[1]).all()


@pytest.mark.parametrize("metric", list(Metric))
async def test_lists_lend_their_centroids(start: Start, metric: Metric) -> None:
    service = await start()
    index = await make(service, IndexType.IVF_FLAT, metric, nlist=24)
    rows = rows_of(2500)
    await put(index, rows)
    await service.build_index("default", b"i")
    await index.clusters.rebuild()
    registry = index.clusters.registry
    assert (registry.source, len(registry)) == (CentroidSource.LISTS, 24)
    centroids = registry.centroids
    assert centroids is not None
    own = centroids.distances(rows, centroids.assign_many(rows)).mean()
    every = np.array([centroids.distances(rows, np.full(2500, c)).mean() for c in range(24)])
    assert own < 0.5 * every.mean()


async def test_more_lists_than_there_may_be_clusters_are_clustered_themselves(
    start: Start,
) -> None:
    service = await start()
    index = await make(service, IndexType.IVF_FLAT, nlist=64)
    await put(index, rows_of(2500))
    await service.build_index("default", b"i")
    await index.clusters.rebuild()
    registry = index.clusters.registry
    assert registry.source is CentroidSource.LISTS
    assert 16 <= len(registry) <= 32


async def test_writes_heat_the_clusters_that_they_concern(start: Start) -> None:
    index = await make(await start())
    await index.clusters.push(np.eye(DIM, dtype="<f4")[:3] * 9)
    rows = np.eye(DIM, dtype="<f4")[[0, 0, 1, 2, 2]] * 9
    await put(index, rows)
    assert heat(index) == [2, 1, 2]
    await remove(index, 0, 1, 77)
    assert heat(index) == [4, 1, 2]
    # An update counts once, where the new vector is.
    await put(index, rows[:1], first=4)
    assert heat(index) == [5, 1, 2]


async def test_what_expires_is_a_write_too(start: Start, clock: ManualClock) -> None:
    index = await make(await start())
    await index.clusters.push(np.eye(DIM, dtype="<f4")[:2])
    future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    expiry = int((clock.wall() + 10) * 1000)
    row = np.eye(DIM, dtype="<f4")[1:2]
    index.write(PutVectors([b"v"], row, None, expiry, Condition.ALWAYS, future))
    await future
    assert heat(index) == [0, 1]
    clock.advance(11)
    index.remove_expired()
    assert heat(index) == [0, 2]
    await index.drain()


async def test_a_drifted_stream_has_them_rebuilt_exactly_once(
    start: Start, clock: ManualClock
) -> None:
    index = await make(await start())
    await put(index, rows_of(2000))
    await looked(index)
    assert index.clusters.epoch == 1
    # Not so many that the clusters become uneven, which is another reason to learn them anew.
    for turn in range(10):
        clock.advance(INTERVAL)
        await put(index, rows_of(70, turn, offset=30), 2000 + 70 * turn)
        await looked(index)
    assert index.clusters.epoch == 2


async def test_clusters_that_have_become_uneven_are_learnt_anew(
    start: Start, clock: ManualClock
) -> None:
    index = await make(await start())
    await put(index, rows_of(500))
    await looked(index)
    assert (index.clusters.epoch, len(index.clusters.registry)) == (1, 22)
    # Four times as many, within one of the clusters.
    await put(index, rows_of(1100, centres=1), 500)
    for _ in range(2):
        clock.advance(INTERVAL)
        index.clusters.queried(rows_of(1)[0])
        await looked(index)
    assert index.clusters.epoch == 2


async def test_queries_that_go_elsewhere_are_drift_too(start: Start, clock: ManualClock) -> None:
    index = await make(await start(query_sample=128))
    await put(index, rows_of(1000))
    for row in rows_of(200, 2):
        index.clusters.queried(row.tobytes())
    await looked(index)
    assert index.clusters.epoch == 1
    for turn in range(10):
        clock.advance(INTERVAL)
        for row in rows_of(1500, 3 + turn, offset=30):
            index.clusters.queried(row)
        await looked(index)
    assert index.clusters.epoch == 2


async def test_a_stream_that_stays_where_it_was_changes_nothing(
    start: Start, clock: ManualClock
) -> None:
    index = await make(await start())
    await put(index, rows_of(1000))
    await looked(index)
    for turn in range(8):
        clock.advance(INTERVAL)
        await put(index, rows_of(100, 5 + turn), 1000 + 100 * turn)
        await looked(index)
    assert index.clusters.epoch == 1


async def test_looks_are_an_interval_apart_and_need_something_to_have_happened(
    start: Start, clock: ManualClock
) -> None:
    index = await make(await start(max_centroids=256))
    await put(index, rows_of(400))
    await looked(index)
    assert index.clusters.epoch == 1
    # Four times as many vectors want twice as many clusters.
    await put(index, rows_of(1300), first=400)
    clock.advance(INTERVAL - 1)
    await looked(index)
    assert index.clusters.epoch == 1
    clock.advance(1)
    await looked(index)
    assert (index.clusters.epoch, len(index.clusters.registry)) == (2, 41)
    clock.advance(10 * INTERVAL)
    index.clusters.nudge()
    assert not index.clusters.looking


async def test_pushed_centroids_stay_until_a_rebuild(start: Start, clock: ManualClock) -> None:
    index = await make(await start())
    await put(index, rows_of(1000))
    pushed = rows_of(3, 9)
    await index.clusters.push(pushed)
    for turn in range(4):
        clock.advance(INTERVAL)
        await put(index, rows_of(300, 5 + turn, offset=30), 1000 + 300 * turn)
        await looked(index)
    registry = index.clusters.registry
    assert registry.source is CentroidSource.PUSHED
    assert registry.centroids is not None
    assert registry.centroids.matrix.tolist() == pushed.tolist()
    await index.clusters.rebuild()
    assert (registry.source, len(registry)) == (CentroidSource.KMEANS, 32)


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.L2])
async def test_pushed_centroids_survive_a_restart_and_learnt_ones_are_learnt_again(
    start: Start, metric: Metric
) -> None:
    service = await start()
    index = await make(service, metric=metric)
    await put(index, rows_of(1000))
    pushed = rows_of(5, 9)
    await index.clusters.push(pushed)
    assert index.clusters.registry.centroids is not None
    before = index.clusters.registry.centroids.matrix
    shares = [index.clusters.registry.share(cluster) for cluster in range(5)]
    service = await start()
    registry = service.index("default", b"i").clusters.registry
    assert registry.source is CentroidSource.PUSHED
    assert registry.centroids is not None
    assert (registry.centroids.matrix == before).all()
    assert [registry.share(cluster) for cluster in range(5)] == shares
    await service.index("default", b"i").clusters.rebuild()
    service = await start()
    index = service.index("default", b"i")
    assert index.clusters.epoch == 0
    index.clusters.queried(rows_of(1)[0])
    await looked(index)
    assert index.clusters.registry.source is CentroidSource.KMEANS


async def test_centroids_that_cannot_be_are_refused(start: Start) -> None:
    index = await make(await start(), metric=Metric.COSINE)
    with pytest.raises(CommandError, match="at most 32"):
        await index.clusters.push(rows_of(33))
    with pytest.raises(CommandError, match="no direction"):
        await index.clusters.push(np.zeros((1, DIM), "<f4"))
    assert index.clusters.epoch == 0


async def test_a_rebuild_makes_do_with_what_there_is(start: Start) -> None:
    index = await make(await start(), metric=Metric.COSINE)
    await index.clusters.rebuild()
    assert index.clusters.epoch == 0
    await put(index, np.zeros((3, DIM), "<f4"))
    await index.clusters.rebuild()
    assert index.clusters.epoch == 0
    await put(index, np.ones((40, DIM), "<f4"))
    await index.clusters.rebuild()
    assert (index.clusters.epoch, len(index.clusters.registry)) == (1, 1)
    await index.clusters.push(rows_of(2))
    await remove(index, *range(40))
    await index.clusters.rebuild()
    assert index.clusters.registry.source is CentroidSource.NONE


async def test_changes_happen_one_after_another_in_their_order(start: Start) -> None:
    index = await make(await start())
    await put(index, rows_of(500))
    clusters = index.clusters
    await asyncio.gather(
        clusters.rebuild(), clusters.push(rows_of(3)), clusters.rebuild(), clusters.push(rows_of(4))
    )
    assert (clusters.epoch, len(clusters.registry)) == (4, 4)


async def test_a_client_that_goes_away_undoes_nothing(start: Start) -> None:
    index = await make(await start())
    task = asyncio.create_task(index.clusters.push(rows_of(3)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await index.drain()
    assert len(index.clusters.registry) == 3


async def test_an_index_that_is_dropped_leaves_no_task_behind(start: Start) -> None:
    service = await start()
    index = await make(service)
    await put(index, rows_of(1000))
    before = asyncio.all_tasks()
    index.clusters.nudge()
    work = [asyncio.create_task(index.clusters.rebuild()) for _ in range(3)]
    await asyncio.sleep(0)
    await service.drop_index("default", b"i")
    await asyncio.gather(*work)
    assert asyncio.all_tasks() <= before
    with pytest.raises(NoIndexError):
        await index.clusters.rebuild()


async def test_a_look_that_is_under_way_ends_before_the_vectors_go(start: Start) -> None:
    service = await start()
    index = await make(service)
    await put(index, rows_of(1000))
    index.clusters.nudge()
    assert index.clusters.looking
    await service.drop_index("default", b"i")
    assert not index.clusters.looking


async def test_a_server_that_stops_leaves_no_task_behind(start: Start) -> None:
    service = await start()
    index = await make(service)
    await put(index, rows_of(1000))
    index.clusters.nudge()
    work = asyncio.create_task(index.clusters.rebuild())
    await asyncio.sleep(0)
    await service.stop()
    outcome = (await asyncio.gather(work, return_exceptions=True))[0]
    assert outcome is None or isinstance(outcome, NoIndexError)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_policy_sets_base_and_threshold(start: Start) -> None:
    service = await start()
    index = await make(service)
    assert (index.clusters.base_ttl_s, index.clusters.threshold) == (3600, 16)
    before = index.memory_bytes
    await index.clusters.push(rows_of(30))
    assert index.clusters.nbytes > 2 * 30 * DIM * 4
    assert index.memory_bytes > before + 2 * 30 * DIM * 4
