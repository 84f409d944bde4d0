"""Cached answers: what is served is what a search would give, whatever is written in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrope.config import Settings
from pyrope.engine.base import SearchOptions
from pyrope.engine.filter import compile_filter
from pyrope.errors import BusyError
from pyrope.service.answers import Answer, CachedSearch, CacheMode, CacheWish, Near
from pyrope.service.definition import IndexDefinition
from pyrope.service.index import OpenIndex
from pyrope.service.search import Search
from pyrope.service.service import Service
from pyrope.service.writes import (
    Attributes,
    Condition,
    PutVectors,
    RemoveVectors,
    ReplaceAttributes,
)
from pyrope.testing.clock import ManualClock
from pyrope.types import CachePolicy, IndexType, Metric

DIM = 4
IDS = [b"v%d" % number for number in range(30)]
RED = compile_filter('.colour == "red"')


@asynccontextmanager
async def open_index(
    metric: Metric = Metric.COSINE, kind: IndexType = IndexType.FLAT, **engine: Any
) -> AsyncIterator[tuple[Service, OpenIndex, ManualClock]]:
    clock = ManualClock()
    options: Any = {"head_vectors": 4, **engine}
    service = Service(Settings(in_memory=True, engine=options), clock, lambda id_: id_)
    await service.start()
    try:
        await service.loaded()
        await service.create_index("default", IndexDefinition("i", DIM, metric, kind))
        yield service, service.index("default", b"i"), clock
    finally:
        await service.stop()


async def written(index: OpenIndex, make: Callable[[asyncio.Future[Any]], Any]) -> Any:
    future = asyncio.get_running_loop().create_future()
    index.write(make(future))
    return await future


def colour(*, red: bool) -> Attributes:
    return Attributes(b'{"colour":"red"}', {"colour": "red"}) if red else Attributes(b"", {})


async def put(
    index: OpenIndex, id_: bytes, vector: Any, *, red: bool = False, expires_at_ms: int = 0
) -> None:
    row = np.asarray(vector, np.float32)[None]
    await written(
        index,
        lambda f: PutVectors([id_], row, [colour(red=red)], expires_at_ms, Condition.ALWAYS, f),
    )


async def answered(
    index: OpenIndex, query: Any, asked: Search, mode: CacheMode = CacheMode.AUTO
) -> Answer:
    index.remove_expired()
    found = index.cache.search("test", np.asarray(query, "<f4").tobytes(), asked, CacheWish(mode))
    return (await found if isinstance(found, CachedSearch) else found)[0]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


vectors = st.integers(0, 2**32 - 1)


def vector_of(seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)


queries = st.integers(0, 3)
paints = st.sampled_from(["red", "none"])
asks = st.builds(
    Search,
    st.integers(1, 6),
    exact=st.booleans(),
    filter=st.sampled_from([None, RED]),
    epsilon=st.sampled_from([None, 0.6]),
    with_attributes=st.booleans(),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(IDS), vectors, paints, st.integers(0, 3)),
        st.tuples(st.just("remove"), st.sampled_from(IDS)),
        st.tuples(st.just("colour"), st.sampled_from(IDS), paints),
        st.tuples(st.just("wait"), st.integers(1, 40)),
        st.tuples(st.just("search"), queries, asks),
        st.tuples(st.just("search"), queries, asks),
        st.tuples(st.just("together"), queries, asks),
    ),
    min_size=5,
    max_size=60,
)


class World:
    """An index, and a dictionary that says what it holds."""

    def __init__(self, index: OpenIndex, clock: ManualClock) -> None:
        self.index = index
        self.clock = clock
        self.model: dict[bytes, tuple[Any, bool, float]] = {}
        self.sources: set[str] = set()

    async def put(self, id_: bytes, seed: int, paint: str, lives: int) -> None:
        vector, red = vector_of(seed), paint == "red"
        expires = self.clock.wall() + 15 * lives if lives else float("inf")
        at_ms = 0 if not lives else int(expires * 1000)
        await put(self.index, id_, vector, red=red, expires_at_ms=at_ms)
        self.model[id_] = vector, red, expires

    async def remove(self, id_: bytes) -> None:
        await written(self.index, lambda f: RemoveVectors([id_], f))
        self.model.pop(id_, None)

    async def colour(self, id_: bytes, paint: str) -> None:
        red = paint == "red"
        await written(self.index, lambda f: ReplaceAttributes([id_], colour(red=red), f))
        self.expire()
        if id_ in self.model:
            vector, _, expires = self.model[id_]
            self.model[id_] = vector, red, expires

    async def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    def expire(self) -> None:
        now = int(self.clock.wall() * 1000)
        self.model = {i: one for i, one in self.model.items() if one[2] * 1000 > now}

    async def search(self, number: int, asked: Search) -> None:
        query = vector_of(number)
        self.check(query, asked, await answered(self.index, query, asked))

    async def together(self, number: int, asked: Search) -> None:
        """Twice at once, so that one waits for the other."""
        query = vector_of(number)
        both = await asyncio.gather(
            answered(self.index, query, asked),
            answered(self.index, query, replace(asked, count=1, epsilon=None)),
        )
        self.check(query, asked, both[0])
        self.check(query, replace(asked, count=1, epsilon=None), both[1])

    def check(self, query: Any, asked: Search, answer: Answer) -> None:
        self.expire()
        self.sources.add(answer.source.level)
        metric = self.index.spec.metric
        part = {i: one for i, one in self.model.items() if asked.filter is None or one[1]}
        true: dict[bytes, float] = {}
        for id_, (vector, _, _) in part.items():
            q, x = query.astype(np.float64), vector.astype(np.float64)
            product = float(q @ x)
            if metric is Metric.COSINE:
                product /= float(np.linalg.norm(q) * np.linalg.norm(x))
            true[id_] = float(np.linalg.norm(q - x)) if metric is Metric.L2 else product
        sign = -1 if metric.higher_is_nearer else 1
        best = sorted(true.values(), key=lambda score: sign * score)[: asked.count]
        if asked.epsilon is not None:
            near = [s for s in best if (1 - s if sign < 0 else s) <= asked.epsilon + 1e-6]
            best = near
        hits = answer.hits
        if asked.epsilon is None:
            assert len(hits.ids) == len(best)
        assert len(set(hits.ids)) == len(hits.ids)
        np.testing.assert_allclose(hits.scores, best[: len(hits.scores)], atol=2e-6)
        for id_, score in zip(hits.ids, hits.scores, strict=True):
            assert abs(true[id_] - score) < 2e-6
        if asked.with_attributes:
            assert hits.attributes == [
                b'{"colour":"red"}' if self.model[id_][1] else None for id_ in hits.ids
            ]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps, st.sampled_from(list(Metric)), st.sampled_from([IndexType.FLAT, IndexType.HNSW]))
def test_every_answer_is_what_a_plain_model_says(
    todo: list[Any], metric: Metric, kind: IndexType
) -> None:
    async def play() -> None:
        async with open_index(metric, kind) as (_, index, clock):
            world = World(index, clock)
            for name, *arguments in todo:
                await getattr(world, name)(*arguments)

    run(play())


def scenario(
    **options: Any,
) -> Callable[[Callable[..., Awaitable[None]]], Callable[[], None]]:
    """A test that is a coroutine over an index with ten vectors on a circle."""

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[[], None]:
        def runs() -> None:
            async def play() -> None:
                async with open_index(**options) as (service, index, clock):
                    for number in range(10):
                        await put(index, IDS[number], on_circle(number))
                    await test(service, index, clock)

            run(play())

        runs.__name__, runs.__doc__ = test.__name__, test.__doc__
        return runs

    return decorate


def on_circle(number: float) -> Any:
    return [np.cos(number / 10), np.sin(number / 10), 0, 0]


THREE = Search(3)


@scenario()
async def test_the_same_search_again_is_a_hit(service: Any, index: OpenIndex, clock: Any) -> None:
    first = await answered(index, on_circle(0), THREE)
    second = await answered(index, on_circle(0), THREE)
    assert (first.source.level, second.source.level) == ("miss", "exact")
    assert second.hits.ids == first.hits.ids == IDS[:3]
    assert second.hits.scores == first.hits.scores


@scenario()
async def test_fewer_hits_are_served_from_an_answer_with_more(
    service: Any, index: OpenIndex, clock: Any
) -> None:
    await answered(index, on_circle(0), THREE)
    assert (await answered(index, on_circle(0), Search(2))).source.level == "exact"
    assert (await answered(index, on_circle(0), Search(4))).source.level == "miss"
    assert (await answered(index, on_circle(0), THREE)).source.level == "exact"


@scenario()
async def test_a_write_nearby_is_merged_into_the_answer(
    service: Any, index: OpenIndex, clock: Any
) -> None:
    await answered(index, on_circle(0), THREE)
    await put(index, b"new", on_circle(0.5))
    again = await answered(index, on_circle(0), THREE)
    assert again.source == ("exact", True)
    assert again.hits.ids == [IDS[0], b"new", IDS[1]]
    assert (await answered(index, on_circle(0), THREE)).source == ("exact", False)


@scenario()
async def test_an_answer_that_loses_a_hit_is_searched_for_again(
    service: Any, index: OpenIndex, clock: Any
) -> None:
    await answered(index, on_circle(0), THREE)
    await written(index, lambda f: RemoveVectors([IDS[1]], f))
    again = await answered(index, on_circle(0), THREE)
    assert (again.source.level, again.hits.ids) == ("miss", [IDS[0], IDS[2], IDS[3]])


@scenario()
async def test_other_options_are_another_answer(service: Any, index: OpenIndex, clock: Any) -> None:
    await answered(index, on_circle(0), THREE)
    for asked in (
        Search(3, exact=True),
        Search(3, filter=RED),
        Search(3, SearchOptions(max_scans=5)),
    ):
        assert (await answered(index, on_circle(0), asked)).source.level == "miss"


@scenario()
async def test_off_neither_reads_nor_fills_and_refresh_fills(
    service: Any, index: OpenIndex, clock: Any
) -> None:
    assert (await answered(index, on_circle(0), THREE, CacheMode.OFF)).source.level == "off"
    assert (await answered(index, on_circle(0), THREE)).source.level == "miss"
    assert (await answered(index, on_circle(0), THREE, CacheMode.OFF)).source.level == "off"
    assert (await answered(index, on_circle(1), THREE, CacheMode.REFRESH)).source.level == "miss"
    assert (await answered(index, on_circle(1), THREE, CacheMode.ONLY)).source.level == "exact"
    assert (await answered(index, on_circle(1), THREE, CacheMode.REFRESH)).source.level == "miss"


@scenario()
async def test_only_never_searches(service: Any, index: OpenIndex, clock: Any) -> None:
    before = index.batcher.statistics().requests_total
    with pytest.raises(BusyError):
        await answered(index, on_circle(0), THREE, CacheMode.ONLY)
    assert index.batcher.statistics().requests_total == before


@scenario()
async def test_searches_for_the_same_at_once_are_one(
    service: Any, index: OpenIndex, clock: Any
) -> None:
    before = index.batcher.statistics().requests_total
    answers = await asyncio.gather(*[answered(index, on_circle(0), THREE) for _ in range(20)])
    assert index.batcher.statistics().requests_total == before + 1
    assert all(answer.hits.ids == IDS[:3] for answer in answers)
    assert index.cache.shared == 19


@scenario()
async def test_one_that_gives_up_does_not_take_the_others_along(
    service: Any, index: OpenIndex, clock: Any
) -> None:
    blob = np.asarray(on_circle(0), "<f4").tobytes()
    first = index.cache.search("a", blob, THREE, CacheWish())
    second = index.cache.search("b", blob, THREE, CacheWish())
    assert isinstance(first, CachedSearch)
    assert isinstance(second, CachedSearch)
    first.cancel()
    assert (await second)[0].hits.ids == IDS[:3]


@scenario()
async def test_a_search_that_nobody_waits_for_is_dropped(
    service: Any, index: OpenIndex, clock: Any
) -> None:
    before = index.batcher.statistics().requests_total
    blob = np.asarray(on_circle(0), "<f4").tobytes()
    for client in "ab":
        search = index.cache.search(client, blob, THREE, CacheWish())
        assert isinstance(search, CachedSearch)
        search.cancel()
    await answered(index, on_circle(5), THREE)
    assert index.batcher.statistics().requests_total == before + 1


@scenario()
async def test_several_queries_are_answered_from_cache_and_search_together(
    service: Any, index: OpenIndex, clock: Any
) -> None:
    await answered(index, on_circle(0), THREE)
    blob = np.asarray([on_circle(n) for n in (5, 0, 5, 7)], "<f4").tobytes()
    found = index.cache.search("test", blob, THREE, CacheWish())
    assert isinstance(found, CachedSearch)
    answers = await found
    assert [answer.source.level for answer in answers] == ["miss", "exact", "miss", "miss"]
    assert [answer.hits.ids[0] for answer in answers] == [IDS[5], IDS[0], IDS[5], IDS[7]]


@scenario()
async def test_answers_expire(service: Service, index: OpenIndex, clock: ManualClock) -> None:
    await service.alter_index(
        "default", b"i", change_policy=lambda policy: replace(policy, ttl_s=100.0)
    )
    await answered(index, on_circle(0), THREE)
    clock.advance(80)
    assert (await answered(index, on_circle(0), THREE)).source.level == "exact"
    clock.advance(40)
    assert (await answered(index, on_circle(0), THREE)).source.level == "miss"


@scenario()
async def test_a_policy_takes_effect_at_once(
    service: Service, index: OpenIndex, clock: Any
) -> None:
    def without(policy: CachePolicy) -> CachePolicy:
        return replace(policy, levels=frozenset())

    await answered(index, on_circle(0), THREE)
    await service.alter_index("default", b"i", change_policy=without)
    assert (await answered(index, on_circle(0), THREE)).source.level == "off"
    assert len(index.cache) == 0


@scenario()
async def test_answers_that_hold_an_id_can_be_forgotten(
    service: Any, index: OpenIndex, clock: Any
) -> None:
    for number in range(10):
        await answered(index, on_circle(number), Search(1))
    slot = index.state.ids.slot(IDS[4])
    assert slot is not None
    assert await index.cache.invalidate(slot) == 1
    assert len(index.cache) == 9
    assert (await answered(index, on_circle(4), Search(1))).source.level == "miss"
    index.cache.flush()
    assert len(index.cache) == 0
    assert (await answered(index, on_circle(5), Search(1))).source.level == "miss"


@scenario()
async def test_what_is_too_far_behind_is_searched_for_again(
    service: Any, index: OpenIndex, clock: Any
) -> None:
    await answered(index, on_circle(0), THREE)
    index.log.forget()
    assert (await answered(index, on_circle(0), THREE)).source.level == "miss"
    assert index.cache.statistics.stale == 1


@scenario()
async def test_all_who_wait_see_a_write_that_came_while_they_waited(
    service: Any, index: OpenIndex, clock: Any
) -> None:
    await index.gate.enter_exclusive()
    waiting = [asyncio.ensure_future(answered(index, on_circle(0), Search(1))) for _ in range(4)]
    await asyncio.sleep(0)
    # A new vector needs no gate.
    await put(index, b"near", [2, 0.001, 0, 0])
    index.gate.leave_exclusive()
    async with asyncio.timeout(10):
        for answer in await asyncio.gather(*waiting):
            assert len(answer.hits.ids) == 1


@scenario()
async def test_an_answer_that_waited_for_others_is_not_kept_as_a_reply(
    service: Any, index: OpenIndex, clock: Any
) -> None:
    await answered(index, on_circle(0), THREE)
    await index.gate.enter_exclusive()
    blob = np.asarray([on_circle(0), on_circle(5)], "<f4").tobytes()
    both = index.cache.search("test", blob, THREE, CacheWish())
    assert isinstance(both, CachedSearch)
    await put(index, b"new", on_circle(0.5))
    assert b"new" in (await answered(index, on_circle(0), THREE)).hits.ids
    index.gate.leave_exclusive()
    first, _ = await both
    assert first.source.level == "exact"
    assert first.key is None


@scenario()
async def test_equal_vectors_come_in_the_order_of_a_search(
    service: Any, index: OpenIndex, clock: Any
) -> None:
    query = on_circle(0.33)
    await answered(index, query, Search(10))
    for number in range(24):
        await put(index, b"twin%d" % number, [0.7, 0.21, 0.1, 0.3])
    for number in range(24):
        await put(index, b"near%d" % number, on_circle(0.34))
    cached = await answered(index, query, Search(10))
    fresh = await answered(index, query, Search(10), CacheMode.OFF)
    assert cached.source == ("exact", True)
    assert cached.hits.ids == fresh.hits.ids
    assert cached.hits.scores == fresh.hits.scores


@scenario()
async def test_near_hits_are_forgotten_with_the_rest(
    service: Any, index: OpenIndex, clock: Any
) -> None:
    near = CacheWish(near=Near(1.0, certified=True))
    blob = np.asarray(on_circle(0), "<f4").tobytes()
    found = index.cache.search("test", blob, THREE, near)
    assert isinstance(found, CachedSearch)
    await found
    index.cache.flush()
    query = np.asarray(on_circle(0.001), "<f4").tobytes()
    again = index.cache.search("test", query, THREE, near)
    assert isinstance(again, CachedSearch)
    assert (await again)[0].source.level == "miss"
