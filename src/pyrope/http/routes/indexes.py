"""/v1/indexes: what indexes there are, what they are, and how they fare."""

from __future__ import annotations

from bisect import bisect_right
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field

from pyrope.commands import cache_policy
from pyrope.errors import NoIndexError
from pyrope.http.calls import (
    CommandRoute,
    CurrentCall,
    answer,
    precondition_of,
    stands_for,
    tagged,
)
from pyrope.http.fields import Body, Count, Cursor, Levels, Number, Told, WholeOrAuto, words_of
from pyrope.http.pages import AskedPage, answer_page
from pyrope.types import IndexSpec, IndexType, Metric

router = APIRouter(prefix="/v1/indexes", tags=["indexes"], route_class=CommandRoute)

IndexName = Annotated[str, Path(description="The name of an index.")]


MetricName = Annotated[str, Field(json_schema_extra={"enum": [one.value for one in Metric]})]
TypeName = Annotated[str, Field(json_schema_extra={"enum": [one.value for one in IndexType]})]


class IndexCreate(Body):
    """The words of VECTOR.CREATE."""

    name: Annotated[str, Field(max_length=256, description="Unique within the tenant.")]
    dim: Count | None = None
    metric: MetricName | None = None
    type: TypeName | None = None
    m: Count | None = None
    efconstruction: Count | None = None
    ef: Count | None = None
    nlist: WholeOrAuto | None = None
    nprobe: WholeOrAuto | None = None
    pqm: WholeOrAuto | None = None
    cache: Levels | None = None
    cachettl: Number | None = None
    embedder: Annotated[str, Field(max_length=128)] | None = None
    nx: Annotated[
        bool, Field(description="One that is there with the same definition is fine.")
    ] = False


class IndexAlter(Body):
    """The words of VECTOR.ALTER; what is left out stays."""

    ef: Count | None = None
    nprobe: WholeOrAuto | None = None
    cache: Levels | None = None
    cachettl: Number | None = None


class IndexDefinition(Told):
    """What an index was created as, and altered to."""

    name: str
    tenant: str
    dim: int
    metric: str
    type: str
    m: int
    efconstruction: int
    ef: int
    nlist: int
    nprobe: int
    pqm: int
    cache: str
    cachettl: float
    embedder: str | None
    created_at: float


class IndexPage(Told):
    items: list[IndexDefinition]
    cursor: Cursor


class IndexStats(Told):
    """The reply of VECTOR.INFO."""

    name: str
    tenant: str
    dim: int
    metric: str
    type: str
    count: int
    deleted: int
    head_count: int
    memory_bytes: int
    ef: int
    nprobe: int
    m: int
    nlist: int
    epoch: int
    cache_levels: str
    cache_entries: int
    cache_bytes: int
    embedder: str | None
    created_at: int


def definition(spec: IndexSpec) -> dict[str, Any]:
    """An index as it would be created."""
    return {
        "name": spec.name,
        "tenant": spec.tenant,
        "dim": spec.dim,
        "metric": spec.metric.value,
        "type": spec.type.value,
        "m": spec.m,
        "efconstruction": spec.ef_construction,
        "ef": spec.ef,
        "nlist": spec.nlist,
        "nprobe": spec.nprobe,
        "pqm": spec.pqm,
        "cache": cache_policy.shown_levels(spec.cache.levels),
        "cachettl": spec.cache.ttl_s,
        "embedder": spec.embedder or None,
        "created_at": spec.created_at,
    }


@router.post(
    "",
    status_code=201,
    response_model=IndexDefinition,
    openapi_extra=stands_for("VECTOR.CREATE"),
    summary="Create an index",
)
async def create(call: CurrentCall, body: IndexCreate) -> Response:
    await call.run(body.name, *words_of(body, "name"))
    spec = call.service.index(call.tenant, body.name.encode()).spec
    return tagged(definition(spec), 201, {"Location": f"/v1/indexes/{spec.name}"})


@router.get(
    "",
    response_model=IndexPage,
    openapi_extra=stands_for("VECTOR.LIST"),
    summary="List the tenant's indexes",
)
async def list_(call: CurrentCall, page: AskedPage) -> Response:
    names: list[str] = await call.run()
    start = bisect_right(names, page.cursor) if page.cursor else 0
    found = [
        index.spec
        for name in names[start : start + page.limit + 1]
        if (index := call.service.find_index(call.tenant, name.encode())) is not None
    ]
    return await answer_page(page, found, lambda spec: spec.name, definition)


@router.get(
    "/{index}",
    response_model=IndexDefinition,
    openapi_extra=stands_for("VECTOR.INFO"),
    summary="Show the definition of an index",
)
async def get(call: CurrentCall, index: IndexName) -> Response:
    async with call.admitted():
        return tagged(definition(call.service.index(call.tenant, index.encode()).spec))


@router.patch(
    "/{index}",
    response_model=IndexDefinition,
    openapi_extra=stands_for("VECTOR.ALTER"),
    summary="Change the defaults of an index",
)
async def alter(
    call: CurrentCall, request: Request, index: IndexName, body: IndexAlter
) -> Response:
    await call.run(index, *words_of(body), precondition=precondition_of(request, definition))
    return tagged(definition(call.service.index(call.tenant, index.encode()).spec))


@router.delete(
    "/{index}",
    status_code=204,
    response_class=Response,
    openapi_extra=stands_for("VECTOR.DROP"),
    summary="Drop an index, and give its space back",
)
async def drop(call: CurrentCall, index: IndexName) -> Response:
    if not await call.run(index):
        raise NoIndexError(f"no such index '{index[:128]}'")
    return Response(status_code=204)


@router.post(
    "/{index}/build",
    status_code=204,
    response_class=Response,
    openapi_extra=stands_for("VECTOR.BUILD"),
    summary="Compact an index",
    description="Merges what is new, trains, and takes out what was deleted, while the index goes "
    "on serving. The answer comes when that is done.",
)
async def build(call: CurrentCall, index: IndexName) -> Response:
    await call.run(index)
    return Response(status_code=204)


@router.get(
    "/{index}/stats",
    response_model=IndexStats,
    openapi_extra=stands_for("VECTOR.INFO"),
    summary="Show what an index holds and takes",
)
async def stats(call: CurrentCall, index: IndexName) -> Response:
    return answer(await call.run(index))
