"""VECTOR.CLUSTER: where an index's vectors lie together, and how long answers there are kept."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import numpy as np

from pyrope.commands.context import Context
from pyrope.commands.spec import Access, Argument, Command
from pyrope.commands.text_vector import Then, with_text
from pyrope.commands.vector_argument import QUERY_ARGUMENT, check_rows, parse_vector
from pyrope.errors import CommandError, DimensionError
from pyrope.resp.values import OK
from pyrope.semantic.advice import Advice
from pyrope.service.audit import Actor
from pyrope.service.index import OpenIndex

GROUP = "vector"
# Checked on the loop: a millisecond.
_CHECKED_AT_ONCE_BYTES = 4 * 2**20


def list_(context: Context, args: list[bytes]) -> list[dict[str, Any]]:
    return describe(_index(context, args), context.server.clock.monotonic())


def describe(index: OpenIndex, now: float) -> list[dict[str, Any]]:
    """The clusters of an index, as LIST shows them. Args: now: of the monotonic clock."""
    clusters, count = index.clusters, len(index)
    registry, base, threshold = clusters.registry, clusters.base_ttl_s, clusters.threshold
    told = []
    for cluster in range(len(registry)):
        share = registry.share(cluster)
        told.append(
            {
                "id": cluster,
                "size": None if share is None else round(share * count),
                "writes": round(registry.writes(cluster)),
                "ttl": _seconds(clusters.ttl(cluster, base)),
                "threshold": threshold,
                "advice": _advice(registry.advice.get(cluster), now),
            }
        )
    return told


def _advice(advice: Advice | None, now: float) -> dict[str, Any] | None:
    """What a language model has said about a cluster; None: nothing is in force."""
    if advice is None:
        return None
    return {
        "nature": advice.nature.value,
        "ttl_factor": advice.ttl_factor,
        "value_factor": advice.value_factor,
        "confidence": advice.confidence,
        "expires": _seconds(advice.until - now),
    }


def forget(context: Context, args: list[bytes]) -> int:
    cluster = None
    index = _index(context, args)
    if len(args) > 4:
        raise CommandError("syntax error: one cluster, or none, is expected")
    if len(args) > 3:
        try:
            cluster = int(args[3])
        except ValueError:
            cluster = -1
        if not 0 <= cluster < len(index.clusters.registry):
            raise CommandError("no such cluster: the id of one is expected")
    return index.clusters.registry.advice.remove(cluster)


def nearest(context: Context, args: list[bytes]) -> Any:
    return _about_vector(context, args, _nearest)


def _nearest(_context: Context, index: OpenIndex, blob: bytes) -> list[Any]:
    vector = np.frombuffer(blob, "<f4")
    cluster = index.clusters.assign(vector)
    return [cluster, index.clusters.registry.score(vector, cluster)]


def ttl(context: Context, args: list[bytes]) -> Any:
    return _about_vector(context, args, _ttl)


def _ttl(_context: Context, index: OpenIndex, blob: bytes) -> list[Any]:
    clusters = index.clusters
    cluster = clusters.assign(blob)
    return [
        cluster,
        _seconds(clusters.base_ttl_s),
        _seconds(clusters.ttl(cluster)),
        round(clusters.registry.writes(cluster)),
        clusters.threshold,
    ]


def set_(context: Context, args: list[bytes]) -> Coroutine[Any, Any, Any]:
    if args[3].upper() != b"FP32":
        raise CommandError("invalid vector specification: FP32 is expected")
    index = _index(context, args)
    dim = index.spec.dim
    blob = args[4]
    limit = context.server.settings.clusters.max_centroids
    # Before a large one is looked at.
    if len(blob) > 4 * dim * limit:
        raise CommandError(
            f"{len(blob)} bytes: at most {limit} centroids of dimension {dim} are allowed, which "
            f"are {4 * dim * limit}"
        )
    context.server.service.admit_bytes(context.account, index, len(blob))
    # Not who the client is when it runs: a key may be taken away meanwhile.
    return _set(context, context.actor, context.client.tenant, args, dim)


async def _set(context: Context, actor: Actor, tenant: str, args: list[bytes], dim: int) -> Any:
    blob = args[4]
    if len(blob) <= _CHECKED_AT_ONCE_BYTES:
        check_rows(blob, dim)
    else:
        await context.server.service.run(check_rows, blob, dim)
    index = context.server.service.index(tenant, args[2])
    if index.spec.dim != dim:
        raise DimensionError(f"Vector dimension mismatch - index has {index.spec.dim} now")
    rows = np.frombuffer(blob, "<f4").reshape(-1, dim)
    async with context.server.service.tenancy.audit.act(
        actor, "clusters.set", index.spec.tenant, index.spec.name, None, {"n": len(rows)}
    ):
        await index.clusters.push(rows)
    return OK


def rebuild(context: Context, args: list[bytes]) -> Coroutine[Any, Any, Any]:
    index = _index(context, args)

    async def rebuilt() -> Any:
        await index.clusters.rebuild()
        return OK

    return rebuilt()


def _index(context: Context, args: list[bytes]) -> OpenIndex:
    return context.server.service.index(context.client.tenant, args[2])


def _about_vector(context: Context, args: list[bytes], tell: Then) -> Any:
    """What `tell` tells of a vector, for a command that takes nothing else."""
    argument, after = parse_vector(args, 3, context.server.settings.limits, element=True)
    if after != len(args):
        raise CommandError(f"syntax error in VECTOR.CLUSTER {args[1].upper().decode()} command")
    index = _index(context, args)
    if argument.text is not None:
        return with_text(context, index, argument.text, tell)
    return tell(context, index, argument.resolve(index))


def _seconds(seconds: float) -> float:
    """To the millisecond."""
    return round(seconds, 3)


_INDEX = Argument("index", "key")
_READ = frozenset({"readonly", "fast"})
_READ_CATEGORIES = frozenset({"read", "vector", "fast"})
_WRITE_CATEGORIES = frozenset({"write", "vector", "slow"})

COMMANDS = (
    Command(
        "VECTOR.CLUSTER", -2, None, "A container for commands about clusters of vectors.", GROUP,
        categories=frozenset({"slow"}),
        subcommands={
            "LIST": Command(
                "VECTOR.CLUSTER|LIST", 3, list_,
                "Lists the clusters of an index; one that has no centroids is one cluster.",
                GROUP, access=Access.READ, flags=_READ, categories=_READ_CATEGORIES,
                has_index=True, arguments=(_INDEX,), complexity="O(number of clusters)",
                returns="array of maps: id, size (vectors, by a sample; null: not known), writes "
                "(in the window), ttl (in force, seconds), threshold (writes from which it is hot)"
                ", advice (null, or a map: nature, ttl_factor, value_factor, confidence, expires)",
            ),
            "NEAREST": Command(
                "VECTOR.CLUSTER|NEAREST", -5, nearest, "Finds the cluster of a vector.",
                GROUP, access=Access.READ, flags=_READ, categories=_READ_CATEGORIES,
                has_index=True, arguments=(_INDEX, QUERY_ARGUMENT),
                complexity="O(number of clusters)",
                returns="[cluster id, cosine (COSINE) or Euclidean distance (L2, IP) to its "
                "centroid; null: there are no centroids]",
            ),
            "SET": Command(
                "VECTOR.CLUSTER|SET", 5, set_,
                "Sets the centroids of an index, durably: they stay until others are set, or "
                "VECTOR.CLUSTER REBUILD.",
                GROUP, access=Access.EXCLUSIVE, flags=frozenset({"write", "denyoom"}),
                categories=_WRITE_CATEGORIES, has_index=True,
                arguments=(
                    _INDEX,
                    Argument(
                        "blob", "string", "FP32",
                        summary="n centroids, little-endian float32, 4 bytes a dimension",
                    ),
                ),
                complexity="O(number of clusters)", returns="OK",
            ),
            "REBUILD": Command(
                "VECTOR.CLUSTER|REBUILD", 3, rebuild,
                "Learns the centroids of an index anew, from its vectors and the queries of late; "
                "answers when they are in force.",
                GROUP, access=Access.EXCLUSIVE, flags=frozenset({"write"}),
                categories=_WRITE_CATEGORIES, has_index=True, arguments=(_INDEX,),
                complexity="O(number of clusters squared)", returns="OK",
            ),
            "FORGET": Command(
                "VECTOR.CLUSTER|FORGET", -3, forget,
                "Takes back what a language model has advised about a cluster, or about all.",
                GROUP, access=Access.WRITE, flags=frozenset({"write", "fast"}),
                categories=_WRITE_CATEGORIES, has_index=True,
                arguments=(_INDEX, Argument("cluster", "integer", optional=True)),
                complexity="O(number of clusters)",
                returns="number of clusters that there was advice on",
            ),
            "TTL": Command(
                "VECTOR.CLUSTER|TTL", -5, ttl,
                "Tells how long answers about a vector are kept, and why.",
                GROUP, access=Access.READ, flags=_READ, categories=_READ_CATEGORIES,
                has_index=True, arguments=(_INDEX, QUERY_ARGUMENT),
                complexity="O(number of clusters)",
                returns="[cluster id, base TTL, TTL in force (seconds; 0: for ever), writes in the "
                "window, threshold]",
            ),
        },
    ),
)  # fmt: skip
