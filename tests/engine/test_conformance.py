"""What every engine does, whatever it is inside, held against a NumPy oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine_oracle import ENGINES, Harness, clustered, recall
from pyrope.engine.base import Neighbours, PreparedUpsert, SearchOptions
from pyrope.types import Metric

ANY = SearchOptions()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(Metric))
def metric(request: pytest.FixtureRequest) -> Metric:
    return Metric(request.param)


def queries_of(dim: int, count: int = 3, seed: int = 99) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def test_an_empty_index_answers_with_nothing(engine: str, metric: Metric) -> None:
    harness = Harness(engine, metric, 4)
    for found in (
        harness.index.search(queries_of(4), 5, ANY),
        harness.index.search_exact(queries_of(4), 5),
        harness.index.search(queries_of(4), 5, ANY, np.ones(9, np.bool_)),
    ):
        assert found.slots.shape == found.scores.shape == (3, 0)
    assert len(harness.index) == 0


def test_no_queries_get_no_answers(engine: str, metric: Metric) -> None:
    harness = Harness(engine, metric, 4)
    harness.upsert([0], queries_of(4, 1))
    assert harness.index.search(queries_of(4, 0), 5, ANY).slots.shape == (0, 1)
    assert harness.index.search_exact(queries_of(4, 0), 5).slots.shape == (0, 1)


@pytest.mark.parametrize("dim", [1, 2, 3, 17])
def test_a_search_gives_the_nearest_with_their_scores(
    engine: str, metric: Metric, dim: int
) -> None:
    harness = Harness(engine, metric, dim)
    harness.upsert(np.arange(200) * 3, queries_of(dim, 200, 1))
    queries = queries_of(dim, 40)
    exact = harness.index.search_exact(queries, 10)
    harness.check_exact(exact, queries, 10, slot_order=dim > 1)
    found = harness.index.search(queries, 10, SearchOptions(ef=200))
    harness.check_exact(found, queries, 10, tolerance=1e-5)


def test_a_k_beyond_the_number_of_vectors_gives_them_all(engine: str, metric: Metric) -> None:
    harness = Harness(engine, metric, 8)
    harness.upsert(np.arange(20), queries_of(8, 20, 1))
    queries = queries_of(8)
    for k in (20, 21, 10**9):
        harness.check_exact(harness.index.search(queries, k, ANY), queries, k, tolerance=1e-5)
        harness.check_exact(harness.index.search_exact(queries, k), queries, k)


def test_an_updated_vector_is_found_at_its_new_place_only(engine: str, metric: Metric) -> None:
    harness = Harness(engine, metric, 8)
    vectors = queries_of(8, 60, 1)
    harness.upsert(np.arange(60), vectors)
    harness.upsert(np.arange(20), -vectors[:20])
    assert len(harness.index) == 60
    harness.check_exact(harness.index.search(vectors, 60, ANY), vectors, 60, tolerance=1e-5)


def test_a_deleted_vector_is_never_returned(engine: str, metric: Metric) -> None:
    harness = Harness(engine, metric, 8)
    vectors = queries_of(8, 300, 1)
    harness.upsert(np.arange(300), vectors)
    harness.delete(np.arange(0, 300, 2))
    assert len(harness.index) == 150
    for k in (5, 300):
        found = harness.index.search(vectors, k, ANY)
        assert (found.slots % 2 == 1).all()
        harness.check_exact(harness.index.search_exact(vectors, k), vectors, k)


def test_deleting_what_is_not_there_changes_nothing(engine: str, metric: Metric) -> None:
    harness = Harness(engine, metric, 4)
    harness.delete([0, 1, 10**7])
    harness.upsert([1, 2], queries_of(4, 2))
    harness.delete([0, 5, 1, 1, 10**9, -1])
    harness.delete([1])
    assert len(harness.index) == 1
    assert harness.index.search(queries_of(4, 1), 5, ANY).slots.tolist() == [[2]]


def test_a_slot_can_be_used_again(engine: str, metric: Metric) -> None:
    harness = Harness(engine, metric, 8)
    harness.upsert(np.arange(50), queries_of(8, 50, 1))
    for seed in range(5):
        harness.delete(np.arange(10, 30))
        harness.upsert(np.arange(10, 30), queries_of(8, 20, seed))
    queries = queries_of(8, 30)
    harness.check_exact(harness.index.search(queries, 50, ANY), queries, 50, tolerance=1e-5)


def test_an_index_emptied_by_deletes_can_be_filled_again(engine: str, metric: Metric) -> None:
    harness = Harness(engine, metric, 8)
    harness.upsert(np.arange(50), queries_of(8, 50, 1))
    harness.delete(np.arange(50))
    assert len(harness.index) == harness.index.deleted_count == 0
    assert harness.index.search(queries_of(8), 3, ANY).slots.size == 0
    harness.upsert([49, 3], queries_of(8, 2, 5))
    queries = queries_of(8)
    harness.check_exact(harness.index.search(queries, 3, ANY), queries, 3, tolerance=1e-5)


@pytest.mark.parametrize("copies", [3, 40, 3000])
def test_equal_vectors_are_all_found(engine: str, metric: Metric, copies: int) -> None:
    harness = Harness(engine, metric, 8)
    others = queries_of(8, 50, 1)
    harness.upsert(np.arange(copies), np.repeat(others[:1], copies, axis=0))
    harness.upsert(np.arange(copies, copies + 49), others[1:])
    queries = others[:20]
    for k in (2, copies, copies + 49):
        found = harness.index.search(queries, k, ANY)
        harness.check_exact(found, queries, k, tolerance=1e-5)
        exact = harness.index.search_exact(queries[:4], k)
        harness.check_exact(exact, queries[:4], k, slot_order=True)


def test_equal_vectors_live_and_die_one_by_one(engine: str, metric: Metric) -> None:
    harness = Harness(engine, metric, 4)
    vector, other = queries_of(4, 2, 1)
    harness.upsert(np.arange(10), np.repeat(vector[None], 10, axis=0))
    query = vector[None]
    for step in range(5):
        harness.delete([step])
        harness.check_exact(harness.index.search(query, 20, ANY), query, 20, tolerance=1e-5)
    harness.upsert([0, 5, 20], np.stack([other, other, vector]))
    harness.check_exact(harness.index.search(query, 20, ANY), query, 20, tolerance=1e-5)
    allowed = np.zeros(21, np.bool_)
    allowed[[5, 7, 20]] = True
    found = harness.index.search(query, 20, ANY, allowed)
    harness.check_exact(found, query, 20, allowed, tolerance=1e-5)
    harness.delete(np.arange(30))
    assert harness.index.search(query, 20, ANY).slots.size == 0


def test_a_zero_vector_has_cosine_zero_with_everything(engine: str) -> None:
    harness = Harness(engine, Metric.COSINE, 3)
    harness.upsert([0, 1, 2, 3], [[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 0, 0]])
    queries = np.array([[2, 0, 0], [0, 0, 0]], np.float32)
    for found in (harness.index.search(queries, 4, ANY), harness.index.search_exact(queries, 4)):
        assert found.slots[0].tolist() == [1, 0, 3, 2]
        assert found.scores.tolist() == [[1, 0, 0, -1], [0, 0, 0, 0]]


@pytest.mark.parametrize("size", [1e-45, 1e-30, 1e-12, 1e12, 1e30, 3e38])
def test_a_cosine_does_not_depend_on_the_size_of_vectors(engine: str, size: float) -> None:
    harness = Harness(engine, Metric.COSINE, 2)
    x = np.array([[1, 0], [0, 1], [-1, 0]], np.float64) * size
    harness.upsert([0, 1, 2], x.astype(np.float32))
    harness.upsert([3], [[0.5, 0.5]])
    queries = x.astype(np.float32)
    for found in (harness.index.search(queries, 4, ANY), harness.index.search_exact(queries, 4)):
        half = np.sqrt(0.5)
        assert found.slots.tolist() == [[0, 3, 1, 2], [1, 3, 0, 2], [2, 1, 3, 0]]
        expected = [[1, half, 0, -1], [1, half, 0, 0], [1, 0, -half, -1]]
        np.testing.assert_allclose(found.scores, expected, atol=1e-6)


def test_a_vector_is_at_distance_zero_from_itself(engine: str) -> None:
    """Also far from the origin, where float32 sums of squares have lost the difference."""
    harness = Harness(engine, Metric.L2, 24)
    vectors = 5000 + queries_of(24, 300, 1)
    harness.upsert(np.arange(300), vectors)
    for queries in (vectors[:1], vectors):
        for found in (
            harness.index.search(queries, 3, ANY),
            harness.index.search_exact(queries, 3),
        ):
            assert (found.scores[:, 0] == 0).all()
            harness.check_exact(found, queries, 3, tolerance=1e-6)


def test_inner_products_of_any_size_are_right(engine: str) -> None:
    for size in (1e-15, 1e-6, 1e6, 1e15):
        harness = Harness(engine, Metric.IP, 6)
        vectors = (queries_of(6, 40, 1) * size).astype(np.float32)
        harness.upsert(np.arange(40), vectors)
        found = harness.index.search(vectors[:9], 5, SearchOptions(ef=100))
        for query, slots, scores in zip(vectors, found.slots, found.scores, strict=False):
            expected = harness.oracle(query)
            best = sorted(expected.values(), reverse=True)[:5]
            np.testing.assert_allclose(scores, best, rtol=1e-5)
            np.testing.assert_allclose(scores, [expected[s] for s in slots], rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 1.0])
def test_only_what_is_allowed_takes_part(engine: str, metric: Metric, share: float) -> None:
    harness = Harness(engine, metric, 8)
    harness.upsert(np.arange(400), queries_of(8, 400, 1))
    harness.delete(np.arange(0, 400, 7))
    allowed = np.random.default_rng(4).random(400) < share
    queries = queries_of(8, 20)
    for k in (1, 10, 400):
        exact = harness.index.search_exact(queries, k, allowed)
        harness.check_exact(exact, queries, k, allowed)
        found = harness.index.search(queries, k, SearchOptions(ef=400), allowed)
        harness.check_exact(found, queries, k, allowed, tolerance=1e-5)


@pytest.mark.parametrize("max_scans", [1, 30, 900, 10**9])
def test_a_bound_on_scans_may_cost_hits_but_no_truth(
    engine: str, metric: Metric, max_scans: int
) -> None:
    harness = Harness(engine, metric, 8)
    harness.upsert(np.arange(2000), queries_of(8, 2000, 1))
    harness.delete(np.arange(0, 2000, 7))
    queries = queries_of(8, 5)
    options = SearchOptions(ef=100, max_scans=max_scans)
    assert "max_scans" in harness.index.honours
    for share in (0.02, 0.5, 1.0):
        allowed = np.random.default_rng(4).random(2000) < share
        found = harness.index.search(queries, 10, options, allowed)
        assert found.slots.shape == found.scores.shape == (5, 10)
        for query, slots, scores in zip(queries, found.slots, found.scores, strict=True):
            kept = slots[slots >= 0].tolist()
            assert len(set(kept)) == len(kept)
            assert len(kept) == 10 or max_scans < 10**9
            assert slots[: len(kept)].tolist() == kept
            assert np.isnan(scores[len(kept) :]).all()
            expected = harness.oracle(query, allowed)
            own = np.array([expected[slot] for slot in kept])
            np.testing.assert_allclose(scores[: len(kept)], own, rtol=0, atol=2e-5)
            nearest = own if metric is Metric.L2 else -own
            assert (np.diff(nearest) >= -2e-5).all()


def test_a_mask_may_be_shorter_or_longer_than_the_slots(engine: str, metric: Metric) -> None:
    harness = Harness(engine, metric, 4)
    harness.upsert(np.arange(30), queries_of(4, 30, 1))
    queries = queries_of(4)
    for size in (0, 7, 30, 5000):
        allowed = np.ones(size, np.bool_)
        found = harness.index.search(queries, 50, ANY, allowed)
        harness.check_exact(found, queries, 50, allowed, tolerance=1e-5)


def test_a_single_vector_is_its_own_only_neighbour(engine: str, metric: Metric) -> None:
    harness = Harness(engine, metric, 5)
    harness.upsert([12345], queries_of(5, 1))
    queries = queries_of(5)
    harness.check_exact(harness.index.search(queries, 9, ANY), queries, 9, tolerance=1e-5)


def test_a_large_batch_gives_what_its_queries_give_alone(engine: str, metric: Metric) -> None:
    harness = Harness(engine, metric, 16)
    harness.upsert(np.arange(6000), clustered(6000, 16, 1))
    queries = clustered(300, 16, 2)
    together = harness.index.search_exact(queries, 7)
    for row in (0, 63, 64, 299):
        alone = harness.index.search_exact(queries[row : row + 1], 7)
        assert alone.slots[0].tolist() == together.slots[row].tolist()
        assert alone.scores[0].tolist() == together.scores[row].tolist()
    some = Neighbours(together.slots[50:80], together.scores[50:80])
    harness.check_exact(some, queries[50:80], 7, slot_order=True)
    assert recall(harness.index.search(queries, 7, ANY), together) >= 0.95


def test_parts_of_an_upsert_can_go_in_in_any_order(engine: str, metric: Metric) -> None:
    harness = Harness(engine, metric, 8)
    slots, vectors = np.arange(100), queries_of(8, 100, 1)
    harness.rows.write(slots, vectors)
    for part in reversed(harness.index.prepare_upsert(slots, vectors).split(7)):
        harness.index.insert(part)
    harness.model.update(zip(slots.tolist(), vectors, strict=True))
    found = harness.index.search(vectors, 10, SearchOptions(ef=100))
    harness.check_exact(found, vectors, 10, tolerance=1e-5)


def test_an_upsert_splits_into_parts_of_about_equal_size() -> None:
    whole = PreparedUpsert(np.arange(10), np.arange(20, dtype=np.float32).reshape(10, 2))
    assert [len(part) for part in whole.split(3)] == [3, 3, 4]
    assert np.concatenate([part.slots for part in whole.split(3)]).tolist() == list(range(10))
    assert [part.slots.tolist() for part in whole.split(50)] == [[i] for i in range(10)]
    assert PreparedUpsert(whole.slots[:0], whole.vectors[:0]).split(4) == []


def test_statistics_count_every_query_once(engine: str, metric: Metric) -> None:
    harness = Harness(engine, metric, 8)
    harness.upsert(np.arange(2000), queries_of(8, 2000, 1))
    harness.index.search(queries_of(8, 5), 3, SearchOptions(ef=20))
    harness.index.search(queries_of(8, 6), 2000, ANY)
    harness.index.search_exact(queries_of(8, 7), 3)
    counted = harness.index.statistics()
    assert counted.graph_queries_total + counted.scan_queries_total == 18
    if engine == "FLAT":
        assert counted.graph_queries_total == 0


# Values of few kinds, so that vectors are often equal, opposite, zero, or tie.
VALUES = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 1.0, 3.0])
SLOTS = st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True)


class EngineMachine(RuleBasedStateMachine):
    """Upserts and deletes in any order leave the index as the model is."""

    @initialize(
        engine=st.sampled_from(ENGINES),
        metric=st.sampled_from(list(Metric)),
        dim=st.integers(1, 4),
    )
    def start(self, engine: str, metric: Metric, dim: int) -> None:
        self.harness = Harness(engine, metric, dim)

    @rule(slots=SLOTS, data=st.data())
    def upsert(self, slots: list[int], data: st.DataObject) -> None:
        size = len(slots) * self.harness.dim
        self.harness.upsert(slots, data.draw(st.lists(VALUES, min_size=size, max_size=size)))

    @rule(slots=SLOTS)
    def delete(self, slots: list[int]) -> None:
        self.harness.delete(slots)

    @rule(data=st.data(), k=st.integers(1, 50), masked=st.booleans())
    def search(self, data: st.DataObject, k: int, masked: bool) -> None:  # noqa: FBT001
        harness = self.harness
        values = st.lists(VALUES, min_size=2 * harness.dim, max_size=2 * harness.dim)
        queries = np.array(data.draw(values), np.float32).reshape(2, harness.dim)
        bits = data.draw(st.lists(st.booleans(), max_size=41)) if masked else None
        allowed = None if bits is None else np.array(bits, np.bool_)
        exact = harness.index.search_exact(queries, k, allowed)
        harness.check_exact(exact, queries, k, allowed, slot_order=harness.metric is Metric.IP)
        # A beam of 64 holds all of a graph of 41 nodes, and what it cannot reach is scanned. For
        # several queries at once a scan is cheaper as soon as there are 15 nodes.
        for some in (queries, queries[:1]):
            found = harness.index.search(some, k, SearchOptions(ef=64), allowed)
            harness.check_exact(found, some, k, allowed, tolerance=1e-5)

    @invariant()
    def the_index_counts_what_it_holds(self) -> None:
        if hasattr(self, "harness"):
            assert len(self.harness.index) == len(self.harness.model)
            assert self.harness.index.deleted_count >= 0
            assert self.harness.index.memory_bytes >= 0


EngineMachine.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestEngineMachine = EngineMachine.TestCase
