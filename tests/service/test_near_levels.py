"""Near hits and hits by aliases over real indexes: what is proven is so, audits tell the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pyrope.cache.alias import AliasSource
from pyrope.cache.query_key import QueryKey, text_key
from pyrope.config import Settings
from pyrope.engine.filter import compile_filter
from pyrope.errors import CommandError
from pyrope.service.answers import NO_HITS, Answer, CachedSearch, CacheMode, CacheWish, Near
from pyrope.service.definition import IndexDefinition
from pyrope.service.index import OpenIndex
from pyrope.service.near_audits import Shadow
from pyrope.service.search import Search
from pyrope.service.service import Service
from pyrope.service.writes import Attributes, Condition, PutVectors, RemoveVectors
from pyrope.testing.clock import ManualClock
from pyrope.types import CachePolicy, IndexType, Metric

DIM = 6
TEN = Search(10)
NEAR = ["quantized", "cluster"]


@asynccontextmanager
async def open_index(
    metric: Metric, kind: IndexType = IndexType.FLAT, candidates: int = 40, **engine: Any
) -> AsyncIterator[tuple[Service, OpenIndex]]:
    service = Service(
        Settings(in_memory=True, engine=engine),  # type: ignore[arg-type]
        ManualClock(),
        lambda id_: id_,
    )
    await service.start()
    try:
        await service.loaded()
        policy = CachePolicy(candidates=candidates)
        definition = IndexDefinition("i", DIM, metric, kind, cache=policy)
        await service.create_index("default", definition)
        yield service, service.index("default", b"i")
    finally:
        await service.stop()


async def written(index: OpenIndex, make: Any) -> None:
    future = asyncio.get_running_loop().create_future()
    index.write(make(future))
    await future


async def put(index: OpenIndex, model: dict[bytes, Any], rows: Any, first: int = 0) -> None:
    rows = np.asarray(rows, np.float32)
    ids = [b"v%d" % number for number in range(first, first + len(rows))]
    model.update(zip(ids, rows, strict=True))
    await written(index, lambda f: PutVectors(ids, rows, None, 0, Condition.ALWAYS, f))


async def remove(index: OpenIndex, model: dict[bytes, Any], ids: list[bytes]) -> None:
    for id_ in ids:
        del model[id_]
    await written(index, lambda f: RemoveVectors(ids, f))


async def answered(
    index: OpenIndex, query: Any, near: Near | None, asked: Search = TEN, text: bytes | None = None
) -> Answer:
    wish = CacheWish(CacheMode.AUTO, near, None if text is None else text_key(text))
    found = index.cache.search("test", np.asarray(query, "<f4").tobytes(), asked, wish)
    return (await found if isinstance(found, CachedSearch) else found)[0]


async def audited(index: OpenIndex) -> None:
    """Return when no audit is under way."""
    async with asyncio.timeout(10):
        while index.busy:
            await asyncio.sleep(0)
        await asyncio.sleep(0)


def truth(metric: Metric, model: dict[bytes, Any], query: Any, k: int = 10) -> list[bytes]:
    """A full search in float64."""
    q = np.asarray(query, np.float64)
    scores: dict[bytes, float] = {}
    for id_, row in model.items():
        x = row.astype(np.float64)
        product = float(q @ x)
        if metric is Metric.COSINE:
            product /= float(np.linalg.norm(q) * np.linalg.norm(x))
        scores[id_] = float(np.linalg.norm(q - x)) if metric is Metric.L2 else -product
    return sorted(scores, key=scores.__getitem__)[:k]


def rows_of(rng: np.random.Generator, count: int, spread: float) -> Any:
    """Directions around a few centres; norms from 1 down to 1 - spread, or with a long tail."""
    centres = rng.standard_normal((4, DIM))
    rows = centres[rng.integers(4, size=count)] + 0.3 * rng.standard_normal((count, DIM))
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    norms = 1 - spread * rng.random(count) if spread < 1 else rng.lognormal(0, 1, count)
    return (rows * norms[:, None]).astype(np.float32)


@pytest.mark.parametrize("spread", [0.0, 0.1, 2.0], ids=["unit", "bounded", "long tail"])
def test_what_is_proven_of_inner_products_is_true_whatever_is_written(spread: float) -> None:
    async def play() -> tuple[int, int]:
        rng = np.random.default_rng(3)
        hits = proven = 0
        async with open_index(Metric.IP) as (_, index):
            model: dict[bytes, Any] = {}
            await put(index, model, rows_of(rng, 300, spread))
            queries = rows_of(rng, 12, 0.0)
            number = 300
            for _ in range(400):
                if rng.random() < 0.3:
                    # Now and then one that is longer than all there were.
                    longer = 1.0 + 0.2 * rng.random() * (rng.random() < 0.1)
                    await put(index, model, longer * rows_of(rng, 1, spread), number)
                    number += 1
                    await remove(index, model, [list(model)[rng.integers(len(model))]])
                base = queries[rng.integers(len(queries))]
                query = base * rng.uniform(0.1, 5) + 0.01 * rng.standard_normal(DIM)
                query = query.astype(np.float32)
                answer = await answered(index, query, Near(0.1, certified=True))
                best = truth(Metric.IP, model, query)
                if answer.source.level in NEAR:
                    assert answer.certified is not None
                    sure = round(answer.certified * 10)
                    assert answer.hits.ids[:sure] == best[:sure]
                    hits, proven = hits + 1, proven + sure
                else:
                    assert answer.hits.ids == best
        return hits, proven

    hits, proven = asyncio.run(play())
    # Where norms are alike, much is proven; of a long tail hardly anything can be.
    assert (hits, proven) > ((50, 300) if spread < 1 else (-1, 0))


def test_a_longer_vector_makes_an_answer_prove_less_and_goes_without_leaving_a_trace() -> None:
    async def play() -> None:
        rng = np.random.default_rng(5)
        async with open_index(Metric.IP) as (_, index):
            model: dict[bytes, Any] = {}
            await put(index, model, rows_of(rng, 400, 0.05))
            query = rows_of(rng, 1, 0.0)[0]
            near = Near(0.01, certified=True)
            await answered(index, query, near)

            async def certified(turn: int) -> float:
                moved = query + np.float32(0.004 * turn) * np.eye(DIM, dtype=np.float32)[turn]
                answer = await answered(index, moved, near)
                assert answer.hits.ids[:1] == truth(Metric.IP, model, moved, 1)
                return answer.certified or 0.0

            before = await certified(3)
            assert before > 0.3
            # At a right angle to the query, or nearly so, so that it is no result.
            long = np.cross(query[:3], [1, 2, 3])
            await put(index, model, [[*(100 * long / np.linalg.norm(long)), 0, 0, 0]], 400)
            assert await certified(1) < before
            await remove(index, model, [b"v400"])
            await answered(index, query, near)
            assert await certified(2) > 0.3

    asyncio.run(play())


def test_near_hits_of_inner_products_are_refused_where_norms_are_too_unequal() -> None:
    async def play() -> None:
        rng = np.random.default_rng(1)
        async with open_index(Metric.IP) as (service, index):
            model: dict[bytes, Any] = {}
            await put(index, model, rows_of(rng, 100, 0.1))

            async def alter(**fields: Any) -> None:
                await service.alter_index(
                    "default", b"i", change_policy=lambda policy: replace(policy, **fields)
                )

            await alter(min_recall=0.9)
            await alter(min_recall=0.0)
            await put(index, model, [[50, 0, 0, 0, 0, 0]], 100)
            with pytest.raises(CommandError, match="norms are bounded: the longest one is 3"):
                await alter(min_recall=0.9, ttl_s=5.0)
            assert (index.policy.min_recall, index.policy.ttl_s) == (0.0, 3600.0)
            await alter(ttl_s=5.0)
            await remove(index, model, [b"v100"])
            await alter(min_recall=0.9)
            # What is in force stays so, and may be altered otherwise.
            await put(index, model, [[50, 0, 0, 0, 0, 0]], 100)
            await alter(ttl_s=6.0)
            assert index.policy.min_recall == 0.9

    asyncio.run(play())


def test_audits_are_forgotten_where_the_bound_on_norms_changes() -> None:
    async def play() -> None:
        rng = np.random.default_rng(2)
        async with open_index(Metric.IP) as (_, index):
            model: dict[bytes, Any] = {}
            await put(index, model, rows_of(rng, 300, 0.1))
            query = rows_of(rng, 1, 0.0)[0]
            near = Near(0.9, certified=False)
            recall = index.cache.near.audits.recall

            async def answers() -> int:
                noise = 0.05 * rng.standard_normal(DIM).astype(np.float32)
                await answered(index, query + noise, near)
                await audited(index)
                return sum(
                    one.answers
                    for level in recall.levels
                    for bins in recall.statistics(level).values()
                    for one in bins
                )

            await answers()
            seen = [await answers() for _ in range(10)]
            assert seen == sorted(seen)
            assert seen[-1] > 3
            await put(index, model, 1.01 * model[b"v0"][None], 300)
            assert await answers() >= seen[-1]
            await put(index, model, [[3, 0, 0, 0, 0, 0]], 301)
            assert await answers() <= 1

    asyncio.run(play())


def test_a_level_that_is_off_is_audited_on_and_comes_back() -> None:
    async def play() -> None:
        rng = np.random.default_rng(4)
        async with open_index(Metric.COSINE) as (_, index):
            model: dict[bytes, Any] = {}
            await put(index, model, rows_of(rng, 600, 0.0))
            near = Near(0.5, certified=False)
            base = rows_of(rng, 1, 0.0)[0]
            await answered(index, base, near)
            audits = index.cache.near.audits

            def query() -> Any:
                return base + 0.15 * rng.standard_normal(DIM).astype(np.float32)

            async def levels(count: int) -> set[str]:
                found = set()
                for _ in range(count):
                    found.add((await answered(index, query(), near)).source.level)
                    await audited(index)
                return found

            await levels(100)
            assert await levels(20) & set(NEAR)
            for level in NEAR:
                for _ in range(32):
                    # As if searches for one result had been served another one.
                    shadow = Shadow(level, 0.9, np.zeros(1, np.float32), promised=0.5)
                    audits.compare(shadow, NO_HITS._replace(scores=[1.0]))
            assert not audits.recall.level_is_trusted("quantized", 0.5)
            assert audits.recall.level_is_trusted("quantized", 0.99)
            asked = [await answered(index, query(), near) for _ in range(10)]
            for answer in asked:
                assert answer.source.level == "miss" or (answer.certified or 0) >= 0.5
            for _ in range(100):
                await levels(10)
                if audits.recall.level_is_trusted("quantized", 0.5):
                    break
            assert audits.recall.level_is_trusted("quantized", 0.5)

    asyncio.run(play())


RED = compile_filter('.colour == "red"')


def test_a_hit_by_repair_of_a_filtered_answer_is_what_a_search_gives() -> None:
    async def play() -> None:
        async with open_index(Metric.L2) as (_, index):
            rng = np.random.default_rng(6)
            asked = Search(5, filter=RED)
            model: dict[bytes, Any] = {}

            async def paint(number: int, raw: bytes, parsed: dict[str, Any]) -> None:
                row = rng.standard_normal((1, DIM)).astype(np.float32)
                id_ = b"v%d" % number
                if parsed.get("colour") == "red":
                    model[id_] = row[0]
                attributes = [Attributes(raw, parsed)]
                await written(
                    index, lambda f: PutVectors([id_], row, attributes, 0, Condition.ALWAYS, f)
                )

            for number in range(30):
                await paint(number, b'{"colour":"red","n":1}', {"colour": "red", "n": 1})
            query = rng.standard_normal(DIM).astype(np.float32)
            await answered(index, query, None, asked)
            for number, raw, parsed in (
                (30, b'{"colour":"red","n":2,"list":[1]}', {"colour": "red", "n": 2, "list": [1]}),
                (31, b'{"colour":"blue"}', {"colour": "blue"}),
                (32, b'{"n":3}', {"n": 3}),
                (33, b"{}", {}),
                (34, b"", {}),
            ):
                await paint(number, raw, parsed)
                answer = await answered(index, query, None, asked)
                assert answer.source == ("exact", True)
                assert answer.hits.ids == truth(Metric.L2, model, query, 5)
            # So much that to read it would hold up the loop.
            text = "x" * 50_000
            raw = b'{"colour":"red","text":"%b"}' % text.encode()
            for number in range(35, 38):
                await paint(number, raw, {"colour": "red", "text": text})
            answer = await answered(index, query, None, asked)
            assert answer.source.level == "miss"
            assert answer.hits.ids == truth(Metric.L2, model, query, 5)

    asyncio.run(play())


async def with_alias(index: OpenIndex) -> tuple[QueryKey, QueryKey]:
    alias, canonical = text_key(b"other words"), text_key(b"words")
    await index.aliases.set(alias, canonical, confidence=1.0, source=AliasSource.MANUAL)
    return alias, canonical


def test_hits_by_an_alias_are_audited_and_counted_apart() -> None:
    async def play() -> None:
        rng = np.random.default_rng(7)
        async with open_index(Metric.COSINE) as (_, index):
            model: dict[bytes, Any] = {}
            await put(index, model, rows_of(rng, 300, 0.0))
            alias, _ = await with_alias(index)
            query = rows_of(rng, 1, 0.0)[0]
            await answered(index, query, Near(0.9, certified=True), text=b"words")
            right = 0.0
            for turn in range(40):
                moved = query + 0.1 * rng.standard_normal(DIM).astype(np.float32)
                answer = await answered(index, moved, None, text=b"other words")
                assert answer.source.level == "alias"
                right += len(set(answer.hits.ids) & set(truth(Metric.COSINE, model, moved))) / 10
                await audited(index)
                assert index.cache.near.statistics.alias_audits == turn + 1
            audits = index.cache.near.audits.aliases
            assert audits.answers == 40
            assert audits.recall == pytest.approx(right / 40)
            assert 0 < audits.lower_bound < audits.recall
            assert index.cache.near.audits.recall.levels == []
            last = await answered(index, query * 2, None, text=b"other words")
            assert last.estimated == max(last.certified or 0.0, audits.lower_bound)
            there = index.aliases.get(alias)
            assert there is not None
            assert not there.is_suspended

    asyncio.run(play())


@pytest.mark.parametrize("count", [1, 10])
def test_an_alias_that_leads_elsewhere_is_suspended_and_not_removed(count: int) -> None:
    async def play() -> None:
        rng = np.random.default_rng(8)
        async with open_index(Metric.COSINE) as (_, index):
            model: dict[bytes, Any] = {}
            await put(index, model, rows_of(rng, 300, 0.0))
            alias, canonical = await with_alias(index)
            query = rows_of(rng, 1, 0.0)[0]
            asked = Search(count)
            await answered(index, query, None, asked, text=b"words")
            levels = []
            for _ in range(5):
                answer = await answered(index, -query, None, asked, text=b"other words")
                levels.append(answer.source.level)
                await audited(index)
            assert levels == ["alias", "alias", "alias", "miss", "exact"]
            there = index.aliases.get(alias)
            assert there is not None
            assert there.is_suspended
            await index.aliases.set(alias, canonical, confidence=1.0, source=AliasSource.MANUAL)
            answer = await answered(index, -query, None, asked, text=b"other words")
            assert answer.source.level == "alias"
            await audited(index)

    asyncio.run(play())


def test_an_alias_of_a_best_result_only_is_not_suspended_for_another_order() -> None:
    async def play() -> None:
        async with open_index(Metric.L2) as (_, index):
            model: dict[bytes, Any] = {}
            await put(index, model, [[n, 0, 0, 0, 0, 0] for n in range(30)])
            one = Search(1)
            # From before there was an alias: later more neighbours than one would be kept for it.
            await answered(index, [5.1, 0, 0, 0, 0, 0], None, one, text=b"words")
            alias, _ = await with_alias(index)
            for turn in range(8):
                moved = [6.1 + turn / 100, 0, 0, 0, 0, 0]
                answer = await answered(index, moved, None, one, text=b"other words")
                assert (answer.source.level, answer.hits.ids) == ("alias", [b"v5"])
                await audited(index)
            assert index.cache.near.audits.aliases.recall == 0.0
            there = index.aliases.get(alias)
            assert there is not None
            assert there.audits == 8
            assert not there.is_suspended

    asyncio.run(play())


def test_graphs_answers_serve_nobody_who_wants_proof_and_are_not_scored_for_them() -> None:
    async def play() -> None:
        rng = np.random.default_rng(9)
        async with open_index(Metric.COSINE, IndexType.HNSW, head_vectors=4) as (service, index):
            model: dict[bytes, Any] = {}
            await put(index, model, rows_of(rng, 300, 0.0))
            await service.build_index("default", b"i")
            query = rows_of(rng, 1, 0.0)[0]
            await answered(index, query, Near(0.5, certified=False))
            for turn in range(1, 4):
                answer = await answered(index, query * (1 + turn / 8), Near(0.5, certified=True))
                assert answer.source.level == "miss"
            assert index.cache.near.statistics.refused == 0
            await answered(index, query * 3, Near(0.5, certified=False))
            assert index.cache.near.statistics.refused == 1
            await audited(index)

    asyncio.run(play())


def test_what_is_asked_again_and_again_is_among_the_queries_of_late() -> None:
    async def play() -> None:
        async with open_index(Metric.COSINE) as (_, index):
            await put(index, {}, np.eye(DIM))
            registry = index.clusters.registry
            for _ in range(5):
                await answered(index, [1, 2, 3, 0, 0, 0], None)
            await answered(index, [3, 2, 1, 0, 0, 0], None)
            _, queries = registry.recent()
            assert queries[:, 0].tolist() == [1, 1, 1, 1, 1, 3]

    asyncio.run(play())
