"""/v1/tenants: tenants, their users and keys, and what they have used."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field, create_model

from pyrope.http.calls import (
    CommandRoute,
    CurrentCall,
    answer,
    precondition_of,
    stands_for,
    tagged,
)
from pyrope.http.fields import Body, Count, Cursor, Key, Number, Told, words_of
from pyrope.http.pages import AskedPage, answer_page
from pyrope.tenants.changes import UnknownTenantError
from pyrope.tenants.limit_fields import LIMIT_FIELDS, NumberField
from pyrope.tenants.tenant import Tenant

router = APIRouter(prefix="/v1/tenants", tags=["tenants"], route_class=CommandRoute)

TenantName = Annotated[str, Path(alias="name", description="The name of a tenant.")]
_NONE = b"NONE"


def _limits() -> dict[str, Any]:
    """Members of a body: the limits that VECTOR.TENANT knows, null for none."""
    members: dict[str, Any] = {}
    for word, field in LIMIT_FIELDS.items():
        kind: Any = str
        if isinstance(field, NumberField):
            kind = Count if field.whole else Number
        members[word.decode().lower()] = (kind | None, None)
    return members


class _Keyed(Body):
    key: Key | None = None


TenantChange = create_model(
    "TenantChange",
    __base__=_Keyed,
    __doc__="The words of VECTOR.TENANT SET; what is left out stays, null unsets it.",
    **_limits(),
)


class TenantCreate(TenantChange):  # type: ignore[misc, valid-type]  # made at run time
    """The words of VECTOR.TENANT CREATE."""

    tenant: Annotated[str, Field(max_length=256)]


class User(Told):
    user: str
    role: str
    key_expires_at: float | None
    former_key_expires_at: float | None


class TenantShown(Told):
    """The reply of VECTOR.TENANT GET, in which null is no limit."""

    tenant: str
    created_at: float
    users: list[User]
    qps: float | None
    budget: float | None
    priority: str
    onbudget: str


class TenantPage(Told):
    items: list[TenantShown]
    cursor: Cursor


class NewKey(Told):
    key: Annotated[
        str | None, Field(description="The key that was made, shown this once; null: it was given.")
    ]


class UserAdd(Body):
    """The words of VECTOR.TENANT USER ADD."""

    user: Annotated[str, Field(max_length=256)]
    role: Literal["reader", "operator", "admin"]
    key: Key | None = None


class Rotation(Body):
    """The words of VECTOR.TENANT ROTATE."""

    user: Annotated[str, Field(max_length=256)] | None = None
    key: Key | None = None
    overlap: Annotated[Number, Field(description="Seconds for which the former key is good.")] | (
        None
    ) = None


class Usage(Told):
    """The reply of VECTOR.TENANT USAGE."""

    tenant: str
    period: str
    budget: float | None
    remaining: float | None
    used: float
    requests: int
    hits: int
    misses: int
    compute_units: float
    llm_tokens_in: int
    llm_tokens_out: int
    llm_cost: float
    vectors: int
    bytes: int
    cache_bytes: int


def _new_key(made: Any) -> dict[str, Any]:
    return {"key": made.decode() if isinstance(made, bytes) else None}


@router.post(
    "",
    status_code=201,
    response_model=NewKey,
    openapi_extra=stands_for("VECTOR.TENANT|CREATE"),
    summary="Create a tenant",
)
async def create(call: CurrentCall, body: TenantCreate) -> Response:
    name: str = body.tenant
    made = await call.run(name, *words_of(body, "tenant", unset=_NONE))
    return answer(_new_key(made), 201, {"Location": f"/v1/tenants/{name}"})


@router.get(
    "",
    response_model=TenantPage,
    openapi_extra=stands_for("VECTOR.TENANT|LIST"),
    summary="List the tenants",
)
async def list_(call: CurrentCall, page: AskedPage) -> Response:
    async with call.admitted():
        registry = call.service.tenancy.registry
        found = [
            tenant
            for name in registry.names(page.cursor, page.limit + 1)
            if (tenant := registry.get(name)) is not None
        ]
        return await answer_page(page, found, lambda tenant: tenant.name, Tenant.describe)


@router.get(
    "/{name}",
    response_model=TenantShown,
    openapi_extra=stands_for("VECTOR.TENANT|GET"),
    summary="Show the limits and the users of a tenant",
)
async def get(call: CurrentCall, name: TenantName) -> Response:
    return tagged(await call.run(name))


@router.patch(
    "/{name}",
    response_model=TenantShown,
    openapi_extra=stands_for("VECTOR.TENANT|SET"),
    summary="Change limits of a tenant, or its key",
)
async def change(
    call: CurrentCall,
    request: Request,
    name: TenantName,
    body: TenantChange,  # type: ignore[valid-type]
) -> Response:
    await call.run(
        name,
        *words_of(body, unset=_NONE),
        precondition=precondition_of(request, Tenant.describe),
    )
    return tagged(call.service.tenancy.describe(call.identity, name))


@router.delete(
    "/{name}",
    status_code=204,
    response_class=Response,
    openapi_extra=stands_for("VECTOR.TENANT|DROP"),
    summary="Remove a tenant, its users and all its indexes",
)
async def drop(call: CurrentCall, name: TenantName) -> Response:
    if not await call.run(name):
        raise UnknownTenantError(f"no such tenant '{name[:128]}'")
    return Response(status_code=204)


@router.post(
    "/{name}/users",
    status_code=201,
    response_model=NewKey,
    openapi_extra=stands_for("VECTOR.TENANT|USER"),
    summary="Add a user",
)
async def add_user(call: CurrentCall, name: TenantName, body: UserAdd) -> Response:
    made = await call.run("ADD", name, body.user, *words_of(body, "user"))
    return answer(_new_key(made), 201)


@router.delete(
    "/{name}/users/{user}",
    status_code=204,
    response_class=Response,
    openapi_extra=stands_for("VECTOR.TENANT|USER"),
    summary="Remove a user, and end what it has open",
)
async def delete_user(call: CurrentCall, name: TenantName, user: str) -> Response:
    await call.run("DEL", name, user)
    return Response(status_code=204)


@router.post(
    "/{name}/rotate",
    response_model=NewKey,
    openapi_extra=stands_for("VECTOR.TENANT|ROTATE"),
    summary="Replace the key of a tenant, or of one of its users",
)
async def rotate(call: CurrentCall, name: TenantName, body: Rotation) -> Response:
    return answer(_new_key(await call.run(name, *words_of(body))))


@router.get(
    "/{name}/usage",
    response_model=Usage,
    openapi_extra=stands_for("VECTOR.TENANT|USAGE"),
    summary="Tell what a tenant has used in a month",
)
async def usage(
    call: CurrentCall,
    name: TenantName,
    period: Annotated[
        str | None, Query(max_length=16, description="yyyy-mm, UTC; the present one by default.")
    ] = None,
) -> Response:
    return answer(await call.run(name, *([] if period is None else ["PERIOD", period])))
