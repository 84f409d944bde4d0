"""Commands that create, change and describe indexes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict, Unpack

from pyrope.client.replies import fields, levels, names, nothing, plain, rest, text
from pyrope.client.request import Request
from pyrope.client.results import IndexInfo
from pyrope.client.words import check_names, flag, levels_word, option
from pyrope.types import CacheLevel, IndexType, Metric

MetricName = Metric | Literal["COSINE", "IP", "L2"]
TypeName = IndexType | Literal["FLAT", "HNSW", "HNSW_SQ8", "IVF_FLAT", "IVF_PQ", "AUTO"]
Levels = str | Iterable[CacheLevel | str]
"""Levels of caches: ``OFF``, ``ALL``, or names, with commas or one by one."""


class IndexOptions(TypedDict, total=False):
    """Options of an index that is created; see docs/wire.md, *Indexes*.

    Attributes:
        cache: levels of caches.
        cache_ttl_s: seconds that answers are kept; 0: for ever.
    """

    metric: MetricName
    type: TypeName
    m: int
    ef_construction: int
    ef: int
    nlist: int | Literal["AUTO"]
    nprobe: int | Literal["AUTO"]
    pqm: int | Literal["AUTO"]
    embedder: str
    cache: Levels
    cache_ttl_s: float


_NAMES = frozenset(IndexOptions.__annotations__)
_NUMBERS = (
    "dim", "count", "deleted", "head_count", "memory_bytes", "ef", "nprobe", "m", "ef_construction",
    "nlist", "pqm", "epoch", "cache_entries", "cache_bytes", "created_at",
)  # fmt: skip
_TOKENS = ("metric", "type", "m", "ef_construction", "ef", "nlist", "nprobe", "pqm", "embedder")


def create(
    index: str, dim: int | None = None, *, if_new: bool = False, **options: Unpack[IndexOptions]
) -> Request[None]:
    """Create an index.

    Args:
        dim: of its vectors; None: that of the embedder.
        if_new: leave one as it is that is there already with the same definition.

    Raises:
        ExistsError: there is one.
        CommandError, DimensionError: an option is wrong.
    """
    check_names(options, _NAMES)
    words = [*option("DIM", dim), *flag("NX", if_new)]
    given: dict[str, Any] = dict(options)
    for name in _TOKENS:
        words += option(name.replace("_", "").upper(), given.get(name))
    words += option("CACHE", levels_word(options.get("cache")))
    words += option("CACHETTL", options.get("cache_ttl_s"))
    return Request(("VECTOR.CREATE", index, *words), nothing, repeatable=if_new)


def alter(
    index: str,
    *,
    ef: int | None = None,
    nprobe: int | Literal["AUTO"] | None = None,
    cache: Levels | None = None,
    cache_ttl_s: float | None = None,
) -> Request[None]:
    """Change what searches go by that do not say, and the caches. None: as it is.

    Raises:
        NoIndexError: there is no such index.
        CommandError: an option is wrong, or none is given.
    """
    words = (
        *option("EF", ef),
        *option("NPROBE", nprobe),
        *option("CACHE", levels_word(cache)),
        *option("CACHETTL", cache_ttl_s),
    )
    return Request(("VECTOR.ALTER", index, *words), nothing)


def drop(index: str) -> Request[bool]:
    """Drop an index. Returns whether there was one."""
    return Request(("VECTOR.DROP", index), bool, repeatable=False)


def list_() -> Request[list[str]]:
    """The names of the tenant's indexes."""
    return Request(("VECTOR.LIST",), names)


def info(index: str) -> Request[IndexInfo]:
    """Describe an index. Raises NoIndexError."""
    return Request(("VECTOR.INFO", index), _info)


def _info(reply: Mapping[bytes, Any]) -> IndexInfo:
    told = fields(reply)
    take = told.pop
    return IndexInfo(
        name=text(take("name")),
        tenant=text(take("tenant")),
        metric=Metric(text(take("metric"))),
        type=IndexType(text(take("type"))),
        active_type=IndexType(text(take("active_type"))),
        cache_levels=levels(take("cache_levels")),
        embedder=plain(take("embedder")),
        **{name: take(name) for name in _NUMBERS},
        more=rest(told),
    )


def build(index: str) -> Request[None]:
    """Merge what waits, train, compact; returns when that is done, however long it takes.

    For a client whose `timeout_s` is None, unless the index is small.

    Raises:
        NoIndexError: there is no such index.
    """
    return Request(("VECTOR.BUILD", index), nothing, repeatable=False)
