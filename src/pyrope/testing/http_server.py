"""A small HTTP/1.1 server inside the test's own event loop, which can misbehave to the byte.

A real framework would answer properly; what a client of a provider has to survive is the rest:
bodies that end in the middle, replies that never come, connections that are cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

_MOST_HEADER_BYTES = 64 * 1024
_MOST_BODY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request.

    Attributes:
        path: with the query string.
        headers: names in lower case.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What is sent back.

    Attributes:
        headers: beside Content-Length and Content-Type, which one of these overrides.
        sent: bytes of the body that are sent before the connection is cut; None: all, no cut.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: int | None = None


Handler = Callable[[HttpRequest], Awaitable[HttpReply | None]]
"""Answers a request; None cuts the connection without a byte."""


class HttpServer:
    """Listens on a port of 127.0.0.1 that the system picks, from `start` to `stop`.

    Attributes:
        connections_current: connections that are open.
        connections_total: connections that were opened.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()
        self.connections_current = 0
        self.connections_total = 0

    @property
    def origin(self) -> str:
        """For example ``http://127.0.0.1:4711``. Raises RuntimeError before `start`."""
        if self._server is None:
            raise RuntimeError("the server has not been started")
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Cut every connection and stop listening. Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await server.wait_closed()

    async def all_closed(self) -> None:
        """Wait until no connection is open any more."""
        while self.connections_current:
            self._closed.clear()
            await self._closed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        self.connections_current += 1
        self.connections_total += 1
        try:
            while await self._answer_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client has gone, or does not speak HTTP
        except asyncio.CancelledError:
            pass  # the server stops; asyncio would report a connection's task as failed
        finally:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            self.connections_current -= 1
            self._closed.set()
            if task is not None:
                self._tasks.discard(task)

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read a request and answer it; False where the connection is to be closed."""
        request = await _read(reader)
        # A client that hangs up while its answer is being made takes the making with it.
        answering = asyncio.ensure_future(self._handler(request))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                return False
            reply = answering.result()
        finally:
            for waiting in (answering, gone):
                waiting.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)
        if reply is None:
            return False
        headers = {
            "content-type": "application/json",
            "content-length": str(len(reply.body)),
            **{name.lower(): value for name, value in reply.headers.items()},
        }
        phrase = HTTPStatus(reply.status).phrase
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        sent = reply.body if reply.sent is None else reply.body[: reply.sent]
        writer.write(f"HTTP/1.1 {reply.status} {phrase}\r\n{head}\r\n".encode("latin-1") + sent)
        await writer.drain()
        if reply.sent is not None:
            # Closed in order, so that the bytes arrive before the end does.
            writer.close()
            await writer.wait_closed()
            return False
        return True


async def _read(reader: asyncio.StreamReader) -> HttpRequest:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    pairs = (line.split(":", 1) for line in lines)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    length = int(headers.get("content-length", 0))
    if len(head) > _MOST_HEADER_BYTES or length > _MOST_BODY_BYTES:
        raise ConnectionAbortedError("larger than any test means")
    return HttpRequest(method, path, headers, await reader.readexactly(length))
