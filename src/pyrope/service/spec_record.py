"""The definition of an index as the catalogue holds it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from pyrope.types import CacheLevel, CachePolicy, IndexSpec, IndexType, Metric


def plain_spec(spec: IndexSpec) -> dict[str, Any]:
    """The definition as JSON has it."""
    plain = asdict(spec)
    plain["cache"]["levels"] = sorted(spec.cache.levels)
    if not spec.embedder:
        # As in records that were written before there were embedders.
        del plain["embedder"]
    return plain


def encode_spec(spec: IndexSpec) -> bytes:
    """The record of an index in the catalogue; `decode_spec` reads it."""
    return json.dumps(plain_spec(spec)).encode()


def decode_spec(blob: bytes) -> IndexSpec:
    """What `encode_spec` made a record of, whatever version of it."""
    plain = json.loads(blob)
    plain["metric"] = Metric(plain["metric"])
    plain["type"] = IndexType(plain["type"])
    # Absent from what was written before there were caches.
    policy = plain.pop("cache", {})
    if "levels" in policy:
        policy["levels"] = frozenset(map(CacheLevel, policy["levels"]))
    return IndexSpec(**plain, cache=CachePolicy(**policy))
