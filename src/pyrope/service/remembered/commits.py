"""Changes of one index's responses on their way to the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from pyrope.errors import NoIndexError, PyropeError
from pyrope.storage.group_commit import GroupCommitter
from pyrope.storage.store import PutSide
from pyrope.types import IndexSpec


class Commits:
    """For the event loop.

    Attributes:
        detached: whether the index is being dropped: nothing is written any more.
    """

    def __init__(self, spec: IndexSpec, committer: GroupCommitter) -> None:
        self._spec = spec
        self._committer = committer
        self._under_way: set[asyncio.Future[Any]] = set()
        self.detached = False

    def __len__(self) -> int:
        """Those that are under way."""
        return len(self._under_way)

    def commit(
        self,
        changes: Sequence[PutSide],
        kept: Callable[[], None],
        refused: Callable[[BaseException], None],
    ) -> None:
        """Hand changes to the disk, and call one of the other two when it is through."""
        if self.detached:
            refused(NoIndexError(f"the index '{self._spec.name}' has been dropped"))
            return
        try:
            future = self._committer.commit(*changes)
        except RuntimeError:
            refused(PyropeError("the server is stopping"))
            return
        self._under_way.add(future)

        def through(outcome: asyncio.Future[None]) -> None:
            self._under_way.discard(future)
            if outcome.cancelled():
                refused(PyropeError("the server is stopping"))
            elif (error := outcome.exception()) is not None:
                refused(error)
            else:
                kept()

        future.add_done_callback(through)

    async def wait(self) -> None:
        """Return once all that are under way now are through."""
        if self._under_way:
            await asyncio.wait(self._under_way)
