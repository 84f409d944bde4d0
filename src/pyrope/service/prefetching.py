"""Searches made before they are asked for: what a session is likely to ask next."""

from __future__ import annotations

from collections.abc import Callable

from pyrope.cache.prefetch_budget import PrefetchBudget, PrefetchLimits, PrefetchStatistics
from pyrope.cache.sessions import Sessions
from pyrope.cache.transitions import TransitionTable
from pyrope.clock import Clock
from pyrope.service.answers import Key

_MAX_SESSIONS = 10_000
_SESSION_IDLE_S = 1800.0
_MAX_ROWS, _MAX_SUCCESSORS = 10_000, 8
_MAX_BYTES = 32 * 2**20
_HALF_LIFE_S = 7 * 86_400.0
# Successors of one query that are searched for.
_FETCHED = 2
# Transitions that an expectation counts for.
_EXPECTED = 4
# Of a key beside its vector (CPython 3.11).
_KEY_BYTES = 33 + 120


def _size_of(key: Key) -> int:
    return len(key[0]) + _KEY_BYTES  # type: ignore[arg-type]  # the query comes first


class Prefetcher:
    """Of one index. All methods are for the event loop.

    Args:
        is_kept: whether there is an answer to a query already.
        is_idle: whether nobody waits for the index.
        fetch: searches for a query, and says to `failed` if that comes to nothing.
        cost_of: what such a search costs.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        is_kept: Callable[[Key], bool],
        is_idle: Callable[[], bool],
        fetch: Callable[[Key, int], None],
        cost_of: Callable[[Key, int], float],
    ) -> None:
        self._is_kept = is_kept
        self._is_idle = is_idle
        self._fetch = fetch
        self._cost_of = cost_of
        self._sessions: Sessions[Key] = Sessions(
            clock,
            _size_of,
            max_sessions=_MAX_SESSIONS,
            max_bytes=_MAX_BYTES,
            idle_s=_SESSION_IDLE_S,
        )
        self._transitions: TransitionTable[Key] = TransitionTable(
            clock,
            _size_of,
            max_rows=_MAX_ROWS,
            max_successors=_MAX_SUCCESSORS,
            max_bytes=_MAX_BYTES,
            half_life_s=_HALF_LIFE_S,
        )
        self._budget: PrefetchBudget[Key] = PrefetchBudget(clock, PrefetchLimits())

    @property
    def nbytes(self) -> int:
        return self._sessions.nbytes + self._transitions.nbytes

    @property
    def statistics(self) -> PrefetchStatistics:
        return self._budget.statistics()

    def asked(self, session: bytes, key: Key) -> None:
        """A client has asked for this, in this session."""
        previous = self._sessions.follow(session, key)
        if previous is not None:
            self._transitions.seen(previous, key)

    def answered(self, key: Key, count: int) -> None:
        """A client has its answer: see what it may ask for next."""
        self._budget.worked(self._cost_of(key, count))
        self._issue(key, count)

    def _issue(self, key: Key, count: int) -> None:
        """Search for what is likely after a query."""
        for following, probability in self._transitions.likely(key, _FETCHED):
            if self._is_kept(following):
                continue
            cost = self._cost_of(following, count)
            if self._budget.try_issue(following, probability, cost, idle=self._is_idle()):
                self._fetch(following, count)

    def foresee(self, previous: Key, following: list[Key], count: int) -> None:
        """Somebody who reads the queries expects these after another one, the likeliest first.

        That counts as much as four transitions that were seen, each: enough for two prefetches
        where nothing else is known, fading like others, and outvoted by what sessions do. What is
        not kept is searched for now, as far as the budget goes.
        """
        for key in following[:_FETCHED]:
            for _ in range(_EXPECTED):
                self._transitions.seen(previous, key)
        self._issue(previous, count)

    def used(self, key: Key) -> bool:
        """There was a hit: whether it is owed to a prefetch, and the first that is."""
        return self._budget.use(key)

    def gone(self, key: Key) -> None:
        """An answer is kept no more."""
        self._budget.waste(key)

    def failed(self, key: Key) -> None:
        """A prefetch came to nothing."""
        self._budget.withdraw(key)

    def sweep(self, limit: int) -> None:
        """Let go of sessions that are over, and settle what nobody has used; bounded."""
        self._sessions.sweep(limit)
        self._budget.sweep(limit)
