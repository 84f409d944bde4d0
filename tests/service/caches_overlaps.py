"""Searches that meet one another, and a write, at a chosen point of their way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import hiredis

from in_process import Desk, Reply, parsed
from plain_index import Asked
from service.caches_commands import IDS, NAME, QUERIES, Overlap, Put, Remove, Wish, Write
from service.caches_world import CachesWorld


@dataclass(slots=True)
class _Crowd:
    """Searches under way, and perhaps a write.

    Attributes:
        begun: replies in the order in which searches were sent, each with whether the write was
            certain by then.
    """

    desk: Desk
    overlap: Overlap
    written: Reply | None = None
    begun: list[tuple[Reply, bool]] = field(default_factory=list)

    def queries(self, asked: Asked, wish: Wish) -> list[bytes]:
        """Of one command: several of an MSEARCH."""
        if self.overlap.many and wish.text is None and wish.session is None:
            return [asked.query, *QUERIES[:2]]
        return [asked.query]

    def begin(self, asked: Asked, wish: Wish) -> None:
        queries = self.queries(asked, wish)
        name = b"VECTOR.SEARCH" if len(queries) == 1 else b"VECTOR.MSEARCH"
        words = (name, NAME, b"FP32", b"".join(queries), *asked.words[2:], *wish.words)
        late = self.written is not None and self.written.is_certain
        self.begun.append((self.desk.begin(*words, protocol=wish.protocol), late))


class CachesAtOnce(CachesWorld):
    """What the machines do at once."""

    def write_close_to(self, asked: Asked, how: str) -> Write | None:
        """A write that changes what a search finds, if there is one."""
        if how == "add":
            unused = [id_ for id_ in IDS if id_ not in self.model.stored]
            return Put((unused[0],), (asked.query,), None) if unused else None
        nearest = self.nearest(asked)
        return Remove((nearest[0],)) if nearest else None

    async def searched_at_once(
        self, some: list[tuple[Asked, Wish]], write: Write | None, overlap: Overlap
    ) -> None:
        """Send searches and a write, and judge each reply by what there was before or after it."""
        crowd = _Crowd(self.desk, overlap)
        async with self.held_up(overlap.gate):
            await self.send(crowd, some, write)
            await turns(4)
        if overlap.given_up is not None and overlap.given_up < len(some):
            crowd.begun[overlap.given_up][0].give_up()
        replies = [reply.data for reply, _ in crowd.begun]
        outcomes = await asyncio.gather(*replies, return_exceptions=True)
        before, after = self.model, self.model.copy()
        if write is not None:
            assert crowd.written is not None
            reply = parsed(await crowd.written.data)
            assert reply == write.change(after, self.clock.wall()), write
        await self.settled()
        self.searched = self.counted()
        self.model = after
        for (asked, wish), (_, late), outcome in zip(some, crowd.begun, outcomes, strict=True):
            asks = [replace(asked, query=query) for query in crowd.queries(asked, wish)]
            if isinstance(outcome, bytes):
                reply = parsed(outcome)
                several = len(asks) > 1 and not isinstance(reply, hiredis.ReplyError)
                for one, found in zip(asks, reply if several else [reply], strict=several):
                    models = (after,) if late else (before, after)
                    self.judge_one_of_several(one, wish, found, models)
            else:
                assert isinstance(outcome, asyncio.CancelledError), outcome
            for one in reversed(asks):
                self.has_asked(one, wish, level="miss")

    async def send(
        self, crowd: _Crowd, some: list[tuple[Asked, Wish]], write: Write | None
    ) -> None:
        overlap = crowd.overlap
        first = min(overlap.position, len(some) - 1)
        for asked, wish in some[:first]:
            crowd.begin(asked, wish)
        if write is not None:
            commits = self.commits()
            crowd.written = self.desk.begin(*write.words)
            if overlap.gate:
                await turns(4)
            elif overlap.computed:
                while self.commits() == commits and not crowd.written.is_certain:
                    await asyncio.sleep(0)
                await turns(overlap.turns)
        crowd.begin(*some[first])
        if overlap.gate or not overlap.computed:
            for asked, wish in some[first + 1 :]:
                crowd.begin(asked, wish)
            return
        # It has been found, and not told yet, when the rest comes.
        call_soon = asyncio.get_running_loop().call_soon
        for asked, wish in some[first + 1 :]:
            call_soon(call_soon, crowd.begin, asked, wish)
        call_soon(self.compute)

    @asynccontextmanager
    async def held_up(self, held: bool) -> AsyncIterator[None]:  # noqa: FBT001 - drawn
        """No search begins meanwhile."""
        if not held:
            yield
            return
        gate = self.index.gate
        await gate.enter_exclusive()
        try:
            yield
        finally:
            gate.leave_exclusive()

    def commits(self) -> int:
        return self.service.commit_statistics().commits_total

    def compute(self) -> None:
        """Hold the loop until searches that have begun have found what they will."""
        through = threading.Event()
        self.service.run(through.set)
        assert through.wait(20)


async def turns(count: int) -> None:
    """Let others have their turns of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)
