"""Commands that create, change and describe indexes."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pyrope.commands import cache_policy
from pyrope.commands.context import Context
from pyrope.commands.options import Option, OptionTable, choice, integer
from pyrope.commands.spec import Access, Argument, Command
from pyrope.config import LimitSettings
from pyrope.embed.factory import NAMES as EMBEDDERS
from pyrope.errors import CommandError, DimensionError
from pyrope.resp.values import OK
from pyrope.service.definition import IndexDefinition
from pyrope.service.service import INDEX_NAME
from pyrope.types import CachePolicy, IndexType, Metric

GROUP = "vector"

_TYPES = {kind.value.encode(): kind for kind in IndexType}
_METRICS = {metric.value.encode(): metric for metric in Metric}
_CACHE = (
    Option("CACHE", "levels", cache_policy.levels, argument="levels|OFF|ALL"),
    Option("CACHETTL", "ttl_s", cache_policy.ttl, type="double", argument="seconds"),
)


def _to_embedder(raw: bytes, _limits: LimitSettings) -> str:
    name = raw[:128].decode(errors="replace").lower()
    if name not in EMBEDDERS:
        raise CommandError(f"invalid EMBEDDER: one of {', '.join(EMBEDDERS)} is expected")
    return name


_EF = Option("EF", "ef", integer("EF", 1, "ef"), type="integer")
_NPROBE = Option("NPROBE", "nprobe", integer("NPROBE", 1, "nprobe", auto=0), argument="n|AUTO")

CREATE_OPTIONS = OptionTable(
    "VECTOR.CREATE",
    (
        Option("DIM", "dim", integer("DIM", 1, "dim"), type="integer"),
        Option("METRIC", "metric", choice("METRIC", _METRICS), argument="COSINE|IP|L2"),
        Option("TYPE", "type", choice("TYPE", _TYPES), argument="|".join(IndexType)),
        Option("M", "m", integer("M", 2, "m"), type="integer"),
        Option(
            "EFCONSTRUCTION", "ef_construction", integer("EFCONSTRUCTION", 1, "ef"), type="integer"
        ),
        _EF,
        Option("NLIST", "nlist", integer("NLIST", 1, "nlist", auto=0), argument="n|AUTO"),
        _NPROBE,
        Option("PQM", "pqm", integer("PQM", 1, "dim", auto=0), argument="n|AUTO"),
        *_CACHE,
        Option("EMBEDDER", "embedder", _to_embedder, argument="|".join(EMBEDDERS)),
        Option("NX", "if_new"),
    ),
)
_ALTER_OPTIONS = OptionTable("VECTOR.ALTER", (_EF, _NPROBE, *_CACHE))
_POLICY = ("levels", "ttl_s")


def create(context: Context, args: list[bytes]) -> Coroutine[Any, Any, Any]:
    name = args[1][:256].decode(errors="replace")
    if not INDEX_NAME.fullmatch(name):
        raise CommandError(
            "invalid index name: 1 to 128 letters, digits, '_', '.' or '-' are expected"
        )
    options = CREATE_OPTIONS.parse(args, 2, context.server.settings.limits)
    if_new = options.pop("if_new", False)
    embedder = options.pop("embedder", None)
    if "dim" not in options and embedder is None:
        raise CommandError("DIM is missing: the dimension of the vectors is needed, or an EMBEDDER")
    policy = CachePolicy(**{key: options.pop(key) for key in _POLICY if key in options})
    service = context.server.service
    # Not who the client is when an embedder has been reached.
    tenant, actor = context.client.tenant, context.actor

    async def created(definition: IndexDefinition) -> Any:
        await service.create_index(tenant, definition, if_new=if_new, actor=actor)
        return OK

    async def embedding() -> Any:
        identity, dim = await service.embedders.describe(embedder)
        _check_dim(embedder, dim, options, service.settings.limits)
        fitting = {**options, "dim": dim, "embedder": identity}
        return await created(IndexDefinition.of(name, **fitting, cache=policy))

    if embedder is not None:
        return embedding()
    return created(IndexDefinition.of(name, **options, cache=policy))


def _check_dim(embedder: str, dim: int, options: Mapping[str, Any], limits: LimitSettings) -> None:
    """Raises DimensionError unless vectors of an embedder fit into what is to be created."""
    if options.get("dim", dim) != dim:
        raise DimensionError(
            f"Vector dimension mismatch - DIM is {options['dim']} but vectors of the embedder "
            f"{embedder} have {dim}"
        )
    if dim > limits.dim:
        raise DimensionError(
            f"vectors of the embedder {embedder} have {dim} dimensions, the limit is {limits.dim}"
        )


def alter(context: Context, args: list[bytes]) -> Coroutine[Any, Any, Any]:
    options = _ALTER_OPTIONS.parse(args, 2, context.server.settings.limits)
    tenant = context.client.tenant
    context.server.service.index(tenant, args[1])

    policy = {key: options.pop(key) for key in _POLICY if key in options}
    change = partial(replace, **policy) if policy else None

    async def altered() -> Any:
        await context.server.service.alter_index(
            tenant,
            args[1],
            **options,
            change_policy=change,
            precondition=context.precondition,
            actor=context.actor,
        )
        return OK

    return altered()


def drop(context: Context, args: list[bytes]) -> Coroutine[Any, Any, bool]:
    return context.server.service.drop_index(context.client.tenant, args[1], actor=context.actor)


def list_(context: Context, args: list[bytes]) -> list[str]:
    return context.server.service.index_names(context.client.tenant)


def info(context: Context, args: list[bytes]) -> dict[str, Any]:
    index = context.server.service.index(context.client.tenant, args[1])
    index.remove_expired()
    spec = index.spec
    # What was left to the training, or could not be had with so few vectors.
    chosen = index.engine.parameters
    return {
        "name": spec.name,
        "tenant": spec.tenant,
        "dim": spec.dim,
        "metric": spec.metric.value,
        "type": spec.type.value,
        "count": len(index),
        "active_type": index.active_type.value,
        "deleted": index.engine.deleted_count,
        # Where full scans are what the index is for, nothing waits to be merged.
        "head_count": 0 if index.always_scans else index.engine.head_count,
        "tail_count": index.engine.tail_count,
        "memory_bytes": index.memory_bytes,
        "ef": spec.ef,
        "nprobe": spec.nprobe or chosen.get("nprobe", 0),
        "m": spec.m,
        "ef_construction": spec.ef_construction,
        "nlist": chosen.get("nlist", spec.nlist),
        "pqm": chosen.get("pqm", spec.pqm),
        "epoch": index.sequence,
        "attributes_count": len(index.state.attributes),
        "expiring_count": len(index.state.expires_at_ms),
        "merging": index.merger.running,
        "cache_levels": cache_policy.shown_levels(spec.cache.levels),
        "cache_entries": len(index.cache),
        "cache_bytes": index.cache.nbytes,
        "remembered": 0 if index.remembered is None else len(index.remembered),
        "remembered_bytes": 0 if index.remembered is None else index.remembered.nbytes,
        "embedder": spec.embedder or None,
        "created_at": int(spec.created_at),
    }


def build(context: Context, args: list[bytes]) -> Coroutine[Any, Any, Any]:
    tenant = context.client.tenant
    context.server.service.index(tenant, args[1])

    async def built() -> Any:
        await context.server.service.build_index(tenant, args[1])
        return OK

    return built()


_WRITE = frozenset({"write"})
_WRITE_CATEGORIES = frozenset({"keyspace", "write", "vector", "slow"})
_READ = frozenset({"readonly", "fast"})
_READ_CATEGORIES = frozenset({"keyspace", "read", "vector", "fast"})
_INDEX = Argument("index", "key")

COMMANDS = (
    Command(
        "VECTOR.CREATE", -4, create,
        "Creates an index. With NX, one that is there already with the same definition is fine.",
        GROUP, access=Access.EXCLUSIVE, flags=_WRITE | {"denyoom"}, categories=_WRITE_CATEGORIES,
        has_index=True, arguments=(_INDEX, *CREATE_OPTIONS.describe()), returns="OK",
    ),
    Command(
        "VECTOR.ALTER", -4, alter, "Changes the defaults of an index.",
        GROUP, access=Access.EXCLUSIVE, flags=_WRITE, categories=_WRITE_CATEGORIES,
        has_index=True, arguments=(_INDEX, *_ALTER_OPTIONS.describe()), returns="OK",
    ),
    Command(
        "VECTOR.DROP", 2, drop, "Drops an index and gives its space back.",
        GROUP, access=Access.EXCLUSIVE, flags=_WRITE, categories=_WRITE_CATEGORIES,
        has_index=True, arguments=(_INDEX,), complexity="O(N)",
        returns="1 | 0 (no such index)",
    ),
    Command(
        "VECTOR.LIST", 1, list_, "Lists the tenant's indexes.",
        GROUP, access=Access.READ, flags=_READ, categories=_READ_CATEGORIES,
        complexity="O(number of indexes)", returns="array of names",
    ),
    Command(
        "VECTOR.INFO", 2, info, "Describes an index.",
        GROUP, access=Access.READ, flags=_READ, categories=_READ_CATEGORIES, has_index=True,
        arguments=(_INDEX,), returns="map",
    ),
    Command(
        "VECTOR.BUILD", 2, build,
        "Compacts an index: builds its graph anew without what was deleted, while it goes on "
        "serving; answers when that is done.",
        GROUP, access=Access.EXCLUSIVE, flags=_WRITE, categories=_WRITE_CATEGORIES,
        has_index=True, arguments=(_INDEX,), complexity="O(N log N)", returns="OK",
    ),
)  # fmt: skip
