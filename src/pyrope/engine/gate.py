"""Who may use an index now: many searches, or one writer.

hnswlib allows concurrent searches, and concurrent insertions, but not both at once, so that writes
come in short slices between batches of searches. The gate lives on the event loop: it needs no
lock, and nobody ever blocks a thread on it.

Rules:
- A reader may enter unless a writer is inside or waiting; `on_open` is called when that changes.
- A writer that waits is let in when the last reader leaves. While it waits no new reader enters, so
  that searches cannot starve writes.
- When a writer leaves, `on_open` runs before another writer may enter, so that writes cannot starve
  searches: each slice of writes lets one round of searches through.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable


class Gate:
    """Shared and exclusive access to one index, for code on the event loop."""

    __slots__ = ("_on_open", "_readers", "_urgent", "_waiting", "_writing")

    def __init__(self, on_open: Callable[[], None]) -> None:
        self._on_open = on_open
        self._readers = 0
        self._writing = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._urgent: set[asyncio.Future[None]] = set()

    @property
    def is_open(self) -> bool:
        """Whether a reader may enter now."""
        return not self._writing and not self._waiting

    def enter_shared(self) -> None:
        """Enter as a reader. Raises RuntimeError unless the gate `is_open`."""
        if not self.is_open:
            raise RuntimeError("a reader may not enter: a writer is inside or waiting")
        self._readers += 1

    def leave_shared(self) -> None:
        self._readers -= 1
        if not self._readers:
            self._admit_writer()

    async def enter_exclusive(self, *, urgent: bool = False) -> None:
        """Wait for the index to oneself. Cancelling gives the turn to the next in line.

        Args:
            urgent: go before everybody who waits, searches included: for short work without which
                their answers would fall short.
        """
        if not self._writing and not self._readers and not self._waiting:
            self._writing = True
            return
        turn = asyncio.get_running_loop().create_future()
        if urgent:
            self._waiting.appendleft(turn)
            self._urgent.add(turn)
        else:
            self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.leave_exclusive()
            else:
                with contextlib.suppress(ValueError):  # it may have been passed over already
                    self._waiting.remove(turn)
                if not self._waiting and not self._writing:
                    self._on_open()
            raise

    def leave_exclusive(self) -> None:
        self._writing = False
        if self._waiting and self._waiting[0] in self._urgent and not self._readers:
            self._admit_writer()
            return
        # Searches first: `_waiting` is hidden from them for this one round.
        waiting, self._waiting = self._waiting, deque()
        try:
            self._on_open()
        finally:
            waiting.extend(self._waiting)
            self._waiting = waiting
        if not self._readers:
            self._admit_writer()

    def _admit_writer(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            self._urgent.discard(turn)
            if not turn.done():
                self._writing = True
                turn.set_result(None)
                return
