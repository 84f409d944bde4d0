"""VECTOR.CLUSTER: where an index's vectors lie together, and how long answers there are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from pyrope.client.replies import fields, nothing, text
from pyrope.client.request import Request
from pyrope.client.results import Cluster, ClusterAdvice, ClusterTtl, NearestCluster
from pyrope.client.words import Id, query_words, rows_word


def list_(index: str) -> Request[list[Cluster]]:
    """The clusters of an index; one that has no centroids is one cluster. Raises NoIndexError."""
    return Request(("VECTOR.CLUSTER", "LIST", index), _clusters)


def nearest(
    index: str,
    vector: ArrayLike | None = None,
    *,
    text: str | None = None,
    element: Id | None = None,
) -> Request[NearestCluster]:
    """The cluster of a vector, a text, or what is stored under an id.

    Raises:
        NoIndexError, DimensionError, CommandError: the server refuses.
        TypeError, ValueError: this is no vector; nothing was sent.
    """
    words = query_words(vector, text, element)
    return Request(("VECTOR.CLUSTER", "NEAREST", index, *words), _nearest)


def ttl(
    index: str,
    vector: ArrayLike | None = None,
    *,
    text: str | None = None,
    element: Id | None = None,
) -> Request[ClusterTtl]:
    """How long answers about a vector are kept, and why. Arguments and errors as `nearest`."""
    words = query_words(vector, text, element)
    return Request(("VECTOR.CLUSTER", "TTL", index, *words), _ttl)


def set_(index: str, centroids: ArrayLike) -> Request[None]:
    """Set the centroids of an index, durably.

    Args:
        centroids: shape (n, dim), real numbers.

    Raises:
        NoIndexError, DimensionError, CommandError, QuotaError: the server refuses.
        TypeError, ValueError: these are no vectors; nothing was sent.
    """
    return Request(("VECTOR.CLUSTER", "SET", index, "FP32", rows_word(centroids)), nothing)


def rebuild(index: str) -> Request[None]:
    """Learn the centroids anew; returns when they are in force, however long it takes.

    Raises:
        NoIndexError: there is no such index.
        CommandError: there are too few vectors.
    """
    return Request(("VECTOR.CLUSTER", "REBUILD", index), nothing, repeatable=False)


def forget(index: str, cluster: int | None = None) -> Request[int]:
    """Take back what a language model has advised about a cluster; None: about all.

    Returns:
        How many clusters there was advice on.

    Raises:
        NoIndexError, CommandError: there is no such index, or no such cluster.
    """
    named = () if cluster is None else (cluster,)
    return Request(("VECTOR.CLUSTER", "FORGET", index, *named), int)


def _clusters(reply: list[Mapping[bytes, Any]]) -> list[Cluster]:
    return [
        Cluster(
            id=told["id"],
            size=told["size"],
            writes=told["writes"],
            ttl_s=told["ttl"],
            threshold=told["threshold"],
            advice=_advice(told["advice"]),
        )
        for told in map(fields, reply)
    ]


def _advice(reply: Mapping[bytes, Any] | None) -> ClusterAdvice | None:
    if reply is None:
        return None
    told = fields(reply)
    return ClusterAdvice(
        nature=text(told["nature"]),
        ttl_factor=told["ttl_factor"],
        value_factor=told["value_factor"],
        confidence=told["confidence"],
        expires_s=told["expires"],
    )


def _nearest(reply: list[Any]) -> NearestCluster:
    return NearestCluster(*reply)


def _ttl(reply: list[Any]) -> ClusterTtl:
    return ClusterTtl(*reply)
