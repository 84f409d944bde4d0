"""Definitions of indexes: which options go together, and what was stored before there were some."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from pyrope.clock import SystemClock
from pyrope.config import Settings
from pyrope.errors import CommandError
from pyrope.service.definition import IndexDefinition
from pyrope.service.service import Service
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.store import PutIndex
from pyrope.types import IndexSpec, IndexType, Metric

GRAPH = ("m", "ef_construction", "ef")
LISTS = ("nlist", "nprobe")


def spec_of(definition: IndexDefinition) -> IndexSpec:
    fields = {field: getattr(definition, field) for field in definition.__dataclass_fields__}
    return IndexSpec(uid=1, tenant="default", created_at=0.0, **fields)


@pytest.mark.parametrize("kind", list(IndexType))
def test_each_type_takes_the_options_that_mean_something_to_it(kind: IndexType) -> None:
    for option in (*GRAPH, *LISTS, "pqm"):
        good = option in (LISTS if kind.has_lists else GRAPH)
        good |= option == "pqm" and kind is IndexType.IVF_PQ
        options = {"type": kind, option: 4}
        if good:
            assert getattr(IndexDefinition.of("i", 8, **options), option) == 4
        else:
            with pytest.raises(CommandError, match=f"does not go with TYPE {kind.value}:"):
                IndexDefinition.of("i", 8, **options)


@pytest.mark.parametrize("dim", [1, 12, 384])
def test_segments_divide_the_dimension(dim: int) -> None:
    for pqm in range(1, dim + 3):
        options = {"type": IndexType.IVF_PQ, "pqm": pqm}
        if dim % pqm == 0:
            assert IndexDefinition.of("i", dim, **options).pqm == pqm
        else:
            with pytest.raises(
                CommandError, match=f"PQM must divide the dimension: {dim} is no multiple of {pqm}"
            ):
                IndexDefinition.of("i", dim, **options)


def test_no_more_lists_are_visited_than_there_are() -> None:
    for nlist, nprobe in itertools.product((0, 1, 5), (0, 1, 5, 6)):
        options = {"type": IndexType.IVF_FLAT, "nlist": nlist, "nprobe": nprobe}
        if nlist == 0 or nprobe <= nlist:
            assert IndexDefinition.of("i", 8, **options).nprobe == nprobe
        else:
            with pytest.raises(CommandError, match=f"which is {nlist}"):
                IndexDefinition.of("i", 8, **options)


def test_a_definition_describes_an_index_whatever_was_altered_but_nothing_else() -> None:
    definition = IndexDefinition.of("i", 8, type=IndexType.IVF_PQ, nlist=9, nprobe=3)
    assert definition.describes(spec_of(definition))
    others = [
        IndexDefinition.of("i", 8, type=IndexType.IVF_PQ, nlist=9, nprobe=4),
        IndexDefinition("i", 8, type=IndexType.IVF_PQ, nlist=9, ef=1),
    ]
    assert all(definition.describes(spec_of(other)) for other in others)
    different = [
        IndexDefinition.of("i", 8, type=IndexType.IVF_PQ, nlist=8),
        IndexDefinition.of("i", 8, type=IndexType.IVF_PQ, nlist=9, pqm=2),
        IndexDefinition.of("i", 8, type=IndexType.IVF_FLAT, nlist=9),
        IndexDefinition.of("i", 8, type=IndexType.IVF_PQ, nlist=9, metric=Metric.L2),
    ]
    assert not any(definition.describes(spec_of(other)) for other in different)


async def test_an_index_stored_before_there_were_lists_is_loaded(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path)
    uid = store.next_uid()
    old = {
        "uid": uid, "tenant": "default", "name": "old", "dim": 4, "metric": "L2",
        "type": "HNSW", "m": 8, "ef_construction": 50, "ef": 33, "created_at": 1.5,
    }  # fmt: skip
    store.commit([PutIndex(uid, json.dumps(old).encode())])
    store.close()
    service = Service(Settings(data_dir=tmp_path), SystemClock(), lambda name: name)
    await service.start()
    try:
        await service.loaded()
        spec = service.index("default", b"old").spec
        await service.alter_index("default", b"old", ef=44)
        altered = service.index("default", b"old").spec
    finally:
        await service.stop()
    assert (spec.metric, spec.type, spec.ef) == (Metric.L2, IndexType.HNSW, 33)
    assert (spec.nlist, spec.nprobe, spec.pqm) == (0, 0, 0)
    assert (altered.ef, altered.m, altered.created_at) == (44, 8, 1.5)
