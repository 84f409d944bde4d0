"""/v1/aliases: other names of queries, in each index."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import Field

from pyrope.http.calls import CommandRoute, CurrentCall, answer, stands_for
from pyrope.http.fields import (
    Body,
    Count,
    Cursor,
    Number,
    Text,
    Told,
    Vector,
    check_one,
    decoded,
    words_of,
)
from pyrope.http.problems import BadRequestError

router = APIRouter(prefix="/v1/aliases", tags=["aliases"], route_class=CommandRoute)

IndexName = Annotated[str, Path(description="The name of an index.")]


class AliasSet(Body):
    """The words of VECTOR.ALIAS SET."""

    alias: Text | Vector
    canonical: Text | Vector
    confidence: Number | None = None
    ex: Annotated[Count, Field(description="Seconds until it expires.")] | None = None


class VectorKey(Told):
    fp32: str


class Alias(Told):
    """The reply of VECTOR.ALIAS GET. A key that is a vector has it in base64."""

    alias: str | VectorKey
    canonical: str | VectorKey
    confidence: float
    source: str
    hits: int
    suspended: bool
    ttl: int | None


class AliasPage(Told):
    items: list[Alias]
    cursor: Cursor


async def _key(
    alias: Annotated[
        str | None, Query(max_length=65_536, description="An alias that is a text.")
    ] = None,
    fp32: Annotated[
        str | None,
        Query(max_length=65_536, description="One that is a vector: its base64, as of VECTOR."),
    ] = None,
) -> list[bytes]:
    """The key that a request names, as a command has it."""
    given = [name for name, value in (("alias", alias), ("fp32", fp32)) if value is not None]
    check_one(given, "alias or fp32")
    if fp32 is not None:
        return [b"FP32", decoded(fp32, "fp32")]
    assert alias is not None  # noqa: S101 - as just seen
    return _text_key(alias)


def _text_key(text: str) -> list[bytes]:
    if text.upper() == "FP32":
        raise BadRequestError(400, "FP32 is no text that an alias may be")
    return [text.encode()]


AskedKey = Annotated[list[bytes], Depends(_key)]


def _words(given: str | Vector) -> list[bytes]:
    return _text_key(given) if isinstance(given, str) else given.words()


def _shown(alias: dict[str, Any]) -> dict[str, Any]:
    return alias | {name: _shown_key(alias[name]) for name in ("alias", "canonical")}


def _shown_key(key: Any) -> Any:
    return {"fp32": base64.b64encode(key[1]).decode()} if isinstance(key, list) else key


@router.get(
    "/{index}",
    response_model=AliasPage,
    openapi_extra=stands_for("VECTOR.ALIAS|LIST"),
    summary="Walk over the aliases of an index",
    description="At most 100 at a time. Every alias that is there from the first page to the last "
    "is told exactly once.",
)
async def list_(
    call: CurrentCall,
    index: IndexName,
    cursor: Annotated[
        str, Query(max_length=20, description="Of the page before: its cursor.")
    ] = "0",
) -> Response:
    following, found = await call.run(index, cursor)
    items = [_shown(alias) for alias in found]
    return answer({"items": items, "cursor": None if following == "0" else following})


@router.post(
    "/{index}",
    status_code=204,
    response_class=Response,
    openapi_extra=stands_for("VECTOR.ALIAS|SET"),
    summary="Let a query stand for another one",
)
async def set_(call: CurrentCall, index: IndexName, body: AliasSet) -> Response:
    words = words_of(body, "alias", "canonical")
    await call.run(index, *_words(body.alias), *_words(body.canonical), *words)
    return Response(status_code=204)


@router.get(
    "/{index}/entry",
    response_model=Alias,
    openapi_extra=stands_for("VECTOR.ALIAS|GET"),
    summary="Show an alias",
)
async def get(call: CurrentCall, index: IndexName, key: AskedKey) -> Response:
    found = await call.run(index, *key)
    if found is None:
        raise BadRequestError(404, "no such alias")
    return answer(_shown(found))


@router.delete(
    "/{index}/entry",
    status_code=204,
    response_class=Response,
    openapi_extra=stands_for("VECTOR.ALIAS|DEL"),
    summary="Remove an alias",
)
async def remove(call: CurrentCall, index: IndexName, key: AskedKey) -> Response:
    if not await call.run(index, *key):
        raise BadRequestError(404, "no such alias")
    return Response(status_code=204)
