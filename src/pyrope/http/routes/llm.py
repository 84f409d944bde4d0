"""/v1/llm: the language model that advises the caches; for whoever runs the server."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from pyrope.http.calls import CommandRoute, CurrentCall, answer, stands_for
from pyrope.http.fields import Told

router = APIRouter(prefix="/v1/llm", tags=["llm"], route_class=CommandRoute)


class WorkerStatus(Told):
    """What the worker does, and has done since the start, for all tenants together."""

    enabled: int
    provider: str
    model: str
    state: Annotated[
        str,
        Field(description="off, idle, running, paused, throttled, open (failing) or stopped."),
    ]
    queued: int
    running: int
    succeeded: int
    failed: int
    retried: int
    dropped: int
    rate_limited: int
    budget_dropped: int
    tokens_in: int
    tokens_out: int
    cost: Annotated[float, Field(description="In cost units.")]
    last_error: str


class Job(Told):
    """A question that waits, or is being asked; never its texts."""

    kind: str
    tenant: str
    value: Annotated[float, Field(description="What an answer is expected to save, in cost units.")]
    age: Annotated[float, Field(description="In seconds.")]
    attempts: int
    state: str


class Jobs(Told):
    items: list[Job]


@router.get(
    "",
    response_model=WorkerStatus,
    openapi_extra=stands_for("VECTOR.LLM|STATUS"),
    summary="Tell what the worker does that asks the language model",
)
async def status(call: CurrentCall) -> Response:
    return answer(await call.run())


@router.get(
    "/jobs",
    response_model=Jobs,
    openapi_extra=stands_for("VECTOR.LLM|JOBS"),
    summary="List the questions that wait or are being asked",
)
async def jobs(call: CurrentCall, limit: Annotated[int, Query(ge=1, le=1000)] = 20) -> Response:
    return answer({"items": await call.run(str(limit))})


@router.post(
    "/pause",
    status_code=204,
    response_class=Response,
    openapi_extra=stands_for("VECTOR.LLM|PAUSE"),
    summary="Stop asking the language model; questions wait",
)
async def pause(call: CurrentCall) -> Response:
    await call.run()
    return Response(status_code=204)


@router.post(
    "/resume",
    status_code=204,
    response_class=Response,
    openapi_extra=stands_for("VECTOR.LLM|RESUME"),
    summary="Ask the language model again",
)
async def resume(call: CurrentCall) -> Response:
    await call.run()
    return Response(status_code=204)
