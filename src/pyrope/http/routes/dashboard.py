"""The dashboard at ``/``: a page, and what it shows, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import JsonValue
from starlette.types import Receive, Scope, Send

from pyrope.commands.admission import check_may_run
from pyrope.commands.context import Client
from pyrope.commands.ranks import ADMINISTRATOR, READER
from pyrope.errors import BusyError, PyropeError
from pyrope.http.calls import Call, CommandRoute, CurrentCall, takes
from pyrope.http.dashboard.feed import Feeds, IndexKey, Viewer
from pyrope.http.fields import Information, Told
from pyrope.http.plain import encode_json
from pyrope.http.static_files import static_file

EVENTS = "text/event-stream"
_PATH = "/v1/events"
# Nothing that a page shows can become markup, or load anything.
_POLICY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
}

pages = APIRouter(include_in_schema=False)
router = APIRouter(tags=["dashboard"], route_class=CommandRoute)


@pages.get("/")
async def page() -> Response:
    return static_file("dashboard", "index.html", _POLICY)


@pages.get("/dashboard/{name}")
async def asset(name: str) -> Response:
    return static_file("dashboard", name)


@pages.get("/vendor/{name}")
async def library(name: str) -> Response:
    return static_file("vendor", name)


class Overview(Told):
    """What the dashboard shows.

    `you` is who asks. `figures` are of the whole server for the administrator, and else of the
    tenant: totals since the start, and what has grown since the look before, by second. `clusters`
    are of one index.
    """

    you: Information
    figures: Information
    clusters: dict[str, JsonValue] | None


@router.get(
    _PATH,
    response_model=Overview,
    responses={200: {"content": {EVENTS: {"schema": {"type": "string"}}}}},
    openapi_extra=takes(READER),
    summary="Tell what the dashboard shows",
    description="Once, or each second to who accepts `text/event-stream`, until the key is taken "
    "away or the server stops.",
)
async def events(
    call: CurrentCall,
    request: Request,
    index: Annotated[
        str | None,
        Query(
            max_length=257,
            description="Whose clusters are told of: an index, or `tenant/index`; by default that "
            "of many queries.",
        ),
    ] = None,
) -> Response:
    state = request.app.state
    if not hasattr(state, "feeds"):
        state.feeds = Feeds(call.server, state.gate.stopping)
    feeds: Feeds = state.feeds
    sight = _Sight(call, request, index)
    if EVENTS in request.headers.get("accept", ""):
        return _Events(feeds, sight)
    with feeds.viewing(sight.tenant, sight.index) as viewer:
        told = await sight.next(viewer)
    if told is None:
        raise BusyError("the server is stopping")
    return Response(told, media_type="application/json", headers={"Cache-Control": "no-store"})


class _Sight:
    """What somebody may see, and wants to.

    Attributes:
        tenant: whose figures they see; None: everybody's.
        index: whose clusters; None: whichever there is most to see of.
    """

    def __init__(self, call: Call, request: Request, index: str | None) -> None:
        client = self._client = call.client
        self._registry = call.service.tenancy.registry
        is_bound = "tenant" in request.query_params
        sees_all = client.rank >= ADMINISTRATOR and not is_bound
        self.tenant = None if sees_all else client.tenant
        self.index = None if index is None else _index_key(index, client.tenant)
        self._you = encode_json(_described(call, client))

    async def next(self, viewer: Viewer) -> bytes | None:
        """The next look, as JSON; None: there is none any more.

        Raises:
            NoAuthError, NoPermError: they may not see it any more.
        """
        told = await viewer.next()
        check_may_run(self._client, self._registry, _PATH, rank=READER, loading=False)
        return None if told is None else b'{"you":%b,%b}' % (self._you, told)


def _described(call: Call, client: Client) -> dict[str, Any]:
    identity = call.identity
    return {
        "user": identity.name,
        "tenant": client.tenant,
        "administrator": identity.administrator,
        "role": identity.role.value,
    }


def _index_key(named: str, tenant: str) -> IndexKey:
    before, slash, after = named.partition("/")
    return (before, after) if slash else (tenant, named)


class _Events(StreamingResponse):
    """Looks one after another, as server-sent events."""

    def __init__(self, feeds: Feeds, sight: _Sight) -> None:
        self._feeds = feeds
        self._sight = sight
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._parts(), headers=headers, media_type=EVENTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # An iterator that is not read to its end is closed some time; a viewer leaves now.
        with self._feeds.viewing(self._sight.tenant, self._sight.index) as self._viewer:
            await super().__call__(scope, receive, send)

    async def _parts(self) -> AsyncIterator[bytes]:
        try:
            while (told := await self._sight.next(self._viewer)) is not None:
                yield b"data: %b\n\n" % told
        except PyropeError as error:
            ended = {"code": error.prefix, "detail": error.message}
            yield b"event: end\ndata: %b\n\n" % encode_json(ended)
