"""VECTOR.CACHE: what the caches of an index hold, and what they may do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypedDict, Unpack

from pyrope.client.indexes import Levels
from pyrope.client.replies import fields, levels, nothing, rest, text
from pyrope.client.request import Request
from pyrope.client.results import CacheStats
from pyrope.client.words import Id, check_names, id_word, levels_word, option
from pyrope.types import CachePolicy

GUARDS: Final = (
    "numbers", "negation", "opposites", "units", "dates", "identifiers", "quotes", "names",
    "question", "direction", "unread",
)  # fmt: skip
"""What can be in `CachePolicy.guards_off`."""


class PolicyOptions(TypedDict, total=False):
    """What is to change of a policy; the fields of `pyrope.types.CachePolicy`.

    Where that has None, it is ``AUTO`` here: None is what is not given.
    """

    levels: Levels
    ttl_s: float
    max_bytes: int
    candidates: int
    min_recall: float
    certified: bool
    hot_writes: float
    max_error: float | Literal["AUTO"]
    guards_off: Iterable[str]
    shadow: bool
    remember_ttl_s: float | Literal["AUTO"]
    sliding: bool
    remember_bytes: int
    scope_fields: Iterable[str]


_NAMES = frozenset(PolicyOptions.__annotations__)
_HITS, _EVICTED = "hits_", "evicted_"


def stats(index: str) -> Request[CacheStats]:
    """What the caches of an index did and hold. Raises NoIndexError."""
    return Request(("VECTOR.CACHE", "STATS", index), _stats)


def flush(index: str | None = None) -> Request[None]:
    """Forget the cached answers of an index; None: of all of the tenant's. Raises NoIndexError."""
    named = () if index is None else (index,)
    return Request(("VECTOR.CACHE", "FLUSH", *named), nothing)


def invalidate(index: str, id: Id) -> Request[int]:  # noqa: A002 - that is what it is called
    """Forget the cached answers that hold an id. Returns how many. Raises NoIndexError."""
    return Request(("VECTOR.CACHE", "INVALIDATE", index, "ID", id_word(id)), int)


def policy(index: str) -> Request[CachePolicy]:
    """What the caches of an index may do. Raises NoIndexError."""
    return Request(("VECTOR.CACHE", "POLICY", index, "GET"), _policy)


def set_policy(index: str, **changes: Unpack[PolicyOptions]) -> Request[None]:
    """Change what the caches of an index may do, at once; what is not given stays.

    Raises:
        NoIndexError: there is no such index.
        CommandError: a value is wrong, or none is given.
        TypeError: an option or a guard is unknown.
    """
    check_names(changes, _NAMES)
    words = (
        *option("LEVELS", levels_word(changes.get("levels"))),
        *option("TTL", changes.get("ttl_s")),
        *option("MAXBYTES", changes.get("max_bytes")),
        *option("CANDIDATES", changes.get("candidates")),
        *option("MINRECALL", changes.get("min_recall")),
        *option("BASIS", _basis(changes.get("certified"))),
        *option("HOTWRITES", changes.get("hot_writes")),
        *option("MAXERROR", changes.get("max_error")),
        *option("GUARDS", _guards(changes.get("guards_off"))),
        *option("SHADOW", _switch(changes.get("shadow"))),
        *option("REMEMBERTTL", changes.get("remember_ttl_s")),
        *option("SLIDING", _switch(changes.get("sliding"))),
        *option("REMEMBERBYTES", changes.get("remember_bytes")),
        *option("SCOPES", _listed(changes.get("scope_fields"), "ANY")),
    )
    return Request(("VECTOR.CACHE", "POLICY", index, "SET", *words), nothing)


def _basis(certified: bool | None) -> str | None:  # noqa: FBT001 - it is the value itself
    if certified is None:
        return None
    return "CERTIFIED" if certified else "ESTIMATED"


def _guards(off: Iterable[str] | None) -> str | None:
    """Those that are on, as the server has it."""
    if off is None:
        return None
    off = frozenset(off)
    check_names(off, frozenset(GUARDS))
    return _listed((name for name in GUARDS if name not in off), "OFF") if off else "ALL"


def _listed(names: Iterable[str] | None, empty: str) -> str | None:
    return None if names is None else ",".join(names) or empty


def _switch(on: bool | None) -> str | None:  # noqa: FBT001 - it is the value itself
    if on is None:
        return None
    return "ON" if on else "OFF"


def _policy(reply: Mapping[bytes, Any]) -> CachePolicy:
    told = fields(reply)
    return CachePolicy(
        levels=levels(told["levels"]),
        ttl_s=told["ttl"],
        max_bytes=told["maxbytes"],
        candidates=told["candidates"],
        min_recall=told["minrecall"],
        certified=text(told["basis"]) == "CERTIFIED",
        hot_writes=told["hotwrites"],
        max_error=_or_none(told["maxerror"]),
        guards_off=_guards_off(text(told["guards"])),
        shadow=told["shadow"] == b"ON",
        remember_ttl_s=_or_none(told["rememberttl"]),
        sliding=told["sliding"] == b"ON",
        remember_bytes=told["rememberbytes"],
        scope_fields=frozenset(() if told["scopes"] == b"ANY" else text(told["scopes"]).split(",")),
    )


def _or_none(told: float | bytes) -> float | None:
    return None if isinstance(told, bytes) else told


def _guards_off(on: str) -> frozenset[str]:
    """Those that are not on; ``ALL`` and ``OFF`` are words for all and none."""
    names = GUARDS if on == "ALL" else on.split(",")
    return frozenset(GUARDS).difference(names)


def _stats(reply: Mapping[bytes, Any]) -> CacheStats:
    told = fields(reply)
    take = told.pop
    return CacheStats(
        levels=levels(take("levels")),
        entries=take("entries"),
        nbytes=take("bytes"),
        hits=take("hits"),
        misses=take("misses"),
        hit_ratio=take("hit_ratio"),
        repairs=take("repairs"),
        hits_by_level=_beginning(told, _HITS),
        evicted=_beginning(told, _EVICTED),
        remembered=rest(fields(take("remembered"))),
        more=rest(told),
    )


def _beginning(told: dict[str, Any], prefix: str) -> dict[str, int]:
    """What begins with a word, taken out, by what follows it."""
    found = [name for name in told if name.startswith(prefix)]
    return {name.removeprefix(prefix): told.pop(name) for name in found}
