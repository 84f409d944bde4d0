from __future__ import annotations

import json
from dataclasses import replace

from pyrope.service.spec_record import decode_spec, encode_spec
from pyrope.types import CachePolicy, IndexSpec, IndexType, Metric

_SPEC = IndexSpec(
    uid=7,
    tenant="acme",
    name="i",
    dim=256,
    metric=Metric.COSINE,
    type=IndexType.HNSW,
    m=16,
    ef_construction=200,
    ef=64,
    created_at=1.5,
)


def test_a_definition_is_read_as_it_was_written() -> None:
    for spec in (_SPEC, replace(_SPEC, embedder="wordllama:256:0123456789ab")):
        assert decode_spec(encode_spec(spec)) == spec


def test_a_record_from_before_there_were_embedders_is_read() -> None:
    blob = (
        b'{"uid": 7, "tenant": "acme", "name": "i", "dim": 256, "metric": "COSINE", "type": "HNSW",'
        b' "m": 16, "ef_construction": 200, "ef": 64, "created_at": 1.5, "nlist": 0, "nprobe": 0,'
        b' "pqm": 0}'
    )
    assert decode_spec(blob) == _SPEC


def test_an_index_without_embedder_has_a_record_that_servers_before_them_read() -> None:
    assert "embedder" not in json.loads(encode_spec(_SPEC))


def test_what_a_policy_says_of_remembered_responses_is_read_as_it_was_written() -> None:
    policy = CachePolicy(
        max_error=0.1,
        guards_off=frozenset({"numbers", "negation"}),
        shadow=True,
        remember_ttl_s=5.0,
        sliding=True,
        remember_bytes=10,
        scope_fields=frozenset({"user", "model"}),
    )
    assert decode_spec(encode_spec(replace(_SPEC, cache=policy))).cache == policy


def test_a_policy_that_says_nothing_of_them_has_a_record_as_before_there_were_any() -> None:
    fields = {"levels", "ttl_s", "max_bytes", "candidates", "min_recall", "certified", "hot_writes"}
    assert json.loads(encode_spec(_SPEC))["cache"].keys() == fields
