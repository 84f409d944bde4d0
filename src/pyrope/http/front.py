"""What every request passes on its way in, before it is known what it asks for, and on its way out.

In this order: a request id; protected mode; pages of other origins and other names of this host
(below); the rate of an address; the length of the body. An answer gets its id, a date, and headers
that have browsers be careful.

Web pages. A page that somebody has open can make their browser send requests to this host, with the
password that the browser has learnt (cross-site request forgery); and it can have its own name
resolve to this host, so that the browser takes answers for its own (DNS rebinding), which matters
where no password is needed. So a request that names its origin must come from this server's own
pages, or from one of `http.cors_origins`; and while everybody is the administrator, the host that a
request names must be an address, ``localhost``, or what `host` says.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from typing import Any

from starlette.exceptions import HTTPException

from pyrope.commands.admission import check_reachable, is_loopback
from pyrope.commands.context import Server
from pyrope.errors import DeniedError, PyropeError
from pyrope.http.problems import TooManyRequestsError, problem_of
from pyrope.log import get_logger, log_context
from pyrope.tenants.lockout import origin_of
from pyrope.tenants.quota import RateLimit

_log = get_logger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
# Addresses whose rate is remembered: 200 bytes each. Who is forgotten begins anew.
_ADDRESSES_MAX = 10_000
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        (
            b"default-src 'self'; img-src 'self' data:; base-uri 'none'; "
            b"frame-ancestors 'none'; form-action 'self'"
        ),
    ),
)


class Front:
    """ASGI, around the application."""

    def __init__(self, app: Application, server: Server) -> None:
        self._app = app
        self._server = server
        self._settings = server.settings.http
        self._origins = self._settings.origins
        self._rates: OrderedDict[str, RateLimit] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope["pyrope.request_id"] = request_id
        monotonic = self._server.clock.monotonic
        began = monotonic()
        answer = _Answer(send, request_id, self._server.clock.wall)
        with log_context(request_id=request_id):
            try:
                try:
                    self._let_in(scope, headers)
                except PyropeError as error:
                    self._server.counters.count_error(error.prefix)
                    await problem_of(error, request_id)(scope, receive, answer.send)
                else:
                    limited = _Limited(receive, self._settings.max_body_bytes, headers)
                    await self._app(scope, limited.receive, answer.send)
            except Exception as error:
                _log.error("a request failed unexpectedly", path=scope["path"], exc_info=error)
                if not answer.status:
                    raise
            changes = scope.get("pyrope.changes", False) and scope["method"] != "GET"
            log = _log.info if changes else _log.debug
            log(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=answer.status,
                address=address_of(scope),
                user=scope.get("pyrope.user"),
                milliseconds=round((monotonic() - began) * 1000, 3),
            )

    def _let_in(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Raises a PyropeError for who is not to be answered."""
        server = self._server
        check_reachable(server.settings, is_local=is_local(scope))
        self._check_host(headers.get(b"host", b"").decode("latin-1"))
        origin = headers.get(b"origin")
        if origin is not None:
            self._check_origin(scope, headers, origin.decode("latin-1"))
        if self._settings.requests_per_s:
            self._check_rate(address_of(scope))

    def _check_host(self, named: str) -> None:
        if not self._server.service.tenancy.registry.is_open:
            return
        host = _without_port(named)
        if host in ("localhost", self._server.settings.host) or _is_address(host):
            return
        raise DeniedError(
            f"this server has no admin_password, and is asked for by the name '{host[:128]}': use "
            "its address, or localhost"
        )

    def _check_origin(self, scope: Scope, headers: dict[bytes, bytes], origin: str) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        if origin in (f"{scope['scheme']}://{host}", *self._origins):
            return
        raise DeniedError(
            f"pages of {origin[:128]} may not use this server; see the setting http.cors_origins"
        )

    def _check_rate(self, address: str) -> None:
        rates, key = self._rates, origin_of(address)
        rate = rates.get(key)
        if rate is None:
            rate = rates[key] = RateLimit(self._settings.requests_per_s)
            if len(rates) > _ADDRESSES_MAX:
                rates.popitem(last=False)
        rates.move_to_end(key)
        wait = rate.take(self._server.clock.monotonic())
        if wait:
            raise TooManyRequestsError(wait)


class _Answer:
    """Sends an answer, with the headers that all have.

    Attributes:
        status: 0 until it has begun.
    """

    def __init__(self, send: Send, request_id: str, wall: Callable[[], float]) -> None:
        self._send = send
        self._request_id = request_id
        self._wall = wall
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = message.get("headers", ())
            names = {name for name, _ in given}
            message["headers"] = [
                *given,
                (b"x-request-id", self._request_id.encode()),
                (b"date", formatdate(self._wall(), usegmt=True).encode()),
                *(header for header in _HEADERS if header[0] not in names),
            ]
        await self._send(message)


class _Limited:
    """Receives a body, up to its limit."""

    def __init__(self, receive: Receive, limit: int, headers: dict[bytes, bytes]) -> None:
        self._receive = receive
        self._limit = limit
        self._left = limit
        announced = headers.get(b"content-length", b"0")
        # What is no number is refused by the protocol below.
        self._is_too_long = announced.isdigit() and int(announced[:20]) > limit

    async def receive(self) -> Message:
        if self._is_too_long:
            raise self._refusal()
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise self._refusal()
        return message

    def _refusal(self) -> HTTPException:
        # FastAPI lets no other error through that comes up while it reads a body.
        return HTTPException(413, f"the body has more than {self._limit} bytes")


def address_of(scope: Scope) -> str:
    """Where a request comes from, as a `Client` has it."""
    host, port = scope["client"] or ("", 0)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_local(scope: Scope) -> bool:
    """Whether a request comes from this host."""
    return scope["client"] is not None and is_loopback(scope["client"][0])


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
