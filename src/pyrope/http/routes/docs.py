"""/openapi.json, and /docs: a page of our own that shows it, which loads nothing from elsewhere."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from pyrope.http.openapi import openapi_json
from pyrope.http.static_files import static_file

router = APIRouter(include_in_schema=False)


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    state = request.app.state
    if state.openapi is None:
        # It takes a tenth of a second to make: once, whoever else asks for it meanwhile, and goes.
        state.openapi = state.gate.server.service.run(openapi_json, request.app)
    document = await asyncio.shield(state.openapi)
    return Response(document, media_type="application/json")


@router.get("/docs")
async def docs() -> Response:
    return static_file("docs", "docs.html")


@router.get("/docs.js")
async def script() -> Response:
    return static_file("docs", "docs.js")


@router.get("/docs.css")
async def style() -> Response:
    return static_file("docs", "docs.css")
