"""Cost units: what they rise with, what the engines count, and where the engines would scan."""

from __future__ import annotations

from functools import cache
from math import inf, nan
from typing import Any

import faiss
import numpy as np
import pytest
from benchmarks.cost_model import spearman
from benchmarks.harness.clusters import Clusters
from hypothesis import given
from hypothesis import strategies as st

from engine_oracle import Rows
from pyrope.engine.base import SearchOptions
from pyrope.engine.beam import beam_cost, bounded_beam, scan_cost
from pyrope.engine.factory import TailOptions, create_tail
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.engine.probing import lists_cost
from pyrope.tenants.coefficients import MEASURED
from pyrope.tenants.cost import REQUEST, STORED, WRITE, CostModel, Prices, Search
from pyrope.tenants.search_costs import (
    beam_rows,
    distances,
    lists_rows,
    most_per_growth,
    scan_rows,
    widest_beam,
)
from pyrope.types import Float32Matrix, IndexSpec, IndexType, Metric

# FAISS' own annotations leave out most of its fields.
_faiss: Any = faiss

DIM, COUNT, EF = 24, 4000, 64
TAILS = (IndexType.HNSW, IndexType.HNSW_SQ8, IndexType.IVF_FLAT, IndexType.IVF_PQ)
FACTORS = {IndexType.HNSW_SQ8: 2.0, IndexType.IVF_PQ: 4.0}

SIEVED = {IndexType.HNSW: MEASURED.sieved, IndexType.HNSW_SQ8: MEASURED.code_sieved}

every_type = pytest.mark.parametrize("kind", [IndexType.FLAT, *TAILS], ids=str)
every_tail = pytest.mark.parametrize("kind", TAILS, ids=str)
graphs = pytest.mark.parametrize("kind", TAILS[:2], ids=str)
lists = pytest.mark.parametrize("kind", TAILS[2:], ids=str)

counts = st.integers(1, 10**7)
queries = st.integers(1, 200)


def model_of(kind: IndexType, dim: int = 128, **given: Any) -> CostModel:
    chosen = {"nlist": 1024, "nprobe": 32, "pqm": dim, **given}
    return CostModel(kind, dim, rerank_factor=FACTORS.get(kind, 1.0), **chosen)


# -- what it rises with ---------------------------------------------------------------------------


@every_type
def test_a_search_costs_more_the_larger_the_index_and_its_vectors(kind: IndexType) -> None:
    for smaller, larger in ((1_000, 10_000), (10_000, 100_000), (100_000, 10**6)):
        asked = Search(smaller, 10)
        assert model_of(kind).search(asked) < model_of(kind).search(Search(larger, 10))
    assert model_of(kind, 64).search(asked) < model_of(kind, 128).search(asked)


@graphs
def test_a_wider_beam_costs_more(kind: IndexType) -> None:
    costs = [model_of(kind).search(Search(10**5, 10, ef=ef)) for ef in (16, 32, 64, 256, 1024)]
    assert costs == sorted(costs)
    assert costs[-1] > 5 * costs[0]


@graphs
def test_a_graph_costs_little_more_when_it_holds_a_hundred_times_as_much(kind: IndexType) -> None:
    model = model_of(kind)
    assert model.work(Search(10**6, 10)) < 3 * model.work(Search(10**4, 10))


@lists
def test_more_lists_cost_more(kind: IndexType) -> None:
    costs = [model_of(kind).search(Search(10**6, 10, nprobe=n)) for n in (1, 4, 16, 64, 256)]
    assert costs == sorted(costs)
    assert costs[-1] > 5 * costs[0]


@lists
def test_there_are_no_more_lists_to_visit_than_there_are(kind: IndexType) -> None:
    model = model_of(kind, nlist=16, nprobe=4)
    assert model.work(Search(10**6, 10, nprobe=16)) == model.work(Search(10**6, 10, nprobe=99))


@every_type
def test_effort_that_is_not_named_is_that_of_the_index(kind: IndexType) -> None:
    named = Search(10**5, 10, ef=100, nprobe=20)
    assert model_of(kind, ef=100, nprobe=20).work(Search(10**5, 10)) == model_of(kind).work(named)


@every_type
def test_more_results_cost_more(kind: IndexType) -> None:
    few, many = (model_of(kind).search(Search(10**5, k)) for k in (1, 500))
    assert few < many


@every_tail
def test_what_is_not_merged_yet_is_scanned_on_top(kind: IndexType) -> None:
    model = model_of(kind)
    costs = [model.search(Search(10**6, 10, head=head)) for head in (0, 100, 1_000, 10_000)]
    assert costs == sorted(set(costs))


@every_tail
def test_truth_costs_as_much_as_a_flat_index(kind: IndexType) -> None:
    asked = Search(10**5, 10, exact=True)
    assert model_of(kind).search(asked) == model_of(IndexType.FLAT).search(asked)
    assert model_of(kind).search(asked) > 5 * model_of(kind).search(asked._replace(exact=False))


@every_tail
def test_an_index_that_is_all_head_costs_as_much_as_a_flat_one(kind: IndexType) -> None:
    asked = Search(5_000, 10, head=5_000)
    assert model_of(kind).search(asked) == model_of(IndexType.FLAT).search(asked)


@pytest.mark.parametrize(
    "kind", [kind for kind in TAILS if kind is not IndexType.IVF_FLAT], ids=str
)
def test_a_filter_makes_lists_and_beams_longer_until_a_scan_costs_less(kind: IndexType) -> None:
    model = model_of(kind)
    plain, half, tenth = (
        model.search(Search(10**6, 10, matching=matching)) for matching in (None, 5 * 10**5, 10**5)
    )
    assert plain < half < tenth
    assert model.search(Search(10**6, 10, matching=50)) < tenth


def test_attributes_that_are_looked_at_are_charged() -> None:
    model = model_of(IndexType.HNSW)
    asked = Search(10**5, 10, matching=10**4)
    assert model.search(asked._replace(attributes=10**5)) > 50 + model.search(asked)


@every_type
def test_a_filter_that_lets_nothing_through_costs_little(kind: IndexType) -> None:
    assert REQUEST < model_of(kind).search(Search(10_000, 10, matching=0)) < REQUEST + 200


@every_type
def test_a_bound_on_distances_bounds_the_price(kind: IndexType) -> None:
    model = model_of(kind)
    asked = Search(10**6, 10, ef=1000, nprobe=500)
    bounded = [model.search(asked._replace(max_scans=most)) for most in (500, 2000, 5000)]
    assert bounded == sorted(bounded)
    assert bounded[-1] < model.search(asked)


@every_type
def test_queries_of_one_request_cost_no_more_than_one_by_one(kind: IndexType) -> None:
    model = model_of(kind)
    one, many = (model.search(Search(10**5, 10, queries=n)) for n in (1, 64))
    assert one < many < 64 * one


searches = st.builds(
    lambda live, head, share, **given: Search(
        live, head=int(head * live), matching=share and int(share * live), **given
    ),
    live=st.integers(0, 10**8),
    head=st.floats(0, 1),
    share=st.none() | st.floats(0, 1),
    k=st.integers(1, 10**4),
    ef=st.none() | st.integers(1, 10**5),
    nprobe=st.none() | st.integers(1, 10**5),
    max_scans=st.none() | st.integers(1, 10**9),
    exact=st.booleans(),
    queries=queries,
    attributes=st.integers(0, 10**8),
)


@every_type
@given(asked=searches)
def test_every_search_has_a_price(kind: IndexType, asked: Search) -> None:
    assert REQUEST < model_of(kind).search(asked) < inf


# -- what the engines do --------------------------------------------------------------------------


@given(rows=counts, more=st.integers(0, 10**7), number=queries, beam=st.integers(1, 10**5))
def test_scans_and_beams_are_weighed_as_the_engines_do(
    rows: int, more: int, number: int, beam: int
) -> None:
    assert scan_rows(rows, rows + more, number) == scan_cost(rows, rows + more, number)
    assert beam_rows(beam, number) == beam_cost(beam, number)


@given(max_scans=st.integers(1, 10**7), m=st.integers(2, 128), nodes=counts)
def test_beams_are_bounded_as_the_engines_do(max_scans: int, m: int, nodes: int) -> None:
    found = widest_beam(max_scans, most_per_growth(m), nodes)
    assert abs(found - bounded_beam(max_scans, m, nodes)) <= 1


@given(
    number=queries,
    probes=st.integers(1, 1000),
    more=st.integers(0, 4000),
    entries=counts,
    share=st.floats(0, 1),
    reranked=st.integers(1, 1000),
    compressed=st.booleans(),
)
def test_lists_are_weighed_as_the_engines_do(
    number: int,
    probes: int,
    more: int,
    entries: int,
    share: float,
    reranked: int,
    compressed: bool,  # noqa: FBT001 - hypothesis passes it by name
) -> None:
    nlist, matching = probes + more, max(1, int(share * entries))
    theirs = lists_cost(
        number,
        probes,
        nlist=nlist,
        entries=entries,
        matching=matching,
        reranked=reranked,
        compressed=compressed,
    )
    ours = lists_rows(number, probes, nlist, entries, matching, reranked, compressed=compressed)
    assert ours == pytest.approx(theirs)


@cache
def drawn() -> tuple[Float32Matrix, Float32Matrix]:
    clusters = Clusters(DIM, 3)
    return clusters.newcomers(COUNT), clusters.queries(32)


@cache
def engine_of(kind: IndexType) -> tuple[HeadTailIndex, CostModel]:
    vectors, _ = drawn()
    rows = Rows(DIM)
    slots = np.arange(COUNT)
    rows.write(slots, vectors)
    spec = IndexSpec(
        uid=1,
        tenant="",
        name="",
        dim=DIM,
        metric=Metric.COSINE,
        type=kind,
        m=16,
        ef_construction=40,
        ef=EF,
        created_at=0.0,
    )
    tail = create_tail(spec, kind, rows, COUNT, TailOptions(2.0, 4.0))
    tail.train(vectors)
    tail.upsert(slots, vectors)
    engine = HeadTailIndex(Metric.COSINE, DIM, rows)
    engine.restore(slots, tail)
    return engine, model_of(kind, DIM, ef=EF, **tail.parameters)


@every_tail
@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 0.02])
@pytest.mark.parametrize("max_scans", [None, 200, 2000])
def test_a_scan_is_charged_where_the_engine_scans(
    kind: IndexType, share: float, max_scans: int | None
) -> None:
    engine, model = engine_of(kind)
    matching = int(share * COUNT)
    allowed = np.zeros(COUNT, np.bool_)
    allowed[np.random.default_rng(1).permutation(COUNT)[:matching]] = True
    _, some = drawn()
    for effort in (1, 16, 64, 300):
        before = engine.statistics()
        options = SearchOptions(effort, effort, max_scans)
        mask = None if share == 1 else allowed
        engine.search(some, 10, options, mask)
        after = engine.statistics()
        scanned = after.scan_queries_total - before.scan_queries_total
        fallen_back = after.fallback_queries_total - before.fallback_queries_total
        if after.widened_queries_total > before.widened_queries_total or fallen_back:
            continue  # which nobody can know before
        asked = Search(
            COUNT,
            10,
            ef=effort,
            nprobe=effort,
            max_scans=max_scans,
            matching=None if share == 1 else matching,
            queries=len(some),
        )
        flat = CostModel(IndexType.FLAT, DIM).work(asked)
        if share < 1 or max_scans is not None:
            flat += MEASURED.sifted
        if share < 1:
            flat += COUNT * SIEVED.get(kind, 0.0)
        charged = model.work(asked) == pytest.approx(flat, rel=1e-9)
        assert charged == (scanned == len(some)), (effort, scanned)


def test_distances_in_graphs_are_ranked_and_counted_as_faiss_counts_them() -> None:
    counted, expected, charged = [], [], []
    stats = _faiss.cvar.hnsw_stats
    for dim, count in ((16, 1000), (16, 4000), (32, 8000)):
        clusters = Clusters(dim, 4)
        rows, asked = clusters.newcomers(count), clusters.queries(50)
        graph = _faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, 16, faiss.METRIC_L2)
        graph.hnsw.efConstruction = 40
        graph.train(rows)
        graph.add(rows)
        # Of equal dimensions, so that units and distances are in the same order.
        model = CostModel(IndexType.HNSW_SQ8, 32, rerank_factor=1.0)
        for ef in (8, 16, 32, 64, 128, 256):
            stats.reset()
            graph.hnsw.efSearch = ef
            graph.search(asked, 1)
            counted.append(stats.ndis / len(asked))
            expected.append(distances(ef, 16, count))
            if ef * 14 < scan_cost(count, count, 1):
                charged.append((counted[-1], model.work(Search(count, 1, ef=ef))))
    ratios = np.array(expected) / np.array(counted)
    assert ratios.min() > 0.6
    assert ratios.max() < 1.7
    assert spearman(np.array(expected), np.array(counted)) > 0.97
    pairs = np.array(charged)
    assert spearman(pairs[:, 0], pairs[:, 1]) > 0.95


@lists
def test_searches_in_lists_are_ranked_as_faiss_counts_what_they_compare(kind: IndexType) -> None:
    engine, model = engine_of(kind)
    stats = _faiss.cvar.indexIVF_stats
    _, some = drawn()
    counted, charged = [], []
    for nprobe in (1, 2, 4, 8, 16, 32, 64):
        stats.reset()
        engine.search(some, 10, SearchOptions(nprobe=nprobe))
        if stats.nq:
            counted.append(float(stats.ndis))
            asked = Search(COUNT, 10, nprobe=nprobe, queries=len(some))
            charged.append(model.work(asked))
    assert len(counted) > 3
    assert spearman(np.array(counted), np.array(charged)) > 0.95


# -- answers from caches, and writes --------------------------------------------------------------


@every_type
def test_an_answer_from_a_cache_costs_less_than_a_search(kind: IndexType) -> None:
    model = model_of(kind)
    search = model.search(Search(10_000, 10))
    assert model.cached() == REQUEST < model.cached(100) < model.cached(200)
    assert model.cached(100) < search
    assert model.work(Search(10_000, 10)) == pytest.approx(search - REQUEST)


def test_rescored_candidates_cost_more_with_more_dimensions() -> None:
    few, many = (model_of(IndexType.HNSW, dim).cached(100) for dim in (32, 768))
    assert few < many


@every_tail
def test_a_vector_costs_more_where_it_is_inserted_into_something(kind: IndexType) -> None:
    flat = model_of(IndexType.FLAT).add(10_000)
    assert flat == WRITE + STORED < model_of(kind).add(10_000)


@graphs
def test_a_vector_costs_more_the_more_candidates_are_considered_for_its_links(
    kind: IndexType,
) -> None:
    costs = [model_of(kind, ef_construction=ef).insertion(10**5) for ef in (50, 100, 400)]
    assert costs == sorted(costs)
    assert costs[-1] > 3 * costs[0]


@every_type
def test_vectors_of_one_request_share_what_a_request_costs(kind: IndexType) -> None:
    model = model_of(kind)
    assert model.add(10_000, 10) == pytest.approx(10 * model.add(10_000) - 9 * WRITE)
    assert WRITE < model.delete() < model.delete(5) < model.add(0, 5)


# -- models ---------------------------------------------------------------------------------------


def test_tokens_are_charged_by_the_thousand() -> None:
    prices = Prices(tokens_in=200.0, tokens_out=800.0, embedded=10.0)
    assert prices.of_tokens(1500, 250) == pytest.approx(300.0 + 200.0)
    assert prices.of_embedding(300) == pytest.approx(3.0)
    assert Prices(0.0, 0.0, 0.0).of_tokens(10**9, 10**9) == 0.0


@pytest.mark.parametrize("price", [-1.0, inf, nan])
@pytest.mark.parametrize("name", ["tokens_in", "tokens_out", "embedded"])
def test_a_price_that_is_none_is_refused(name: str, price: float) -> None:
    with pytest.raises(ValueError, match=name):
        Prices(**{"tokens_in": 1.0, "tokens_out": 1.0, "embedded": 1.0, name: price})


# -- what cannot be priced ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "number"),
    [
        (IndexType.FLAT, "dim", 0),
        (IndexType.HNSW, "m", 1),
        (IndexType.HNSW, "ef_construction", 0),
        (IndexType.HNSW, "ef", 0),
        (IndexType.HNSW_SQ8, "rerank_factor", 0.5),
        (IndexType.IVF_FLAT, "nlist", 0),
        (IndexType.IVF_FLAT, "nprobe", 0),
        (IndexType.IVF_PQ, "pqm", 0),
        (IndexType.IVF_PQ, "rerank_factor", inf),
    ],
)
def test_an_index_that_cannot_be_is_refused(kind: IndexType, name: str, number: float) -> None:
    good = {"dim": 8, "nlist": 16, "nprobe": 4, "pqm": 8, "rerank_factor": 2.0}
    with pytest.raises(ValueError, match=name):
        CostModel(kind, **{**good, name: number})  # type: ignore[arg-type]  # of several types


def test_auto_is_no_type_in_force() -> None:
    with pytest.raises(ValueError, match="AUTO"):
        CostModel(IndexType.AUTO, 8)
