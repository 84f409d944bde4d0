"""The responses of one index: in memory for those who ask, in the store for the next start.

A response is put into the tables before it is durable, so that whatever comes after it (the same
prompt again, FORGET, a change of its documents) meets it; it serves when its commit is through, and
what it replaces goes in that same commit and serves until then. What ends by a commit serves nobody
from the turn of the loop in which the commit is handed over, and serves again if the disk refuses.

What goes by itself (expired, driven out, made from a document that has expired) is deleted from the
store by a later commit; so are hits written down. After a crash the former is there again, to go
again, unless somebody has replaced or forgotten it since, or changed what it was made from: their
commit deletes it. Some of the latter are lost.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrope.errors import CommandError
from pyrope.log import get_logger
from pyrope.semantic.remembered.entry import Body, Documents, Entry, Stage, encode_entry
from pyrope.semantic.remembered.scope import includes
from pyrope.semantic.remembered.table import EntryTable, Partition
from pyrope.service.remembered.behind import Behind
from pyrope.service.remembered.commits import Commits
from pyrope.service.remembered.dependencies import Tie
from pyrope.service.remembered.line import Line
from pyrope.service.remembered.near import NearSearch
from pyrope.service.remembered.records import ENTRY_KIND, Decoded, deletions, state_of
from pyrope.service.remembered.rows import Near
from pyrope.service.remembered.services import RememberServices
from pyrope.service.remembered.statistics import RememberStatistics, count
from pyrope.storage.store import PutSide
from pyrope.types import IndexSpec

_log = get_logger(__name__)

# Taken out in one turn of the loop; looked at in one.
_EXPIRED_AT_ONCE, _ENDED_AT_ONCE, _LOOKED_AT_ONCE = 300, 300, 500
# Responses up to this length are compressed on the loop: 0.3 ms.
_COMPRESSED_HERE = 16 * 1024


@dataclass(frozen=True, slots=True)
class NewResponse:
    """A response to be remembered.

    Attributes:
        key: of its prompt.
        vector: of length 1, shape (dim,).
        lifetime_ms: 0: for ever.
        sliding: whether a hit renews it.
        cost: units that a hit saves; None: nobody has said.
    """

    key: bytes
    prompt: bytes
    response: bytes
    vector: NDArray[np.float32]
    scope: bytes
    lifetime_ms: int
    sliding: bool
    cost: float
    tokens_in: int
    tokens_out: int


class Keeping:
    """All methods are for the event loop, unless they say otherwise.

    Args:
        own_budget: bytes that the index allows its responses; 0: no limit of its own.
        live: told of each response that has become durable, and serves from now on.
        along: changes that are to be made durable with it, when one is forgotten.
        ended: told of each response that has ended, and of why.

    Attributes:
        table: all that there is.
    """

    def __init__(
        self,
        spec: IndexSpec,
        services: RememberServices,
        statistics: RememberStatistics,
        *,
        own_budget: Callable[[], int],
        live: Callable[[Entry], None],
        along: Callable[[Entry], list[PutSide]],
        ended: Callable[[Entry, str], None],
    ) -> None:
        self.spec = spec
        self._services = services
        self._statistics = statistics
        self._own_budget = own_budget
        self._live = live
        self._along = along
        self._ended = ended
        self._clock = services.clock
        self._budget = services.budget
        self.table = EntryTable(services.random)
        self.near = NearSearch(spec, lambda: services.near(spec.tenant), services.clock.monotonic)
        self._line = Line()
        # Of what has ended, too, as long as it would be there again after a crash.
        self._ties: dict[int, Tie] = {}
        self._commits = Commits(spec, services.committer)
        # Of responses that wait for their documents, to be compressed, or for their turn.
        self._coming_bytes = 0
        self._behind = Behind(spec.uid, self._commits, services.clock.monotonic, self._deleted)

    def __len__(self) -> int:
        return len(self.table)

    # -- what budgets ask -------------------------------------------------------------------------

    @property
    def entry_bytes(self) -> int:
        return self.table.nbytes

    @property
    def own_budget(self) -> int:
        return self._own_budget()

    def evict(self, spared: Entry | None) -> bool:
        entry = self.table.least(spared)
        if entry is None:
            return False
        self._end(entry, "evicted", durable=False)
        return True

    # -- reading ----------------------------------------------------------------------------------

    @property
    def nbytes(self) -> int:
        """Memory of responses, prompts, vectors and what finds them, in bytes.

        Those that are not in the tables yet are in it, so that no number of them at a time goes
        past a quota.
        """
        return self.table.nbytes + self.near.nbytes + self._coming_bytes

    @property
    def queued(self) -> int:
        """What waits for its turn, or for the disk."""
        return len(self._line) + len(self._commits)

    def now_ms(self) -> int:
        return int(self._clock.wall() * 1000)

    def find(self, scope: bytes, key: bytes) -> Entry | None:
        """The entry that may answer this very prompt now."""
        partition = self.table.partition(scope)
        return None if partition is None else partition.find(key, self.now_ms())

    def nearest(
        self, client: object, scope: bytes, query: NDArray[np.float32], most: int
    ) -> list[Near] | asyncio.Future[list[Near]]:
        """See `NearSearch.nearest`; some of them may not serve."""
        return self.near.nearest(client, scope, query, most)

    def served(self, entry: Entry) -> None:
        """An entry has answered."""
        self.table.used(entry)
        now_ms = self.now_ms()
        entry.used_ms = now_ms
        if entry.sliding_ms:
            entry.expires_ms = now_ms + entry.sliding_ms
        self._behind.changed(entry)

    # -- remembering ------------------------------------------------------------------------------

    def check_fits(self, nbytes: int) -> None:
        """Raises CommandError where a response is larger than all of them may be."""
        most = self._budget.most(self)
        if nbytes > most:
            raise CommandError(
                f"the response takes {nbytes} bytes, and responses here may take {most} in all"
            )

    def remember(self, new: NewResponse, tied: asyncio.Future[Tie] | None) -> asyncio.Future[Entry]:
        """Remember a response, durably, in place of the one of the same prompt and scope.

        Args:
            tied: its documents, as soon as it is known that they are there; None: it has none.

        The future raises MisconfError where the disk refuses, CommandError where a document has
        changed meanwhile, and what `tied` raises; nothing has been remembered then.
        """
        done: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        body: Body | None = None
        if len(new.response) <= _COMPRESSED_HERE:
            body = Body.of(new.response)
        if body is not None and tied is None:
            ready: asyncio.Future[tuple[Body, Tie | None]] = done.get_loop().create_future()
            ready.set_result((body, None))
        else:
            ready = self._services.spawn(self._prepare(new, body, tied))
        nbytes = len(new.prompt) + len(new.response) + new.vector.nbytes
        self._coming_bytes += nbytes

        def put() -> None:
            self._coming_bytes -= nbytes
            self._put(new, *ready.result(), done)

        def refuse(error: BaseException) -> None:
            self._coming_bytes -= nbytes
            _fail(done, error)

        self._line.enter(ready, put, refuse)
        return done

    async def _prepare(
        self, new: NewResponse, body: Body | None, tied: asyncio.Future[Tie] | None
    ) -> tuple[Body, Tie | None]:
        tie = None if tied is None else await tied
        try:
            return body or await self._services.run(Body.of, new.response), tie
        except BaseException:
            if tie is not None:
                self._services.dependencies.untie(tie)
            raise

    def _put(
        self, new: NewResponse, body: Body, tie: Tie | None, done: asyncio.Future[Entry]
    ) -> None:
        """It is this response's turn: into the tables, and to the disk."""
        if tie is not None and tie.is_broken:
            self._services.dependencies.untie(tie)
            _fail(done, CommandError("a document that the response depends on has just changed"))
            return
        now_ms = self.now_ms()
        entry = Entry(
            id=self._new_id(),
            key=new.key,
            prompt=new.prompt,
            scope=new.scope,
            body=body,
            created_ms=now_ms,
            expires_ms=now_ms + new.lifetime_ms if new.lifetime_ms else 0,
            sliding_ms=new.lifetime_ms if new.sliding else 0,
            cost=new.cost,
            tokens_in=new.tokens_in,
            tokens_out=new.tokens_out,
            vector_bytes=new.vector.nbytes,
            documents=None if tie is None else tie.documents,
        )
        self._add(entry)
        if entry.older is not None:
            # It is of the prompt, and not of the response.
            entry.evidence = entry.older.evidence
        if tie is not None:
            tie.entry = entry
            self._ties[entry.id] = tie
        replaced = []
        older = entry.older
        while older is not None:
            replaced.append(older)
            older = older.older
        record = encode_entry(entry, new.vector.astype("<f4").tobytes())
        changes = [PutSide(self.spec.uid, ENTRY_KIND, entry.record_key, record)]
        # They serve until this one does.
        changes += deletions(self.spec.uid, (older.record_key for older in replaced))
        stale = self._behind.stale.answering((entry.scope, entry.key))
        changes += deletions(self.spec.uid, stale)
        self._commits.commit(
            changes,
            partial(self._put_durably, entry, new.vector, replaced, stale, done),
            partial(self._put_failed, entry, done),
        )

    def _new_id(self) -> int:
        while True:
            number = secrets.randbits(64)
            if self.table.get(number) is None:
                return number

    def _put_durably(
        self,
        entry: Entry,
        vector: NDArray[np.float32],
        replaced: Sequence[Entry],
        stale: Sequence[bytes],
        done: asyncio.Future[Entry],
    ) -> None:
        self._deleted(stale)
        for older in replaced:
            self._end(older, "replaced", durable=True)
        if entry.stage is Stage.GONE:
            _fail(done, CommandError("a document that the response depends on has just changed"))
            return
        entry.stage = Stage.LIVE
        self.near.add(entry, vector)
        self._statistics.remembered += 1
        self._budget.make_room(self, spared=entry)
        self._live(entry)
        if not done.done():
            done.set_result(entry)

    def _put_failed(
        self,
        entry: Entry,
        done: asyncio.Future[Entry],
        error: BaseException,
    ) -> None:
        self._remove(entry)
        self._untie(entry.id)
        _fail(done, error)

    # -- ending -----------------------------------------------------------------------------------

    def forget(self, number: int) -> asyncio.Future[int]:
        """Forget an entry, durably. The future resolves to 1, or to 0 where there was none."""
        return self._forget(lambda: filter(None, [self.table.get(number)]))

    def forget_prompt(self, key: bytes) -> asyncio.Future[int]:
        """Forget a prompt in all scopes. The future resolves to the number of responses."""
        return self._forget(lambda: self._in_partitions(lambda one: _line_of(one, key)))

    def forget_scope(self, pairs: Sequence[tuple[bytes, bytes]]) -> asyncio.Future[int]:
        """Forget what is in scopes that have all of these fields, with these values.

        The future resolves to the number of responses.
        """

        def all_of(one: Partition) -> Iterable[Entry]:
            if not includes(one.scope, pairs):
                return ()
            return chain.from_iterable(_line_of(one, key) for key in list(one.newest))

        return self._forget(lambda: self._in_partitions(all_of))

    def _in_partitions(
        self, found: Callable[[Partition], Iterable[Entry]]
    ) -> Iterator[Entry | None]:
        """Entries of all partitions there are now; None for each that has been looked at."""
        for one in self.table.partitions():
            yield None
            yield from found(one)

    def _forget(self, found: Callable[[], Iterable[Entry | None]]) -> asyncio.Future[int]:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._line.enter(
            None, lambda: self._services.spawn(self._forget_found(found(), done)), _never
        )
        return done

    async def _forget_found(self, found: Iterable[Entry | None], done: asyncio.Future[int]) -> None:
        """Forget entries, all in one commit; the loop gets its turn in between."""
        now_ms = self.now_ms()
        entries: list[Entry] = []
        changes: list[PutSide] = []
        # Of those of one prompt, one is counted, and of what is on its way out, none.
        prompts: set[tuple[bytes, bytes]] = set()
        for number, entry in enumerate(found):
            if number % _LOOKED_AT_ONCE == _LOOKED_AT_ONCE - 1:
                await asyncio.sleep(0)
            if entry is None or entry.leaving or entry.stage is Stage.GONE:
                continue
            if not entry.is_over(now_ms):
                prompts.add((entry.scope, entry.key))
            entries.append(entry)
            changes += self.leaving([entry])
            changes += self._along(entry)
        stale = self._behind.stale.answering_any()
        for start in range(0, len(stale), _LOOKED_AT_ONCE):
            changes += deletions(self.spec.uid, stale[start : start + _LOOKED_AT_ONCE])
            await asyncio.sleep(0)
        try:
            if changes:
                await self.put(changes)
        except BaseException as error:  # noqa: BLE001 - whoever asked is told
            self.stays(entries)
            _fail(done, error)
            return
        self._deleted(stale)
        for number, entry in enumerate(entries):
            self._end(entry, "forgotten", durable=True)
            if number % _LOOKED_AT_ONCE == _LOOKED_AT_ONCE - 1:
                await asyncio.sleep(0)
        if not done.done():
            done.set_result(len(prompts))

    def leaving(self, entries: Sequence[Entry]) -> list[PutSide]:
        """Serve them no more until `stays`; changes that end them for good."""
        for entry in entries:
            entry.leaving += 1
        return deletions(self.spec.uid, (entry.record_key for entry in entries))

    def _deleted(self, record_keys: Sequence[bytes]) -> None:
        """They are off the disk, and nothing brings them back."""
        self._behind.stale.deleted(record_keys)
        for key in record_keys:
            self._untie(int.from_bytes(key, "big"))

    def stays(self, entries: Sequence[Entry]) -> None:
        """Those changes were refused."""
        for entry in entries:
            entry.leaving -= 1

    def gone(self, entries: Sequence[Entry], *, durable: bool, reason: str = "changed") -> None:
        """They have ended; unless that is durable already, it is still to be made so."""
        if durable and len(entries) > _ENDED_AT_ONCE:
            # They are leaving, so that nobody is served any of them meanwhile.
            self._services.spawn(self._gone_by_and_by(entries, reason))
            return
        for entry in entries:
            self._end(entry, reason, durable=durable)

    async def _gone_by_and_by(self, entries: Sequence[Entry], reason: str) -> None:
        for start in range(0, len(entries), _ENDED_AT_ONCE):
            for entry in entries[start : start + _ENDED_AT_ONCE]:
                self._end(entry, reason, durable=True)
            await asyncio.sleep(0)

    def _end(self, entry: Entry, reason: str, *, durable: bool) -> None:
        """An entry is no more; it has been if nobody finds it here."""
        comes_back = not durable and reason != "expired"
        if durable:
            self._deleted([entry.record_key])
        elif comes_back:
            # Whoever ends it may have untied it; its documents may change again before the disk
            # has followed.
            self._tie_again(entry.id)
        if not self._remove(entry):
            return
        count(self._statistics.gone, reason)
        if comes_back:
            self._behind.stale.add(entry.record_key, (entry.scope, entry.key))
        elif not durable:
            self._behind.stale.add(entry.record_key)
            self._untie(entry.id)
        self._ended(entry, reason)

    def _add(self, entry: Entry) -> None:
        before = self.table.nbytes
        self.table.add(entry)
        self._budget.changed(self, self.table.nbytes - before)

    def _remove(self, entry: Entry) -> bool:
        before = self.table.nbytes
        if not self.table.remove(entry):
            return False
        self.near.remove(entry)
        self._behind.ended(entry)
        self._budget.changed(self, self.table.nbytes - before)
        return True

    def _tie_again(self, number: int) -> None:
        tie = self._ties.get(number)
        if tie is not None and not self._commits.detached:
            dependencies = self._services.dependencies
            dependencies.untie(tie)
            again = self._ties[number] = dependencies.tie(self, tie.documents)
            again.entry = tie.entry

    def _untie(self, number: int) -> None:
        tie = self._ties.pop(number, None)
        if tie is not None:
            self._services.dependencies.untie(tie)

    # -- feedback ---------------------------------------------------------------------------------

    def quarantine(self, entry: Entry, more: Sequence[PutSide] = ()) -> asyncio.Future[None]:
        """Let an entry serve nobody any more, durably; from this very turn of the loop on.

        Args:
            more: changes that belong to it.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        before = entry.is_quarantined
        entry.is_quarantined = True

        def quarantined() -> None:
            entry.is_quarantined = True
            self._statistics.quarantined += not before
            if not done.done():
                done.set_result(None)

        def refused(error: BaseException) -> None:
            if not before:
                entry.is_quarantined = False
            _fail(done, error)

        change = state_of(self.spec.uid, entry)
        self._commits.commit([change, *more], quarantined, refused)
        return done

    def changed(self, entry: Entry) -> None:
        """Something of an entry has changed that is to be written down some time."""
        self._behind.changed(entry)

    def put(self, changes: Sequence[PutSide]) -> asyncio.Future[None]:
        """Make something else about the responses durable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if changes:
            self._commits.commit(changes, partial(_succeed, done), partial(_fail, done))
        else:
            done.set_result(None)
        return done

    # -- now and then -----------------------------------------------------------------------------

    def sweep(self) -> None:
        """Take out what has expired, and let the disk follow."""
        for entry in self.table.expired(self.now_ms(), _EXPIRED_AT_ONCE):
            self._end(entry, "expired", durable=False)
        self._behind.catch_up()
        self.make_room()
        self.near.nudge()

    def make_room(self) -> None:
        """Keep to the budgets there are."""
        if len(self.table):
            self._budget.make_room(self)

    async def flush(self) -> None:
        """Write down all that is behind; what the disk refuses is lost."""
        await self.drain()
        behind = self._behind
        while left := len(behind):
            behind.write()
            await self.drain()
            if len(behind) >= left:
                _log.error("hits of remembered responses are lost", index=self.spec.name, n=left)
                return

    async def drain(self) -> None:
        """Return once everything that was queued is through."""
        while len(self._line) or len(self._commits):
            await self._line.drain()
            await self._commits.wait()

    # -- dropping and closing ---------------------------------------------------------------------

    def detach(self) -> None:
        """Nothing is written any more, nor ended by a document: the index is being dropped."""
        self._commits.detached = True
        for tie in self._ties.values():
            self._services.dependencies.untie(tie)

    def attach(self) -> None:
        """It is not dropped after all."""
        if not self._commits.detached:
            return
        self._commits.detached = False
        for number in list(self._ties):
            self._tie_again(number)

    async def close(self) -> None:
        """Give the memory back; nothing is asked any more."""
        self.detach()
        self._ties.clear()
        self._behind.clear()
        nbytes, self.table = self.table.nbytes, EntryTable(self._services.random)
        if nbytes:
            self._budget.changed(self, -nbytes)
        await self.near.close()

    # -- restoring --------------------------------------------------------------------------------

    async def restore(self, decoded: Decoded) -> None:
        """Take up what the store held, before anyone sees the index."""
        for key in decoded.useless:
            self._behind.stale.add(key)
        by_scope = decoded.by_scope
        while by_scope:
            scope, (entries, vectors) = by_scope.popitem()
            for number, entry in enumerate(entries):
                if number % _LOOKED_AT_ONCE == _LOOKED_AT_ONCE - 1:
                    await asyncio.sleep(0)
                self._add(entry)
            await self.near.add_many(scope, entries, vectors)

    async def link(self, documents_there: Callable[[Documents], bool]) -> None:
        """Tie what was restored to its documents; those whose documents are gone go, too."""
        for number, entry in enumerate(list(self.table)):
            if number % _LOOKED_AT_ONCE == _LOOKED_AT_ONCE - 1:
                await asyncio.sleep(0)
            if entry.documents is None:
                continue
            # Also where they are gone: before the disk has followed, they may come again.
            tie = self._services.dependencies.tie(self, entry.documents)
            tie.entry = entry
            self._ties[entry.id] = tie
            if not documents_there(entry.documents):
                self._end(entry, "changed", durable=False)


def _line_of(partition: Partition, key: bytes) -> list[Entry]:
    """The entries of a prompt, newest first."""
    found = []
    entry = partition.newest.get(key)
    while entry is not None:
        found.append(entry)
        entry = entry.older
    return found


def _never(error: BaseException) -> None:
    """What waits for nothing is refused by nothing."""
    raise error


def _succeed(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if done.done():
        return
    if isinstance(error, asyncio.CancelledError):
        done.cancel()
    else:
        done.set_exception(error)
