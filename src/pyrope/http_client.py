"""The HTTP client below those of providers: bounded replies, no redirects, no chatter in logs.

Replies are parsed on the event loop, by clients that make an object of everything that is in them:
a megabyte of ``{},{},`` takes seconds. So a reply is looked over before any of them sees it.

Imported when the first provider is started, as httpx2 takes longer to import than a server may take
to start.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Final

import httpx2

_CHATTY_LOGGERS: Final = ("google_genai", "google.auth", "httpcore2", "httpx2", "openai")


# Brackets that open: a hundred vectors have three each. A model of an object takes 10 us to make.
_MOST_OBJECTS: Final = 512
# Commas: those of a vector of the largest dimension there may be, and some more.
_MOST_VALUES: Final = 70_000
_FIRST_ERROR: Final = 400


class UnusableReplyError(ValueError):
    """A reply is not read: it is too large, too intricate, or compressed."""


class _Read(httpx2.AsyncByteStream):
    """A body that has been read from another stream."""

    def __init__(self, body: bytes, stream: httpx2.AsyncByteStream) -> None:
        self._body = body
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _look_over(most_bytes: int, response: httpx2.Response) -> None:
    """See to it that a client can parse a reply at once.

    Of an error the status says enough: where a proxy has put a whole page below it, that is left
    out.
    """
    stream = response.stream
    assert isinstance(stream, httpx2.AsyncByteStream)  # noqa: S101 - of an async client
    try:
        body = await _read(stream, most_bytes, response.headers)
    except UnusableReplyError:
        if response.status_code < _FIRST_ERROR:
            raise
        body = b""
    response.stream = _Read(body, stream)


async def _read(
    stream: httpx2.AsyncByteStream, most_bytes: int, headers: Mapping[str, str]
) -> bytes:
    # A few compressed bytes can be a gigabyte; nobody was asked for any.
    if headers.get("content-encoding", "identity") != "identity":
        raise UnusableReplyError("compressed")
    chunks: list[bytes] = []
    left = most_bytes
    async for chunk in stream:
        left -= len(chunk)
        if left < 0:
            raise UnusableReplyError("too large")
        chunks.append(chunk)
    body = b"".join(chunks)
    if body.count(b"{") + body.count(b"[") > _MOST_OBJECTS or body.count(b",") > _MOST_VALUES:
        raise UnusableReplyError("too intricate")
    return body


async def _ask_for_plain_bytes(request: httpx2.Request) -> None:
    request.headers["accept-encoding"] = "identity"


def make_http_client(
    timeout_s: float, *, connections: int, most_reply_bytes: int
) -> httpx2.AsyncClient:
    """A client that is bound to no event loop before its first request.

    Takes tens of milliseconds, most of it for the authorities' certificates. Proxies and
    authorities come from the usual variables of the environment. Redirects are not followed: they
    would carry the key elsewhere.

    Args:
        timeout_s: seconds for each step of a request; the whole is the caller's business.
        connections: at a time.
        most_reply_bytes: of a body; a longer one is an UnusableReplyError, and so is one that
            takes too long to parse.
    """
    # httpx2 imports this within the first request, on the loop, which takes 12 ms. The name is
    # anyio's own: where it is another one, the first request pays.
    with suppress(ImportError):
        import_module("anyio._backends._asyncio")
    for name in _CHATTY_LOGGERS:
        # At debug level they log the headers of replies, which may echo the key; at info, a line
        # for each call.
        logging.getLogger(name).setLevel(logging.WARNING)
    return httpx2.AsyncClient(
        timeout=timeout_s,
        follow_redirects=False,
        limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        event_hooks={
            "request": [_ask_for_plain_bytes],
            "response": [partial(_look_over, most_reply_bytes)],
        },
    )


def make_dry_client() -> httpx2.Client:
    """A client that sends nothing anywhere: every request is answered with ``{}``."""
    return httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json={})))
