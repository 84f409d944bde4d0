"""What is particular to an index that has no tail."""

from __future__ import annotations

import numpy as np
import pytest

from engine_oracle import Harness, clustered
from pyrope.engine.base import Neighbours, SearchOptions
from pyrope.types import Metric


@pytest.mark.parametrize("metric", list(Metric))
def test_every_search_is_exact_whatever_effort_is_asked_for(metric: Metric) -> None:
    harness = Harness("FLAT", metric, 12)
    harness.upsert(np.arange(500), clustered(500, 12, 1))
    queries = clustered(30, 12, 2)
    exact = harness.index.search_exact(queries, 7)
    found = harness.index.search(queries, 7, SearchOptions(ef=1, nprobe=1))
    assert found.slots.tolist() == exact.slots.tolist()
    harness.check_exact(found, queries, 7, slot_order=True)


def test_a_bound_on_scans_is_the_only_option_that_it_honours() -> None:
    assert Harness("FLAT", Metric.L2, 2).index.honours == {"max_scans"}


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("max_scans", [1, 7, 90, 91, 500])
def test_a_bounded_search_is_exact_among_the_vectors_of_the_lowest_slots(
    metric: Metric, max_scans: int
) -> None:
    harness = Harness("FLAT", metric, 12)
    harness.upsert(np.arange(500), clustered(500, 12, 1))
    harness.delete(np.arange(0, 500, 3))
    allowed = np.random.default_rng(2).random(400) < 0.35
    part = [slot for slot in range(400) if allowed[slot] and slot % 3]
    assert 90 <= len(part) <= 120
    first = np.zeros(500, np.bool_)
    first[part[:max_scans]] = True
    queries = clustered(30, 12, 2)
    found = harness.index.search(queries, 7, SearchOptions(max_scans=max_scans), allowed)
    assert found.slots.shape == (30, 7)
    known = min(7, max_scans)
    assert (found.slots[:, known:] == -1).all()
    seen = Neighbours(found.slots[:, :known], found.scores[:, :known])
    harness.check_exact(seen, queries, 7, first, slot_order=True)
    assert harness.index.statistics().scan_queries_total == 30


def test_its_memory_does_not_grow_with_the_dimension() -> None:
    held = []
    for dim in (2, 200):
        harness = Harness("FLAT", Metric.L2, dim)
        harness.upsert(np.arange(2000), clustered(2000, dim, 1))
        held.append(harness.index.memory_bytes)
    assert held[0] == held[1]
    # Whether a slot is live, its norm, its place in the queue, and the queue itself.
    assert held[0] <= 2000 * (1 + 4 + 4 + 8 + 4) * 1.5


def test_a_deleted_vector_leaves_no_tombstone() -> None:
    harness = Harness("FLAT", Metric.L2, 2)
    harness.upsert([0, 1, 2], np.eye(3, 2))
    harness.delete([1])
    assert (len(harness.index), harness.index.deleted_count) == (2, 0)
    assert len(harness.index.prepare_upsert(np.array([1]), np.ones((1, 2), np.float32))) == 0
