"""/v1/cache: what the caches of an index did and hold, and what they may do."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request, Response

from pyrope.commands import cache_policy
from pyrope.http.calls import (
    CommandRoute,
    CurrentCall,
    answer,
    precondition_of,
    stands_for,
    tagged,
)
from pyrope.http.fields import Body, Count, Identifier, Levels, Number, Told, raw_id, words_of

router = APIRouter(prefix="/v1/cache", tags=["cache"], route_class=CommandRoute)

IndexName = Annotated[str, Path(description="The name of an index.")]


class PolicyChange(Body):
    """The fields of VECTOR.CACHE POLICY SET; what is left out stays."""

    levels: Levels | None = None
    ttl: Number | None = None
    maxbytes: Count | None = None
    candidates: Count | None = None
    minrecall: Number | None = None
    basis: Literal["CERTIFIED", "ESTIMATED"] | None = None
    hotwrites: Number | None = None
    maxerror: Number | Literal["AUTO"] | None = None
    guards: str | None = None
    shadow: Literal["ON", "OFF"] | None = None
    rememberttl: Number | Literal["AUTO"] | None = None
    sliding: Literal["ON", "OFF"] | None = None
    rememberbytes: Count | None = None
    scopes: str | None = None


class Policy(Told):
    levels: str
    ttl: float
    maxbytes: int
    candidates: int
    minrecall: float
    basis: str
    hotwrites: float
    maxerror: float | Literal["AUTO"]
    guards: str
    shadow: str
    rememberttl: float | Literal["AUTO"]
    sliding: str
    rememberbytes: int
    scopes: str


class CacheStats(Told):
    """The reply of VECTOR.CACHE STATS."""

    levels: str
    entries: int
    bytes: int
    hits: int
    misses: int
    hit_ratio: float
    repairs: int


class Invalidation(Body):
    id: Identifier


class Forgotten(Told):
    forgotten: int


@router.get(
    "/{index}/stats",
    response_model=CacheStats,
    openapi_extra=stands_for("VECTOR.CACHE|STATS"),
    summary="Show what the caches of an index did and hold",
)
async def stats(call: CurrentCall, index: IndexName) -> Response:
    return answer(await call.run(index))


@router.get(
    "/{index}/policy",
    response_model=Policy,
    openapi_extra=stands_for("VECTOR.CACHE|POLICY"),
    summary="Show what the caches of an index may do",
)
async def policy(call: CurrentCall, index: IndexName) -> Response:
    return tagged(await call.run(index, "GET"))


@router.patch(
    "/{index}/policy",
    response_model=Policy,
    openapi_extra=stands_for("VECTOR.CACHE|POLICY"),
    summary="Change what the caches of an index may do",
)
async def change_policy(
    call: CurrentCall, request: Request, index: IndexName, body: PolicyChange
) -> Response:
    await call.run(
        index,
        "SET",
        *words_of(body),
        precondition=precondition_of(request, lambda spec: cache_policy.shown(spec.cache)),
    )
    spec = call.service.index(call.tenant, index.encode()).spec
    return tagged(cache_policy.shown(spec.cache))


@router.post(
    "/flush",
    status_code=204,
    response_class=Response,
    openapi_extra=stands_for("VECTOR.CACHE|FLUSH"),
    summary="Forget the cached answers of all indexes of the tenant",
)
async def flush_all(call: CurrentCall) -> Response:
    await call.run()
    return Response(status_code=204)


@router.post(
    "/{index}/flush",
    status_code=204,
    response_class=Response,
    openapi_extra=stands_for("VECTOR.CACHE|FLUSH"),
    summary="Forget the cached answers of an index",
)
async def flush(call: CurrentCall, index: IndexName) -> Response:
    await call.run(index)
    return Response(status_code=204)


@router.post(
    "/{index}/invalidate",
    response_model=Forgotten,
    openapi_extra=stands_for("VECTOR.CACHE|INVALIDATE"),
    summary="Forget the cached answers that hold an id",
)
async def invalidate(call: CurrentCall, index: IndexName, body: Invalidation) -> Response:
    return answer({"forgotten": await call.run(index, "ID", raw_id(body.id))})
