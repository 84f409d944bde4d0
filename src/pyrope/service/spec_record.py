"""The definition of an index as the catalogue holds it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from pyrope.types import DEFAULT_POLICY, CacheLevel, CachePolicy, IndexSpec, IndexType, Metric

_OF_REMEMBERED = (
    "max_error",
    "guards_off",
    "shadow",
    "remember_ttl_s",
    "sliding",
    "remember_bytes",
    "scope_fields",
)
_SETS = frozenset({"levels", "guards_off", "scope_fields"})


def plain_spec(spec: IndexSpec) -> dict[str, Any]:
    """The definition as JSON has it."""
    plain = asdict(spec)
    policy = plain["cache"]
    for name in _OF_REMEMBERED:
        # As in records that were written before responses were remembered.
        if policy[name] == getattr(DEFAULT_POLICY, name):
            del policy[name]
    for name in policy.keys() & _SETS:
        policy[name] = sorted(policy[name])
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
    for name in policy.keys() & _SETS:
        policy[name] = frozenset(policy[name])
    if "levels" in policy:
        policy["levels"] = frozenset(map(CacheLevel, policy["levels"]))
    return IndexSpec(**plain, cache=CachePolicy(**policy))
