"""A request as the client of commands.

Each route says which command it stands for. A request then has what that command takes: the rank,
the quotas and the budget of the tenant; it is counted, timed and noted as slow as the command is,
and the command's own handler does what is asked, so that no rule, no error and no entry of the
audit trail is of HTTP alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

from fastapi import Depends, Query, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from pyrope.commands.admission import check_may_run
from pyrope.commands.context import Client, Context, Pending, Server
from pyrope.commands.spec import Command
from pyrope.errors import NoAuthError, PyropeError
from pyrope.http.plain import encode_json, plain
from pyrope.http.problems import BadRequestError, PreconditionFailedError
from pyrope.log import get_logger
from pyrope.service.service import Service
from pyrope.tenants.enforcer import Account
from pyrope.tenants.identity import Identity

_log = get_logger(__name__)

# Of a body, each far more than any command has. Arrays, objects and members take 100 ns to make;
# numbers and texts 20 ns; a member that is not known 10 us to refuse.
_PARTS_MAX = 4096
_COMMAS_MAX = 131_072
_MEMBERS_MAX = 64
_TAG_BYTES = 12


@dataclass(frozen=True, slots=True)
class Need:
    """What a route takes.

    Attributes:
        name: of the command, for errors.
        command: that it stands for; None: no command does this.
    """

    name: str
    rank: int
    command: Command | None = None


class Call:
    """One request, of somebody who may make it."""

    def __init__(self, server: Server, client: Client, need: Need) -> None:
        self.server = server
        self.client = client
        self._need = need

    @property
    def service(self) -> Service:
        return self.server.service

    @property
    def tenant(self) -> str:
        return self.client.tenant

    @property
    def identity(self) -> Identity:
        """Who asks. Raises NoAuthError."""
        if self.client.identity is None:
            raise NoAuthError("Authentication required.")
        return self.client.identity

    async def run(
        self, *words: bytes | str, precondition: Callable[[Any], None] | None = None
    ) -> Any:
        """Run the command with these words behind its name. Returns its reply, as it is.

        Args:
            precondition: see `Context`.

        Raises:
            PyropeError: the command is refused.
        """
        command = self._need.command
        assert command is not None  # noqa: S101 - the route has one
        assert command.handler is not None  # noqa: S101 - and it is no container
        args = [*_names(command), *[w if isinstance(w, bytes) else w.encode() for w in words]]
        async with self.admitted(args) as context:
            context.precondition = precondition
            result = command.handler(context, args)
            while True:
                if isinstance(result, Pending):
                    result = result.render(await result.future, self.client.protocol)
                elif isinstance(result, Awaitable):
                    result = await result
                else:
                    return result

    def check(self) -> None:
        """See whether who asks may have it now.

        Raises:
            NoAuthError, NoPermError, LoadingError: they may not.
        """
        service, need = self.service, self._need
        with self._counting_refusals():
            check_may_run(
                self.client,
                service.tenancy.registry,
                need.name,
                rank=need.rank,
                loading=service.loading,
            )

    @contextmanager
    def _counting_refusals(self) -> Iterator[None]:
        """A command that is refused within the ``with`` has never run."""
        try:
            yield
        except PyropeError:
            if self._need.command is not None:
                self._need.command.stats.rejected += 1
            raise

    @asynccontextmanager
    async def admitted(self, args: list[bytes] | None = None) -> AsyncIterator[Context]:
        """Do what the command does, as one of its runs: within the ``async with``.

        Args:
            args: what the slow log shows.

        Raises:
            NoAuthError, NoPermError, LoadingError, QuotaError, BudgetError: it may not be done.
        """
        server, need, client = self.server, self._need, self.client
        stats = None if need.command is None else need.command.stats
        began = server.clock.monotonic()
        account: Account | None = None
        try:
            # The body was long in coming, perhaps: a key may have been taken away.
            self.check()
            context = Context(client, server)
            if need.command is not None and need.command.has_index:
                entered = context.account = server.service.tenancy.enforcer.enter(client.tenant)
                with self._counting_refusals():
                    context.strain = entered.admit()
                account = entered
            failed = True
            try:
                yield context
                failed = False
            finally:
                seconds = server.clock.monotonic() - began
                if need.command is not None and stats is not None:
                    stats.record(seconds)
                    stats.failed += failed
                    server.note_slow(
                        client,
                        args or _names(need.command),
                        seconds,
                        keeps_secret="skip_slowlog" in need.command.flags,
                    )
        finally:
            if account is not None:
                account.leave()


def _names(command: Command) -> list[bytes]:
    return [word.encode() for word in command.name.split("|")]


# -- routes ---------------------------------------------------------------------------------------

COMMAND, RANK = "x-command", "x-rank"
"""Of an operation in OpenAPI: the command that it stands for; the least rank that may use it."""


def stands_for(command: str) -> dict[str, Any]:
    """`openapi_extra` of a route that is a command: ``VECTOR.TENANT|SET``."""
    return {COMMAND: command}


def takes(rank: int) -> dict[str, Any]:
    """`openapi_extra` of a route that no command does."""
    return {RANK: rank}


class CommandRoute(APIRoute):
    """A route that is a command, or takes a rank: see `stands_for` and `takes`.

    Who asks is known, and let in, before anything is read of the body.
    """

    def need(self, find: Callable[[str], Command]) -> Need:
        """What it takes."""
        extra = self.openapi_extra or {}
        if COMMAND in extra:
            command = find(extra[COMMAND])
            return Need(command.display_name, command.rank, command)
        return Need(self.path, extra[RANK])

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = set(_query_names(self.dependant))
        takes_body = self.body_field is not None

        async def handler(request: Request) -> Response:
            gate = request.app.state.gate
            request.state.call = gate.open(request, self.need(gate.command))
            _check_query(request, known)
            _check_kind_of_body(request, takes_body=takes_body)
            return await handle(_JsonRequest(request.scope, request.receive))

        return handler


def _query_names(dependant: Dependant) -> Iterator[str]:
    """Names of all query parameters, of what a route depends on too."""
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _query_names(inner)


def _check_query(request: Request, known: set[str]) -> None:
    for name in request.query_params:
        if name not in known:
            raise BadRequestError(422, f"unknown query parameter '{name[:128]}'")


def _check_kind_of_body(request: Request, *, takes_body: bool) -> None:
    headers = request.headers
    if not takes_body:
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            raise BadRequestError(400, "no body is expected")
        return
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadRequestError(415, "a body of type application/json is expected")


class _JsonRequest(Request):
    """A request whose body is not made into more parts than any command has."""

    async def json(self) -> Any:
        body = await self.body()
        parts = body.count(b"[") + body.count(b"{") + body.count(b":")
        if parts > _PARTS_MAX or body.count(b",") > _COMMAS_MAX:
            _unreadable("the body has too many parts")
        try:
            value = from_json(body, allow_inf_nan=False)
        except ValueError as error:
            _unreadable(f"the body is no JSON: {error}")
        if isinstance(value, dict):
            inner = [one for one in value.values() if isinstance(one, dict)]
            if any(len(one) > _MEMBERS_MAX for one in (value, *inner)):
                _unreadable(f"an object has more than {_MEMBERS_MAX} members")
        return value


def _unreadable(detail: str) -> NoReturn:
    # FastAPI lets no other error through that comes up while it reads a body.
    raise HTTPException(400, detail[:500])


# Coroutines: FastAPI would have a thread run anything else.
async def _current_call(
    request: Request,
    tenant: Annotated[
        str | None,
        Query(description="The tenant that is meant, where the administrator asks (VECTOR.USE)."),
    ] = None,
) -> Call:
    del tenant  # `Gate.open` has looked
    call: Call = request.state.call
    return call


CurrentCall = Annotated[Call, Depends(_current_call)]
"""A parameter of a route's function."""


# -- answers --------------------------------------------------------------------------------------


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A reply value as JSON."""
    body = encode_json(plain(value))
    return Response(body, status, headers, "application/json")


def tag_of(value: Any) -> str:
    """The entity tag (RFC 9110, section 8.8.3) of what `answer` tells of a value."""
    digest = hashlib.blake2b(encode_json(plain(value)), digest_size=_TAG_BYTES)
    return f'"{digest.hexdigest()}"'


def tagged(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A reply value as JSON, with its entity tag."""
    return answer(value, status, {"ETag": tag_of(value), **(headers or {})})


def precondition_of(
    request: Request, represent: Callable[[Any], Any]
) -> Callable[[Any], None] | None:
    """What If-Match (RFC 9110, section 13.1.1) demands of what is about to be changed.

    Args:
        represent: makes what is tagged, out of what is about to be changed.

    Returns:
        Raises PreconditionFailedError where it is not met; None: there is no demand.
    """
    header = request.headers.get("if-match")
    if header is None or header.strip() == "*":
        return None
    wanted = {one.strip() for one in header.split(",")}

    def check(there: Any) -> None:
        tag = tag_of(represent(there))
        if tag not in wanted:
            raise PreconditionFailedError(
                f"it has been changed since: it is {tag} now; read it again"
            )

    return check
