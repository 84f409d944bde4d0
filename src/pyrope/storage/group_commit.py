"""Group commit: changes that arrive while a commit is in flight share the next one.

A commit costs two or three waits for the disk whatever it holds, so the disk's own pace sets the
size of a group (group commit: DeWitt et al., "Implementation Techniques for Main Memory Database
Systems", SIGMOD 1984): one client alone waits for nobody, a hundred share one fsync. There is no
timer.

- Order: changes reach the store in the order of the calls to `commit`, which takes effect at the
  call, not at the first await. A call's changes are never split between groups.
- A group that fails fails for every call in it, each with its own exception; nothing of it was
  kept, and the next group is tried as if nothing had been.
- A caller that is cancelled stops waiting. Its changes are committed all the same: they were
  accepted, and later ones may build on them.
- `stop` commits what was accepted before it.
- After a commit, and while there is nothing to commit, one bounded step of the store's garbage
  collection runs, so that a large drop neither starves nor stalls the writers.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from pyrope.clock import Clock
from pyrope.errors import MisconfError
from pyrope.metrics import Durations, Sizes
from pyrope.storage.store import Change, Store

Run: TypeAlias = Callable[[Callable[[], None]], Awaitable[None]]
"""Runs a function off the event loop and answers an awaitable of its end; one at a time."""


@dataclass(frozen=True, slots=True)
class CommitStatistics:
    """What a `GroupCommitter` has done.

    Attributes:
        commits_total: groups committed.
        changes_total: changes in them.
        largest_group: most changes in one of them.
        last_seconds: duration of the last commit that succeeded.
        errors_total: groups that failed, garbage collection included.
        pending_current: changes accepted and not yet committed, those in flight included.
        is_refused: whether the disk has refused the last group.
        durations, group_sizes: of the groups committed; they go on counting.
    """

    commits_total: int
    changes_total: int
    largest_group: int
    last_seconds: float
    errors_total: int
    pending_current: int
    is_refused: bool
    durations: Durations
    group_sizes: Sizes


@dataclass(frozen=True, slots=True)
class _Call:
    changes: tuple[Change, ...]
    nbytes: int
    done: asyncio.Future[None]


class GroupCommitter:
    """The one way by which a server writes to its store.

    Args:
        store: called through `run` only, one call at a time.
        run: for example ``lambda f: loop.run_in_executor(executor, f)``.
        clock: for the durations in `statistics`.
        max_group_bytes: bound on a group of more than one call; a larger call goes alone. It
            bounds what a later caller may have to wait before its own commit begins: at 300 MB/s,
            32 MiB are 0.1 s.
    """

    def __init__(self, store: Store, run: Run, clock: Clock, *, max_group_bytes: int) -> None:
        self._store = store
        self._run = run
        self._clock = clock
        self._max_group_bytes = max_group_bytes
        self._calls: deque[_Call] = deque()
        self._in_flight: list[_Call] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._commits_total = 0
        self._changes_total = 0
        self._largest_group = 0
        self._last_seconds = 0.0
        self._errors_total = 0
        self._is_refused = False
        self._durations = Durations()
        self._group_sizes = Sizes()

    async def start(self) -> None:
        """Begin to commit, inside the running loop. Raises RuntimeError when started before."""
        if self._task is not None:
            raise RuntimeError("a group committer starts once")
        self._task = asyncio.get_running_loop().create_task(self._work(), name="group-commit")

    async def stop(self) -> None:
        """Accept nothing more, commit what was accepted, end. Idempotent."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            # wait, not await: a stop that is cancelled must not cancel the commit in flight.
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

    def commit(self, *changes: Change) -> asyncio.Future[None]:
        """Accept changes, which become durable together; the answer is done when they are.

        The future raises MisconfError when the disk refused (nothing was kept), and StorageError
        for changes that break the store's rules.

        Raises:
            RuntimeError: not started, or stopped.
        """
        if self._task is None or self._task.done() or self._stopping:
            raise RuntimeError("the group committer is not running")
        done = asyncio.get_running_loop().create_future()
        self._calls.append(_Call(changes, sum(change.nbytes for change in changes), done))
        self._wake.set()
        return done

    def statistics(self) -> CommitStatistics:
        waiting = sum(len(call.changes) for call in self._calls)
        in_flight = sum(len(call.changes) for call in self._in_flight)
        return CommitStatistics(
            commits_total=self._commits_total,
            changes_total=self._changes_total,
            largest_group=self._largest_group,
            last_seconds=self._last_seconds,
            errors_total=self._errors_total,
            pending_current=waiting + in_flight,
            is_refused=self._is_refused,
            durations=self._durations,
            group_sizes=self._group_sizes,
        )

    async def _work(self) -> None:
        collecting = True  # what drops before the last restart left is there from the start
        try:
            while self._calls or not self._stopping:
                if self._calls:
                    # A disk that has just refused is not asked to collect garbage either.
                    collecting = await self._try_commit_group()
                elif not (collecting and self._store.garbage_left):
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                if collecting and self._store.garbage_left and not self._stopping:
                    collecting = await self._try_collect_garbage()
        finally:
            for call in (*self._in_flight, *self._calls):
                call.done.cancel()

    async def _try_commit_group(self) -> bool:
        self._in_flight = self._take_group()
        changes = [change for call in self._in_flight for change in call.changes]
        began = self._clock.monotonic()
        try:
            await self._run(partial(self._store.commit, changes))
        except Exception as error:  # noqa: BLE001 - every caller gets it, whatever it is
            self._errors_total += 1
            self._is_refused = isinstance(error, MisconfError)
            for call in self._in_flight:
                if not call.done.done():
                    own = copy.copy(error)
                    own.__cause__ = error
                    call.done.set_exception(own)
            self._in_flight = []
            return False
        self._last_seconds = self._clock.monotonic() - began
        self._is_refused = False
        self._durations.record(self._last_seconds)
        self._group_sizes.record(len(changes))
        self._commits_total += 1
        self._changes_total += len(changes)
        self._largest_group = max(self._largest_group, len(changes))
        for call in self._in_flight:
            if not call.done.done():
                call.done.set_result(None)
        self._in_flight = []
        return True

    def _take_group(self) -> list[_Call]:
        group = [self._calls.popleft()]
        nbytes = group[0].nbytes
        while self._calls and nbytes + self._calls[0].nbytes <= self._max_group_bytes:
            group.append(self._calls.popleft())
            nbytes += group[-1].nbytes
        return group

    async def _try_collect_garbage(self) -> bool:
        try:
            await self._run(self._store.collect_garbage)
        except MisconfError:
            self._errors_total += 1
            return False
        return True
