"""Things that take effect in the order in which they were asked for, however long each is made."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple


class _Place(NamedTuple):
    ready: asyncio.Future[Any] | None
    act: Callable[[], asyncio.Future[Any] | None]
    refuse: Callable[[BaseException], None]


class Line:
    """For the event loop."""

    def __init__(self) -> None:
        self._places: deque[_Place] = deque()
        # What the one before goes on with, if it takes longer than a turn of the loop.
        self._acting: asyncio.Future[Any] | None = None

    def __len__(self) -> int:
        """What waits, or is not through."""
        return len(self._places) + (self._acting is not None)

    def enter(
        self,
        ready: asyncio.Future[Any] | None,
        act: Callable[[], asyncio.Future[Any] | None],
        refuse: Callable[[BaseException], None],
    ) -> None:
        """Do something when it is ready and everything before it is done: at once, if it can be.

        Args:
            ready: what it waits for; None: nothing.
            act: must not raise; returns what those behind it wait for, if they have to.
            refuse: called instead with what `ready` raised.
        """
        self._places.append(_Place(ready, act, refuse))
        if ready is not None:
            ready.add_done_callback(self._advance)
        self._advance()

    async def drain(self) -> None:
        """Return once nothing waits."""
        while self._acting is not None or self._places:
            waited = self._acting if self._acting is not None else self._places[0].ready
            assert waited is not None  # noqa: S101 - else it would not wait
            await asyncio.wait([waited])
            # What is told of it at the same time has its turn.
            await asyncio.sleep(0)

    def _acted(self, _: object) -> None:
        self._acting = None
        self._advance()

    def _advance(self, _: object = None) -> None:
        places = self._places
        while places and self._acting is None:
            ready, act, refuse = places[0]
            if ready is not None and not ready.done():
                return
            places.popleft()
            if ready is not None and ready.cancelled():
                refuse(asyncio.CancelledError())
            elif ready is not None and (error := ready.exception()) is not None:
                refuse(error)
            else:
                acting = act()
                if acting is not None:
                    self._acting = acting
                    acting.add_done_callback(self._acted)
