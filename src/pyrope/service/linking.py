"""Putting vectors into an engine with every thread of the executor."""

from __future__ import annotations

from collections.abc import Callable

from pyrope.engine.base import VectorIndex, VectorSource
from pyrope.engine.executor import Executor
from pyrope.types import Float32Matrix, Slots

# Vectors linked between two looks at what else waits for the threads: about 50 ms of work for two
# threads at 384 dimensions. A search that comes in waits behind at most one such piece per thread.
_PIECE = 256


async def insert_parallel(
    executor: Executor, engine: VectorIndex, slots: Slots, vectors: Float32Matrix
) -> None:
    """Upsert, split over the executor's threads. The caller has the index to itself."""
    await executor.run(_upsert, executor, engine, slots, vectors)


def _upsert(executor: Executor, engine: VectorIndex, slots: Slots, vectors: Float32Matrix) -> None:
    """In one of the threads, which hands parts on itself: each way over the loop costs 0.4 ms."""
    prepared = engine.prepare_upsert(slots, vectors)
    executor.share(engine.insert, prepared.split(executor.threads))


async def link_all(
    executor: Executor,
    engine: VectorIndex,
    source: VectorSource,
    slots: Slots,
    *,
    linked: Callable[[int], None] = lambda count: None,
    go_on: Callable[[], bool] = lambda: True,
) -> None:
    """Put the vectors of these slots into an engine that nobody else uses, piece by piece.

    Args:
        slots: shape (n,), without duplicates.
        linked: called with the size of each piece when it is in.
        go_on: asked before each piece; False ends it there.
    """
    for start in range(0, len(slots), _PIECE):
        if not go_on():
            return
        piece = slots[start : start + _PIECE]
        vectors = await executor.run(_rows, source, piece)
        await insert_parallel(executor, engine, piece, vectors)
        linked(len(piece))


def _rows(source: VectorSource, slots: Slots) -> Float32Matrix:
    return source.view()[slots]
