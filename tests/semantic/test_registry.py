"""What an index knows of its clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyrope.config import ClusterSettings
from pyrope.semantic.centroids import Centroids
from pyrope.semantic.registry import CentroidSource, SemanticClusterRegistry
from pyrope.testing.clock import ManualClock
from pyrope.types import Metric

DIM = 4
POINTS = np.eye(DIM, dtype=np.float32) * 10


class Rows:
    """Rows of slots: slot s is near POINTS[s % DIM]."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, slots: Any) -> Any:
        self.asked.append(len(slots))
        return POINTS[slots % DIM] + np.float32(0.1)


def make(clock: ManualClock, **more: Any) -> SemanticClusterRegistry:
    options: dict[str, Any] = {"rows": Rows(), "threshold": lambda: None, "seed": 1}
    settings = options | more
    return SemanticClusterRegistry(
        Metric.L2, DIM, settings.pop("settings", ClusterSettings()), clock, **settings
    )


def with_points(clock: ManualClock, **more: Any) -> SemanticClusterRegistry:
    registry = make(clock, **more)
    registry.install(Centroids(Metric.L2, POINTS), CentroidSource.PUSHED)
    return registry


def writes_of(registry: SemanticClusterRegistry) -> list[float]:
    return [registry.writes(cluster) for cluster in range(len(registry))]


def test_without_centroids_everything_is_cluster_0(clock: ManualClock) -> None:
    rows = Rows()
    registry = make(clock, rows=rows)
    registry.wrote(np.arange(1000))
    registry.removed(np.arange(10))
    assert registry.assign(POINTS[2]) == 0
    assert registry.assign(POINTS[2].tobytes()) == 0
    assert registry.score(POINTS[2], 0) is None
    assert (len(registry), writes_of(registry), registry.share(0)) == (1, [1010], 1.0)
    assert rows.asked == []


def test_a_write_counts_where_its_vector_is(clock: ManualClock) -> None:
    registry = with_points(clock)
    registry.wrote(np.array([0, 4, 8, 1]))
    registry.removed(np.array([2, 6]))
    registry.wrote(np.array([], np.int64))
    assert writes_of(registry) == [3, 1, 2, 0]
    clock.advance(300)
    assert writes_of(registry) == [0, 0, 0, 0]


def test_a_large_batch_is_counted_by_a_bounded_sample(clock: ManualClock) -> None:
    rows = Rows()
    registry = with_points(clock, rows=rows)
    registry.wrote(np.arange(40_000))
    assert sum(writes_of(registry)) == pytest.approx(40_000)
    assert writes_of(registry) == pytest.approx([10_000] * 4, rel=0.25)
    assert rows.asked == [512]


def test_a_vector_in_bytes_is_assigned_as_in_an_array(clock: ManualClock) -> None:
    registry = with_points(clock)
    for number, point in enumerate(POINTS):
        assert registry.assign(point) == registry.assign(point.tobytes()) == number


def test_where_much_is_written_answers_live_shorter(clock: ManualClock) -> None:
    registry = with_points(clock)
    registry.wrote(np.zeros(400, np.int64))
    registry.wrote(np.ones(30, np.int64))
    ttls = [registry.ttl(cluster, 1000) for cluster in range(4)]
    assert ttls[0] < ttls[1] < ttls[2] == ttls[3] == 2000
    assert 550 < ttls[0] < 650
    clock.advance(300)
    assert registry.ttl(0, 1000) == 2000


def test_ttls_stay_within_floor_and_ceiling(clock: ManualClock) -> None:
    settings = ClusterSettings(ttl_floor=0.25, ttl_ceiling=1.5)
    registry = with_points(clock, settings=settings, threshold=lambda: 1.0)
    assert registry.ttl(0, 100) == 150
    registry.wrote(np.zeros(500, np.int64))
    assert registry.ttl(0, 100) == pytest.approx(25, rel=1e-4)
    settings.ttl_floor = 0.5
    assert registry.ttl(0, 100) == pytest.approx(50, rel=1e-4)


def test_what_lives_for_ever_does_so_in_hot_clusters_too(clock: ManualClock) -> None:
    registry = with_points(clock)
    registry.wrote(np.zeros(500, np.int64))
    assert registry.ttl(0, 0) == 0


def test_a_ttl_does_not_follow_every_write(clock: ManualClock) -> None:
    registry = with_points(clock, threshold=lambda: 100.0)
    seen = []
    for _ in range(100):
        registry.wrote(np.zeros(1, np.int64))
        seen.append(registry.ttl(0, 1000))
    assert seen == sorted(seen, reverse=True)
    # From the ceiling to half way to the floor, in steps of more than a tenth.
    assert 5 <= len(set(seen)) <= 14
    assert seen[-1] == pytest.approx(550, rel=0.12)


def test_the_threshold_follows_the_write_rate_unless_the_policy_has_one(
    clock: ManualClock,
) -> None:
    policy: list[float | None] = [None]
    registry = with_points(clock, threshold=lambda: policy[0])
    assert registry.threshold == 16
    registry.wrote(np.arange(400))
    assert registry.threshold == 4 * 400 / 4
    policy[0] = 7.5
    assert registry.threshold == 7.5


def test_other_centroids_are_another_epoch_and_take_the_writes_along(clock: ManualClock) -> None:
    registry = make(clock)
    registry.wrote(np.arange(80))
    registry.install(
        Centroids(Metric.L2, POINTS), CentroidSource.KMEANS, np.array([0.5, 0.25, 0.25, 0])
    )
    assert (registry.epoch, writes_of(registry)) == (1, [40, 20, 20, 0])
    assert [registry.share(cluster) for cluster in range(4)] == [0.5, 0.25, 0.25, 0]
    registry.install(Centroids(Metric.L2, POINTS[[1, 0]]), CentroidSource.PUSHED)
    assert (registry.epoch, len(registry), registry.share(0)) == (2, 2, None)
    assert sum(writes_of(registry)) == 80
    assert writes_of(registry)[1] >= 40
    registry.clear()
    assert (registry.epoch, writes_of(registry)) == (3, [80])
    assert registry.source is CentroidSource.NONE


def test_a_cluster_of_another_epoch_is_an_error(clock: ManualClock) -> None:
    registry = with_points(clock)
    registry.clear()
    with pytest.raises(IndexError):
        registry.ttl(3, 100)


def test_memory_grows_with_what_is_held_and_is_little_before(clock: ManualClock) -> None:
    registry = make(clock)
    empty = registry.nbytes
    assert empty < 200
    registry.install(Centroids(Metric.L2, POINTS), CentroidSource.PUSHED)
    registry.wrote(np.arange(10))
    registry.queried(POINTS[0])
    assert registry.nbytes > empty + 512 * 8 + 16 * DIM * 4


def test_queries_and_slots_of_late_are_known(clock: ManualClock) -> None:
    registry = with_points(clock)
    registry.queried(POINTS[0])
    registry.queried(POINTS[1].tobytes())
    registry.wrote(np.array([5, 9]))
    registry.removed(np.array([7]))
    slots, queries = registry.recent()
    assert (slots.tolist(), queries.tolist()) == ([5, 9], POINTS[:2].tolist())
    assert registry.activity == 5


def test_samples_begin_anew_when_they_have_told_something(clock: ManualClock) -> None:
    registry = with_points(clock)
    registry.wrote(np.arange(63))
    for _ in range(64):
        registry.queried(POINTS[0])
    registry.forget_recent()
    slots, queries = registry.recent()
    assert (len(slots), len(queries)) == (63, 0)
    registry.wrote(np.array([63]))
    registry.queried(POINTS[1])
    registry.forget_recent()
    slots, queries = registry.recent()
    assert (len(slots), queries.tolist()) == (0, [POINTS[1].tolist()])
