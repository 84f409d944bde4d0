"""Single flight across clients: who asks the language model, and who waits for what it says.

After the leases of memcached (Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013, section
3.2.1): of those who miss the same, one is given a lease and goes to ask; the others wait for what
it remembers. What theirs are not: a lease here is for a prompt, or one that is near enough to be
answered alike, and nobody polls.

A lease is *over* when its response is remembered (those who wait look again, and mostly find it),
when its time is up, or when its holder's connection is gone. In the latter two cases the one that
has waited longest, of those who may remember what comes of it, becomes the next holder, and the
others wait on.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from pyrope.errors import BusyError, CommandError
from pyrope.service.remembered.rows import Rows
from pyrope.timers import Schedule, Timer

_TOKEN_BYTES = 16


class Outcome(Enum):
    """Why somebody waits no more.

    ANSWERED: something was remembered. HOLDER: it is to ask the model itself, and holds the lease.
    LATE: its own time is up.
    """

    ANSWERED = "answered"
    HOLDER = "holder"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A prompt that nothing was found for.

    Attributes:
        key: of the prompt; see `pyrope.semantic.remembered.entry.prompt_key`.
        vector: of length 1, shape (dim,).
        client: whose connection it came by.
        seconds: for which it holds a lease.
        may_hold: whether it may be given one; if not, it waits for others'.
    """

    scope: bytes
    key: bytes
    prompt: bytes
    vector: NDArray[np.float32]
    client: int
    seconds: float
    may_hold: bool = True


class Lease:
    """One that somebody holds.

    Attributes:
        token: by which its holder names it; another one when it is handed on.
        wanted: by its holder.
        place: of its vector among those of its scope.
    """

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.token = secrets.token_hex(_TOKEN_BYTES).encode()
        self.waiting: dict[asyncio.Future[Outcome], Wanted] = {}
        self.timer: Timer | None = None
        self.place = -1


@dataclass(slots=True)
class LeaseStatistics:
    """Of one index, since the start.

    Attributes:
        granted: leases given, those handed on included.
        waited: callers that waited for another's.
        answered: of these, those for which something was remembered.
        late: of these, those whose time was up.
        expired, abandoned: leases whose time was up, and whose holder was gone.
        shed: callers that were refused because too many waited.
    """

    granted: int = 0
    waited: int = 0
    answered: int = 0
    late: int = 0
    expired: int = 0
    abandoned: int = 0
    shed: int = 0


class Holders:
    """Which leases the clients of a server hold."""

    def __init__(self) -> None:
        self._by_client: dict[int, set[tuple[Leases, Lease]]] = {}

    def add(self, leases: Leases, lease: Lease) -> None:
        self._by_client.setdefault(lease.wanted.client, set()).add((leases, lease))

    def remove(self, leases: Leases, lease: Lease) -> None:
        held = self._by_client.get(lease.wanted.client)
        if held is not None:
            held.discard((leases, lease))
            if not held:
                del self._by_client[lease.wanted.client]

    def gone(self, client: int) -> None:
        """A connection is no more: its leases go to those who wait."""
        for leases, lease in list(self._by_client.get(client, ())):
            leases.abandoned(lease)


class Leases:
    """Of one index. For the event loop.

    Args:
        holders: of the server.
        schedule: sets timers on the clock.
        most: callers that may wait, and leases that may be held; asked each time.
    """

    def __init__(self, holders: Holders, schedule: Schedule, most: Callable[[], int]) -> None:
        self._holders = holders
        self._schedule = schedule
        self._most = most
        self._by_scope: dict[bytes, dict[bytes, Lease]] = {}
        self._rows: dict[bytes, Rows[Lease]] = {}
        self._by_token: dict[bytes, Lease] = {}
        # Those who wait, and for which.
        self._waiters: dict[asyncio.Future[Outcome], Lease] = {}
        self.statistics = LeaseStatistics()

    def __len__(self) -> int:
        """Leases that are held."""
        return len(self._by_token)

    @property
    def waiting(self) -> int:
        """Callers that wait."""
        return len(self._waiters)

    def of_prompt(self, scope: bytes, key: bytes) -> Lease | None:
        """The lease for this very prompt."""
        return self._by_scope.get(scope, {}).get(key)

    def nearest(
        self, scope: bytes, vector: NDArray[np.float32], count: int
    ) -> list[tuple[Lease, float]]:
        """Leases of a scope whose prompts are nearest to a unit vector, with their cosines."""
        rows = self._rows.get(scope)
        return [] if rows is None else list(zip(*rows.nearest(vector, count), strict=True))

    # -- taking and waiting -----------------------------------------------------------------------

    def take(self, wanted: Wanted) -> Lease:
        """Give somebody the lease of a prompt that nobody holds one for.

        Raises:
            BusyError: too many are held.
        """
        if len(self._by_token) >= self._most():
            self.statistics.shed += 1
            raise BusyError(f"{len(self._by_token)} leases are held already; retry with backoff")
        lease = Lease(wanted)
        self._hold(lease)
        return lease

    def wait(self, lease: Lease, wanted: Wanted, seconds: float) -> asyncio.Future[Outcome]:
        """Wait for what the holder of a lease remembers; cancelling gives up.

        Args:
            seconds: at the most.

        Raises:
            BusyError: too many wait.
        """
        if len(self._waiters) >= self._most():
            self.statistics.shed += 1
            raise BusyError(f"{len(self._waiters)} callers wait for leases; retry with backoff")
        waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._join(lease, waiter, wanted)
        self.statistics.waited += 1
        timer = self._schedule(seconds, lambda: self._tell(waiter, Outcome.LATE))

        def ended(_: asyncio.Future[Outcome]) -> None:
            timer.cancel()
            self._waiters.pop(waiter).waiting.pop(waiter, None)

        waiter.add_done_callback(ended)
        return waiter

    def _join(self, lease: Lease, waiter: asyncio.Future[Outcome], wanted: Wanted) -> None:
        lease.waiting[waiter] = wanted
        self._waiters[waiter] = lease

    # -- ending -----------------------------------------------------------------------------------

    def check(self, token: bytes, scope: bytes, key: bytes) -> None:
        """See whether a response may come by a lease; one that is over is no hindrance.

        Raises:
            CommandError: this is no token; or it is of another prompt.
        """
        if len(token) != 2 * _TOKEN_BYTES or token.strip(b"0123456789abcdef"):
            raise CommandError("invalid LEASE: the token of a lease, from `info`, is expected")
        lease = self._by_token.get(token)
        if lease is not None and (lease.wanted.scope, lease.wanted.key) != (scope, key):
            raise CommandError("invalid LEASE: it was given for another prompt, or another SCOPE")

    def remembered(self, scope: bytes, key: bytes) -> None:
        """A response of a prompt is there: whoever waits for it looks again."""
        lease = self.of_prompt(scope, key)
        if lease is not None:
            self._let_go(lease)
            self.statistics.answered += self._tell_all(lease, Outcome.ANSWERED)

    def abandoned(self, lease: Lease) -> None:
        """Its holder is gone."""
        self.statistics.abandoned += 1
        self._hand_on(lease)

    def clear(self) -> None:
        """Nothing comes of any lease any more: whoever waits asks the model itself."""
        for lease in list(self._by_token.values()):
            self._let_go(lease)
            self._tell_all(lease, Outcome.LATE)

    def _expired(self, lease: Lease) -> None:
        self.statistics.expired += 1
        self._hand_on(lease)

    def _hand_on(self, lease: Lease) -> None:
        """The lease goes to the one that has waited longest; without one, it is over."""
        self._let_go(lease)
        waiting = {waiter: wanted for waiter, wanted in lease.waiting.items() if not waiter.done()}
        following: Lease | None = None
        for waiter, wanted in waiting.items():
            # What the others wait for is the answer to this one's prompt now.
            following = self.of_prompt(wanted.scope, wanted.key)
            if following is not None:
                break
            if wanted.may_hold:
                following = Lease(wanted)
                self._hold(following)
                del waiting[waiter]
                self._tell(waiter, Outcome.HOLDER)
                break
        for waiter, wanted in waiting.items():
            if following is None:
                self._tell(waiter, Outcome.LATE)
            else:
                self._join(following, waiter, wanted)

    def _hold(self, lease: Lease) -> None:
        wanted = lease.wanted
        self._by_scope.setdefault(wanted.scope, {})[wanted.key] = lease
        rows = self._rows.get(wanted.scope)
        if rows is None:
            rows = self._rows[wanted.scope] = Rows(len(wanted.vector))
        rows.add(lease, wanted.vector)
        self._by_token[lease.token] = lease
        self._holders.add(self, lease)
        self.statistics.granted += 1
        lease.timer = self._schedule(wanted.seconds, lambda: self._expired(lease))

    def _let_go(self, lease: Lease) -> None:
        wanted = lease.wanted
        if lease.timer is not None:
            lease.timer.cancel()
        self._by_token.pop(lease.token, None)
        if lease.place >= 0:
            rows = self._rows[wanted.scope]
            rows.remove(lease)
            if not len(rows):
                del self._rows[wanted.scope]
        of_scope = self._by_scope.get(wanted.scope)
        if of_scope is not None and of_scope.get(wanted.key) is lease:
            del of_scope[wanted.key]
            if not of_scope:
                del self._by_scope[wanted.scope]
        self._holders.remove(self, lease)

    def _tell(self, waiter: asyncio.Future[Outcome], outcome: Outcome) -> None:
        if not waiter.done():
            if outcome is Outcome.LATE:
                self.statistics.late += 1
            waiter.set_result(outcome)

    def _tell_all(self, lease: Lease, outcome: Outcome) -> int:
        told = 0
        for waiter in list(lease.waiting):
            if not waiter.done():
                waiter.set_result(outcome)
                told += 1
        return told
