"""Answers whose queries are near: what is found, what it takes, and how clusters are followed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrope.cache.neighbourhood import Neighbourhood
from pyrope.semantic.centroids import Centroids
from pyrope.service.answers import Key
from pyrope.service.clusters import IndexClusters
from pyrope.service.kept import Kept
from pyrope.service.near_finding import NearFinder
from pyrope.types import CacheLevel, Metric

DIM = 4
CODES, CLUSTERS = frozenset({CacheLevel.QUANTIZED}), frozenset({CacheLevel.CLUSTER})
EFFORT: Key = (None, None, None, False)


class Registry:
    centroids: Centroids | None = None


class Clusters:
    """What a finder needs of `IndexClusters`."""

    def __init__(self) -> None:
        self.epoch = 0
        self.registry = Registry()

    def install(self, rows: Any) -> None:
        self.registry.centroids = Centroids(Metric.L2, np.asarray(rows, np.float32))
        self.epoch += 1

    def assign(self, vector: Any) -> int:
        centroids = self.registry.centroids
        return 0 if centroids is None else centroids.assign(vector)


class Index:
    metric = Metric.L2
    dim = DIM

    def __init__(self) -> None:
        self.own = Clusters()

    @property
    def clusters(self) -> IndexClusters:
        return cast("IndexClusters", self.own)


class Finding:
    """A finder, whose background work is done when the test says so."""

    def __init__(self) -> None:
        self.index = Index()
        self.work: list[Coroutine[Any, Any, None]] = []
        self.meanwhile: list[Any] = []
        self.finder = NearFinder(
            self.index, seed=1, spawn=self.work.append, assign_many=self.assign_many
        )

    async def assign_many(self, centroids: Centroids, vectors: Any) -> Any:
        assigned = centroids.assign_many(vectors)
        for done in self.meanwhile:
            done()
        self.meanwhile.clear()
        return assigned

    def run(self) -> None:
        while self.work:
            asyncio.run(self.work.pop())

    def keep(self, query: Any, *, text: str | None = None, exact: bool = True) -> Kept:
        blob = np.asarray(query, "<f4").tobytes()
        nothing = np.empty(0, np.int64), np.empty(0, np.float32)
        around = Neighbourhood(
            blob, *nothing, 1, position=0, exact=exact, exhaustive=True, filtered=False
        )
        kept = Kept((blob, *EFFORT, text), around)
        self.finder.add(kept)
        return kept

    def found(
        self, query: Any, levels: frozenset[CacheLevel], *, exact: bool = False
    ) -> list[Kept]:
        blob = np.asarray(query, "<f4").tobytes()
        found = self.finder.find(blob, (*EFFORT, None), levels, exact=exact)
        return [kept for _, kept, _ in found]


def place(x: float) -> Any:
    return [x, 0.0, 0.0, 1.0]


def test_what_is_near_is_found_in_its_own_group_only() -> None:
    finding = Finding()
    plain, _ = finding.keep(place(1)), finding.keep(place(1), text=".x == 1")
    assert finding.found(place(1.1), CODES) == [plain]
    assert finding.found(place(1.1), CLUSTERS) == [plain]
    finding.finder.forget(plain)
    assert finding.found(place(1.1), CODES) == []


def test_an_answer_is_found_by_one_level_only() -> None:
    finding = Finding()
    kept = [finding.keep(place(x)) for x in (1, 1.1, 1.2)]
    assert sorted(map(id, finding.found(place(1), CODES | CLUSTERS))) == sorted(map(id, kept))


def test_where_proof_is_wanted_answers_that_prove_nothing_are_passed_over() -> None:
    finding = Finding()
    graph = finding.keep(place(1), exact=False)
    assert finding.found(place(1), CODES) == [graph]
    assert finding.found(place(1), CODES, exact=True) == []
    scan = finding.keep(place(2), exact=True)
    assert finding.found(place(1), CODES, exact=True) == [scan]
    finding.finder.forget(scan)
    assert finding.found(place(1), CODES, exact=True) == []


def test_new_clusters_are_followed_by_what_is_there_and_by_what_comes_meanwhile() -> None:
    finding = Finding()
    left = [finding.keep(place(-3 - x / 1000)) for x in range(700)]
    right = finding.keep(place(3))
    finding.index.own.install([place(-3), place(3)])
    finding.found(place(3), CLUSTERS)
    # While the first part is assigned elsewhere, one comes, and two go.
    come: list[Kept] = []
    finding.meanwhile = [
        lambda: come.append(finding.keep(place(2.9))),
        lambda: finding.finder.forget(left[0]),
        lambda: finding.finder.forget(left[699]),
    ]
    finding.run()
    assert finding.found(place(3), CLUSTERS) == [right, *come]
    found = finding.found(place(-3), CLUSTERS)
    assert len(found) == 4
    assert all(kept in left[1:699] for kept in found)
    assert not finding.work


def test_clusters_that_change_meanwhile_are_followed_with_the_next_query() -> None:
    finding = Finding()
    kept = [finding.keep(place(x)) for x in (-3, 3)]
    finding.index.own.install([place(-3), place(3)])
    finding.found(place(3), CLUSTERS)
    finding.meanwhile = [lambda: finding.index.own.install([place(3), place(-3)])]
    finding.run()
    finding.found(place(3), CLUSTERS)
    finding.run()
    assert finding.found(place(3), CLUSTERS) == [kept[1]]
    finding.index.own.registry.centroids = None
    finding.index.own.epoch += 1
    finding.found(place(3), CLUSTERS)
    finding.run()
    assert finding.found(place(3), CLUSTERS) == [kept[1], kept[0]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([None, "a", "b", "c"])), max_size=60),
)
def test_answers_are_charged_at_least_what_they_take(
    steps: list[tuple[bool, str | None]],
) -> None:
    finding = Finding()
    finder = finding.finder
    there: list[Kept] = []
    for number, (adds, text) in enumerate(steps):
        if adds:
            there.append(finding.keep(place(number), text=text))
        elif there:
            finder.forget(there.pop(number % len(there)))
        filtered = [kept for kept in there if kept.key[-1] is not None]
        charged = sum(finder.bytes_of(kept) for kept in there)
        # The one table of what has no filter is every index's.
        assert finder.nbytes <= charged + (1000 if len(filtered) < len(there) else 0)
        if not there:
            assert finder.nbytes == 0


def test_a_table_with_one_answer_is_charged_for_itself() -> None:
    finding = Finding()
    kept = finding.keep(place(1), text=".x == 1")
    assert finding.finder.bytes_of(kept) >= finding.finder.nbytes > 500
    finding.finder.forget(kept)
    assert finding.finder.bytes_of(kept) == 0
