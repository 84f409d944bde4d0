"""/v1/clusters: where an index's vectors lie together, and how long answers there are kept."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field

from pyrope.errors import DimensionError
from pyrope.http.calls import CommandRoute, CurrentCall, answer, stands_for
from pyrope.http.fields import (
    AnyVector,
    Body,
    Count,
    Floats,
    Information,
    Numbers,
    Told,
    check_one,
    decoded,
    to_blob,
)

router = APIRouter(prefix="/v1/clusters", tags=["clusters"], route_class=CommandRoute)

IndexName = Annotated[str, Path(description="The name of an index.")]


class Cluster(Told):
    id: int
    size: Annotated[int | None, Field(description="Vectors, by a sample; null: not known.")]
    writes: Annotated[int, Field(description="In the window.")]
    ttl: Annotated[float, Field(description="In force, in seconds; 0: for ever.")]
    threshold: Annotated[float | None, Field(description="Writes from which it is hot.")]
    advice: Annotated[
        Information | None, Field(description="Of a language model, if any is in force.")
    ]


class Clusters(Told):
    items: list[Cluster]


class Nearest(Told):
    id: int
    score: Annotated[
        float | None,
        Field(
            description="Cosine (COSINE) or Euclidean distance (L2, IP) to the centroid; null: "
            "there are no centroids."
        ),
    ]


class ClusterTtl(Told):
    id: int
    base_ttl: float
    ttl: float
    writes: int
    threshold: float | None


Rows = Annotated[list[Numbers], Field(fail_fast=True, min_length=1, max_length=1024)]


class Forgetting(Body):
    cluster: Annotated[Count | None, Field(description="Its id; null: all of them.")] = None


class Forgotten(Told):
    forgotten: int


class Centroids(Body):
    """Centroids: one of the members is given."""

    centroids: (
        Annotated[list[Numbers], Field(fail_fast=True, min_length=1, max_length=1024)] | None
    ) = None
    fp32: Annotated[Floats, Field(description="All of them, one after another.")] | None = None

    def blob(self) -> bytes:
        """Little-endian float32, row by row. Raises CommandError, DimensionError."""
        given = [name for name in ("centroids", "fp32") if getattr(self, name) is not None]
        check_one(given, "centroids or fp32")
        if self.fp32 is not None:
            return decoded(self.fp32, "fp32")
        assert self.centroids is not None  # noqa: S101 - as just seen
        if len({len(row) for row in self.centroids}) > 1:
            raise DimensionError("Vector dimension mismatch - centroids of one dimension expected")
        return b"".join(map(to_blob, self.centroids))


@router.get(
    "/{index}",
    response_model=Clusters,
    openapi_extra=stands_for("VECTOR.CLUSTER|LIST"),
    summary="List the clusters of an index",
)
async def list_(call: CurrentCall, index: IndexName) -> Response:
    return answer({"items": await call.run(index)})


@router.post(
    "/{index}/nearest",
    response_model=Nearest,
    openapi_extra=stands_for("VECTOR.CLUSTER|NEAREST"),
    summary="Find the cluster of a vector",
)
async def nearest(call: CurrentCall, index: IndexName, body: AnyVector) -> Response:
    cluster, score = await call.run(index, *body.words())
    return answer({"id": cluster, "score": score})


@router.post(
    "/{index}/ttl",
    response_model=ClusterTtl,
    openapi_extra=stands_for("VECTOR.CLUSTER|TTL"),
    summary="Tell how long answers about a vector are kept, and why",
)
async def ttl(call: CurrentCall, index: IndexName, body: AnyVector) -> Response:
    names = ("id", "base_ttl", "ttl", "writes", "threshold")
    told = await call.run(index, *body.words())
    return answer(dict(zip(names, told, strict=True)))


@router.put(
    "/{index}",
    status_code=204,
    response_class=Response,
    openapi_extra=stands_for("VECTOR.CLUSTER|SET"),
    summary="Set the centroids of an index",
)
async def set_(call: CurrentCall, index: IndexName, body: Centroids) -> Response:
    await call.run(index, "FP32", body.blob())
    return Response(status_code=204)


@router.post(
    "/{index}/rebuild",
    status_code=204,
    response_class=Response,
    openapi_extra=stands_for("VECTOR.CLUSTER|REBUILD"),
    summary="Learn the centroids of an index anew",
)
async def rebuild(call: CurrentCall, index: IndexName) -> Response:
    await call.run(index)
    return Response(status_code=204)


@router.post(
    "/{index}/forget",
    response_model=Forgotten,
    openapi_extra=stands_for("VECTOR.CLUSTER|FORGET"),
    summary="Take back what a language model has advised",
)
async def forget(call: CurrentCall, index: IndexName, body: Forgetting) -> Response:
    named = [] if body.cluster is None else [str(body.cluster)]
    return answer({"forgotten": await call.run(index, *named)})
