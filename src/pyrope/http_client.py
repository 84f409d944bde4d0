"""The HTTP client below those of providers: bounded replies, no redirects, no chatter in logs.

Imported when the first provider is started, as httpx2 takes longer to import than a server may take
to start.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Final

import httpx2

_CHATTY_LOGGERS: Final = ("google_genai", "google.auth", "httpcore2", "httpx2", "openai")


class UnusableReplyError(ValueError):
    """A reply is not read: it is too large, or compressed."""


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, most_bytes: int) -> None:
        self._stream = stream
        self._most_bytes = most_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._most_bytes
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise UnusableReplyError("too large")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound(most_bytes: int, response: httpx2.Response) -> None:
    # A few compressed bytes can be a gigabyte; nobody was asked for any.
    if response.headers.get("content-encoding", "identity") != "identity":
        raise UnusableReplyError("compressed")
    assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101 - of an async client
    response.stream = _Bounded(response.stream, most_bytes)


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
        most_reply_bytes: of a body; a longer one is an UnusableReplyError.
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
            "response": [partial(_bound, most_reply_bytes)],
        },
    )


def make_dry_client() -> httpx2.Client:
    """A client that sends nothing anywhere: every request is answered with ``{}``."""
    return httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json={})))
