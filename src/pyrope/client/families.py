"""Commands that belong together: `Client.cache`, `Client.aliases` and so on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

from pyrope.client import aliases, backups, caches, clusters, llm, responses, tenants
from pyrope.client.methods import Awaiting, Blocking, awaiting, blocking
from pyrope.client.request import Request
from pyrope.client.results import Alias

R = TypeVar("R")


class _BlockingFamily:
    def __init__(self, client: Blocking) -> None:
        self._client = client

    def execute(self, request: Request[R], /) -> R:
        """Carry a request out, and return its result."""
        return self._client.execute(request)


class Cache(_BlockingFamily):
    """VECTOR.CACHE: what the caches of an index hold, and what they may do."""

    stats = blocking(caches.stats)
    flush = blocking(caches.flush)
    invalidate = blocking(caches.invalidate)
    policy = blocking(caches.policy)
    set_policy = blocking(caches.set_policy)


class Aliases(_BlockingFamily):
    """VECTOR.ALIAS: queries that stand for other ones."""

    set = blocking(aliases.set_)
    get = blocking(aliases.get)
    delete = blocking(aliases.delete)
    list_page = blocking(aliases.list_page)

    def list(self, index: str) -> Iterator[Alias]:
        """All aliases, page by page. One that is there all the time comes exactly once."""
        cursor = 0
        while True:
            page = self.list_page(index, cursor)
            yield from page.aliases
            cursor = page.cursor
            if not cursor:
                return


class Clusters(_BlockingFamily):
    """VECTOR.CLUSTER: where vectors lie together, and how long answers there are kept."""

    list = blocking(clusters.list_)
    nearest = blocking(clusters.nearest)
    ttl = blocking(clusters.ttl)
    set = blocking(clusters.set_)
    rebuild = blocking(clusters.rebuild)
    forget = blocking(clusters.forget)


class Tenants(_BlockingFamily):
    """VECTOR.TENANT: tenants, their users and keys, and what they have used."""

    create = blocking(tenants.create)
    set = blocking(tenants.set_)
    get = blocking(tenants.get)
    drop = blocking(tenants.drop)
    list = blocking(tenants.list_)
    usage = blocking(tenants.usage)
    add_user = blocking(tenants.add_user)
    delete_user = blocking(tenants.delete_user)
    rotate = blocking(tenants.rotate)


class Llm(_BlockingFamily):
    """VECTOR.LLM: the language model that advises the caches."""

    status = blocking(llm.status)
    pause = blocking(llm.pause)
    resume = blocking(llm.resume)
    jobs = blocking(llm.jobs)


class Backups(_BlockingFamily):
    """VECTOR.BACKUP: backing up the running server."""

    to = blocking(backups.to)
    status = blocking(backups.status)
    cancel = blocking(backups.cancel)


class Responses(_BlockingFamily):
    """VECTOR.REMEMBER and its kin: what a language model said, for whoever asks again."""

    remember = blocking(responses.remember)
    recall = blocking(responses.recall)
    forget = blocking(responses.forget)
    feedback = blocking(responses.feedback)


class _AwaitingFamily:
    def __init__(self, client: Awaiting) -> None:
        self._client = client

    def execute(self, request: Request[R], /) -> Coroutine[Any, Any, R]:
        """Carry a request out, and return its result."""
        return self._client.execute(request)


class AsyncCache(_AwaitingFamily):
    """As `Cache`."""

    stats = awaiting(caches.stats)
    flush = awaiting(caches.flush)
    invalidate = awaiting(caches.invalidate)
    policy = awaiting(caches.policy)
    set_policy = awaiting(caches.set_policy)


class AsyncAliases(_AwaitingFamily):
    """As `Aliases`."""

    set = awaiting(aliases.set_)
    get = awaiting(aliases.get)
    delete = awaiting(aliases.delete)
    list_page = awaiting(aliases.list_page)

    async def list(self, index: str) -> AsyncIterator[Alias]:
        """As `Aliases.list`."""
        cursor = 0
        while True:
            page = await self.list_page(index, cursor)
            for alias in page.aliases:
                yield alias
            cursor = page.cursor
            if not cursor:
                return


class AsyncClusters(_AwaitingFamily):
    """As `Clusters`."""

    list = awaiting(clusters.list_)
    nearest = awaiting(clusters.nearest)
    ttl = awaiting(clusters.ttl)
    set = awaiting(clusters.set_)
    rebuild = awaiting(clusters.rebuild)
    forget = awaiting(clusters.forget)


class AsyncTenants(_AwaitingFamily):
    """As `Tenants`."""

    create = awaiting(tenants.create)
    set = awaiting(tenants.set_)
    get = awaiting(tenants.get)
    drop = awaiting(tenants.drop)
    list = awaiting(tenants.list_)
    usage = awaiting(tenants.usage)
    add_user = awaiting(tenants.add_user)
    delete_user = awaiting(tenants.delete_user)
    rotate = awaiting(tenants.rotate)


class AsyncLlm(_AwaitingFamily):
    """As `Llm`."""

    status = awaiting(llm.status)
    pause = awaiting(llm.pause)
    resume = awaiting(llm.resume)
    jobs = awaiting(llm.jobs)


class AsyncBackups(_AwaitingFamily):
    """As `Backups`."""

    to = awaiting(backups.to)
    status = awaiting(backups.status)
    cancel = awaiting(backups.cancel)


class AsyncResponses(_AwaitingFamily):
    """As `Responses`."""

    remember = awaiting(responses.remember)
    recall = awaiting(responses.recall)
    forget = awaiting(responses.forget)
    feedback = awaiting(responses.feedback)
