"""/metrics: what Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from pyrope.commands.ranks import ADMINISTRATOR
from pyrope.http.calls import CommandRoute, takes
from pyrope.http.front import is_local
from pyrope.http.gate import Gate
from pyrope.http.metrics.collector import Metrics


class ScrapeRoute(CommandRoute):
    """A route for the administrator, and for whom `metrics.access` names."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        guarded = super().get_route_handler()
        # As if it were no route of ours.
        free = APIRoute.get_route_handler(self)

        async def handler(request: Request) -> Response:
            gate: Gate = request.app.state.gate
            access = gate.server.settings.metrics.access
            lets_in = access == "any" or (access == "local" and is_local(request.scope))
            return await (free if lets_in else guarded)(request)

        return handler


router = APIRouter(tags=["metrics"], route_class=ScrapeRoute)


@router.get(
    "/metrics",
    summary="Metrics, for Prometheus",
    description="In the text format of Prometheus, or in OpenMetrics for who accepts that. The "
    "setting `metrics.access` lets in others than the administrator.",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    openapi_extra=takes(ADMINISTRATOR),
)
async def metrics(request: Request) -> Response:
    state = request.app.state
    if not hasattr(state, "metrics"):
        state.metrics = Metrics(state.gate.server)
    body, content_type = await state.metrics.exposition(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})
