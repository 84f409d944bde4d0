"""The way of a write: planned, committed, applied, answered.

Writes of one index go through four steps in batches:

1. *Plan*, on the event loop: decide what each write does (new or update, NX or XX met) and give out
   slots. Nothing that others can see changes. A batch ends before a write that names an id which
   a batch under way has touched, so that each write is decided against a settled state.
2. *Commit*, in the storage thread: rows, then records, durably (docs/storage.md). If that fails,
   the slots go back, every write of the batch is refused, and nothing has changed.
3. *Apply*, on the loop: ids, attributes and expiries, and the vectors into the engine's head. New
   vectors are bound to their ids first, so that a search which finds one can name it, and need not
   keep searches out. What takes a vector away or changes attributes has the index to itself.
4. *Answer* each write as soon as its last slice is in. From then on every search sees it.

While one batch is applied the next one is planned and committed: they name different ids, so the
plan does not depend on what the other has yet to apply. Batches are committed one after another
and applied one after another, in the same order. A large batch is applied in slices, between
which the loop gets its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from pyrope.cache.write_log import WriteLog
from pyrope.clock import Clock
from pyrope.engine.gate import Gate
from pyrope.engine.head_tail import HeadTailIndex
from pyrope.engine.lanes import Lane
from pyrope.errors import MisconfError, PyropeError
from pyrope.log import get_logger
from pyrope.metrics import ServerCounters
from pyrope.service.clusters import IndexClusters
from pyrope.service.remembered.dependencies import Consequences
from pyrope.service.state import IndexState
from pyrope.service.writes import Plan, Stored, Write, WriteQueue, plan
from pyrope.storage.group_commit import GroupCommitter
from pyrope.storage.store import WriteBatch
from pyrope.tracing.tracer import WriteTracer

_log = get_logger(__name__)

# A plan is made in one go on the loop, at 1 to 2 us a vector.
_PLAN_MAX_VECTORS = 4096
# Puts applied in one go on the loop: about 2 ms, or 5 with attributes.
_SLICE, _SLICE_WITH_ATTRIBUTES = 512, 256


class Target(Protocol):
    """The index that is written to."""

    state: IndexState
    engine: HeadTailIndex
    clusters: IndexClusters

    @property
    def log(self) -> WriteLog:
        """Of what searches come to see; told in the same turn of the loop as `state`."""
        ...

    @property
    def gate(self) -> Gate: ...

    async def delete_slots(self, slots: Sequence[int]) -> None:
        """Take vectors out of the engine; called with the index to itself."""
        ...

    def written(self) -> None:
        """Called when a batch has been applied."""
        ...

    def remove_expired(self) -> None:
        """Take out what has expired by now."""
        ...

    def consequences(self, ids: Iterable[bytes]) -> Consequences | None:
        """What else ends with a change of these vectors; None: nothing."""
        ...


class IndexWriter:
    """Writes to one index, in order.

    Attributes:
        sequence: the index's write sequence up to which everything has been applied.

    Args:
        uid, name: of the index.
        target: the index.
        spawn: runs a coroutine as a task that the owner waits for.
        counters: asked each time, as they may be replaced.
        tracer: told of commits; None: nobody is.
    """

    def __init__(  # noqa: PLR0913 - each is another matter
        self,
        uid: int,
        name: str,
        target: Target,
        *,
        executor: Lane,
        committer: GroupCommitter,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        counters: Callable[[], ServerCounters],
        clock: Clock,
        tracer: WriteTracer | None = None,
    ) -> None:
        self.sequence = 0
        self._planned_sequence = 0
        self._uid = uid
        self._name = name
        self._target = target
        self._executor = executor
        self._committer = committer
        self._spawn = spawn
        self._counters = counters
        self._clock = clock
        self._tracer = tracer
        self._queue = WriteQueue()
        self._task: asyncio.Task[None] | None = None
        self._applying: asyncio.Task[None] | None = None
        self._expiring: set[asyncio.Task[None]] = set()
        self._touched: set[bytes] = set()
        self._unreclaimed: list[int] = []
        self._news: asyncio.Future[None] | None = None
        self._broken = False

    def __len__(self) -> int:
        """Writes that wait to be planned."""
        return len(self._queue)

    @property
    def touched(self) -> set[bytes]:
        """Ids that a batch under way may change."""
        return self._touched

    def restore(self, sequence: int, unclaimed: list[int]) -> None:
        """Go on from what the store holds.

        Args:
            sequence: of the last committed write.
            unclaimed: slots that only the store refers to; the next write deletes them there.
        """
        self.sequence = self._planned_sequence = sequence
        self._unreclaimed = unclaimed

    def submit(self, write: Write) -> None:
        """Queue a write; its future resolves when it is durable and every search sees it.

        Raises:
            PyropeError: a write that is on disk could not be applied, for want of memory say.
        """
        if self._broken:
            raise PyropeError(
                f"index '{self._name}' takes no writes: one that is on disk could not be applied; "
                "restart the server to recover"
            )
        self._queue.add(write)
        if self._task is None:
            self._task = self._spawn(self._run())
        else:
            self._tell()

    def fail_queued(self, error: BaseException) -> None:
        """Refuse the writes that no batch has taken yet."""
        self._queue.fail(error)

    async def drain(self) -> None:
        """Return once everything that was queued is through, and what has expired is deleted."""
        while under_way := self._expiring | ({self._task} if self._task is not None else set()):
            await asyncio.wait(under_way)

    def delete_expired(self, slots: list[int], consequences: Consequences | None) -> None:
        """Take slots that no id leads to any more out of the engine, and then off the disk.

        Args:
            consequences: of their expiry; it has taken place already.
        """
        if consequences is not None:
            consequences.kept(durable=False)
        task = self._spawn(self._delete_expired(slots))
        self._expiring.add(task)
        task.add_done_callback(self._expiring.discard)

    async def _delete_expired(self, slots: list[int]) -> None:
        target = self._target
        held = target.state.drop_attributes(slots)
        # Urgent: until the engine has lost them, searches find what nobody can name any more.
        await target.gate.enter_exclusive(urgent=True)
        try:
            await self._executor.run(target.state.clear_columns, held)
            await target.delete_slots(slots)
        finally:
            target.gate.leave_exclusive()
        batch = WriteBatch(uid=self._uid, sequence=self._planned_sequence, deletes=slots)
        try:
            await self._committer.commit(batch)
        except MisconfError:
            self._unreclaimed += slots  # the next write takes them along
        else:
            target.state.ids.give_back(slots)
        target.written()

    # -- batches ----------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Run batches until nothing waits."""
        try:
            # One turn of the loop, so that writes that came in together share the first commit.
            await asyncio.sleep(0)
            while self._queue or self._applying is not None:
                self._target.remove_expired()
                writes = self._queue.take(_PLAN_MAX_VECTORS, self._touched)
                if writes:
                    await self._batch(writes)
                elif self._queue:
                    await self._applied()  # the next write names an id that is being written
                else:
                    await self._applied_or_submitted()
        finally:
            self._task = None

    async def _applied(self) -> None:
        """Wait for the batch that is being applied."""
        if self._applying is not None:
            await asyncio.wait([self._applying])

    async def _applied_or_submitted(self) -> None:
        """Wait for the batch that is being applied, or for the next write."""
        if self._applying is None:
            return
        self._news = asyncio.get_running_loop().create_future()
        self._applying.add_done_callback(self._tell)
        await self._news
        # Those that come in with it share its commit.
        await asyncio.sleep(0)

    def _tell(self, _: object = None) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _batch(self, writes: list[Write]) -> None:
        """Plan and commit; then, when the batch before is through, have this one applied."""
        ids = {id_ for write in writes for id_ in write.ids}
        self._touched |= ids
        try:
            state = self._target.state
            made = await plan(
                writes,
                Stored(state.ids, state.attributes, state.expires_at_ms, self._planned_sequence),
            )
            began_at = self._clock.monotonic()
            batch = await self._commit(made) if made.changes_anything else None
            if self._tracer is not None and batch is not None:
                futures = [write.future for write in writes]
                self._tracer.committed(futures, began_at, self._clock.monotonic())
            await self._applied()
        except MisconfError as error:
            _refuse(writes, partial(MisconfError, error.message))
            self._touched -= ids
        except BaseException as error:
            self._failed(writes, error)
            self._touched -= ids
            if not isinstance(error, Exception):
                raise
        else:
            self._applying = self._spawn(self._finish(made, batch, writes, ids))

    async def _commit(self, made: Plan) -> WriteBatch:
        self._planned_sequence += len(made.puts) + len(made.amends) + len(made.removed)
        reclaimed, self._unreclaimed = self._unreclaimed, []
        batch = WriteBatch(
            uid=self._uid,
            sequence=self._planned_sequence,
            puts=made.puts,
            vectors=made.vectors(),
            amends=made.amends,
            deletes=made.left + reclaimed,
        )
        ids = self._target.state.ids
        consequences = self._target.consequences(made.touched())
        more = () if consequences is None else consequences.changes
        try:
            await self._committer.commit(batch, *more)
        except Exception:
            ids.give_back(made.allocated())
            self._unreclaimed += reclaimed
            if consequences is not None:
                consequences.refused()
            raise
        if consequences is not None:
            consequences.kept()
        ids.give_back(reclaimed)
        return batch

    async def _finish(
        self, made: Plan, batch: WriteBatch | None, writes: list[Write], ids: set[bytes]
    ) -> None:
        try:
            if batch is not None:
                await self._apply(made, batch)
                self._target.state.ids.give_back(made.left)
                self.sequence = batch.sequence
                self._target.written()
            _answer(made, 0, len(made.puts))
        except BaseException as error:
            # Memory and store differ now, and the next write would be decided on what is not so.
            self._broken = batch is not None
            self._failed(writes, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._touched -= ids
            self._target.state.spare_no_more()
            self._applying = None

    async def _apply(self, made: Plan, batch: WriteBatch) -> None:
        """Bring engine, ids, attributes and expiries to what has been committed."""
        target, counters = self._target, self._counters()
        if made.removed or made.amended:
            await target.gate.enter_exclusive()
            try:
                slots = [target.state.forget(id_) for id_ in made.removed]
                target.log.gone(slots)
                for slot, attributes in made.amended:
                    target.state.set_attributes(slot, attributes)
                target.log.changed([slot for slot, _ in made.amended])
                await target.delete_slots(slots)
            finally:
                target.gate.leave_exclusive()
            target.clusters.removed(np.array(slots, np.int64))
            counters.vectors_deleted_total += len(made.removed)
        has_attributes = made.has_attributes
        size = _SLICE_WITH_ATTRIBUTES if has_attributes else _SLICE
        answered = 0
        for start in range(0, len(made.puts), size):
            stop = min(start + size, len(made.puts))
            left = [
                old
                for record in made.puts[start:stop]
                if (old := target.state.ids.slot(record.id)) is not None
            ]
            if left or has_attributes:
                await target.gate.enter_exclusive()
                try:
                    target.log.gone(left)
                    self._put(made, batch, start, stop)
                    await target.delete_slots(left)
                finally:
                    target.gate.leave_exclusive()
            else:
                self._put(made, batch, start, stop)
            answered = _answer(made, answered, stop)
            if stop < len(made.puts):
                await asyncio.sleep(0)
        counters.vectors_written_total += len(made.puts)

    def _put(self, made: Plan, batch: WriteBatch, start: int, stop: int) -> None:
        """One slice of puts."""
        state = self._target.state
        records = made.puts[start:stop]
        assert batch.vectors is not None  # noqa: S101 - puts have rows
        for record, attributes in zip(records, made.parsed[start:stop], strict=True):
            state.bind(record.id, record.slot, attributes, record.expires_at_ms)
        slots = np.fromiter((record.slot for record in records), np.int64, len(records))
        self._target.engine.append(slots, batch.vectors[start:stop])
        self._target.log.added(slots)
        self._target.clusters.wrote(slots)

    def _failed(self, writes: list[Write], error: BaseException) -> None:
        """A batch stopped half way: a defect of ours, or the end of the process."""
        message = (
            f"the write was interrupted ({type(error).__name__}); whether it took place shows "
            "after a restart"
        )
        _refuse(writes, partial(PyropeError, message))
        _log.error("a write failed after it was accepted", index=self._name, exc_info=error)


def _answer(made: Plan, answered: int, applied: int) -> int:
    """Answer the writes whose puts are all among the first `applied`.

    Args:
        answered: how many have their answer already.

    Returns:
        How many have it now.
    """
    answers = made.answers
    while answered < len(answers) and answers[answered][2] <= applied:
        write, answer, _ = answers[answered]
        if not write.future.done():
            write.future.set_result(answer)
        answered += 1
    return answered


def _refuse(writes: list[Write], make_error: Callable[[], BaseException]) -> None:
    for write in writes:
        if not write.future.done():
            write.future.set_exception(make_error())
