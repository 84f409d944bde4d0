"""What an index remembers of a language model's responses: its parts, and its life.

`keeping` has the responses, `recalling` answers prompts with them, `feedback` takes in whether that
was right, `leases` keep many from asking the model for the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from pyrope.errors import CommandError
from pyrope.semantic.remembered.entry import Documents, Entry, EntryFormatError
from pyrope.service.remembered.asking import Remembering
from pyrope.service.remembered.dependencies import Tie
from pyrope.service.remembered.feedback import Feedback, look_away
from pyrope.service.remembered.judging import Judge
from pyrope.service.remembered.keeping import Keeping, NewResponse
from pyrope.service.remembered.leases import Leases
from pyrope.service.remembered.pairs import PAIR_KIND
from pyrope.service.remembered.recalling import Recalling
from pyrope.service.remembered.records import ENTRY_KIND, STATE_KIND, Decoded, decode
from pyrope.service.remembered.services import RememberServices
from pyrope.service.remembered.statistics import RememberStatistics
from pyrope.service.writes import LookAtVectors, Write
from pyrope.storage.store import PutSide, SideRecord, StorageError
from pyrope.types import IndexSpec

JUDGE_KIND = 6
"""Of the side record that holds what was learnt, under the one key that there is."""

_JUDGE_KEY = b"calibration"
KINDS = frozenset({ENTRY_KIND, STATE_KIND, PAIR_KIND, JUDGE_KIND})

# How far what was learnt may be behind on disk; and what was only seen.
_JUDGE_INTERVAL_S, _SEEN_INTERVAL_S = 1.0, 60.0


class Documented(Protocol):
    """An index that responses are made from."""

    spec: IndexSpec

    def write(self, write: Write) -> None:
        """Queue a write. Raises BusyError."""
        ...


class IndexMemory:
    """All methods are for the event loop, unless they say otherwise.

    Attributes:
        keeping: the responses.
        recalling: when they answer.
        feedback: whether they were right.
        judge: what was learnt of that.
        leases: of prompts that nothing was found for.
        statistics: since the start.
    """

    def __init__(self, index: Remembering, services: RememberServices) -> None:
        self._index = index
        self._services = services
        self._settings = services.settings
        self.statistics = RememberStatistics()
        self.keeping = Keeping(
            index.spec,
            services,
            self.statistics,
            own_budget=lambda: index.spec.cache.remember_bytes,
            live=lambda entry: self.leases.remembered(entry.scope, entry.key),
            along=lambda entry: self.feedback.pairs.deletions(entry.scope, entry.key),
            ended=self._ended,
        )
        self.leases = Leases(
            services.holders, services.schedule, lambda: services.settings.lease_callers
        )
        self.judge = Judge(index.spec, services.facts)
        self.feedback = Feedback(index, self.keeping, self.judge, self.statistics)
        self.recalling = Recalling(
            index,
            services,
            keeping=self.keeping,
            leases=self.leases,
            judge=self.judge,
            feedback=self.feedback,
            statistics=self.statistics,
            verifier=services.verifier(),
        )
        self._judged_at = float("-inf")
        self._decoded = Decoded()

    def __len__(self) -> int:
        return len(self.keeping)

    @property
    def nbytes(self) -> int:
        """Memory of all that is remembered and was learnt, in bytes."""
        return self.keeping.nbytes + self.feedback.nbytes + self.judge.nbytes

    @property
    def queued(self) -> int:
        """What waits for the disk."""
        return self.keeping.queued

    # -- remembering ------------------------------------------------------------------------------

    def lifetime_ms(self, asked_s: int | None) -> int:
        """How long a response lives, in milliseconds; 0: for ever.

        Args:
            asked_s: by who remembers it; None: as policy and settings have it.
        """
        if asked_s is not None:
            return 1000 * asked_s
        seconds = self._index.spec.cache.remember_ttl_s
        if seconds is None:
            seconds = self._settings.ttl_s
        shorter = self._settings.ttl_jitter * self._services.random.random()
        return max(1, round(1000 * seconds * (1 - shorter))) if seconds else 0

    def tie(self, documents: Documented, ids: Sequence[bytes]) -> asyncio.Future[Tie]:
        """Tie a response that is to come to what it was made from.

        Args:
            documents: the index that they are in.
            ids: distinct.

        The future raises CommandError where one of them is not there.

        Raises:
            BusyError: too many requests wait for that index.
        """
        keeping, dependencies = self.keeping, self._services.dependencies
        tied: list[Tie] = []
        missing: list[bytes] = []

        def look(absent: list[bytes]) -> None:
            if absent:
                missing.extend(absent)
            else:
                made_from = Documents(documents.spec.uid, tuple(ids))
                tied.append(dependencies.tie(keeping, made_from))

        done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        documents.write(LookAtVectors(ids, look, done))

        async def looked() -> Tie:
            try:
                await done
            except BaseException:
                for tie in tied:
                    dependencies.untie(tie)
                raise
            if missing:
                shown = missing[0][:64].decode(errors="replace")
                raise CommandError(
                    f"DEPENDS names '{shown}', which is not in index '{documents.spec.name}'"
                )
            return tied[0]

        return self._services.spawn(looked())

    def remember(self, new: NewResponse, tied: asyncio.Future[Tie] | None) -> asyncio.Future[Entry]:
        """See `Keeping.remember`; whoever waits for it is told."""
        self.judge.meet(new.prompt, new.vector)
        return self.keeping.remember(new, tied)

    def _ended(self, entry: Entry, reason: str) -> None:
        self.feedback.forget(entry)
        if reason == "forgotten":
            # What was deleted with it; and what has been said since.
            changes = self.feedback.pairs.forget(entry.scope, entry.key)
            if changes:
                self._put_unwatched(changes)

    def _put_unwatched(self, changes: Sequence[PutSide]) -> None:
        """Have something written; if the disk refuses, it is as it was after a restart."""
        self.keeping.put(changes).add_done_callback(look_away)

    # -- now and then -----------------------------------------------------------------------------

    def sweep(self) -> None:
        """Take out what has expired, and let the disk follow."""
        self.keeping.sweep()
        judge = self.judge
        if judge.is_changed or judge.has_seen:
            now = self._services.clock.monotonic()
            interval_s = _JUDGE_INTERVAL_S if judge.is_changed else _SEEN_INTERVAL_S
            if now - self._judged_at >= interval_s:
                self._judged_at = now
                self._put_unwatched([self._judge_record()])

    def _judge_record(self) -> PutSide:
        return PutSide(self._index.spec.uid, JUDGE_KIND, _JUDGE_KEY, self.judge.encode())

    def follow_policy(self) -> None:
        """The policy of the index is another one."""
        self.keeping.make_room()

    # -- life -------------------------------------------------------------------------------------

    def decode(self, records: list[SideRecord]) -> None:
        """Read what the store holds; in any thread, before anyone sees the index.

        Args:
            records: of `KINDS`; emptied on the way.

        Raises:
            StorageError: a newer Pyrope wrote one of them.
        """
        for record in records:
            if record.kind == JUDGE_KIND:
                self.judge.restore(record.value)
        entries = [record for record in records if record.kind in (ENTRY_KIND, STATE_KIND)]
        try:
            self.feedback.pairs.restore([record for record in records if record.kind == PAIR_KIND])
            records.clear()
            self._decoded = decode(entries, self._index.spec.dim, self.keeping.now_ms())
        except EntryFormatError as error:
            raise StorageError(
                f"index '{self._index.spec.name}': {error}: start the newer Pyrope that wrote it"
            ) from error

    async def restore(self) -> None:
        """Take up what `decode` has read."""
        decoded, self._decoded = self._decoded, Decoded()
        await self.keeping.restore(decoded)

    async def link(self, documents: DocumentsThere) -> None:
        """Tie responses to their documents, once all indexes are there."""
        await self.keeping.link(documents)

    async def flush(self) -> None:
        """Write down all that is behind; before the server stops."""
        await self.keeping.flush()
        if self.judge.is_changed or self.judge.has_seen:
            self._put_unwatched([self._judge_record()])
            await self.keeping.drain()

    async def drain(self) -> None:
        """Return once everything that was queued is through."""
        self.leases.clear()
        await self.keeping.drain()

    def detach(self) -> None:
        """The index is being dropped: nothing is written any more."""
        self.keeping.detach()

    def attach(self) -> None:
        """It is not dropped after all."""
        self.keeping.attach()

    async def close(self) -> None:
        """Give the memory back."""
        self.leases.clear()
        self.feedback.clear()
        await self.keeping.close()


class DocumentsThere(Protocol):
    """Whether an index has all of these vectors."""

    def __call__(self, documents: Documents, /) -> bool: ...
