"""Sockets: TCP, TLS, Unix. Who may connect, and who has been silent for too long."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyrope.commands.admission import check_reachable, is_loopback
from pyrope.commands.context import Client, Server
from pyrope.config import Settings, TlsSettings
from pyrope.errors import CommandError, PyropeError
from pyrope.log import get_logger
from pyrope.server.connection import Connection
from pyrope.server.dispatch import Dispatcher
from pyrope.server.garbage import GarbageCollection
from pyrope.server.shortcuts import COMMAND as SHORTCUT_COMMAND
from pyrope.server.shortcuts import ShortcutTables
from pyrope.server.turns import Turns

_log = get_logger(__name__)

_BACKLOG = 511  # Redis' own
_SWEEP_INTERVAL_S = 1.0


class Listener:
    """Every listening socket of a server, and the connections that came by them.

    Attributes:
        closed_total: connections that have gone.
        garbage: is told now and then how things are; None: there is none.
    """

    def __init__(
        self,
        server: Server,
        dispatcher: Dispatcher,
        spawn: Callable[[Any], asyncio.Task[Any]],
    ) -> None:
        self._server = server
        self._dispatcher = dispatcher
        self._turns = Turns(server.clock.monotonic)
        stats = dispatcher.entries[SHORTCUT_COMMAND.encode()].stats
        self._tables = ShortcutTables(server, self._turns, stats)
        self._spawn = spawn
        self._sockets: list[asyncio.AbstractServer] = []
        self._unix_path: Path | None = None
        self._connections: set[Connection] = set()
        self._next_id = 1
        self._sweeper: asyncio.Task[None] | None = None
        self.closed_total = 0
        self.garbage: GarbageCollection | None = None
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    async def start(self) -> tuple[str, ...]:
        """Listen. Returns the addresses. Raises OSError or ssl.SSLError; nothing is left then."""
        settings = self._server.settings
        addresses: list[str] = []
        try:
            if settings.port:
                await self._listen_tcp(settings.host, settings.port, None)
                addresses.append(f"redis://{_bracketed(settings.host)}:{settings.port}")
            if settings.tls.port:
                context = tls_context(settings.tls)
                await self._listen_tcp(settings.host, settings.tls.port, context)
                addresses.append(f"rediss://{_bracketed(settings.host)}:{settings.tls.port}")
            if settings.unixsocket is not None:
                await self._listen_unix(settings, settings.unixsocket)
                addresses.append(f"unix://{settings.unixsocket}")
        except BaseException:
            await self._close_sockets()
            raise
        self._sweeper = asyncio.create_task(self._sweep(), name="idle-clients")
        return tuple(addresses)

    async def stop(self, grace: float) -> None:
        """Accept nobody more, let commands under way be answered, close every connection.

        Args:
            grace: seconds after which connections are closed whatever they wait for.
        """
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
            self._sweeper = None
        await self._close_sockets()
        for connection in list(self._connections):
            connection.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_gone.wait(), grace)
        for connection in list(self._connections):
            connection.kill()
        await self._all_gone.wait()

    # -- listening --------------------------------------------------------------------------------

    def _new_connection(self) -> Connection:
        return Connection(
            self._server,
            self._dispatcher,
            self._turns,
            self._tables,
            admit=self._admit,
            closed=self._closed,
            spawn=self._spawn,
        )

    async def _listen_tcp(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        self._sockets.append(
            await loop.create_server(
                self._new_connection, host, port, backlog=_BACKLOG, ssl=context, reuse_address=True
            )
        )

    async def _listen_unix(self, settings: Settings, path: Path) -> None:
        _remove_stale_socket(path)
        # Nobody may connect between the making of the socket and the setting of its permissions.
        former = os.umask(0o777 & ~settings.unixsocket_mode)
        try:
            server = await asyncio.get_running_loop().create_unix_server(
                self._new_connection, str(path), backlog=_BACKLOG
            )
        finally:
            os.umask(former)
        self._sockets.append(server)
        self._unix_path = path

    async def _close_sockets(self) -> None:
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            each.close()
        path, self._unix_path = self._unix_path, None
        if path is not None:
            path.unlink(missing_ok=True)

    # -- connections ------------------------------------------------------------------------------

    def _admit(self, connection: Connection, transport: asyncio.Transport) -> Client | PyropeError:
        server = self._server
        counters = server.counters
        counters.connections_received_total += 1
        self._connections.add(connection)
        self._all_gone.clear()
        settings = server.settings
        raw: socket.socket | None = transport.get_extra_info("socket")
        try:
            is_local, address, local_address = _addresses(raw, settings.unixsocket)
            if raw is not None and raw.family != socket.AF_UNIX:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError:
            # The peer has reset the connection before it was accepted.
            counters.connections_rejected_total += 1
            return CommandError("the connection is gone")
        if len(server.clients) >= settings.limits.max_clients:
            counters.connections_rejected_total += 1
            return CommandError("max number of clients reached")
        try:
            check_reachable(settings, is_local=is_local)
        except PyropeError as error:
            counters.connections_rejected_total += 1
            return error
        now = server.clock.monotonic()
        client = Client(
            id=self._next_id,
            address=address,
            local_address=local_address,
            is_local=is_local,
            link=connection,
            connected_at=now,
            last_command_at=now,
            descriptor=-1 if raw is None else raw.fileno(),
        )
        registry = server.service.tenancy.registry
        client.bind(registry.anonymous(), registry)
        self._next_id += 1
        server.clients[client.id] = client
        return client

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.closed_total += 1
        if connection.admitted:
            self._server.clients.pop(connection.client.id, None)
            self._server.service.client_gone(connection.client.id)
        if not self._connections:
            self._all_gone.set()

    async def _sweep(self) -> None:
        """Close clients that are idle, or that have left a command half sent, for too long."""
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_S)
            self.close_silent()
            if self.garbage is not None:
                asked = [one.client.last_command_at for one in self._connections if one.admitted]
                self.garbage.look(self._server.clock.monotonic(), max(asked, default=0.0))

    def close_silent(self) -> None:
        limits = self._server.settings.limits
        now = self._server.clock.monotonic()
        for connection in list(self._connections):
            if not connection.admitted:
                continue
            client = connection.client
            partial_since = connection.partial_since
            idle = (
                0 < limits.idle_timeout_s < now - client.last_command_at
                and not connection.in_flight
            )
            slow = partial_since is not None and 0 < limits.command_timeout_s < now - partial_since
            if idle or slow:
                self._server.counters.idle_disconnections_total += 1
                _log.info("client closed", client=client.id, reason="idle" if idle else "slow")
                connection.kill()


def tls_context(settings: TlsSettings) -> ssl.SSLContext:
    """The server's side of TLS 1.2 or newer. Raises OSError or ssl.SSLError for bad files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    password = settings.key_password
    context.load_cert_chain(
        str(settings.cert_file),
        str(settings.key_file),
        None if password is None else password.get_secret_value(),
    )
    if settings.auth_clients != "no":
        context.load_verify_locations(str(settings.ca_file))
        optional = settings.auth_clients == "optional"
        context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
    return context


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _addresses(raw: socket.socket | None, unixsocket: Path | None) -> tuple[bool, str, str]:
    """Whether the peer is on this host, its address, and ours."""
    if raw is None or raw.family == socket.AF_UNIX:
        path = f"{unixsocket}:0"
        return True, path, path
    peer, local = raw.getpeername(), raw.getsockname()
    return (
        is_loopback(peer[0]),
        f"{_bracketed(peer[0])}:{peer[1]}",
        f"{_bracketed(local[0])}:{local[1]}",
    )


def _remove_stale_socket(path: Path) -> None:
    """Remove what a killed server left behind. Raises FileExistsError for anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(f"{path} exists and is no socket")
    probe = socket.socket(socket.AF_UNIX)
    try:
        probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink()
    else:
        raise FileExistsError(f"another server listens on {path}")
    finally:
        probe.close()
