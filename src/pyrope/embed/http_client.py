"""The HTTP client below the providers' own: bounded replies, no redirects, no chatter in logs.

Imported when an embedder is started, as httpx2 takes longer to import than a server may take to
start.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from importlib import import_module
from typing import Final

import httpx2

MOST_REPLY_BYTES: Final = 4 * 1024 * 1024
"""Bytes of a reply's body: a call asks for at most 16,384 numbers, or for one vector."""

_CHATTY_LOGGERS: Final = ("google_genai", "google.auth", "httpcore2", "httpx2", "openai")


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MOST_REPLY_BYTES
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise ValueError("the reply is too large")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound(response: httpx2.Response) -> None:
    # A few compressed bytes can be a gigabyte; nobody was asked for any.
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ValueError("the reply is compressed")
    assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101 - of an async client
    response.stream = _Bounded(response.stream)


async def _ask_for_plain_bytes(request: httpx2.Request) -> None:
    request.headers["accept-encoding"] = "identity"


def make_http_client(timeout_s: float, connections: int) -> httpx2.AsyncClient:
    """A client that is bound to no event loop before its first request.

    Takes tens of milliseconds, most of it for the authorities' certificates. Proxies and
    authorities come from the usual variables of the environment. Redirects are not followed: they
    would carry the key elsewhere.

    Args:
        timeout_s: seconds for each step of a request; the whole is the caller's business.
        connections: at a time.
    """
    # httpx2 imports this within the first request, on the loop, which takes 12 ms. The name is
    # anyio's own: where it is another one, the first request pays.
    with suppress(ImportError):
        import_module("anyio._backends._asyncio")
    for name in _CHATTY_LOGGERS:
        # At debug level they log texts, and headers of replies, which may echo the key; at info, a
        # line for each call.
        logging.getLogger(name).setLevel(logging.WARNING)
    return httpx2.AsyncClient(
        timeout=timeout_s,
        follow_redirects=False,
        limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        event_hooks={"request": [_ask_for_plain_bytes], "response": [_bound]},
    )


def make_dry_client() -> httpx2.Client:
    """A client that sends nothing anywhere: every request is answered with ``{}``."""
    return httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json={})))
