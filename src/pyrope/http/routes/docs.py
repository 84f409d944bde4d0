"""/openapi.json, and /docs: a page of our own that shows it, which loads nothing from elsewhere."""

from __future__ import annotations

import asyncio
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from pyrope.http.openapi import openapi_json

router = APIRouter(include_in_schema=False)

_STATIC = files("pyrope.http") / "static"
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}


def _static(name: str) -> Response:
    kind = _TYPES[name.rpartition(".")[2]]
    return Response(
        (_STATIC / name).read_bytes(),
        headers={"Cache-Control": "no-cache"},
        media_type=f"{kind}; charset=utf-8",
    )


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    state = request.app.state
    if state.openapi is None:
        # It takes a tenth of a second to make, once.
        making = state.gate.server.service.run(openapi_json, request.app)
        state.openapi = await asyncio.shield(making)
    return Response(state.openapi, media_type="application/json")


@router.get("/docs")
async def docs() -> Response:
    return _static("docs.html")


@router.get("/docs.js")
async def script() -> Response:
    return _static("docs.js")


@router.get("/docs.css")
async def style() -> Response:
    return _static("docs.css")
