"""/v1/search: for people who try it from a browser or with curl. Programs speak RESP."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import Field, JsonValue

from pyrope.errors import CommandError
from pyrope.http.calls import CommandRoute, CurrentCall, stands_for
from pyrope.http.fields import (
    AnyVector,
    Base64,
    Count,
    Information,
    Number,
    Text,
    Told,
    words_of,
)
from pyrope.http.plain import encode_found

router = APIRouter(prefix="/v1/search", tags=["search"], route_class=CommandRoute)

COUNT_MAX = 1000
"""Hits of one answer: it is made at once, and not for programs."""


class SearchBody(AnyVector):
    """The words of VECTOR.SEARCH; WITHSCORES and WITHINFO are a matter of course."""

    index: Annotated[str, Field(max_length=256)]
    count: Annotated[int, Field(ge=1, le=COUNT_MAX)] = 10
    withattribs: bool = True
    filter: Text | None = None
    epsilon: Number | None = None
    ef: Count | None = None
    nprobe: Count | None = None
    maxscans: Count | None = None
    truth: bool = False
    cache: Literal["AUTO", "OFF", "ONLY", "REFRESH"] | None = None
    minrecall: Annotated[float, Field(ge=0, le=1)] | None = None
    basis: Literal["CERTIFIED", "ESTIMATED"] | None = None
    query: Text | None = None
    session: Text | None = None
    timeout: Annotated[int, Field(ge=1, le=3_600_000, description="Milliseconds.")] | None = None


class Hit(Told):
    id: str | Base64
    score: float | None
    attributes: dict[str, JsonValue] | None


class SearchAnswer(Told):
    """Hits, nearest first, and what WITHINFO tells."""

    hits: list[Hit]
    info: Information


@router.post(
    "",
    response_model=SearchAnswer,
    openapi_extra=stands_for("VECTOR.SEARCH"),
    summary="Find the vectors nearest to one",
)
async def search(call: CurrentCall, body: SearchBody) -> Response:
    if body.basis is not None and body.minrecall is None:
        raise CommandError("basis says how minrecall is meant, which is missing")
    words = words_of(
        body, "index", "vector", "fp32", "id", "text", "withattribs", "minrecall", "basis"
    )
    if body.minrecall is not None:
        words += [b"MINRECALL", str(body.minrecall).encode()]
        words += [] if body.basis is None else [body.basis.encode()]
    if body.withattribs:
        words.append(b"WITHATTRIBS")
    found = await call.run(body.index, *body.words(), *words, b"WITHSCORES", b"WITHINFO")
    return Response(encode_found(found), media_type="application/json")
