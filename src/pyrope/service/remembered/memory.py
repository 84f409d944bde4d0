"""What an index remembers of a language model's responses, and when it answers with them.

A prompt is looked for in three ways, each within its scope only:

1. *exactly*, by its normal form: what was remembered for it is the answer.
2. as an *alias* of the index (VECTOR.ALIAS).
3. *near*: of the prompts whose vectors are nearest, and those that were said to be the same, the
   first whose score, or whose bound on the error, is good enough. Guards refuse some; what was said
   of the very pair, by people or by a language model, goes before guards and scores.

Whatever comes of it is counted, and what might have been served teaches (`Judge`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pyrope.cache.query_key import KeyKind, QueryKey
from pyrope.errors import CommandError
from pyrope.semantic.calibration import Judgement
from pyrope.semantic.remembered.entry import (
    Documents,
    Entry,
    EntryFormatError,
    Stage,
    parse_name,
    prompt_key,
)
from pyrope.semantic.sources import UNSAID, Source
from pyrope.service.aliases import Aliases
from pyrope.service.remembered.asking import Asked, Match, Nearest, Recalled, Rule
from pyrope.service.remembered.dependencies import Tie
from pyrope.service.remembered.judging import Judge, Look
from pyrope.service.remembered.keeping import (
    ENTRY_KIND,
    STATE_KIND,
    Decoded,
    Keeping,
    NewResponse,
)
from pyrope.service.remembered.leases import Lease, Leases, Outcome, Wanted
from pyrope.service.remembered.pairs import PAIR_KIND, Pairs, said_wrong
from pyrope.service.remembered.rows import Near
from pyrope.service.remembered.services import RememberServices
from pyrope.service.remembered.statistics import RememberStatistics, count
from pyrope.service.writes import LookAtVectors, Write
from pyrope.storage.store import PutSide, SideRecord, StorageError
from pyrope.types import IndexSpec

JUDGE_KIND = 6
"""Of the side record that holds what was learnt, under the one key that there is."""

_JUDGE_KEY = b"calibration"
KINDS = frozenset({ENTRY_KIND, STATE_KIND, PAIR_KIND, JUDGE_KIND})

# Near hits that feedback may still be given on.
_SERVED = 4096
_SERVED_BYTES = 1200
# Responses up to this length are decompressed on the loop: 0.7 ms.
_DECOMPRESSED_HERE = 256 * 1024
# How far what was learnt may be behind on disk; and what was only seen.
_JUDGE_INTERVAL_S, _SEEN_INTERVAL_S = 1.0, 60.0
# Of the nearest prompts, so many are judged, at 0.1 ms each, where guards refuse the first.
_JUDGED = 3
FEEDBACK = "feedback"
"""In place of a guard's name: somebody has said of this very pair that it is wrong."""


class Remembering(Protocol):
    """The index."""

    spec: IndexSpec
    aliases: Aliases


class Documented(Protocol):
    """An index that responses are made from."""

    spec: IndexSpec

    def write(self, write: Write) -> None:
        """Queue a write. Raises BusyError."""
        ...


@dataclass(frozen=True, slots=True)
class _Served:
    """A near hit that was served, or would have been."""

    entry: int
    asked: bytes
    look: Look


class IndexMemory:
    """All methods are for the event loop, unless they say otherwise.

    Attributes:
        keeping: the responses.
        statistics: since the start.
        leases: of prompts that nothing was found for.
        verifier: asks a language model; None: there is none.
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
            ended=self._ended,
        )
        self.leases = Leases(
            services.holders, services.schedule, lambda: services.settings.lease_callers
        )
        self.judge = Judge(index.spec, services.facts)
        self.pairs = Pairs(index.spec.uid)
        self.verifier = services.verifier()
        self._served: OrderedDict[tuple[int, bytes], _Served] = OrderedDict()
        self._last_served: dict[int, bytes] = {}
        self._judged_at = float("-inf")
        self._decoded: Decoded = {}

    def __len__(self) -> int:
        return len(self.keeping)

    @property
    def nbytes(self) -> int:
        """Memory of all that is remembered and was learnt, in bytes."""
        return (
            self.keeping.nbytes
            + self.pairs.nbytes
            + self.judge.nbytes
            + _SERVED_BYTES * len(self._served)
        )

    @property
    def queued(self) -> int:
        """What waits for the disk."""
        return self.keeping.queued

    # -- recalling --------------------------------------------------------------------------------

    def recall_known(self, asked: Asked) -> Recalled | asyncio.Future[Recalled] | None:
        """Look a prompt up without its vector: exactly, and as an alias.

        Returns:
            None: it is not known; `recall_near` goes on.
        """
        found = self._known(asked)
        return None if found is None else self._finish(asked, found)

    def recall_near(
        self, asked: Asked, vector: NDArray[np.float32]
    ) -> Recalled | asyncio.Future[Recalled]:
        """Look a prompt up by its vector; to be called where `recall_known` knows nothing.

        Args:
            vector: of length 1, shape (dim,).

        Returns:
            What came of it, or a future of it, which may be cancelled.

        Raises:
            BusyError: a lease is wanted, and too many are.
        """
        near = self._nearest(asked, vector)
        if asked.lease_s is not None:
            return asyncio.get_running_loop().create_task(self._recall_near(asked, vector, near))
        if isinstance(near, list):
            return self._finish(asked, self._judged(asked, vector, near))
        # The usual case, without the task that it does not need.
        outcome: asyncio.Future[Recalled] = asyncio.get_running_loop().create_future()
        near.add_done_callback(partial(self._recalled_near, asked, vector, outcome))
        outcome.add_done_callback(partial(_give_up, near))
        return outcome

    def _recalled_near(
        self,
        asked: Asked,
        vector: NDArray[np.float32],
        outcome: asyncio.Future[Recalled],
        near: asyncio.Future[list[Near]],
    ) -> None:
        """What is near has been found."""
        if outcome.done():
            return
        try:
            finished = self._finish(asked, self._judged(asked, vector, near.result()))
        except BaseException as error:  # noqa: BLE001 - whoever asked is told
            _fail(outcome, error)
            return
        if isinstance(finished, Recalled):
            outcome.set_result(finished)
        else:
            finished.add_done_callback(partial(_pass_on, outcome))

    async def _recall_near(
        self,
        asked: Asked,
        vector: NDArray[np.float32],
        near: list[Near] | asyncio.Future[list[Near]],
    ) -> Recalled:
        clock = self._services.clock
        began, waited_s = clock.monotonic(), 0.0
        while True:
            additions = self.keeping.near.additions
            found_near = near if isinstance(near, list) else await near
            recalled = self._judged(asked, vector, found_near)
            if recalled.match is not None or self._index.spec.cache.shadow:
                break
            # While vectors were compared the response may have come.
            found = self._known(asked)
            if found is not None:
                recalled = found
                break
            if additions == self.keeping.near.additions:
                asked_at = clock.monotonic()
                left = (asked.lease_s or 0.0) - (asked_at - began)
                again = await self._by_lease(asked, vector, recalled, left)
                waited_s += clock.monotonic() - asked_at
                if not again:
                    break
                found = self._known(asked)
                if found is not None:
                    recalled = found
                    break
            near = self._nearest(asked, vector)
        recalled.waited_s = waited_s
        finished = self._finish(asked, recalled)
        return finished if isinstance(finished, Recalled) else await finished

    async def _by_lease(
        self, asked: Asked, vector: NDArray[np.float32], recalled: Recalled, left: float
    ) -> bool:
        """Take a lease, or wait for another's; whether it is worth looking once more.

        Args:
            recalled: told of the lease.
            left: seconds that it may take.
        """
        assert asked.lease_s is not None  # noqa: S101 - it is wanted
        wanted = Wanted(asked.scope, asked.key, asked.prompt, vector, asked.client, asked.lease_s)
        lease = self._lease_for(asked, vector)
        if lease is None:
            recalled.lease = self.leases.take(wanted).token
            return False
        if left <= 0:
            return False
        outcome = await self.leases.wait(lease, wanted, left)
        if outcome is Outcome.HOLDER:
            own = self.leases.of_prompt(asked.scope, asked.key)
            recalled.lease = None if own is None else own.token
        return outcome is Outcome.ANSWERED

    def _lease_for(self, asked: Asked, vector: NDArray[np.float32]) -> Lease | None:
        """A lease whose response would answer this prompt, as far as can be told."""
        own = self.leases.of_prompt(asked.scope, asked.key)
        if own is not None:
            return own
        for lease, score in self.leases.nearest(asked.scope, vector, self._settings.candidates):
            look = self.judge.look(
                asked.prompt,
                lease.wanted.prompt,
                vector,
                score,
                guards_off=self._index.spec.cache.guards_off,
            )
            if look.guard is None and _is_good(asked.rule, score, self.judge.judge(look)):
                return lease
        return None

    def _nearest(
        self, asked: Asked, vector: NDArray[np.float32]
    ) -> list[Near] | asyncio.Future[list[Near]]:
        return self.keeping.nearest(asked.client, asked.scope, vector, self._settings.candidates)

    def _known(self, asked: Asked) -> Recalled | None:
        """What is known of a prompt without its vector."""
        keeping = self.keeping
        entry = keeping.find(asked.scope, asked.key)
        if entry is not None:
            return Recalled(asked.rule, match=Match.EXACT, entry=entry)
        canonical = self._index.aliases.resolve(QueryKey(asked.identity, asked.prompt))
        if canonical is not None and canonical.key.kind is KeyKind.TEXT:
            error = 1.0 - canonical.confidence
            if asked.rule.threshold is not None or error <= asked.rule.max_error:
                entry = keeping.find(asked.scope, prompt_key(canonical.key.identity))
                if entry is not None:
                    return Recalled(asked.rule, match=Match.ALIAS, entry=entry, error=error)
        return None

    def _judged(self, asked: Asked, vector: NDArray[np.float32], near: Sequence[Near]) -> Recalled:
        """The first of the nearest that may answer; else what is known of the very nearest."""
        recalled = Recalled(asked.rule)
        rule, guards_off = asked.rule, self._index.spec.cache.guards_off
        candidates = self._candidates(asked, vector, near)
        scores = [score for _, score in candidates]
        said = self.pairs.of_asked(asked.scope, asked.key)
        left, observed, settled = _JUDGED, False, False
        for at, (entry, score) in enumerate(candidates):
            verdicts = said.get(entry.key, UNSAID)
            # What comes after one that is not good enough is less near; unless somebody knows.
            if not left and not verdicts:
                continue
            left = max(left - 1, 0)
            look = self.judge.look(
                asked.prompt,
                entry.prompt,
                vector,
                score,
                others=scores[:at] + scores[at + 1 :],
                evidence=entry.evidence,
                guards_off=guards_off,
            )
            if look.guard is None and not observed:
                observed = True
                self.judge.observe(look)
            judgement = self.judge.judge(look, verdicts)
            good = _is_good(rule, score, judgement)
            refused_by = None
            if said_wrong(verdicts):
                refused_by = FEEDBACK
                self.statistics.contradicted += 1
            elif look.guard is not None and not judgement.verified:
                refused_by = look.guard
                if good:
                    count(self.statistics.guards, look.guard)
            elif good:
                recalled.match = Match.ALIAS if judgement.verified else Match.NEAR
                recalled.entry, recalled.nearest = entry, None
                recalled.score, recalled.error = score, judgement.bound
                self._note(entry, asked.key, look)
                return recalled
            if recalled.nearest is None:
                recalled.nearest = Nearest(entry, score, judgement.bound, refused_by)
            if refused_by is None and not verdicts and not settled:
                settled, left = True, 0
                self.statistics.uncertain += 1
                self._note(entry, asked.key, look)
                if self.verifier is not None and rule.threshold is None:
                    self.verifier.wonder(self, asked, entry, look)
            if rule.threshold is not None and score < rule.threshold:
                break
        return recalled

    def _candidates(
        self, asked: Asked, vector: NDArray[np.float32], near: Sequence[Near]
    ) -> list[Near]:
        """What may serve of the nearest, and of what was said to be the same; nearest first."""
        keeping = self.keeping
        now_ms = keeping.now_ms()
        candidates = [one for one in near if one.entry.may_serve(now_ms)]
        said = self.pairs.of_asked(asked.scope, asked.key)
        if said:
            there = {one.entry.key for one in candidates}
            for key in said.keys() - there:
                entry = keeping.find(asked.scope, key)
                its = None if entry is None else keeping.near.vector(entry)
                if entry is not None and its is not None:
                    candidates.append(Near(entry, min(float(its @ vector), 1.0)))
            candidates.sort(key=lambda one: -one.score)
        return candidates

    def _note(self, entry: Entry, asked: bytes, look: Look) -> None:
        """Feedback may come on this hit."""
        name = entry.id, asked
        self._served[name] = _Served(entry.id, asked, look)
        self._served.move_to_end(name)
        self._last_served[entry.id] = asked
        if len(self._served) > _SERVED:
            (number, key), _ = self._served.popitem(last=False)
            if self._last_served.get(number) == key:
                del self._last_served[number]

    def _finish(self, asked: Asked, recalled: Recalled) -> Recalled | asyncio.Future[Recalled]:
        """Count a lookup, and have its response ready."""
        statistics, entry = self.statistics, recalled.entry
        statistics.recalls += 1
        self.keeping.table.looked_up()
        if entry is None or recalled.match is None:
            return recalled
        if self._index.spec.cache.shadow:
            recalled.shadow = True
            count(statistics.shadow_hits, recalled.match)
            return recalled
        count(statistics.hits, recalled.match)
        self.keeping.served(entry)
        if recalled.match is Match.EXACT and entry.id in self._last_served:
            self._last_served[entry.id] = entry.key
        recalled.saved_tokens = entry.tokens_in + entry.tokens_out
        recalled.saved_cost = entry.cost
        statistics.tokens_saved += recalled.saved_tokens
        statistics.cost_saved += recalled.saved_cost
        body = entry.body
        if body.is_compressed and body.nbytes > _DECOMPRESSED_HERE:
            return asyncio.get_running_loop().create_task(self._unpacked(recalled, entry))
        recalled.response = body.response()
        return recalled

    async def _unpacked(self, recalled: Recalled, entry: Entry) -> Recalled:
        recalled.response = await self._services.run(entry.body.response)
        return recalled

    def rule(self, threshold: float | None, max_error: float | None) -> Rule:
        """When a near hit may be served: as is asked, or as policy and settings have it."""
        if max_error is None:
            max_error = self._index.spec.cache.max_error
        if max_error is None:
            max_error = self._settings.max_error
        return Rule(threshold, max_error)

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
        key = self._last_served.pop(entry.id, None)
        if key is not None:
            self._served.pop((entry.id, key), None)
        if reason == "forgotten":
            changes = self.pairs.forget(entry.scope, entry.key)
            if changes:
                self._put_unwatched(changes)

    def _put_unwatched(self, changes: Sequence[PutSide]) -> None:
        """Have something written; if the disk refuses, it is as it was after a restart."""
        self.keeping.put(changes).add_done_callback(_look_away)

    # -- feedback ---------------------------------------------------------------------------------

    def find(self, name: bytes) -> Entry:
        """An entry by its name, also one that is quarantined. Raises CommandError."""
        number = parse_name(name)
        entry = None if number is None else self.keeping.table.get(number)
        if entry is None or entry.stage is not Stage.LIVE or entry.leaving:
            raise CommandError(f"no such entry '{name[:64].decode(errors='replace')}'")
        return entry

    def is_known(self, entry: Entry, prompt: QueryKey) -> bool:
        """Whether feedback on an answer to a prompt needs no vector of it."""
        key = prompt_key(prompt.identity)
        return key == entry.key or (entry.id, key) in self._served

    def feedback(
        self,
        name: bytes,
        *,
        good: bool,
        prompt: QueryKey | None = None,
        vector: NDArray[np.float32] | None = None,
    ) -> asyncio.Future[None]:
        """Learn whether an answer was right; one that was not is quarantined.

        Args:
            name: of the entry.
            prompt: that it answered; None: the one that it answered last.
            vector: of that prompt, where it is known.

        The future is done when it is durable; it raises MisconfError, and nothing has changed then.

        Raises:
            CommandError: there is no such entry.
        """
        entry = self.find(name)
        asked = self._last_served.get(entry.id)
        if prompt is not None:
            asked = prompt_key(prompt.identity)
        if asked is None or asked == entry.key:
            # Of a prompt's own response there is nothing to learn about near ones.
            future = self.keeping.put(()) if good else self.keeping.quarantine(entry)
            future.add_done_callback(partial(self._fed_back, good=good))
            return future
        served = self._served.get((entry.id, asked))
        look = None if served is None else served.look
        its = self.keeping.near.vector(entry)
        if look is None and prompt is not None and vector is not None and its is not None:
            look = self._look_at(prompt.content, entry, vector, min(float(its @ vector), 1.0))
        return self._say(entry, asked, look, Source.FEEDBACK, right=good, quarantines=not good)

    def _look_at(
        self, prompt: bytes, entry: Entry, vector: NDArray[np.float32], score: float
    ) -> Look:
        guards_off = self._index.spec.cache.guards_off
        return self.judge.look(
            prompt, entry.prompt, vector, score, evidence=entry.evidence, guards_off=guards_off
        )

    def _say(
        self,
        entry: Entry,
        asked: bytes,
        look: Look | None,
        source: Source,
        *,
        right: bool,
        quarantines: bool,
    ) -> asyncio.Future[None]:
        """Take in what was said of a pair, and learn from it once it is durable."""
        before = self.pairs.get(entry.scope, asked, entry.key)
        changes = self.pairs.said(entry.scope, asked, entry.key, source, right=right)
        keeping = self.keeping
        future = keeping.quarantine(entry, changes) if quarantines else keeping.put(changes)

        def said(outcome: asyncio.Future[None]) -> None:
            if outcome.cancelled() or outcome.exception() is not None:
                self.pairs.put_back(entry.scope, asked, entry.key, before)
            elif look is not None and look.guard is None and changes:
                learnt = self.judge.learn(look, entry.evidence, before, source, right=right)
                entry.evidence = learnt
                keeping.changed(entry)

        future.add_done_callback(said)
        if source is Source.FEEDBACK:
            future.add_done_callback(partial(self._fed_back, good=right))
        return future

    def _fed_back(self, outcome: asyncio.Future[None], *, good: bool) -> None:
        if not outcome.cancelled() and outcome.exception() is None:
            self.statistics.good += good
            self.statistics.bad += not good

    @property
    def uid(self) -> int:
        """Of the index."""
        return self._index.spec.uid

    @property
    def tenant(self) -> str:
        return self._index.spec.tenant

    def may_learn(self, entry: Entry) -> bool:
        """Whether what is said of an entry still matters."""
        return self.keeping.table.get(entry.id) is entry and not entry.leaving

    def verified(self, asked: Asked, entry: Entry, look: Look, *, same: bool) -> None:
        """A language model was asked about a prompt and a remembered one."""
        self.statistics.verified_same += same
        self.statistics.verified_different += not same
        if self.may_learn(entry):
            said = self._say(entry, asked.key, look, Source.VERIFIER, right=same, quarantines=False)
            said.add_done_callback(_look_away)

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
            self.pairs.restore([record for record in records if record.kind == PAIR_KIND])
            records.clear()
            self._decoded = self.keeping.decode(entries)
        except EntryFormatError as error:
            raise StorageError(
                f"index '{self._index.spec.name}': {error}: start the newer Pyrope that wrote it"
            ) from error

    async def restore(self) -> None:
        """Take up what `decode` has read."""
        decoded, self._decoded = self._decoded, {}
        await self.keeping.restore(decoded)

    def link(self, documents: DocumentsThere) -> None:
        """Tie responses to their documents, once all indexes are there."""
        self.keeping.link(documents)

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
        self.pairs.clear()
        self._served.clear()
        self._last_served.clear()
        await self.keeping.close()


class DocumentsThere(Protocol):
    """Whether an index has all of these vectors."""

    def __call__(self, documents: Documents, /) -> bool: ...


def _is_good(rule: Rule, score: float, judgement: Judgement) -> bool:
    if rule.threshold is not None:
        return score >= rule.threshold
    return judgement.serves(rule.max_error)


def _give_up(near: asyncio.Future[list[Near]], outcome: asyncio.Future[Recalled]) -> None:
    """Nobody waits any more: what has not been searched need not be."""
    if outcome.cancelled():
        near.cancel()


def _pass_on(outcome: asyncio.Future[Recalled], finished: asyncio.Future[Recalled]) -> None:
    if outcome.done():
        return
    try:
        outcome.set_result(finished.result())
    except BaseException as error:  # noqa: BLE001 - whoever asked is told
        _fail(outcome, error)


def _fail(outcome: asyncio.Future[Recalled], error: BaseException) -> None:
    if isinstance(error, asyncio.CancelledError):
        outcome.cancel()
    else:
        outcome.set_exception(error)


def _look_away(future: asyncio.Future[None]) -> None:
    """Nobody waits for it; what it was about comes again, or is not missed."""
    if not future.cancelled():
        future.exception()


def unit(blob: bytes) -> NDArray[np.float32]:
    """A vector in the form in which it is compared: of length 1, shape (dim,); of zeros, zeros."""
    vector = np.frombuffer(blob, "<f4").astype(np.float64)
    norm = float(np.sqrt(np.dot(vector, vector)))
    return (vector / norm if norm else vector).astype(np.float32)
