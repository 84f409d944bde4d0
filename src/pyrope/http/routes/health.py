"""/healthz and /readyz: for whoever keeps servers running. Nobody has to sign in."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pyrope.http.calls import answer
from pyrope.http.fields import Told
from pyrope.http.gate import Gate

router = APIRouter(tags=["health"])


class Health(Told):
    status: str


@router.get("/healthz", response_model=Health, summary="Whether the server answers")
async def healthz() -> Response:
    return answer({"status": "ok"})


@router.get(
    "/readyz",
    response_model=Health,
    summary="Whether the server is to be given work",
    description="503 with LOADING until everything is loaded, and with MISCONF while the disk "
    "refuses writes.",
)
async def readyz(request: Request) -> Response:
    gate: Gate = request.app.state.gate
    service = gate.server.service
    service.check_loaded()
    await service.check_disk()
    return answer({"status": "ready"})
