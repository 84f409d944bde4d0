"""Advice on clusters: it moves what it may within guardrails, expires, and can be taken back."""

from __future__ import annotations

import numpy as np
import pytest

from pyrope.config import ClusterSettings
from pyrope.semantic.advice import Advice, Nature
from pyrope.semantic.centroids import Centroids
from pyrope.semantic.registry import CentroidSource, SemanticClusterRegistry
from pyrope.testing.clock import ManualClock
from pyrope.types import Metric

NEAR = [np.array(row, np.float32) for row in ([0, 0], [10, 0], [0, 10])]


@pytest.fixture
def registry(clock: ManualClock) -> SemanticClusterRegistry:
    made = SemanticClusterRegistry(
        Metric.L2, 2, ClusterSettings(), clock,
        rows=lambda slots: np.array(NEAR)[slots], threshold=lambda: None, seed=1,
    )  # fmt: skip
    made.install(Centroids(Metric.L2, np.array(NEAR)), CentroidSource.PUSHED)
    return made


def advice(ttl: float, value: float = 1.0, until: float = 100.0) -> Advice:
    return Advice(Nature.VOLATILE, ttl, value, 0.9, until)


def test_a_time_to_live_is_moved_within_its_bounds(registry: SemanticClusterRegistry) -> None:
    cold = registry.ttl(0, 60.0)
    registry.advice.set(0, advice(0.25))
    assert registry.ttl(0, 60.0) == cold / 4
    assert registry.ttl(1, 60.0) == cold
    registry.advice.set(0, advice(1e-9))
    assert registry.ttl(0, 60.0) == 60.0 * 0.1
    registry.advice.set(0, advice(1e9))
    assert registry.ttl(0, 60.0) == registry.longest_ttl(60.0)
    assert registry.ttl(0, 0.0) == 0.0


def test_where_there_is_advice_clusters_are_not_all_alike(
    registry: SemanticClusterRegistry,
) -> None:
    assert registry.is_cold
    registry.advice.set(1, advice(0.5))
    assert not registry.is_cold


def test_a_value_is_that_of_the_cluster_a_vector_is_in(registry: SemanticClusterRegistry) -> None:
    assert registry.value_factor(NEAR[1]) == 1.0
    registry.advice.set(1, advice(1.0, value=3.0))
    assert registry.value_factor(NEAR[1].tobytes()) == 3.0
    assert registry.value_factor(NEAR[2]) == 1.0


def test_advice_expires(registry: SemanticClusterRegistry, clock: ManualClock) -> None:
    registry.advice.set(0, advice(0.5, value=2.0))
    clock.advance(99)
    assert registry.value_factor(NEAR[0]) == 2.0
    clock.advance(1)
    assert registry.value_factor(NEAR[0]) == 1.0
    assert registry.is_cold
    assert registry.advice.remove() == 0


def test_advice_can_be_taken_back(registry: SemanticClusterRegistry) -> None:
    for cluster in range(3):
        registry.advice.set(cluster, advice(0.5))
    assert registry.advice.remove(1) == 1
    assert registry.advice.remove(1) == 0
    assert [cluster for cluster, _ in registry.advice] == [0, 2]
    assert registry.advice.remove() == 2
    assert registry.is_cold


def test_other_centroids_have_no_advice(registry: SemanticClusterRegistry) -> None:
    registry.advice.set(0, advice(0.5))
    registry.install(Centroids(Metric.L2, np.array(NEAR[:2])), CentroidSource.PUSHED)
    assert not len(registry.advice)
    registry.advice.set(0, advice(0.5))
    registry.clear()
    assert not len(registry.advice)
