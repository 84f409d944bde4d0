"""From the settings to a control plane that listens, and back to nothing."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

from pyrope.commands.context import Server

if TYPE_CHECKING:
    from fastapi import APIRouter

    from pyrope.http.listener import HttpListener


class HttpControlPlane:
    """On uvicorn's protocol, within the loop of whoever starts it.

    `start` and `stop` leave nothing behind when they are through: no task, thread or socket.

    Args:
        context: of TLS; None: there is none.
        routers: beside those of `pyrope.http.routes`.
    """

    def __init__(
        self, server: Server, context: ssl.SSLContext | None = None, *routers: APIRouter
    ) -> None:
        self._server = server
        self._context = context
        self._routers = routers
        self._stopping = asyncio.Event()
        self._listener: HttpListener | None = None

    async def start(self) -> str:
        """Listen. Returns the address. Raises OSError; nothing is left then."""
        settings = self._server.settings
        # What it takes to import and to make is no matter of clients that are served already.
        listener: HttpListener = await self._server.service.run(self._make)
        await listener.start(settings.host, settings.http_port, self._context)
        self._listener = listener
        scheme = "http" if self._context is None else "https"
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return f"{scheme}://{host}:{settings.http_port}"

    async def stop(self, grace: float) -> None:
        """Answer what is under way, for so many seconds at the most, and close everything.

        Answers that have no end are told by `Gate.stopping`.
        """
        self._stopping.set()
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.stop(grace)

    def _make(self) -> Any:
        from pyrope.http.app import create_app  # noqa: PLC0415 - 0.25 s and 15 MB
        from pyrope.http.listener import HttpListener  # noqa: PLC0415 - likewise

        settings = self._server.settings
        app = create_app(self._server, self._stopping, self._routers)
        return HttpListener(
            app,
            clock=self._server.clock,
            max_connections=settings.http.max_connections,
            message_timeout_s=lambda: settings.limits.command_timeout_s,
        )
