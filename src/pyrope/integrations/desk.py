"""Asking first, remembering afterwards: what is done, apart from how one waits.

`Desk` is for `pyrope.integrations.response_cache`, which carries its steps out, blocking or in an
event loop. The rules:

- *A cache that fails breaks nothing.* What the server refuses, or cannot be asked, is logged, and
  the caller goes on to its model. After a connection has failed the server is left alone for a
  while, so that calls do not wait for it one after another.
- *One asks, the others wait.* Of those here who want the same, the first has the *turn*; the others
  wait until it is over, and look again. Between processes, and for prompts that are only near, the
  server's leases do the same; a lease lives as long as the connection that it came by, so that
  whoever has one keeps its connection for itself, and closes it to give the lease back. (By
  connections out of one common pool, those who wait could take the last one from whom they wait
  for.)
- *Who has a turn waits for nobody.* Otherwise two who have one each could wait for one another, and
  a caller that asks for two things at a time for itself (`pyrope.integrations.holding`).
- *A turn ends.* With what is remembered, with an exception, with the task that has it, or when its
  lease is up: not every caller says that its model has failed, and some streams are never read.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from pyrope.client import Lease, Recalled, RecallInfo
from pyrope.client.failures import REFUSED, UNREACHED
from pyrope.client.request import Request
from pyrope.client.responses import recall, remember
from pyrope.integrations.holding import has_turn, take
from pyrope.integrations.options import RememberOptions, Spent
from pyrope.integrations.questions import Key, Question

_log = logging.getLogger(__name__)

T = TypeVar("T")
C = TypeVar("C")


class Event(Protocol):
    """What others wait for."""

    def set(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Execute(Generic[C]):
    """Have a request carried out. Told: its result; or its exception is thrown."""

    client: C
    request: Request[Any]


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for an event, so long at most. Told: anything."""

    event: Any
    seconds: float


@dataclass(frozen=True, slots=True)
class Close(Generic[C]):
    """Close the connections of a client, which may be used again. Told: anything."""

    client: C


Steps: TypeAlias = Generator[Any, Any, T]


@dataclass(slots=True, eq=False)
class _Flight:
    """Somebody here is asking."""

    event: Event
    ends: float


@dataclass(slots=True, eq=False)
class Turn(Generic[C]):
    """What a caller has between its question and its answer.

    Attributes:
        response: None: the model is to be asked.
        info: how it came about; None: the server was not asked, or has not told.
        is_over: whether nobody waits for it any more.
        is_ending: whether what the model has said is on its way, or has been.
        ended: called when it is over; None: nobody wants to know.
    """

    question: Question | None = None
    response: str | None = None
    info: RecallInfo | None = None
    is_over: bool = True
    is_ending: bool = False
    ends: float = 0.0
    lease: Lease | None = None
    client: C | None = None
    flight: _Flight | None = field(default=None, repr=False)
    ended: Callable[[], object] | None = field(default=None, repr=False)


class Desk(Generic[C]):
    """Of one event loop, or of all threads.

    Args:
        index: whose responses these are.
        client: for what needs no connection of its own.
        make_client: a client with one connection, for who asks with a lease.
        make_event: what is waited for.
        monotonic: a clock, in seconds.

    Attributes:
        client: as it was given.
    """

    def __init__(
        self,
        index: str,
        options: RememberOptions,
        client: C,
        make_client: Callable[[], C],
        make_event: Callable[[], Event],
        monotonic: Callable[[], float],
    ) -> None:
        self._index = index
        self._options = options
        self.client = client
        self._make_client = make_client
        self._make_event = make_event
        self._now = monotonic
        self._lock = threading.Lock()
        self._flights: dict[Key, _Flight] = {}
        self._free: list[C] = []
        self._made: list[C] = []
        # In the order in which they end.
        self._open: dict[int, Turn[C]] = {}
        self._paused_until = float("-inf")

    @property
    def clients(self) -> list[C]:
        """All that are to be closed in the end."""
        return [self.client, *self._made]

    # -- asking -----------------------------------------------------------------------------------

    def ask(self, question: Question | None) -> Steps[Turn[C]]:
        """Look a question up. The turn that comes of it is over, or is to be ended."""
        yield from self._end_late()
        if question is None or self._is_paused():
            return Turn(question)
        if not self._options.lease_s or has_turn():
            return (yield from self._look(question))
        deadline = self._now() + self._options.lease_s
        while True:
            flight, is_ours = self._board(question.key)
            if is_ours:
                return (yield from self._ask_first(question, flight))
            left = min(deadline, flight.ends) - self._now()
            if left > 0:
                yield Wait(flight.event, left)
            if self._now() >= flight.ends:
                self._land(question.key, flight)
            turn = yield from self._look(question)
            if turn.response is not None or self._is_paused() or self._now() >= deadline:
                return turn

    def _look(self, question: Question) -> Steps[Turn[C]]:
        recalled = yield from self._recall(self.client, question, None)
        return _told(Turn(question), recalled)

    def _ask_first(self, question: Question, flight: _Flight) -> Steps[Turn[C]]:
        """With the turn of all here who want the same."""
        turn = Turn[C](question, is_over=False, ends=flight.ends, flight=flight)
        turn.client = self._take_client()
        try:
            if turn.client is None:
                recalled = yield from self._recall(self.client, question, None)
            else:
                recalled = yield from self._recall(turn.client, question, self._options.lease_s)
                if recalled is None or recalled.lease is None:
                    # Nothing hangs on the connection.
                    self._put_client(turn)
        except GeneratorExit:
            # The event loop is no more: there is nobody to close anything.
            self._end(turn)
            raise
        except BaseException:
            yield from self.give_up(turn)
            raise
        _told(turn, recalled)
        if turn.response is not None or recalled is None:
            self._end(turn)
        else:
            take(turn)
            with self._lock:
                self._open[id(turn)] = turn
        return turn

    def _recall(
        self, client: C, question: Question, lease_s: float | None
    ) -> Steps[Recalled | None]:
        options = self._options
        return (
            yield from self._try(
                "recalled",
                client,
                lambda: recall(
                    self._index,
                    question.prompt,
                    threshold=options.threshold,
                    max_error=options.max_error,
                    scope=question.scope,
                    lease_s=lease_s,
                    info=True,
                ),
            )
        )

    # -- ending -----------------------------------------------------------------------------------

    def remember(self, turn: Turn[C], response: str, spent: Spent | None) -> Steps[None]:
        """Remember what the model has said, and end the turn."""
        question, options = turn.question, self._options
        if question is None or not response or self._is_paused():
            yield from self.give_up(turn)
            return
        call = question.call

        def request() -> Request[str]:
            return remember(
                self._index,
                question.prompt,
                response,
                scope=question.scope,
                depends_on=call.depends_on,
                expires_s=options.expires_s if call.expires_s is None else call.expires_s,
                cost=None if spent is None or options.cost is None else options.cost(spent),
                lease=turn.lease,
            )

        client = self.client if turn.client is None else turn.client
        turn.is_ending = True
        try:
            done = yield from self._try("remembered", client, request)
        except GeneratorExit:
            self._end(turn)  # as above
            raise
        except BaseException:
            yield from self._drop(turn)
            raise
        if done is None:
            yield from self._drop(turn)
        else:
            self._end(turn)

    def give_up(self, turn: Turn[C]) -> Steps[None]:
        """End a turn of which nothing came. Of one that is ending, or over, nothing."""
        if not turn.is_ending:
            yield from self._drop(turn)

    def _drop(self, turn: Turn[C]) -> Steps[None]:
        if turn.client is not None:
            # So ends the lease.
            yield Close(turn.client)
        self._end(turn)

    def _end(self, turn: Turn[C]) -> None:
        self._put_client(turn)
        if turn.is_over:
            return
        turn.is_over = True
        assert turn.question is not None  # noqa: S101 - it has a turn
        assert turn.flight is not None  # noqa: S101 - as above
        self._land(turn.question.key, turn.flight)
        with self._lock:
            self._open.pop(id(turn), None)
        if turn.ended is not None:
            turn.ended()

    def end_all(self) -> Steps[None]:
        """End all turns that there are."""
        with self._lock:
            turns = list(self._open.values())
        for turn in turns:
            yield from self.give_up(turn)

    def _end_late(self) -> Steps[None]:
        """End turns whose time is up."""
        now = self._now()
        with self._lock:
            late = list(takewhile(lambda turn: turn.ends <= now, self._open.values()))
        for turn in late:
            yield from self.give_up(turn)

    # -- parts ------------------------------------------------------------------------------------

    def _board(self, key: Key) -> tuple[_Flight, bool]:
        """Who asks for this, and whether that is the caller."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                return flight, False
            flight = _Flight(self._make_event(), self._now() + self._options.lease_s)
            self._flights[key] = flight
            return flight, True

    def _land(self, key: Key, flight: _Flight) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
        flight.event.set()

    def _take_client(self) -> C | None:
        with self._lock:
            if self._free:
                return self._free.pop()
            if len(self._made) >= self._options.leases:
                return None
            self._made.append(self._make_client())
            return self._made[-1]

    def _put_client(self, turn: Turn[C]) -> None:
        with self._lock:
            if turn.client is not None:
                self._free.append(turn.client)
                turn.client = None

    def _is_paused(self) -> bool:
        return self._now() < self._paused_until

    def _try(self, what: str, client: C, build: Callable[[], Request[T]]) -> Steps[T | None]:
        """What a request results in; None: it has failed, which is logged."""
        try:
            result: T = yield Execute(client, build())
        except UNREACHED as error:
            self._paused_until = self._now() + self._options.pause_s
            _log.warning(
                "nothing is %s for %g s: the server cannot be reached: %s",
                what,
                self._options.pause_s,
                error,
            )
        except (*REFUSED, TypeError, ValueError) as error:
            # The latter: words that cannot be sent, such as a scope of something else than text.
            _log.warning("nothing is %s: %s", what, error)
        else:
            return result
        return None


def _told(turn: Turn[C], recalled: Recalled | None) -> Turn[C]:
    if recalled is not None:
        turn.response, turn.info, turn.lease = recalled.text, recalled.info, recalled.lease
    return turn
