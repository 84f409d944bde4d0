"""Near prompts of small and of large scopes, against a scan of everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from numpy.typing import NDArray

from pyrope.clock import SystemClock
from pyrope.config import Settings
from pyrope.semantic.remembered.entry import Body, Entry, Stage
from pyrope.service.definition import IndexDefinition
from pyrope.service.remembered.near import NearSearch
from pyrope.service.remembered.near_index import NearIndex
from pyrope.service.remembered.rows import SCANNED_VALUES, Near, Rows
from pyrope.service.service import Service

_DIM = 512
_LARGE = SCANNED_VALUES // _DIM


@pytest.fixture
async def near() -> AsyncIterator[NearSearch]:
    service = Service(Settings(in_memory=True, http_port=0), SystemClock(), bytes)
    await service.start()
    await service.loaded()
    await service.create_index("default", IndexDefinition("i", _DIM))
    search = service.index("default", b"i").memory.keeping.near
    yield search
    await search.close()
    await service.stop()


def entry(number: int, scope: bytes) -> Entry:
    body = Body.of(b"r")
    return Entry(number, b"k", b"p", scope, body, 0, 0, 0, 0.0, 0, 0, 4 * _DIM, stage=Stage.LIVE)


def vectors(count: int, seed: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, _DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


async def found(search: NearSearch, scope: bytes, query: NDArray[np.float32]) -> list[Near]:
    near = search.nearest(1, scope, query, 5)
    return near if isinstance(near, list) else await near


async def test_a_scope_grows_from_rows_to_an_engine_and_finds_the_same(near: NearSearch) -> None:
    count = _LARGE + 300
    rows = vectors(count, 1)
    entries = [entry(number, b"s") for number in range(count)]
    others = [entry(number, b"t") for number in range(20)]
    for one, row in zip(others, vectors(20, 2), strict=True):
        near.add(one, row)
    live: set[int] = set()
    random = np.random.default_rng(3)
    kinds = set()
    for number, one in enumerate(entries):
        near.add(one, rows[number])
        live.add(number)
        if number % 3 == 0:
            gone = int(random.choice(sorted(live)))
            near.remove(entries[gone])
            live.remove(gone)
            near.add(entries[gone], rows[gone])
            live.add(gone)
        if number % 97 == 0 or number in (_LARGE - 1, _LARGE, _LARGE + 1):
            kinds.add(type(near._scopes[b"s"]))
            query = vectors(1, number)[0]
            told = await found(near, b"s", query)
            listed = sorted(live)
            scores = rows[listed] @ query
            best = np.sort(scores)[::-1][:5]
            assert np.allclose([hit.score for hit in told], best, atol=1e-5)
            for hit in told:
                vector = near.vector(hit.entry)
                assert vector is not None
                assert np.array_equal(vector, rows[hit.entry.id])
    assert kinds == {Rows, NearIndex}
    for number in sorted(live):
        near.remove(entries[number])
    assert await found(near, b"s", rows[0]) == []
    assert len(await found(near, b"t", rows[0])) == 5
    assert near.nearest(1, b"nowhere", rows[0], 5) == []


async def test_what_was_removed_is_not_found_whatever_is_under_way(near: NearSearch) -> None:
    rows = vectors(_LARGE + 1, 1)
    entries = [entry(number, b"s") for number in range(len(rows))]
    for one, row in zip(entries, rows, strict=True):
        near.add(one, row)
    asked = near.nearest(1, b"s", rows[7], 3)
    near.remove(entries[7])
    assert isinstance(asked, asyncio.Future)
    assert entries[7] not in [one.entry for one in await asked]
    near.add(entries[7], rows[7])
    assert (await found(near, b"s", rows[7]))[0].entry is entries[7]


async def test_restored_scopes_of_any_size_are_searched(near: NearSearch) -> None:
    for scope, count in ((b"small", 10), (b"large", _LARGE + 50)):
        rows = vectors(count, count)
        entries = [entry(number, scope) for number in range(count)]
        await near.add_many(scope, entries, rows)
        for number in (0, count // 2, count - 1):
            assert (await found(near, scope, rows[number]))[0].entry is entries[number]
    assert near.nbytes > 0
