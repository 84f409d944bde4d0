"""The scan against float64, on data that float32 arithmetic gets wrong."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine_oracle import Harness, clustered
from pyrope.engine.base import Neighbours
from pyrope.engine.exact import ExactScan
from pyrope.engine.kernels import Kernel, MatrixKernel, SingleQueryKernel
from pyrope.engine.normalise import row_norms, unit_rows
from pyrope.engine.slot_table import SlotTable
from pyrope.types import Float32Matrix, Metric, Slots


def check(harness: Harness, queries: Float32Matrix, k: int, tolerance: float = 1e-6) -> None:
    """All at once, by matrix product, and one by one."""
    together = harness.index.search_exact(queries, k)
    harness.check_exact(together, queries, k, tolerance=tolerance, slot_order=True)
    for row in range(0, len(queries), 7):
        alone = harness.index.search_exact(queries[row : row + 1], k)
        assert alone.slots[0].tolist() == together.slots[row].tolist()
        assert alone.scores[0].tolist() == together.scores[row].tolist()


@pytest.mark.parametrize("metric", list(Metric))
def test_vectors_that_differ_in_their_last_digits_are_ordered_right(metric: Metric) -> None:
    generator = np.random.default_rng(1)
    harness = Harness("FLAT", metric, 48)
    base = generator.standard_normal(48)
    near = base + 1e-6 * generator.standard_normal((3000, 48))
    harness.upsert(np.arange(3000), near)
    queries = near[:16].astype(np.float32)
    found = harness.index.search_exact(queries, 5)
    if metric is Metric.L2:
        harness.check_exact(found, queries, 5, tolerance=1e-9, slot_order=True)
    harness.check_exact(found, queries, 5)


def test_distances_far_from_the_origin_are_right() -> None:
    harness = Harness("FLAT", Metric.L2, 32)
    harness.upsert(np.arange(5000), 1e4 + clustered(5000, 32, 1))
    check(harness, (1e4 + clustered(20, 32, 2)).astype(np.float32), 9)


def test_norms_of_very_different_size_are_scanned_right() -> None:
    generator = np.random.default_rng(3)
    sizes = 10.0 ** generator.uniform(-6, 6, (5000, 1))
    for metric in Metric:
        harness = Harness("FLAT", metric, 16)
        harness.upsert(np.arange(5000), sizes * generator.standard_normal((5000, 16)))
        check(harness, generator.standard_normal((15, 16)).astype(np.float32), 20)


@pytest.mark.parametrize("metric", list(Metric))
def test_thousands_of_ties_go_by_slot(metric: Metric) -> None:
    harness = Harness("FLAT", metric, 6)
    kinds = np.random.default_rng(4).standard_normal((3, 6)).astype(np.float32)
    harness.upsert(np.arange(9000)[::-1].copy(), kinds[np.arange(9000) % 3])
    for k in (1, 10, 3500):
        check(harness, kinds, k)


@pytest.mark.parametrize("metric", list(Metric))
def test_sparse_and_dense_parts_of_the_slots_are_scanned_alike(metric: Metric) -> None:
    generator = np.random.default_rng(5)
    harness = Harness("FLAT", metric, 4)
    # More than one segment of 65,536 slots: the first dense with holes, the others sparse.
    slots = np.concatenate([generator.permutation(9000)[:7000], [65_535, 65_536, 150_000]])
    harness.upsert(slots, generator.standard_normal((len(slots), 4)))
    check(harness, generator.standard_normal((9, 4)).astype(np.float32), 12)
    allowed = np.zeros(140_000, np.bool_)
    allowed[generator.permutation(140_000)[:30_000]] = True
    allowed[65_535:65_537] = True
    queries = generator.standard_normal((9, 4)).astype(np.float32)
    found = harness.index.search_exact(queries, 3000, allowed)
    harness.check_exact(found, queries, 3000, allowed, slot_order=True)


def test_rows_without_a_vector_may_hold_anything() -> None:
    """The harness fills them with NaN; here with what would win."""
    harness = Harness("FLAT", Metric.IP, 4)
    harness.upsert(np.arange(50), np.full((50, 4), 1e9))
    harness.delete(np.arange(0, 50, 2))
    harness.rows.write(np.arange(0, 50, 2), np.full((25, 4), np.inf, np.float32))
    harness.upsert([51], np.full((1, 4), -1))
    check(harness, np.ones((10, 4), np.float32), 50, tolerance=1e-6)


class Growing:
    """A source that another vector comes to as soon as a scan has begun to read it."""

    def __init__(self, rows: Float32Matrix, table: SlotTable) -> None:
        self._rows = rows
        self._table = table

    def view(self) -> Float32Matrix:
        count = len(self._table)
        view = self._rows[:count]
        if count < len(self._rows):
            self._table.put(np.array([count]), row_norms(self._rows[count : count + 1]))
        return view


def test_a_vector_that_comes_during_a_scan_takes_no_place_from_those_that_were_there() -> None:
    rows = np.array([[9, 9], [8, 8], [7, 7], [2, 2], [1, 1], [5, 5]], np.float32)
    table = SlotTable()
    table.put(np.arange(5), row_norms(rows[:5]))
    scan = ExactScan(Metric.L2, 2, Growing(rows, table), table)
    found = scan.search(np.ones((1, 2), np.float32), 2)
    assert found.slots.tolist() == [[4, 3]]


@settings(max_examples=60, deadline=None)
@given(
    metric=st.sampled_from(list(Metric)),
    limit=st.integers(0, 130),
    k=st.integers(1, 20),
    share=st.sampled_from([0.1, 0.6, 1.0]),
    batch=st.sampled_from([1, 3]),
)
def test_a_limited_scan_knows_the_first_rows_that_take_part_and_no_other(
    metric: Metric, limit: int, k: int, share: float, batch: int
) -> None:
    generator = np.random.default_rng(6)
    harness = Harness("FLAT", metric, 4)
    slots = np.sort(generator.permutation(150)[:120])
    harness.upsert(slots, generator.standard_normal((120, 4)))
    allowed = generator.random(150) < share
    part = slots[allowed[slots]]
    # What lies beyond the limit would win, or spoil whatever it is mixed into.
    harness.rows.write(part[limit:], np.full((len(part[limit:]), 4), np.inf, np.float32))
    first = np.zeros(150, np.bool_)
    first[part[:limit]] = True
    queries = generator.standard_normal((batch, 4)).astype(np.float32)
    scan = ExactScan(metric, 4, harness.rows, table_of(slots, harness))
    found = scan.search(queries, k, allowed, limit=limit)
    assert found.slots.shape == found.scores.shape == (batch, min(k, len(part)))
    known = min(k, limit, len(part))
    assert (found.slots[:, known:] == -1).all()
    assert np.isnan(found.scores[:, known:]).all()
    seen = Neighbours(found.slots[:, :known], found.scores[:, :known])
    harness.check_exact(seen, queries, k, first, slot_order=True)


def table_of(slots: Slots, harness: Harness) -> SlotTable:
    table = SlotTable()
    table.put(slots, row_norms(np.stack([harness.model[slot] for slot in slots.tolist()])))
    return table


def test_a_limit_beyond_the_rows_changes_nothing() -> None:
    harness = Harness("FLAT", Metric.COSINE, 6)
    vectors = clustered(5000, 6, 1)
    harness.upsert(np.arange(5000), vectors)
    harness.delete(np.arange(0, 5000, 3))
    scan = ExactScan(Metric.COSINE, 6, harness.rows, table_of(np.arange(1, 5000, 3), harness))
    whole = scan.search(vectors[:70], 9)
    for limit in (1667, 10**9):
        found = scan.search(vectors[:70], 9, limit=limit)
        assert found.slots.tolist() == whole.slots.tolist()
        assert found.scores.tolist() == whole.scores.tolist()


def test_memory_of_a_scan_is_bounded() -> None:
    harness = Harness("FLAT", Metric.COSINE, 8)
    harness.upsert(np.arange(60_000), clustered(60_000, 8, 1))
    queries = clustered(256, 8, 2)
    harness.index.search_exact(queries, 10)
    tracemalloc.start()
    harness.index.search_exact(queries, 10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * 2**20  # all scores at once would be 60 MB


FLOATS = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from([SingleQueryKernel, MatrixKernel]),
    metric=st.sampled_from(list(Metric)),
    data=st.data(),
    dim=st.integers(1, 40),
)
def test_scores_of_a_kernel_are_within_their_bounds(
    kind: type[Kernel], metric: Metric, data: st.DataObject, dim: int
) -> None:
    count = 1 if kind is SingleQueryKernel else 4
    queries = data.draw(arrays(np.float32, (count, dim), elements=FLOATS))
    rows = data.draw(arrays(np.float32, (5, dim), elements=FLOATS))
    kernel = kind(metric, queries)
    norms = row_norms(rows)
    scores = kernel.scores(rows, norms).astype(np.float64)
    q, x = queries.astype(np.float64)[None], rows.astype(np.float64)[:, None]
    if metric is Metric.COSINE:
        sizes = np.sqrt((q * q).sum(axis=2)) * norms[:, None]
        true = np.divide((q * x).sum(axis=2), sizes, out=np.zeros((5, count)), where=sizes > 0)
    elif metric is Metric.IP:
        true = (q * x).sum(axis=2)
    elif kind is SingleQueryKernel:
        true = -0.5 * np.square(q - x).sum(axis=2)
    else:
        true = (q * x).sum(axis=2) - 0.5 * (x * x).sum(axis=2)
    row, query = np.divmod(np.arange(5 * count), count)
    errors = kernel.errors(scores.ravel(), query, norms[row])
    assert (np.abs(scores - true).ravel() <= errors).all()
    least = kernel.reach(true.max(axis=0), float(norms.max()))
    assert (scores.max(axis=0) >= least).all()


def test_norms_neither_overflow_nor_vanish() -> None:
    rows = np.array([[3e38, 3e38], [1e-45, 0], [0, 0], [3, 4]], np.float32)
    norms = row_norms(rows)
    np.testing.assert_allclose(norms[[0, 3]], [3e38 * np.sqrt(2), 5], rtol=1e-6)
    assert norms[1] > 0
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        unit_rows(rows), [[half, half], [1, 0], [0, 0], [0.6, 0.8]], rtol=1e-6
    )


def test_bounds_allow_for_the_cancellation_of_squares() -> None:
    rows = 1e3 * clustered(2000, 7, 3)
    kernel = MatrixKernel(Metric.L2, np.zeros((2, 7), np.float32))
    norms = row_norms(rows)
    scores = kernel.scores(rows, norms)[:, 0].astype(np.float64)
    true = -0.5 * np.square(rows.astype(np.float64)).sum(axis=1)
    errors = kernel.errors(scores, np.zeros(2000, np.intp), norms)
    assert (scores != true).any()
    assert (np.abs(scores - true) <= errors).all()
