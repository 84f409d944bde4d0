"""What each conversation asked last, for as long as it may go on."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pyrope.clock import Clock

K = TypeVar("K", bound=Hashable)

# What CPython takes for a session besides the bytes of its name and its key: places in the
# table, objects, time. Measured: tests/cache/test_sessions.
_SESSION_BYTES = 240
# Sessions looked at for having expired whenever one is followed: two for each that may come, so
# that they go faster than they come, without a sweep.
_EXPIRED_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """What `Sessions` holds and has done.

    Attributes:
        entries_current: sessions, with expired ones that nobody met yet.
        bytes_current: memory that they take.
        evicted_total: sessions that had to go for others.
        expired_total: sessions that were idle for too long.
        oversized_total: queries not remembered, because they would not fit into the bytes alone.
    """

    entries_current: int
    bytes_current: int
    evicted_total: int
    expired_total: int
    oversized_total: int


@dataclass(slots=True, eq=False)
class _Session(Generic[K]):
    key: K
    used_at: float
    nbytes: int


class Sessions(Generic[K]):
    """The key of the last query of each session, for the event loop; each call is O(1).

    Past a bound the session goes that was used the longest time ago. As all are idle for the same
    time before they expire, the order of use is the order of expiry too, and no heap is needed.

    Args:
        clock: its monotonic side is what sessions expire by.
        size_of: memory in bytes that a key takes, the same at each call for the same key.
        max_sessions: kept at the most, at least 1.
        max_bytes: that they may take together, at least 1.
        idle_s: seconds without a query after which a session is over, above 0 and finite.

    Raises:
        ValueError: a bound is not as it says here.
    """

    def __init__(
        self,
        clock: Clock,
        size_of: Callable[[K], int],
        *,
        max_sessions: int,
        max_bytes: int,
        idle_s: float,
    ) -> None:
        if max_sessions < 1 or max_bytes < 1:
            raise ValueError(f"no room for {max_sessions} sessions in {max_bytes} bytes")
        if not 0.0 < idle_s < math.inf:
            raise ValueError(f"a session cannot be idle for {idle_s} s")
        self._monotonic = clock.monotonic
        self._size_of = size_of
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._idle_s = idle_s
        # Least lately used first.
        self._sessions: OrderedDict[bytes, _Session[K]] = OrderedDict()
        self._bytes = 0
        self._evicted_total = 0
        self._expired_total = 0
        self._oversized_total = 0

    def __len__(self) -> int:
        """Sessions, those included that have expired and not been swept yet."""
        return len(self._sessions)

    @property
    def nbytes(self) -> int:
        """Memory that the sessions take, in bytes."""
        return self._bytes

    def follow(self, session: bytes, key: K) -> K | None:
        """Remember a query as the last one of its session.

        Args:
            session: what the client calls it. The caller limits its length, and keeps tenants and
                indexes apart.

        Returns:
            The key of the query before; None where there is none, or the session had expired.
        """
        self.sweep(_EXPIRED_AT_ONCE)
        now = self._monotonic()
        before: K | None = None
        old = self._sessions.pop(session, None)
        if old is not None:
            self._bytes -= old.nbytes
            if self._is_over(old, now):
                self._expired_total += 1
            else:
                before = old.key
        nbytes = _SESSION_BYTES + len(session) + self._size_of(key)
        if nbytes > self._max_bytes:
            self._oversized_total += 1
            return before
        self._sessions[session] = _Session(key, now, nbytes)
        self._bytes += nbytes
        while len(self._sessions) > self._max_sessions or self._bytes > self._max_bytes:
            self._take_oldest()
            self._evicted_total += 1
        return before

    def sweep(self, limit: int) -> int:
        """Take out sessions that have expired.

        Args:
            limit: taken out at the most.

        Returns:
            How many went.
        """
        now = self._monotonic()
        gone = 0
        while (
            gone < limit
            and self._sessions
            and self._is_over(next(iter(self._sessions.values())), now)
        ):
            self._take_oldest()
            gone += 1
        self._expired_total += gone
        return gone

    def statistics(self) -> SessionStatistics:
        return SessionStatistics(
            entries_current=len(self._sessions),
            bytes_current=self._bytes,
            evicted_total=self._evicted_total,
            expired_total=self._expired_total,
            oversized_total=self._oversized_total,
        )

    def _is_over(self, session: _Session[K], now: float) -> bool:
        return now - session.used_at >= self._idle_s

    def _take_oldest(self) -> None:
        _, session = self._sessions.popitem(last=False)
        self._bytes -= session.nbytes
