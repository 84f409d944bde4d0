"""The client whose calls block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, Unpack, overload

import redis
from numpy.typing import ArrayLike
from redis.exceptions import RedisError
from redis.retry import Retry

from pyrope.client import bulk, indexes, vectors
from pyrope.client import search as searches
from pyrope.client.bulk import DEFAULT_BULK, BulkOptions
from pyrope.client.connecting import ConnectionOptions, address, pool_arguments, use_words
from pyrope.client.families import (
    Aliases,
    Backups,
    Cache,
    Clusters,
    Llm,
    Responses,
    Tenants,
)
from pyrope.client.methods import blocking
from pyrope.client.replies import as_bytes, text
from pyrope.client.request import Request
from pyrope.client.results import Element, IdT, Page, SearchResult, SearchResults
from pyrope.client.retrying import Patience, RetryPolicy, Send, Steps, exchange
from pyrope.client.words import Attributes, Id

R = TypeVar("R")
DEFAULT_RETRY = RetryPolicy()


class Client(Generic[IdT]):
    """Calls a server, and waits for its answers. For any number of threads.

    Vectors go in as whatever NumPy takes for real numbers and come out as float32; ids go in as str
    or bytes; attributes are dicts. The server's refusals are raised as `pyrope.errors` has them.
    QUOTA, BUSY and LOADING are tried again as `retry` says; so is a connection that failed, unless
    what was sent would do something else a second time (such as `add` with `if_new`).

    Connects when it is first used. Close it, or use it in a ``with``.

    Args:
        url: such as ``redis://tenant:key@host:7379``, ``rediss://…``, ``unix:///path``; None: the
            options say where the server is.
        decode_ids: whether ids come out as str (bytes that are no UTF-8 as PEP 383 has it, so that
            nothing is lost) or as bytes.
        retry: when what was refused is tried again.
        options: see `ConnectionOptions`.

    Raises:
        TypeError, ValueError: of the constructor, for arguments that contradict one another.
        redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: of every call, when the
            server cannot be reached or does not answer; what was sent may have been carried out.

    Attributes:
        redis: redis-py's client underneath, for commands that this one has no method for. It does
            not try again.
    """

    @overload
    def __init__(
        self: Client[str],
        url: str | None = None,
        *,
        decode_ids: Literal[True] = True,
        retry: RetryPolicy = DEFAULT_RETRY,
        **options: Unpack[ConnectionOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: Client[bytes],
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

            def connected(connection: Any) -> None:
                connection.on_connect()
                connection.send_command(*words)
                connection.read_response()

            arguments["redis_connect_func"] = connected
        pool = redis.BlockingConnectionPool.from_url(url, **arguments)
        self.redis: redis.Redis = redis.Redis.from_pool(pool)
        # No secret: it spreads clients that were refused together.
        self._patience = Patience(retry, monotonic, Random())  # noqa: S311
        self._read_id: Any = text if decode_ids else as_bytes
        self.cache = Cache(self)
        self.aliases = Aliases(self)
        self.clusters = Clusters(self)
        self.tenants = Tenants(self)
        self.llm = Llm(self)
        self.backups = Backups(self)
        self.responses = Responses(self)

    def close(self) -> None:
        """Close all connections. A call after that opens others."""
        self.redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def execute(self, request: Request[R], /) -> R:
        """Carry a request out, and return its result."""
        return self._drive(exchange((request,), self._patience))[0]

    # -- indexes ----------------------------------------------------------------------------------

    create = blocking(indexes.create)
    alter = blocking(indexes.alter)
    drop = blocking(indexes.drop)
    list = blocking(indexes.list_)
    info = blocking(indexes.info)
    build = blocking(indexes.build)

    # -- vectors ----------------------------------------------------------------------------------

    add = blocking(vectors.add)
    delete = blocking(vectors.delete)
    exists = blocking(vectors.exists)
    count = blocking(vectors.count)
    set_attributes = blocking(vectors.set_attributes)
    get_attributes = blocking(vectors.get_attributes)

    def add_many(
        self,
        index: str,
        ids: Sequence[Id],
        vectors: ArrayLike,
        attributes: Sequence[Attributes | None] | None = None,
        *,
        options: BulkOptions = DEFAULT_BULK,
    ) -> int:
        """Add or replace many vectors, in pieces of a bounded size. Each is written or not.

        Args:
            ids: n of them. Of one that is given twice the last one counts.
            vectors: shape (n, dim), real numbers; converted piece by piece.
            attributes: n of them, where None stands for no attributes. None: as they are.

        Returns:
            How many ids are new. (Of a piece that was sent again because its connection had failed,
            those that are new to the last try.)

        Raises:
            NoIndexError, DimensionError, QuotaError, BudgetError, OutOfMemoryError: the server
                refuses a piece. Those before it are written, and a note on the error says how many
                vectors that is; the call may be repeated.
            TypeError, ValueError: the arguments do not fit one another, or hold what is no vector;
                nothing was sent.
        """
        return self._drive(bulk.add_many(index, ids, vectors, attributes, options, self._patience))

    def get(self, index: str, id: Id, *, vector: bool = False) -> Element[IdT] | None:  # noqa: A002 - that is what it is called
        """What is stored under an id; None: there is no such id. Raises NoIndexError.

        Args:
            vector: whether its vector is wanted, too.
        """
        return self.execute(vectors.get(self._read_id, index, id, vector=vector))

    def scan_page(self, index: str, cursor: int = 0, count: int | None = None) -> Page[IdT]:
        """Some ids: those from a cursor on, 0 at first. Raises NoIndexError."""
        return self.execute(vectors.scan_page(self._read_id, index, cursor, count))

    def scan(self, index: str, count: int = 1000) -> Iterator[IdT]:
        """All ids, `count` at a time. One that is there all the time comes exactly once.

        Raises:
            NoIndexError: there is no such index.
        """
        cursor = 0
        while True:
            page = self.scan_page(index, cursor, count)
            yield from page.ids
            cursor = page.cursor
            if not cursor:
                return

    # -- search -----------------------------------------------------------------------------------

    def search(
        self,
        index: str,
        vector: ArrayLike | None = None,
        *,
        text: str | None = None,
        element: Id | None = None,
        **options: Unpack[searches.SearchOptions],
    ) -> SearchResult[IdT]:
        """Find what is nearest to a vector, a text, or what is stored under an id.

        Args:
            vector: shape (dim,), real numbers; or
            text: what the index's embedder makes a vector of; or
            element: an id.
            options: see `SearchOptions`.

        Raises:
            NoIndexError, DimensionError, CommandError, QuotaError, BudgetError, BusyError: the
                server refuses.
            TypeError, ValueError: this is no vector; nothing was sent.
        """
        return self.execute(
            searches.search(self._read_id, index, vector, text=text, element=element, **options)
        )

    def search_many(
        self, index: str, vectors: ArrayLike, **options: Unpack[searches.ManyOptions]
    ) -> SearchResults[IdT]:
        """Find what is nearest to each of several vectors, in one command.

        Args:
            vectors: shape (n, dim), real numbers.
            options: see `ManyOptions`.

        Raises:
            Exception: as `search`.
        """
        return self.execute(searches.search_many(self._read_id, index, vectors, **options))

    # -- carrying out -----------------------------------------------------------------------------

    def _drive(self, steps: Steps[R]) -> R:
        told: Any = None
        while True:
            try:
                step = steps.send(told)
            except StopIteration as end:
                result: R = end.value
                return result
            if isinstance(step, Send):
                told = self._send(step.requests)
            else:
                sleep(step.seconds)

    def _send(self, requests: Sequence[Request[Any]]) -> Sequence[Any]:
        """Replies, or the errors that came in their place."""
        try:
            if len(requests) == 1:
                return (self.redis.execute_command(*requests[0].words),)
            with self.redis.pipeline(transaction=False) as pipeline:
                for request in requests:
                    pipeline.execute_command(*request.words)
                replies: Sequence[Any] = pipeline.execute(raise_on_error=False)
                return replies
        except RedisError as error:
            return (error,) * len(requests)
