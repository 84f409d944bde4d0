"""The socket of the control plane, and the connections that come by it.

uvicorn's protocol, and none of its server, which wants signals, polls, and leaves what it cancels
to others. Connections are bounded in number, and in the time that a message may take to come in or
to be taken away.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from pyrope.clock import Clock
from pyrope.http.problems import problem_body

_BACKLOG = 511
_SWEEP_INTERVAL_S = 1.0
# Between two requests of a connection; browsers give up theirs after a minute or more.
_KEEP_ALIVE_S = 60
_HEAD_BYTES_MAX = 64 * 1024

Application = Callable[..., Awaitable[None]]


class HttpConnection(H11Protocol):
    """One connection.

    Attributes:
        waits_since: monotonic time at which it was first seen to wait for the client, as it does
            now; None: it does not.
    """

    def __init__(
        self, config: uvicorn.Config, state: ServerState, most: int, gone: Callable[[], None]
    ) -> None:
        super().__init__(config, state, {})
        self.waits_since: float | None = None
        self._most = most
        self._gone = gone
        self._waits_for: object = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > self._most:
            self._refuse(503, "BUSY", f"{self._most} connections are open, which is the limit")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._gone()

    def send_400_response(self, msg: str) -> None:
        """Bytes that are no HTTP."""
        self._refuse(400, "ERR", msg)

    def _refuse(self, status: int, code: str, detail: str) -> None:
        body = problem_body(status, code, detail)
        reason = b"Service Unavailable" if status == 503 else b"Bad Request"
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/problem+json\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (status, reason, len(body), body)
        )
        self.transport.close()

    def look(self, now: float) -> None:
        """Notice since when it waits for its client: for a request, or to take an answer away."""
        waits_for: object = None
        if self.flow.write_paused:
            waits_for = "answer"
        elif self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            waits_for = (self.cycle, self.conn.their_state)
        if waits_for is None:
            self.waits_since = None
        elif waits_for != self._waits_for:
            self.waits_since = now
        self._waits_for = waits_for

    def shutdown(self) -> None:
        try:
            super().shutdown()
        except h11.LocalProtocolError:  # what came in was no HTTP, or not all of it
            self.transport.close()

    def kill(self) -> None:
        self.transport.abort()


class HttpListener:
    """A listening socket, and its connections.

    Args:
        app: ASGI.
        max_connections: at a time.
        message_timeout_s: seconds after which a request that is not whole, or an answer that is
            not taken away, ends its connection; 0: never.
    """

    def __init__(
        self,
        app: Application,
        *,
        clock: Clock,
        max_connections: int,
        message_timeout_s: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._most = max_connections
        self._timeout_s = message_timeout_s
        self._config = uvicorn.Config(
            cast("Any", app),
            http=HttpConnection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            # Who sends what is no HTTP does not fill the log.
            log_level="error",
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            h11_max_incomplete_event_size=_HEAD_BYTES_MAX,
        )
        self._config.load()
        self._state = ServerState()
        self._socket: asyncio.AbstractServer | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._all_gone = asyncio.Event()

    async def start(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        """Listen. Raises OSError; nothing is left then."""
        self._socket = await asyncio.get_running_loop().create_server(
            self._new_connection, host, port, backlog=_BACKLOG, ssl=context, reuse_address=True
        )
        self._sweeper = asyncio.create_task(self._sweep(), name="http-connections")

    async def stop(self, grace: float) -> None:
        """Accept nobody more, let requests under way be answered, close every connection.

        Args:
            grace: seconds after which requests are given up.
        """
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
            self._sweeper = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        for connection in self._connections():
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=grace)
        for task in self._state.tasks:
            task.cancel()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks)
        # What has been answered gets a moment to be on its way.
        await asyncio.sleep(0)
        for connection in self._connections():
            if not connection.transport.is_closing():
                connection.kill()
        try:
            await asyncio.wait_for(self._wait_until_gone(), max(grace, 0.1))
        except TimeoutError:
            for connection in self._connections():
                connection.kill()
            await self._wait_until_gone()

    async def _wait_until_gone(self) -> None:
        while self._state.connections:
            self._all_gone.clear()
            await self._all_gone.wait()

    def _connections(self) -> list[HttpConnection]:
        return list(cast("set[HttpConnection]", self._state.connections))

    def _new_connection(self) -> HttpConnection:
        return HttpConnection(self._config, self._state, self._most, self._all_gone.set)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_S)
            self.close_silent()

    def close_silent(self) -> None:
        """Close who has left a request half sent, or its answer lying, for too long."""
        limit = self._timeout_s()
        now = self._clock.monotonic()
        for connection in self._connections():
            connection.look(now)
            since = connection.waits_since
            if since is not None and 0 < limit < now - since:
                connection.kill()
