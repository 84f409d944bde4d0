"""Saving tails (graphs, inverted lists), so that a restart need not build them anew.

A saved tail is a copy: whatever happens to it, records and rows are the truth, and what it lacks is
in the head after a restart. So saving is never on the way of a write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial

from pyrope.clock import Clock
from pyrope.config import StorageSettings
from pyrope.engine.executor import Executor
from pyrope.log import get_logger
from pyrope.service.index import OpenIndex
from pyrope.storage.graph_file import GraphMeta, save_graph
from pyrope.storage.store import Store
from pyrope.types import IndexSpec, IndexType

_log = get_logger(__name__)


def graph_meta(spec: IndexSpec, kind: IndexType, sequence: int, slot_count: int) -> GraphMeta:
    """The description of a tail of this kind."""
    return GraphMeta(
        uid=spec.uid,
        sequence=sequence,
        slot_count=slot_count,
        type=kind.value,
        dim=spec.dim,
        metric=spec.metric.value,
        m=spec.m,
        ef_construction=spec.ef_construction,
    )


class GraphSaver:
    """Saves the graphs of indexes, one at a time.

    Attributes:
        last_save_at: Unix time in seconds of the last save that succeeded; of the start before.
        error: why the last save failed; None where it did not.
        saving: whether a save is under way.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self.last_save_at = clock.wall()
        self.error: str | None = None
        self._store = store
        self._clock = clock
        self._thread = Executor(1, name="pyrope-save")
        self._lock = asyncio.Lock()
        self._attempted_at = clock.monotonic()

    @property
    def saving(self) -> bool:
        return self._lock.locked()

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Wait for a save under way, and end."""
        async with self._lock:
            await self._thread.stop()

    def due(self, indexes: Iterable[OpenIndex], settings: StorageSettings) -> list[OpenIndex]:
        """The indexes whose graphs are worth saving again now."""
        interval = settings.graph_save_interval_s
        if not interval or self._clock.monotonic() - self._attempted_at < interval:
            return []
        self._attempted_at = self._clock.monotonic()
        return [
            index for index in indexes if index.unsaved_changes >= settings.graph_save_min_changes
        ]

    async def save(self, indexes: Iterable[OpenIndex], *, at_exit: bool = False) -> None:
        """Save the graphs that have changed. What fails is logged and kept in `error`.

        Args:
            at_exit: nobody is served any more, so the graph is written in this process, which
                holds everything up, instead of in a forked one, which costs memory.
        """
        async with self._lock:
            self._attempted_at = self._clock.monotonic()
            self.error = None
            for index in indexes:
                if not index.closed or at_exit:
                    await self._save(index, at_exit=at_exit)
            if self.error is None:
                self.last_save_at = self._clock.wall()

    async def _save(self, index: OpenIndex, *, at_exit: bool) -> None:
        path = self._store.graph_path(index.spec.uid)
        if path is None or not index.unsaved_changes:
            return
        began = self._clock.monotonic()
        gate = index.gate
        await gate.enter_exclusive()
        if (index.closed and not at_exit) or index.engine.tail is None:
            gate.leave_exclusive()
            return
        tail, changes = index.engine.tail, index.engine.tail_changes
        # The tail is true at this sequence until the gate is left: which is as soon as the child
        # has its copy of the memory.
        meta = graph_meta(index.spec, index.active_type, index.sequence, index.state.ids.slot_count)
        left = asyncio.Event()
        loop = asyncio.get_running_loop()

        def leave() -> None:
            if not left.is_set():
                left.set()
                gate.leave_exclusive()

        def forked() -> None:
            loop.call_soon_threadsafe(leave)

        write = tail.save if at_exit else partial(tail.save_forked, forked=forked)
        saving = self._thread.run(save_graph, path, write, meta)
        try:
            await asyncio.wait([saving])
            saving.result()
        except asyncio.CancelledError:
            # The thread may not have forked yet, so nobody may write before it is through.
            await asyncio.wait([saving])
            raise
        except OSError as error:
            self.error = f"the graph of index '{index.spec.name}' cannot be saved: {error}"
            _log.error("graph not saved", index=index.spec.name, error=str(error))
        else:
            index.saved_changes = changes
            _log.info(
                "graph saved",
                index=index.spec.name,
                vectors=len(tail),
                seconds=round(self._clock.monotonic() - began, 3),
            )
        finally:
            leave()
