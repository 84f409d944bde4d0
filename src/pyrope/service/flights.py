"""Searches under way for the caches: one for all who want the same at the same time."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from pyrope.cache.neighbourhood import Neighbourhood
from pyrope.cache.write_log import WriteLog
from pyrope.errors import PyropeError
from pyrope.service.answers import MISS, OFF, Answer, CachedSearch, Key
from pyrope.service.search import Hits, Search, SearchRequest


class Wanted(NamedTuple):
    """A query that must be searched for.

    Attributes:
        row: among the queries of its request.
        key: None where nothing is to be kept, or shared.
        note: whatever `Landing.keep` is to know of it.
    """

    row: int
    query: bytes
    key: Key | None
    note: Any = None


class Searched(Protocol):
    """The index that is searched."""

    def search(self, client: Hashable, queries: bytes, asked: Search) -> SearchRequest: ...

    def check_queue(self, requests: int) -> None:
        """Raises BusyError unless so many more requests may wait for this index."""
        ...


class Landing(Protocol):
    """What becomes of what a search has found."""

    def widened(self, asked: Search, width: int) -> Search:
        """What is searched for, so that it can be kept: nothing is cut off."""
        ...

    def keep(self, flight: Flight, hits: Hits) -> Neighbourhood:
        """Keep what was found."""
        ...

    def serve(self, flight: Flight, kept: Neighbourhood, asked: Search) -> Hits | None:
        """Hits that are true now; None where there must be a search."""
        ...

    def cut(self, hits: Hits, asked: Search) -> Hits:
        """What was found a moment ago, as it is asked for."""
        ...


class Flight:
    """A query that is being searched for, and who waits for it.

    Attributes:
        asked: what the search asks for.
        position: in the log of writes, from before the search began.
        siblings: those that share its request, itself among them, in the order of the queries.
        note: as in `Wanted`.
        waiters: with the rows of their own requests; the first is who it was begun for.
    """

    __slots__ = ("asked", "key", "note", "position", "query", "request", "siblings", "waiters")

    def __init__(self, wanted: Wanted, asked: Search, position: int, siblings: list[Flight]):
        self.key = wanted.key
        self.query = wanted.query
        self.note = wanted.note
        self.asked = asked
        self.position = position
        self.siblings = siblings
        self.waiters: list[tuple[CachedSearch, int]] = []
        self.request: SearchRequest | None = None


class Flights:
    """All methods are for the event loop.

    Attributes:
        shared: queries that have joined a search that was under way.
    """

    def __init__(self, index: Searched, log: WriteLog, landing: Landing) -> None:
        self.shared = 0
        self._index = index
        self._log = log
        self._landing = landing
        self._by_key: dict[Key, Flight] = {}

    def board(self, promise: CachedSearch, wanted: Sequence[Wanted], *, join: bool) -> None:
        """Have queries searched for.

        Args:
            promise: is answered.
            join: whether searches that are under way will do.

        Raises:
            BusyError: too many requests wait for this index already; nothing has changed then.
        """
        self._index.check_queue(len(wanted))
        taken: list[tuple[Flight, int]] = []
        begun: list[Flight] = []
        own: dict[Key, Flight] = {}
        for one in wanted:
            flight = self._flight_for(one, promise.asked, own, join=join)
            if flight is None:
                asked = promise.asked if one.key is None else self._widened(promise)
                flight = Flight(one, asked, self._log.position, begun)
                begun.append(flight)
                if one.key is not None:
                    own[one.key] = flight
            taken.append((flight, one.row))
        if begun:
            self._begin(promise.client, begun)
        for flight, row in taken:
            flight.waiters.append((promise, row))
        promise.add_done_callback(partial(self._left, [flight for flight, _ in taken]))

    def _widened(self, promise: CachedSearch) -> Search:
        return self._landing.widened(promise.asked, promise.width)

    def _flight_for(
        self, wanted: Wanted, asked: Search, own: dict[Key, Flight], *, join: bool
    ) -> Flight | None:
        """One that is under way, or about to be."""
        key = wanted.key
        if key is None:
            return None
        flight = own.get(key)
        if flight is None and join:
            flight = self._by_key.get(key)
            if flight is None or flight.asked.count < asked.count:
                return None
            self.shared += 1
        return flight

    def _begin(self, client: Hashable, flights: list[Flight]) -> None:
        first = flights[0]
        queries = first.query if len(flights) == 1 else b"".join([one.query for one in flights])
        request = self._index.search(client, queries, first.asked)
        for flight in flights:
            flight.request = request
            if flight.key is not None:
                self._by_key[flight.key] = flight
        request.add_done_callback(partial(self._landed, flights))

    def _landed(self, flights: list[Flight], request: SearchRequest) -> None:
        """A search has ended: keep what it found, and tell who waits."""
        for flight in flights:
            if flight.key is not None and self._by_key.get(flight.key) is flight:
                del self._by_key[flight.key]
        error = request.exception()
        if error is None:
            for flight, hits in zip(flights, request.result(), strict=True):
                try:
                    self._answer(flight, hits)
                except Exception as failure:  # noqa: BLE001 - nobody is to wait for ever
                    _fail(flight, failure)
            return
        for flight in flights:
            _fail(flight, error)

    def _answer(self, flight: Flight, hits: Hits) -> None:
        landing = self._landing
        (first, row), *others = flight.waiters
        if flight.key is None:
            first.answer(row, Answer(hits, OFF))
            return
        kept = landing.keep(flight, hits)
        if len(flight.siblings) > 1 and flight.position != self._log.position:
            # Of several batches, this was in an early one, and slots may be others' by now.
            others.insert(0, (first, row))
        elif not first.done():
            first.answer(row, Answer(landing.cut(hits, first.asked), MISS))
        for promise, row in others:
            if promise.done():
                continue
            # It may have come after a write that this search did not see.
            current = landing.serve(flight, kept, promise.asked)
            if current is not None:
                promise.answer(row, Answer(current, MISS))
            else:
                self._search_again(flight, promise, row)

    def _search_again(self, flight: Flight, promise: CachedSearch, row: int) -> None:
        again = CachedSearch(promise.client, promise.asked, [None], promise.width)
        again.add_done_callback(partial(_pass_on, promise, row))
        try:
            # Whatever is under way by now began after it had asked.
            self.board(again, [Wanted(0, flight.query, flight.key)], join=True)
        except PyropeError as error:
            again.set_exception(error)
            return
        promise.add_done_callback(lambda _: again.cancel())

    def _left(self, flights: list[Flight], promise: CachedSearch) -> None:
        """One has its outcome. If it has given up, drop searches that nobody waits for."""
        if promise.exception() is None:
            return
        for flight in flights:
            waiters = [one for sibling in flight.siblings for one, _ in sibling.waiters]
            if flight.request is not None and all(one.done() for one in waiters):
                flight.request.cancel()


def _fail(flight: Flight, error: BaseException) -> None:
    for promise, _ in flight.waiters:
        if not promise.done():
            promise.set_exception(error)


def _pass_on(promise: CachedSearch, row: int, again: CachedSearch) -> None:
    if promise.done():
        return
    error = again.exception()
    if error is None:
        promise.answer(row, again.result()[0])
    else:
        promise.set_exception(error)
