"""A blocking client of a server."""

from __future__ import annotations

import socket
import ssl
from types import TracebackType
from typing import Self

from pyrope.config import Settings
from pyrope.console.replies import (
    BrokenReplyError,
    Reply,
    ReplyError,
    ReplyReader,
    encode_command,
)

_RECEIVE_BYTES = 65536
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - not bound to


class Connection:
    """A client on a socket that is connected; owned from here on."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._reader = ReplyReader()

    def command(self, *args: bytes | str | int) -> Reply:
        """Send a command, and return its reply.

        Raises:
            ReplyError: it is an error.
            OSError: the connection failed, or the server has closed it.
            BrokenReplyError: it is no reply.
        """
        self.socket.sendall(encode_command(*args))
        while (taken := self._reader.take()) is None:
            data = self.socket.recv(_RECEIVE_BYTES)
            if not data:
                raise ConnectionResetError("the server has closed the connection")
            self._reader.feed(data)
        (reply,) = taken
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def fields(self, *args: bytes | str | int) -> dict[str, Reply]:
        """Send a command that answers a map. Raises what `command` raises."""
        reply = self.command(*args)
        if not isinstance(reply, list) or len(reply) % 2:
            raise BrokenReplyError("a map was expected")
        names = [name.decode() if isinstance(name, bytes) else "" for name in reply[::2]]
        return dict(zip(names, reply[1::2], strict=True))

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def connect(settings: Settings, timeout: float | None, *, sign_in: bool = True) -> Connection:
    """Connect to the Unix socket where there is one, or else to the plain port, or the TLS port.

    Args:
        settings: those that the server was started with.
        timeout: seconds that connecting may take, and each reply to begin and go on; None: for
            ever.
        sign_in: as the administrator, where there is a password.

    Raises:
        OSError: nobody listens there.
        ReplyError: the password is wrong.
        BrokenReplyError: whoever listens there is no such server.
    """
    connection = Connection(_connected(settings, timeout))
    password = settings.admin_password
    try:
        if sign_in and password is not None:
            connection.command("AUTH", "admin", password.get_secret_value())
    except BaseException:
        connection.close()
        raise
    return connection


def address_of(settings: Settings) -> str:
    """Where `connect` connects to, for people to read."""
    if settings.unixsocket is not None:
        return str(settings.unixsocket)
    host = _ANY_ADDRESS.get(settings.host, settings.host)
    return f"{host} port {settings.port or settings.tls.port}"


def _connected(settings: Settings, timeout: float | None) -> socket.socket:
    if settings.unixsocket is not None:
        local = socket.socket(socket.AF_UNIX)
        try:
            local.settimeout(timeout)
            local.connect(str(settings.unixsocket))
        except BaseException:
            local.close()
            raise
        return local
    if not settings.port and settings.tls.auth_clients == "yes":
        raise OSError("the server asks for clients' certificates: set unixsocket, or port")
    host = _ANY_ADDRESS.get(settings.host, settings.host)
    plain = socket.create_connection((host, settings.port or settings.tls.port), timeout)
    if settings.port:
        return plain
    try:
        return _tls_context(settings).wrap_socket(plain)
    except BaseException:
        plain.close()
        raise


def _tls_context(settings: Settings) -> ssl.SSLContext:
    """Trusts the very certificate that the settings name, whatever names are in it."""
    context = ssl.create_default_context(cafile=settings.tls.cert_file)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
