"""Who asks, and whether they may: the same as on the wire, for each request anew.

Credentials, any one of:
- ``Authorization: Basic`` with a login (``admin``, a tenant, or ``tenant.user``) and its key, as
  browsers and ``curl --user`` send it;
- ``X-API-Key`` with the key, and ``X-Tenant`` with the login. Without ``X-Tenant`` it is the
  administrator's key, as in ``AUTH key``.

An administrator names the tenant that it means by ``?tenant=``, as by VECTOR.USE.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools

from fastapi import Request

from pyrope.commands.admission import sign_in
from pyrope.commands.context import Client, Server
from pyrope.commands.ranks import READER
from pyrope.commands.search_reply import PLAIN
from pyrope.commands.spec import Command
from pyrope.errors import NoAuthError
from pyrope.http.calls import Call, Need
from pyrope.http.front import address_of, is_local
from pyrope.http.problems import BadRequestError
from pyrope.tenants.identity import Identity

# What a login, a colon and a key may have at the most, with room.
_CREDENTIALS_BYTES_MAX = 2048


class NoLink:
    """The connection that a request came by, which is none of its command's business."""

    input_buffered = output_buffered = in_flight = 0

    def close_after_reply(self) -> None:
        """It is closed by who has opened it."""

    def kill(self) -> None:
        """Likewise."""


class Gate:
    """Lets requests in.

    Attributes:
        stopping: set when the server stops: answers that have no end are to end.
    """

    def __init__(self, server: Server, stopping: asyncio.Event) -> None:
        self.server = server
        self.stopping = stopping
        # Connections of the wire count upwards.
        self._numbers = itertools.count(-1, -1)

    def command(self, name: str) -> Command:
        """A command by its name, such as ``VECTOR.TENANT|SET``. Raises KeyError."""
        parent, _, word = name.partition("|")
        command = self.server.commands[parent.encode()]
        return command.subcommands[word] if word else command

    def open(self, request: Request, need: Need) -> Call:
        """Who asks, if they may have what they ask for.

        Raises:
            WrongPassError, NoAuthError, NoPermError, LoadingError, CommandError: they may not.
        """
        server, scope = self.server, request.scope
        registry = server.service.tenancy.registry
        address = address_of(scope)
        now = server.clock.monotonic()
        host, port = scope["server"] or ("", 0)
        client = Client(
            id=next(self._numbers),
            address=address,
            local_address=f"{host}:{port}",
            is_local=is_local(scope),
            link=NoLink(),
            connected_at=now,
            last_command_at=now,
            protocol=PLAIN,
            request_id=scope.get("pyrope.request_id"),
        )
        identity = self._identity(request, address)
        named = request.query_params.get("tenant")
        if identity is not None and named is not None and named != identity.tenant:
            identity = registry.use(identity, named)
        client.bind(identity, registry)
        if identity is not None:
            scope["pyrope.user"] = identity.name
        scope["pyrope.changes"] = need.rank > READER
        call = Call(server, client, need)
        call.check()
        return call

    def _identity(self, request: Request, address: str) -> Identity | None:
        registry = self.server.service.tenancy.registry
        login, key = _credentials(request)
        if key is None:
            return registry.anonymous()
        return sign_in(registry, login, key, address)


def _credentials(request: Request) -> tuple[bytes | None, bytes | None]:
    """Login and key; None where they are not given. Raises BadRequestError, NoAuthError."""
    headers = request.headers
    api_key, login = headers.get("x-api-key"), headers.get("x-tenant")
    authorization = headers.get("authorization")
    if authorization is None:
        if api_key is None and login is not None:
            raise NoAuthError("X-Tenant says who signs in, and X-API-Key is missing.")
        # Latin-1 is how they came out of the bytes.
        return (
            None if login is None else login.encode("latin-1"),
            None if api_key is None else api_key.encode("latin-1"),
        )
    if api_key is not None or login is not None:
        raise BadRequestError(400, "Authorization and X-API-Key are both given: one is expected")
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic" or len(encoded) > _CREDENTIALS_BYTES_MAX:
        raise NoAuthError("Authentication required: Basic, or X-API-Key and X-Tenant.")
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise NoAuthError("Authentication required: the Basic credentials are no base64.") from None
    name, colon, key = decoded.partition(b":")
    if not colon:
        raise NoAuthError("Authentication required: Basic credentials are login:key.")
    return name or None, key
