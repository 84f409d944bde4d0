"""The merger of one index: moves its head into its tail, and builds tails, in the background.

- *Merging*: slices of the head's oldest vectors, each with the index to itself for a few
  milliseconds, so that searches get their turn between any two of them. How many vectors make a
  slice is learnt from the slices before. Some vectors stay in the head while there are writes, and
  none when they have paused. Nothing is lost by a crash at any time: the tail is a
  cache of what records and rows say (docs/storage.md).
- *Building*: a tail that is the first one, of another type, trained anew or rid of tombstones is
  made aside from all vectors there are, and put in the place of the old one when it is done. Until
  then the old one serves (or a full scan, where there is none); nobody waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

import numpy as np

from pyrope.clock import Clock
from pyrope.engine.auto import SearchCosts, choose_type
from pyrope.engine.base import TailIndex
from pyrope.engine.executor import Executor
from pyrope.engine.free_memory import give_back_free_memory
from pyrope.engine.gate import Gate
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.engine.ivf_training import minimum_count
from pyrope.engine.lanes import Lane
from pyrope.errors import NoIndexError, PyropeError
from pyrope.log import get_logger
from pyrope.storage.vector_file import VectorFile
from pyrope.types import IndexSpec, IndexType, Slots

_log = get_logger(__name__)

# While nobody searches any index, slices may be this much longer.
_UNDISTURBED = 10
_FIRST_SLICE, _SMALLEST_SLICE, _LARGEST_SLICE = 16, 8, 4096
# How a slice grows while it keeps to its time, and shrinks when it does not. Its cost is not taken
# for proportional to its size: the first vector of a slice takes as long as the next five.
_GROWTH, _SHRINKAGE = 1.1, 0.85
# Vectors put into a tail that is built aside between two looks at who else needs the threads.
_PIECE, _DISTURBED_PIECE = 1024, 64
# Tombstones that are not worth a rebuild, whatever their share.
_TOMBSTONES = 1000
# Of a tail's vectors: so many must have come or gone before it is trained anew.
_OTHER_SHARE = 0.5
# Of an index of type AUTO: no look at its type below this, and again when it has grown so much.
_AUTO_FLOOR, _AUTO_GROWTH = 1000, 1.2


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """Settings of the merger.

    Attributes:
        head_vectors: vectors that may stay in the head while there are writes.
        slice_seconds: how long a slice may hold searches up.
        compact_share: share of tombstones in the tail from which it is built anew.
    """

    head_vectors: int
    slice_seconds: float
    compact_share: float


class Mergeable(Protocol):
    """The index that is merged.

    Attributes:
        active_type: the type of the tail; FLAT without one.
        closed: it is going away: what takes long gives up.
    """

    spec: IndexSpec
    engine: HeadTailIndex
    vectors: VectorFile
    active_type: IndexType
    closed: bool

    @property
    def gate(self) -> Gate: ...

    @property
    def in_use(self) -> bool:
        """Whether it or another is searched now, or was a moment ago."""
        ...

    @property
    def at_rest(self) -> bool:
        """Whether nothing has been written for a while."""
        ...

    def new_tail(self, kind: IndexType, count: int) -> TailIndex:
        """An empty tail for about so many vectors."""
        ...

    def watch_removals(self) -> set[int]:
        """A set to which every slot is added whose vector goes, until `watch_no_more`."""
        ...

    def watch_no_more(self) -> None: ...


@dataclass(frozen=True, slots=True)
class MergeServices:
    """What a merger needs of the rest of the server.

    Attributes:
        background: one thread for what takes seconds.
        search_costs: measures what searches of an index cost on this machine.
        memory_left: bytes that all indexes together may still take; None: there is no limit.
    """

    background: Executor
    clock: Clock
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    options: MergeOptions
    search_costs: Callable[[IndexSpec], Awaitable[SearchCosts]]
    memory_left: Callable[[], int | None]


class Merger:
    """All methods are for the event loop."""

    def __init__(self, index: Mergeable, lane: Lane, services: MergeServices) -> None:
        self._index = index
        self._lane = lane
        self._services = services
        self._task: asyncio.Task[None] | None = None
        self._merging = False
        # Set by `finish`: everything that waits now is to be merged, and trained.
        self._thorough = False
        # Of the vectors that `finish` found in the head, so many may be there still: the oldest.
        self._waiting = 0
        # Every tombstone is to go; False from when a build begins (more come while it lasts).
        self._purging = False
        # Set whenever what `finish` wants is done, or the task ends.
        self._settled = asyncio.Event()
        # A build has failed, or a merge, which leaves no tail: nothing is built until `finish`.
        self._failed = False
        self._considered = 0
        self._changes_when_built = 0
        # Vectors of the next slice, while there are searches and while there are none.
        self._sizes = {True: _FIRST_SLICE, False: _FIRST_SLICE}

    @property
    def running(self) -> bool:
        return self._task is not None

    def nudge(self) -> None:
        """Begin, if there is something to do; to be called whenever that may have changed."""
        if self._task is None and not self._index.closed and self._due():
            self._task = self._services.spawn(self._run())

    async def finish(self) -> None:
        """Merge all that waits now, train, and remove every tombstone there is now.

        Raises:
            NoIndexError: the index was dropped meanwhile, or the server is stopping.
            PyropeError: it failed; the log says why.
        """
        index = self._index
        self._waiting = index.engine.head_count
        self._thorough, self._purging, self._failed = True, True, False
        while self._thorough and not index.closed:
            if self._task is None:
                self._task = self._services.spawn(self._run())
            # The task itself is not awaited: a client that goes away undoes no hour's work, and
            # under steady writes it may go on for ever.
            self._settled.clear()
            await self._settled.wait()
            if self._failed:
                raise PyropeError(
                    f"index '{index.spec.name}' cannot be built: see the log; until it can, it is "
                    f"searched as what it is, {index.active_type.value}"
                )
        if index.closed:
            raise NoIndexError(
                f"the index '{index.spec.name}' has been dropped, or the server is stopping"
            )

    async def stop(self) -> None:
        """Return when nothing runs any more; the index has been marked as closed."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def _leaving(self) -> bool:
        return self._index.closed

    # -- deciding ---------------------------------------------------------------------------------

    def _due(self) -> bool:
        """Whether a look is worth it; cheap."""
        spec, engine = self._index.spec, self._index.engine
        if spec.type is IndexType.FLAT:
            return False
        if self._failed:
            return engine.tail is not None and self._merge_due()
        if spec.type is IndexType.AUTO and len(engine) > max(_AUTO_FLOOR, self._considered):
            return True
        if engine.tail is None:
            return self._may_have_tail() and engine.head_count > self._services.options.head_vectors
        return self._merge_due() or self._tail_due(engine.tail)

    def _may_have_tail(self) -> bool:
        spec, count = self._index.spec, len(self._index.engine)
        if spec.type is IndexType.AUTO:
            return False
        if spec.type.has_lists and not self._thorough:
            return count >= minimum_count(spec.nlist)
        return count > 0

    def _merge_due(self) -> bool:
        engine, options = self._index.engine, self._services.options
        if self._waiting and engine.head_count:
            return True
        if self._index.at_rest:
            # Even a short head costs every search a few per cent.
            return engine.head_count > 0
        # Begun at twice what may stay, so that slices are worth their entrance.
        most = options.head_vectors * (1 if self._merging else 2)
        return engine.head_count > most

    def _tail_due(self, tail: TailIndex) -> bool:
        """Whether the tail is to be built anew."""
        gone, there = tail.deleted_count, len(tail)
        if self._failed:
            return False
        if self._purging and gone:
            return True
        share = self._services.options.compact_share
        if gone > _TOMBSTONES and gone > share * (gone + there):
            return True
        # What was just learnt is not learnt again, however little it fits.
        changes = self._index.engine.tail_changes - self._changes_when_built
        return changes > _OTHER_SHARE * there and tail.worn

    async def _wanted(self) -> IndexType:
        """The type that the tail should have; FLAT: none."""
        index, spec = self._index, self._index.spec
        if spec.type is not IndexType.AUTO:
            there = index.engine.tail is not None or self._may_have_tail()
            return spec.type if there else IndexType.FLAT
        count = len(index.engine)
        if count > max(_AUTO_FLOOR, self._considered) and not self._failed:
            self._considered = int(count * _AUTO_GROWTH)
            costs = await self._services.search_costs(spec)
            left = self._services.memory_left()
            budget = None if left is None else left + index.engine.memory_bytes
            return choose_type(count, spec.dim, costs, spec.m, budget, index.active_type)
        return index.active_type

    # -- doing ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        index = self._index
        try:
            while not self._leaving():
                kind = await self._wanted()
                tail = index.engine.tail
                if kind is IndexType.FLAT:
                    break
                if tail is not None and kind is index.active_type and not self._wished(tail):
                    self._finished()
                if tail is None or kind is not index.active_type or self._tail_due(tail):
                    await self._build(kind)
                elif self._merge_due():
                    self._merging = True
                    await self._merge_slice()
                else:
                    break
        except Exception as error:  # noqa: BLE001 - whatever it is, the index goes on without
            self._failed = True
            _log.error("merging failed", index=index.spec.name, exc_info=error)
        finally:
            self._merging = False
            self._waiting = 0
            self._finished()
            self._task = None

    def _wished(self, tail: TailIndex) -> bool:
        """Whether something that `finish` wants is not done yet."""
        waiting = self._waiting and self._index.engine.head_count
        return bool(waiting or (self._purging and tail.deleted_count))

    def _finished(self) -> None:
        """There is nothing more to do for `finish`."""
        self._thorough = self._purging = False
        self._settled.set()

    async def _merge_slice(self) -> None:
        index, clock = self._index, self._services.clock
        in_use = index.in_use
        seconds = self._services.options.slice_seconds * (1 if in_use else _UNDISTURBED)
        count = self._sizes[in_use]
        await index.gate.enter_exclusive()
        try:
            if self._leaving():
                return
            began = clock.monotonic()
            merged = await self._lane.run(self._merge, count)
            took = clock.monotonic() - began
        except Exception:
            # Nobody knows the state of the tail: go on without.
            index.active_type = IndexType.FLAT
            await self._lane.run(index.engine.abandon_tail)
            raise
        finally:
            index.gate.leave_exclusive()
        self._waiting = max(self._waiting - merged, 0)
        if merged == count:
            size = ceil(count * (_GROWTH if took <= seconds else _SHRINKAGE))
            self._sizes[in_use] = min(max(size, _SMALLEST_SLICE), _LARGEST_SLICE)

    def _merge(self, count: int) -> int:
        """In a thread, with the index to itself."""
        engine, lane = self._index.engine, self._lane
        slots, prepared = engine.prepare_merge(count)
        assert engine.tail is not None  # noqa: S101 - prepare_merge has seen it
        lane.share(engine.tail.insert, prepared.split(lane.threads))
        engine.finish_merge(slots)
        return len(slots)

    async def _build(self, kind: IndexType) -> None:
        """Make a tail aside, and put it in its place."""
        index, background = self._index, self._services.background
        began = self._services.clock.monotonic()
        removed = index.watch_removals()
        try:
            self._purging = False
            live = await background.run(index.engine.live_slots)
            fresh = index.new_tail(kind, len(live))
            await background.run(self._train, fresh, live)
            done = 0
            while done < len(live) and not self._leaving():
                alone = not index.in_use
                piece = live[done : done + (_PIECE if alone else _DISTURBED_PIECE)]
                done += len(piece)
                threads = self._lane.threads if alone else 1
                await background.run(self._fill, fresh, piece, threads)
            if self._leaving():
                return
            await index.gate.enter_exclusive()
            try:
                if self._leaving():
                    return
                await self._lane.run(self._install, fresh, removed)
                index.active_type = kind
                # What waited when `finish` was called is in it, if it was begun after that.
                self._waiting = index.engine.head_count if self._purging else 0
                self._changes_when_built = index.engine.tail_changes
            finally:
                index.gate.leave_exclusive()
            await background.run(give_back_free_memory)
        finally:
            index.watch_no_more()
        _log.info(
            "tail built",
            index=index.spec.name,
            type=kind.value,
            vectors=len(live),
            seconds=round(self._services.clock.monotonic() - began, 3),
        )

    def _train(self, fresh: TailIndex, live: Slots) -> None:
        size = fresh.training_size
        if not size:
            return
        spec = self._index.spec
        if size < len(live):
            live = np.sort(np.random.default_rng(spec.uid).choice(live, size, replace=False))
        fresh.train(self._index.vectors.view()[live])

    def _fill(self, fresh: TailIndex, piece: Slots, threads: int) -> None:
        prepared = fresh.prepare_upsert(piece, self._index.vectors.view()[piece])
        self._lane.share(fresh.insert, prepared.split(threads))

    def _install(self, fresh: TailIndex, removed: set[int]) -> None:
        """In a thread, with the index to itself."""
        gone = np.fromiter(removed, np.int64, len(removed))
        self._index.engine.install(fresh, gone)
