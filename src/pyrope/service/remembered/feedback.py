"""What people and language models say of the answers of one index.

It is about a *pair*: the prompt that was asked, and the remembered one whose response answered it,
or might have. It goes before what guards and scores say of that pair, and teaches the calibration
of others. Nothing counts before it is durable.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pyrope.cache.query_key import QueryKey
from pyrope.errors import CommandError
from pyrope.semantic.remembered.entry import Entry, Stage, parse_name, prompt_key
from pyrope.semantic.sources import Source
from pyrope.service.remembered.asking import Asked, Match, Remembering
from pyrope.service.remembered.judging import Judge, Look
from pyrope.service.remembered.keeping import Keeping
from pyrope.service.remembered.pairs import Pairs
from pyrope.service.remembered.statistics import RememberStatistics

# Pairs that feedback may still be given on, and answers that it may be given on without a prompt.
_KEPT = 4096
# Of a pair that came up, beside prompt and vector; and of all of them together.
_BYTES = 1200
_MOST_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class _Seen:
    """A pair that came up: a near hit, or what was nearest where there was none."""

    entry: int
    asked: bytes
    look: Look

    @property
    def nbytes(self) -> int:
        """The other prompt is the entry's, which counts it."""
        return _BYTES + len(self.look.asked) + self.look.vector.nbytes


class Feedback:
    """For the event loop.

    Args:
        judge: learns.

    Attributes:
        pairs: what was said.
    """

    def __init__(
        self, index: Remembering, keeping: Keeping, judge: Judge, statistics: RememberStatistics
    ) -> None:
        self.pairs = Pairs(index.spec.uid)
        self._index = index
        self._keeping = keeping
        self._judge = judge
        self._statistics = statistics
        self._seen: OrderedDict[tuple[int, bytes], _Seen] = OrderedDict()
        self._seen_bytes = 0
        # By entry, the prompt that it has answered last.
        self._answered: OrderedDict[int, bytes] = OrderedDict()

    @property
    def uid(self) -> int:
        """Of the index."""
        return self._index.spec.uid

    @property
    def tenant(self) -> str:
        return self._index.spec.tenant

    @property
    def nbytes(self) -> int:
        return self.pairs.nbytes + self._seen_bytes

    # -- what came up -----------------------------------------------------------------------------

    def note(self, entry: Entry, asked: bytes, look: Look) -> None:
        """A pair has come up, served or not: feedback on it needs no vector."""
        name, seen = (entry.id, asked), _Seen(entry.id, asked, look)
        self._see_no_more(name)
        self._seen[name] = seen
        self._seen_bytes += seen.nbytes
        while len(self._seen) > _KEPT or self._seen_bytes > _MOST_BYTES:
            self._see_no_more(next(iter(self._seen)))

    def _see_no_more(self, name: tuple[int, bytes]) -> None:
        gone = self._seen.pop(name, None)
        if gone is not None:
            self._seen_bytes -= gone.nbytes

    def answered(self, entry: Entry, asked: bytes, match: Match) -> None:
        """An entry has answered a prompt: feedback that names none is on that one."""
        answered = self._answered
        if match is Match.EXACT:
            answered.pop(entry.id, None)
            return
        answered[entry.id] = asked
        answered.move_to_end(entry.id)
        if len(answered) > _KEPT:
            answered.popitem(last=False)

    def forget(self, entry: Entry) -> None:
        """An entry is no more."""
        key = self._answered.pop(entry.id, None)
        if key is not None:
            self._see_no_more((entry.id, key))

    def clear(self) -> None:
        self.pairs.clear()
        self._seen.clear()
        self._seen_bytes = 0
        self._answered.clear()

    # -- by people --------------------------------------------------------------------------------

    def find(self, name: bytes) -> Entry:
        """An entry by its name, also one that is quarantined. Raises CommandError."""
        number = parse_name(name)
        entry = None if number is None else self._keeping.table.get(number)
        if entry is None or entry.stage is not Stage.LIVE or entry.leaving:
            raise CommandError(f"no such entry '{name[:64].decode(errors='replace')}'")
        return entry

    def is_known(self, entry: Entry, prompt: QueryKey) -> bool:
        """Whether feedback on an answer to a prompt needs no vector of it."""
        key = prompt_key(prompt.identity)
        return key == entry.key or (entry.id, key) in self._seen

    def give(
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
        entry, keeping = self.find(name), self._keeping
        asked = self._answered.get(entry.id)
        if prompt is not None:
            asked = prompt_key(prompt.identity)
        if asked is None or asked == entry.key:
            # Of a prompt's own response there is nothing to learn about near ones.
            future = keeping.put(()) if good else keeping.quarantine(entry)
            future.add_done_callback(partial(self._given, good=good))
            return future
        seen = self._seen.get((entry.id, asked))
        look = None if seen is None else seen.look
        its = keeping.near.vector(entry)
        if look is None and prompt is not None and vector is not None and its is not None:
            look = self._judge.look(
                prompt.content,
                entry.prompt,
                vector,
                min(float(its @ vector), 1.0),
                evidence=entry.evidence,
                guards_off=self._index.spec.cache.guards_off,
            )
        future = self._say(entry, asked, look, Source.FEEDBACK, right=good, quarantines=not good)
        future.add_done_callback(partial(self._given, good=good))
        return future

    def _given(self, outcome: asyncio.Future[None], *, good: bool) -> None:
        if not outcome.cancelled() and outcome.exception() is None:
            self._statistics.good += good
            self._statistics.bad += not good

    # -- by language models -----------------------------------------------------------------------

    def may_learn(self, entry: Entry) -> bool:
        """Whether what is said of an entry still matters."""
        return self._keeping.table.get(entry.id) is entry and not entry.leaving

    def likely_wrong(self, look: Look) -> float:
        """How likely what nobody has spoken of is wrong: an estimate."""
        return self._judge.judge(look).error

    def wondered(self, *, served: bool) -> None:
        """A language model is asked about a pair."""
        self._statistics.verifications += not served
        self._statistics.audits += served

    def verified(self, asked: Asked, entry: Entry, look: Look, *, same: bool, served: bool) -> None:
        """A language model was asked about a prompt and a remembered one.

        Args:
            served: whether the one had been answered by the other, or would have been.
        """
        statistics = self._statistics
        if served:
            statistics.audited_same += same
            statistics.audited_different += not same
        else:
            statistics.verified_same += same
            statistics.verified_different += not same
        if self.may_learn(entry):
            source = Source.AUDIT if served else Source.VERIFIER
            said = self._say(entry, asked.key, look, source, right=same, quarantines=False)
            said.add_done_callback(look_away)

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
        keeping = self._keeping
        future = keeping.quarantine(entry, changes) if quarantines else keeping.put(changes)

        def said(outcome: asyncio.Future[None]) -> None:
            if outcome.cancelled() or outcome.exception() is not None:
                self.pairs.put_back(entry.scope, asked, entry.key, before)
            elif look is not None and look.guard is None and changes:
                learnt = self._judge.learn(look, entry.evidence, before, source, right=right)
                entry.evidence = learnt
                keeping.changed(entry)

        future.add_done_callback(said)
        return future


def look_away(future: asyncio.Future[None]) -> None:
    """Nobody waits for it; what it was about comes again, or is not missed."""
    if not future.cancelled():
        future.exception()
