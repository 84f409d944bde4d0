"""Both kinds of `pyrope.client` behind one face, so that one test is for both."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from pyrope.client import AsyncClient, Client


class Awaited:
    """An `AsyncClient`, or a part of one, whose calls are waited for."""

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._target, self._loop = target, loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return Awaited(found, self._loop)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = found(*args, **kwargs)
            if isinstance(result, AsyncIterator):
                return iter(self._loop.run_until_complete(_collect(result)))
            return self._loop.run_until_complete(result)

        return call


async def _collect(found: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in found]


@contextmanager
def calling(
    kind: type[Client[Any] | AsyncClient[Any]], *args: Any, **options: Any
) -> Iterator[Any]:
    """A client of a kind, with the calls of a `Client`."""
    if kind is Client:
        with Client(*args, **options) as client:
            yield client
        return
    loop = asyncio.new_event_loop()
    try:
        behind: AsyncClient[Any] = AsyncClient(*args, **options)
        try:
            yield Awaited(behind, loop)
        finally:
            loop.run_until_complete(behind.aclose())
    finally:
        loop.close()


def members(kind: type) -> dict[str, Any]:
    """Names and functions that callers may use."""
    return {
        name: found
        for name, found in inspect.getmembers(kind, callable)
        if not name.startswith("_")
    }
