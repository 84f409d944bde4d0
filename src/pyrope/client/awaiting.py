"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from random import Random
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, Unpack, overload

import redis.asyncio
from numpy.typing import ArrayLike
from redis.asyncio.retry import Retry
from redis.exceptions import RedisError

from pyrope.client import bulk, indexes, vectors
from pyrope.client import search as searches
from pyrope.client.blocking import DEFAULT_RETRY
from pyrope.client.bulk import DEFAULT_BULK, BulkOptions
from pyrope.client.connecting import ConnectionOptions, address, pool_arguments, use_words
from pyrope.client.families import (
    AsyncAliases,
    AsyncBackups,
    AsyncCache,
    AsyncClusters,
    AsyncLlm,
    AsyncResponses,
    AsyncTenants,
)
from pyrope.client.methods import awaiting
from pyrope.client.replies import as_bytes, text
from pyrope.client.request import Request
from pyrope.client.results import Element, IdT, Page, SearchResult, SearchResults
from pyrope.client.retrying import Patience, RetryPolicy, Send, Steps, exchange
from pyrope.client.words import Attributes, Id

R = TypeVar("R")


class AsyncClient(Generic[IdT]):
    """As `Client`, for one event loop: calls are awaited, and may run at the same time.

    Close it, or use it in an ``async with``.
    """

    @overload
    def __init__(
        self: AsyncClient[str],
        url: str | None = None,
        *,
        decode_ids: Literal[True] = True,
        retry: RetryPolicy = DEFAULT_RETRY,
        **options: Unpack[ConnectionOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: AsyncClient[bytes],
        url: str | None = None,
        *,
        decode_ids: Literal[False],
        retry: RetryPolicy = DEFAULT_RETRY,
        **options: Unpack[ConnectionOptions],
    ) -> None: ...

    def __init__(
        self,
        url: str | None = None,
        *,
        decode_ids: bool = True,
        retry: RetryPolicy = DEFAULT_RETRY,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        url = address(url, options)
        arguments = pool_arguments(url, options, Retry)
        words = use_words(options)
        if words is not None:

            async def connected(connection: Any) -> None:
                await connection.on_connect()
                await connection.send_command(*words)
                await connection.read_response()

            arguments["redis_connect_func"] = connected
        pool = redis.asyncio.BlockingConnectionPool.from_url(url, **arguments)
        self.redis: redis.asyncio.Redis = redis.asyncio.Redis.from_pool(pool)
        # No secret: it spreads clients that were refused together.
        self._patience = Patience(retry, monotonic, Random())  # noqa: S311
        self._read_id: Any = text if decode_ids else as_bytes
        self.cache = AsyncCache(self)
        self.aliases = AsyncAliases(self)
        self.clusters = AsyncClusters(self)
        self.tenants = AsyncTenants(self)
        self.llm = AsyncLlm(self)
        self.backups = AsyncBackups(self)
        self.responses = AsyncResponses(self)

    async def aclose(self) -> None:
        """Close all connections. A call after that opens others."""
        await self.redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def execute(self, request: Request[R], /) -> R:
        """Carry a request out, and return its result."""
        return (await self._drive(exchange((request,), self._patience)))[0]

    # -- indexes ----------------------------------------------------------------------------------

    create = awaiting(indexes.create)
    alter = awaiting(indexes.alter)
    drop = awaiting(indexes.drop)
    list = awaiting(indexes.list_)
    info = awaiting(indexes.info)
    build = awaiting(indexes.build)

    # -- vectors ----------------------------------------------------------------------------------

    add = awaiting(vectors.add)
    delete = awaiting(vectors.delete)
    exists = awaiting(vectors.exists)
    count = awaiting(vectors.count)
    set_attributes = awaiting(vectors.set_attributes)
    get_attributes = awaiting(vectors.get_attributes)

    async def add_many(
        self,
        index: str,
        ids: Sequence[Id],
        vectors: ArrayLike,
        attributes: Sequence[Attributes | None] | None = None,
        *,
        options: BulkOptions = DEFAULT_BULK,
    ) -> int:
        """As `Client.add_many`."""
        return await self._drive(
            bulk.add_many(index, ids, vectors, attributes, options, self._patience)
        )

    async def get(self, index: str, id: Id, *, vector: bool = False) -> Element[IdT] | None:  # noqa: A002 - that is what it is called
        """As `Client.get`."""
        return await self.execute(vectors.get(self._read_id, index, id, vector=vector))

    async def scan_page(self, index: str, cursor: int = 0, count: int | None = None) -> Page[IdT]:
        """As `Client.scan_page`."""
        return await self.execute(vectors.scan_page(self._read_id, index, cursor, count))

    async def scan(self, index: str, count: int = 1000) -> AsyncIterator[IdT]:
        """As `Client.scan`."""
        cursor = 0
        while True:
            page = await self.scan_page(index, cursor, count)
            for each in page.ids:
                yield each
            cursor = page.cursor
            if not cursor:
                return

    # -- search -----------------------------------------------------------------------------------

    async def search(
        self,
        index: str,
        vector: ArrayLike | None = None,
        *,
        text: str | None = None,
        element: Id | None = None,
        **options: Unpack[searches.SearchOptions],
    ) -> SearchResult[IdT]:
        """As `Client.search`."""
        return await self.execute(
            searches.search(self._read_id, index, vector, text=text, element=element, **options)
        )

    async def search_many(
        self, index: str, vectors: ArrayLike, **options: Unpack[searches.ManyOptions]
    ) -> SearchResults[IdT]:
        """As `Client.search_many`."""
        return await self.execute(searches.search_many(self._read_id, index, vectors, **options))

    # -- carrying out -----------------------------------------------------------------------------

    async def _drive(self, steps: Steps[R]) -> R:
        told: Any = None
        while True:
            try:
                step = steps.send(told)
            except StopIteration as end:
                result: R = end.value
                return result
            if isinstance(step, Send):
                told = await self._send(step.requests)
            else:
                await asyncio.sleep(step.seconds)

    async def _send(self, requests: Sequence[Request[Any]]) -> Sequence[Any]:
        """Replies, or the errors that came in their place."""
        try:
            if len(requests) == 1:
                return (await self.redis.execute_command(*requests[0].words),)
            async with self.redis.pipeline(transaction=False) as pipeline:
                for request in requests:
                    pipeline.execute_command(*request.words)
                replies: Sequence[Any] = await pipeline.execute(raise_on_error=False)
                return replies
        except RedisError as error:
            return (error,) * len(requests)
