"""The server below the stand-ins: it answers, cuts, and leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from pyrope.testing.http_server import Handler, HttpReply, HttpRequest, HttpServer


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[HttpServer, httpx2.AsyncClient]]:
    server = HttpServer(handler)
    await server.start()
    async with httpx2.AsyncClient(base_url=server.origin) as client:
        yield server, client
    await server.stop()


async def echo(request: HttpRequest) -> HttpReply:
    return HttpReply(201, request.body, {"X-Path": request.path, "X-Method": request.method})


async def test_requests_of_one_connection_are_answered_in_turn() -> None:
    async with serving(echo) as (server, client):
        for number in range(3):
            reply = await client.post("/a?b=c", content=f"body {number}")
            assert (reply.status_code, reply.text) == (201, f"body {number}")
            assert (reply.headers["x-path"], reply.headers["x-method"]) == ("/a?b=c", "POST")
        assert (server.connections_total, server.connections_current) == (1, 1)
    assert server.connections_current == 0


async def test_a_reply_can_end_in_the_middle_or_before_its_beginning() -> None:
    async def cut(request: HttpRequest) -> HttpReply | None:
        return HttpReply(200, b"0123456789", sent=4) if request.path == "/half" else None

    async with serving(cut) as (server, client):
        async with client.stream("GET", "/half") as reply:
            body = reply.aiter_bytes()
            assert await anext(body) == b"0123"
            with pytest.raises(httpx2.RemoteProtocolError):
                await anext(body)
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get("/nothing")
        await server.all_closed()


async def test_a_client_that_hangs_up_ends_what_is_made_for_it() -> None:
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def hang(_request: HttpRequest) -> HttpReply:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async with serving(hang) as (server, client):
        call = asyncio.create_task(client.get("/"))
        await begun.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await ended.wait()
        await server.all_closed()


async def test_stopping_cuts_connections_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    begun = asyncio.Event()

    async def hang(_request: HttpRequest) -> None:
        begun.set()
        await asyncio.Event().wait()

    server = HttpServer(hang)
    await server.start()
    async with httpx2.AsyncClient() as client:
        call = asyncio.create_task(client.get(server.origin))
        await begun.wait()
        await server.stop()
        await server.stop()
        with pytest.raises(httpx2.TransportError):
            await call
    assert asyncio.all_tasks() == before
    with pytest.raises(RuntimeError, match="not been started"):
        _ = server.origin


@pytest.mark.parametrize(
    "rubbish",
    [b"\r\n\r\n", b"x" * 70_000, b"GET / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"],
)
async def test_a_client_that_does_not_speak_http_is_cut_off(rubbish: bytes) -> None:
    async with serving(echo) as (server, _):
        port = int(server.origin.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(rubbish)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await server.all_closed()
