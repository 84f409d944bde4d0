"""What dashboards are sent: made once a second for all that look at the same, while any does.

A feed is of the whole server, for administrators, or of one tenant. Its task begins with the first
viewer and ends with the last one, or when the server stops. Viewers are sent the latest there is:
who is slow to take it misses some, and nothing is kept for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pyrope.commands import clusters
from pyrope.commands.context import Server
from pyrope.errors import BusyError
from pyrope.http.dashboard.figures import Observed
from pyrope.http.plain import encode_json, plain
from pyrope.log import get_logger
from pyrope.service.index import OpenIndex

_log = get_logger(__name__)

INTERVAL_S = 1.0
# With so many indexes or tenants that a look takes long, looks are rarer: a twentieth of the time.
_RESTS = 20
_OF_ONE_TENANT = 5

IndexKey = tuple[str, str]
"""A tenant, and the name of an index of it."""


class Look:
    """What one look has found, as JSON.

    Attributes:
        clusters: of an index that was asked for; None: of the one that the dashboard chooses.
    """

    def __init__(self, figures: bytes, clusters: dict[IndexKey | None, bytes]) -> None:
        self.figures = figures
        self.clusters = clusters


class Viewer:
    """Somebody who looks.

    Args:
        index: whose clusters they want to see; None: of whichever there is most to see.
    """

    def __init__(self, feed: Feed, index: IndexKey | None) -> None:
        self.index = index
        self._feed = feed
        self._seen: Look | None = None

    async def next(self) -> bytes | None:
        """The next look, as JSON: ``"figures"`` and ``"clusters"``, without the braces.

        None: there is none any more, as the server stops.
        """
        feed = self._feed
        while not feed.over:
            look = feed.latest
            if look is not None and look is not self._seen and self.index in look.clusters:
                self._seen = look
                return b'"figures":%b,"clusters":%b' % (look.figures, look.clusters[self.index])
            await feed.changed.wait()
        return None


class Feed:
    """Looks at a server, or at one of its tenants, for all who want to see the same.

    Attributes:
        viewers: who they are.
        latest: None before there is one.
        changed: set when there is a later one, or none will come; another event each time.
        over: no more will come.
    """

    def __init__(self, server: Server, tenant: str | None, stopping: asyncio.Event) -> None:
        self.viewers: set[Viewer] = set()
        self.latest: Look | None = None
        self.changed = asyncio.Event()
        self.over = False
        self._server = server
        self._observed = Observed(server, tenant)
        self._tenant = tenant
        self._stopping = stopping
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._observed.watch()
        self._task = asyncio.create_task(self._keep(), name="dashboard")

    def stop(self) -> None:
        """Its task ends in the next turn of the loop."""
        self._observed.unwatch()
        if self._task is not None:
            self._task.cancel()

    async def _keep(self) -> None:
        monotonic = self._server.clock.monotonic
        try:
            while not self._stopping.is_set():
                began = monotonic()
                try:
                    self.latest = await self._look()
                except Exception as error:  # noqa: BLE001 - the next second is another try
                    _log.error("the dashboard cannot be told anything", exc_info=error)
                self._wake()
                took = monotonic() - began
                with suppress(TimeoutError):
                    await asyncio.wait_for(
                        self._stopping.wait(), max(INTERVAL_S - took, took * _RESTS)
                    )
        finally:
            self.over = True
            self._wake()

    def _wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    async def _look(self) -> Look:
        figures = encode_json(plain(await self._observed.look()))
        wanted = {viewer.index for viewer in self.viewers} | {None}
        told = {}
        for key in wanted:
            # A millisecond each, where there are many clusters.
            await asyncio.sleep(0)
            told[key] = encode_json(plain(self._clusters(key)))
        return Look(figures, told)

    def _clusters(self, key: IndexKey | None) -> dict[str, Any] | None:
        """How hot the clusters of an index are, and their TTL; None: there is no such index."""
        index = self._busiest() if key is None else self._index(key)
        if index is None:
            return None
        found = index.clusters
        return {
            "tenant": index.spec.tenant,
            "index": index.spec.name,
            "source": found.registry.source.value,
            "base_ttl": found.base_ttl_s,
            "threshold": found.threshold,
            "window": found.window_s,
            "items": clusters.describe(index, self._server.clock.monotonic()),
        }

    def _busiest(self) -> OpenIndex | None:
        """Of the indexes with the most queries, the first that has clusters to speak of."""
        busiest = [index for index in self._observed.busiest if not index.closed]
        many = (index for index in busiest if len(index.clusters.registry) > 1)
        return next(many, busiest[0] if busiest else None)

    def _index(self, key: IndexKey) -> OpenIndex | None:
        tenant, name = key
        if self._tenant not in (None, tenant):
            return None
        return self._server.service.find_index(tenant, name.encode())


class Feeds:
    """The feeds of a server, by whom they are of."""

    def __init__(self, server: Server, stopping: asyncio.Event) -> None:
        self._server = server
        self._stopping = stopping
        self._feeds: dict[str | None, Feed] = {}

    @contextmanager
    def viewing(self, tenant: str | None, index: IndexKey | None) -> Iterator[Viewer]:
        """Look, within the ``with``.

        Args:
            tenant: at whom; None: at everything.

        Raises:
            BusyError: as many look already as may.
        """
        self._check_room(tenant)
        feed = self._feeds.get(tenant)
        if feed is None or feed.over:
            feed = self._feeds[tenant] = Feed(self._server, tenant, self._stopping)
            feed.start()
        viewer = Viewer(feed, index)
        feed.viewers.add(viewer)
        try:
            yield viewer
        finally:
            feed.viewers.discard(viewer)
            if not feed.viewers:
                feed.stop()
                if self._feeds.get(tenant) is feed:
                    del self._feeds[tenant]

    def _check_room(self, tenant: str | None) -> None:
        most = self._server.settings.http.max_viewers
        # What tenants look at keeps no administrator out.
        alike = [one for whose, one in self._feeds.items() if (whose is None) == (tenant is None)]
        own = self._feeds.get(tenant)
        if sum(len(one.viewers) for one in alike) >= most or (
            tenant is not None
            and own is not None
            and len(own.viewers) >= max(1, most // _OF_ONE_TENANT)
        ):
            raise BusyError("as many dashboards are open as may be; see http.max_viewers")
