"""The aliases of one index: in memory for look-ups, in the store for the next start.

A write is checked against the map, committed, put into the map, and answered, in this order, so
that nobody sees an alias that a crash can undo. Writes are taken in batches, each in one commit,
one batch at a time: a batch ends before a write whose check could depend on what it changes. While
it is committed the map may lose aliases (to expiry or eviction) but gets none, and a check that has
passed still holds then.

What has gone from the map by itself is deleted from the store with the next batch, in the same
commit: a crash never leaves it beside aliases that were checked without it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyrope.cache.alias import Alias, AliasSource, Canonical, decode_alias, encode_alias
from pyrope.cache.canonical_keys import AliasStatistics, CanonicalKeyMap
from pyrope.cache.query_key import QueryKey
from pyrope.clock import Clock
from pyrope.config import AliasSettings
from pyrope.errors import CommandError, MisconfError, PyropeError
from pyrope.log import get_logger
from pyrope.storage.group_commit import GroupCommitter
from pyrope.storage.store import PutSide, SideRecord, StorageError

_log = get_logger(__name__)

SIDE_KIND = 1
"""Of the side records that hold aliases, by the identity of their key."""

# A commit of so much goes through the log (`pyrope.storage.lmdb_store`) and is planned in some ms.
_BATCH_BYTES = 128 * 1024
_BATCH_WRITES = 256
# Expired ones that are taken out before a batch is checked, so that they stand in nobody's way.
_SWEPT_FIRST = 256
_SWEEP_LIMIT = 1000


@dataclass(slots=True, eq=False)
class _Write:
    """An alias to be set or, where there is none, a key whose alias is to be removed.

    `future` resolves to 1, or to 0 where there was nothing to remove.
    """

    key: QueryKey
    alias: Alias | None
    future: asyncio.Future[int]

    @property
    def nbytes(self) -> int:
        if self.alias is None:
            return len(self.key.content)
        return len(self.key.content) + len(self.alias.canonical.key.content)

    def change(self, uid: int) -> PutSide:
        value = None if self.alias is None else encode_alias(self.alias)
        return PutSide(uid, SIDE_KIND, self.key.identity, value)


class Aliases:
    """What queries of an index are other names of. For the event loop.

    Args:
        uid, name: of the index.
        settings: read at every use.
        spawn: runs a coroutine as a task that the owner waits for.
    """

    def __init__(
        self,
        uid: int,
        name: str,
        *,
        settings: AliasSettings,
        clock: Clock,
        committer: GroupCommitter,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._uid = uid
        self._name = name
        self._settings = settings
        self._clock = clock
        self._committer = committer
        self._spawn = spawn
        self._map = CanonicalKeyMap(settings, clock)
        self._queue: deque[_Write] = deque()
        # Identities that the store may hold and the map does not.
        self._stale: set[bytes] = set()
        self._task: asyncio.Task[None] | None = None
        # Whether the last commit failed: then what is stale waits for a write to take it along.
        self._refused = False

    def __len__(self) -> int:
        return len(self._map)

    @property
    def memory_bytes(self) -> int:
        return self._map.nbytes

    @property
    def queued(self) -> int:
        """Writes that wait for their batch."""
        return len(self._queue)

    def statistics(self) -> AliasStatistics:
        return self._map.statistics()

    # -- reading ----------------------------------------------------------------------------------

    def resolve(self, key: QueryKey) -> Canonical | None:
        """What a query is another name of; see `CanonicalKeyMap.resolve`."""
        return self._map.resolve(key)

    def get(self, key: QueryKey) -> Alias | None:
        """The alias with this key, however sure it is; counts nothing."""
        return self._map.get(key)

    def is_canonical(self, key: QueryKey) -> bool:
        """See `CanonicalKeyMap.is_canonical`."""
        return self._map.is_canonical(key)

    def scan(self, cursor: int) -> tuple[int, list[Alias]]:
        """A page of aliases; see `CanonicalKeyMap.scan`."""
        return self._map.scan(cursor)

    # -- auditing ---------------------------------------------------------------------------------

    def is_unaudited(self, key: QueryKey) -> bool:
        """Whether too few audits were made of an alias to know where it leads."""
        return self._map.is_unaudited(key)

    def audited(self, key: QueryKey, canonical: QueryKey, *, alike: bool) -> None:
        """An audit has seen whether an alias led to anything of the true answer.

        See `CanonicalKeyMap.audited`: it may be suspended because of this, until it is set again,
        or the server starts again.
        """
        if self._map.audited(key, canonical, alike=alike):
            # What people ask for is not for a log; VECTOR.ALIAS LIST says which.
            _log.warning("an alias is suspended: it leads elsewhere", index=self._name)

    # -- writing ----------------------------------------------------------------------------------

    def set(
        self,
        key: QueryKey,
        canonical: QueryKey,
        *,
        confidence: float,
        source: AliasSource,
        lifetime_s: int = 0,
    ) -> asyncio.Future[int]:
        """Let a key stand for another; the answer is done when that is durable.

        Args:
            confidence: 0 to 1.
            lifetime_s: seconds until it expires; 0: never.

        The future raises CommandError where it would make a chain, or overwrite what was set by
        hand with something else, MisconfError where the disk refuses, and NoIndexError where the
        index is dropped first. Cancelling it before its batch has begun drops the write.
        """
        now_ms = int(self._clock.wall() * 1000)
        expires_at_ms = now_ms + 1000 * lifetime_s if lifetime_s else 0
        alias = Alias(key, Canonical(canonical, confidence, source), now_ms, expires_at_ms)
        return self._submit(_Write(key, alias, _new_future()))

    def remove(self, key: QueryKey) -> asyncio.Future[int]:
        """Remove an alias, durably. The future resolves to 1, or to 0 where there was none."""
        return self._submit(_Write(key, None, _new_future()))

    def sweep(self, limit: int = _SWEEP_LIMIT) -> None:
        """Take out what has expired or exceeds its bounds, and see that the store follows.

        Args:
            limit: aliases taken out at the most.
        """
        self._stale.update(self._map.sweep(limit))
        if self._stale and not self._refused:
            self._start()

    def fail_queued(self, error: BaseException) -> None:
        """Refuse the writes that no batch has taken yet."""
        while self._queue:
            _refuse(self._queue.popleft(), error)

    async def drain(self) -> None:
        """Return once everything that was queued is through."""
        while self._task is not None:
            await asyncio.wait([self._task])

    # -- restoring and closing --------------------------------------------------------------------

    def restore(self, records: Iterable[SideRecord]) -> None:
        """Take up what the store holds; in any thread, before anyone sees the index.

        What has expired, or exceeds the bounds, is left out and goes from the store with the next
        write or sweep.

        Raises:
            StorageError: a newer Pyrope wrote one of them.
        """
        try:
            aliases = [decode_alias(record.key, record.value) for record in records]
        except ValueError as error:
            raise StorageError(
                f"index '{self._name}': {error}: start the newer Pyrope that wrote it"
            ) from error
        now_ms = int(self._clock.wall() * 1000)
        # The newest are taken for the last used ones.
        for alias in sorted(aliases, key=lambda one: one.created_at_ms):
            if alias.is_expired(now_ms):
                self._stale.add(alias.key.identity)
            else:
                self._stale.update(self._map.put(alias))

    def close(self) -> None:
        """Give the memory back. Nothing is queued any more."""
        self._map = CanonicalKeyMap(self._settings, self._clock)

    # -- batches ----------------------------------------------------------------------------------

    def _submit(self, write: _Write) -> asyncio.Future[int]:
        self._queue.append(write)
        self._start()
        return write.future

    def _start(self) -> None:
        if self._task is None:
            self._task = self._spawn(self._run())

    async def _run(self) -> None:
        """Run a batch, and more until nothing waits.

        What has been evicted meanwhile is left to the next sweep or write, so that a client which
        writes to a full map does not wait for two commits each time.
        """
        try:
            more = True
            while more:
                # One turn of the loop, so that writes that came in together share a commit.
                await asyncio.sleep(0)
                await self._batch()
                more = bool(self._queue)
        finally:
            self._task = None

    async def _batch(self) -> None:
        self._stale.update(self._map.sweep(_SWEPT_FIRST))
        writes = self._take()
        gone, self._stale = self._stale, set()
        # Deletes first: a key that has gone may be set again in this very batch.
        changes = [PutSide(self._uid, SIDE_KIND, identity, None) for identity in gone]
        changes += [write.change(self._uid) for write in writes]
        if not changes:
            return
        try:
            await self._committer.commit(*changes)
        except BaseException as error:
            self._stale |= gone
            self._refused = True
            self._failed(writes, error)
            if not isinstance(error, Exception):
                raise
            return
        self._refused = False
        for write in writes:
            self._apply(write)

    def _take(self) -> list[_Write]:
        """The writes of the next batch, in order; those that change nothing have their answer."""
        taken: list[_Write] = []
        set_or_removed: set[bytes] = set()
        # What these stand for, and have stood for.
        named: set[bytes] = set()
        nbytes = 0
        for _ in range(min(len(self._queue), _BATCH_WRITES)):
            write = self._queue[0]
            identity = write.key.identity
            canonical = None if write.alias is None else write.alias.canonical.key.identity
            depends = identity in set_or_removed or identity in named or canonical in set_or_removed
            if depends or nbytes >= _BATCH_BYTES:
                break
            self._queue.popleft()
            if write.future.done() or not self._is_due(write):
                continue
            taken.append(write)
            set_or_removed.add(identity)
            if canonical is not None:
                named.add(canonical)
            there = self._map.get(write.key)
            if there is not None:
                named.add(there.canonical.key.identity)
            nbytes += write.nbytes
        return taken

    def _is_due(self, write: _Write) -> bool:
        """Whether a write changes anything; if not, it is answered."""
        if write.alias is None:
            if self._map.get(write.key) is None:
                write.future.set_result(0)
                return False
            return True
        try:
            self._map.check(write.alias)
        except CommandError as error:
            write.future.set_exception(error)
            return False
        return True

    def _apply(self, write: _Write) -> None:
        if write.alias is None:
            self._map.remove(write.key)
        else:
            # It may have expired, or have been evicted, while this was committed.
            self._stale.discard(write.key.identity)
            self._stale.update(self._map.put(write.alias))
        if not write.future.done():
            write.future.set_result(1)

    def _failed(self, writes: list[_Write], error: BaseException) -> None:
        make: Callable[[], PyropeError]
        if isinstance(error, MisconfError):
            make = partial(MisconfError, error.message)
        else:
            make = partial(
                PyropeError,
                f"the write was interrupted ({type(error).__name__}); whether it took place shows "
                "after a restart",
            )
            _log.error("aliases could not be written", index=self._name, exc_info=error)
        for write in writes:
            _refuse(write, make())


def _new_future() -> asyncio.Future[int]:
    return asyncio.get_running_loop().create_future()


def _refuse(write: _Write, error: BaseException) -> None:
    if not write.future.done():
        write.future.set_exception(error)
