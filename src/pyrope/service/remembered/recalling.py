"""When an index answers a prompt with what it remembers.

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
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pyrope.cache.query_key import KeyKind, QueryKey
from pyrope.semantic.calibration import Judgement
from pyrope.semantic.remembered.entry import Entry, prompt_key
from pyrope.semantic.sources import UNSAID
from pyrope.service.remembered.asking import (
    Asked,
    Match,
    Nearest,
    Recalled,
    Remembering,
    Rule,
)
from pyrope.service.remembered.feedback import Feedback
from pyrope.service.remembered.judging import Judge, Look
from pyrope.service.remembered.keeping import Keeping
from pyrope.service.remembered.leases import Lease, Leases, Outcome, Wanted
from pyrope.service.remembered.pairs import said_wrong
from pyrope.service.remembered.rows import Near
from pyrope.service.remembered.services import RememberServices, Verifier
from pyrope.service.remembered.statistics import RememberStatistics, count

# Responses up to this length are decompressed on the loop: 0.7 ms.
_DECOMPRESSED_HERE = 256 * 1024
# Of the nearest prompts, so many are judged, at 0.1 ms each, where guards refuse the first.
_JUDGED = 3
FEEDBACK = "feedback"
"""In place of a guard's name: somebody has said of this very pair that it is wrong."""


class Recalling:
    """Of one index. For the event loop.

    Args:
        judge: says what may serve, and learns.
        feedback: what was said goes before that; and is told what came up.
        verifier: None: there is none.
    """

    def __init__(
        self,
        index: Remembering,
        services: RememberServices,
        *,
        keeping: Keeping,
        leases: Leases,
        judge: Judge,
        feedback: Feedback,
        statistics: RememberStatistics,
        verifier: Verifier | None,
    ) -> None:
        self._index = index
        self._services = services
        self._settings = services.settings
        self._keeping = keeping
        self._leases = leases
        self._judge = judge
        self._feedback = feedback
        self._statistics = statistics
        self._verifier = verifier

    def known(self, asked: Asked) -> Recalled | asyncio.Future[Recalled] | None:
        """Look a prompt up without its vector: exactly, and as an alias.

        Returns:
            None: it is not known; `near` goes on.
        """
        found = self._known(asked)
        return None if found is None else self._finish(asked, found)

    def near(
        self, asked: Asked, vector: NDArray[np.float32]
    ) -> Recalled | asyncio.Future[Recalled]:
        """Look a prompt up by its vector; to be called where `known` knows nothing.

        Args:
            vector: of length 1, shape (dim,).

        Returns:
            What came of it, or a future of it, which may be cancelled.

        Raises:
            BusyError: a lease is wanted, and too many are.
        """
        near = self._nearest(asked, vector)
        if asked.lease_s is not None:
            return asyncio.get_running_loop().create_task(self._near_or_lease(asked, vector, near))
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

    async def _near_or_lease(
        self,
        asked: Asked,
        vector: NDArray[np.float32],
        near: list[Near] | asyncio.Future[list[Near]],
    ) -> Recalled:
        clock = self._services.clock
        began, waited_s, looked = clock.monotonic(), 0.0, False
        while True:
            additions = self._keeping.near.additions
            found_near = near if isinstance(near, list) else await near
            recalled = self._judged(asked, vector, found_near, again=looked)
            looked = True
            if recalled.match is not None or self._index.spec.cache.shadow:
                break
            # While vectors were compared the response may have come.
            found = self._known(asked)
            if found is not None:
                recalled = found
                break
            if additions == self._keeping.near.additions:
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
        wanted = Wanted(
            asked.scope,
            asked.key,
            asked.prompt,
            vector,
            asked.client,
            asked.lease_s,
            asked.may_hold,
        )
        lease = self._lease_for(asked, vector)
        if lease is None:
            if asked.may_hold:
                recalled.lease = self._leases.take(wanted).token
            return False
        if left <= 0:
            return False
        outcome = await self._leases.wait(lease, wanted, left)
        if outcome is Outcome.HOLDER:
            own = self._leases.of_prompt(asked.scope, asked.key)
            recalled.lease = None if own is None else own.token
        return outcome is Outcome.ANSWERED

    def _lease_for(self, asked: Asked, vector: NDArray[np.float32]) -> Lease | None:
        """A lease whose response would answer this prompt, as far as can be told."""
        own = self._leases.of_prompt(asked.scope, asked.key)
        if own is not None:
            return own
        for lease, score in self._leases.nearest(asked.scope, vector, self._settings.candidates):
            look = self._judge.look(
                asked.prompt,
                lease.wanted.prompt,
                vector,
                score,
                guards_off=self._index.spec.cache.guards_off,
            )
            if look.guard is None and _is_good(asked.rule, score, self._judge.judge(look)):
                return lease
        return None

    def _nearest(
        self, asked: Asked, vector: NDArray[np.float32]
    ) -> list[Near] | asyncio.Future[list[Near]]:
        return self._keeping.nearest(asked.client, asked.scope, vector, self._settings.candidates)

    def _known(self, asked: Asked) -> Recalled | None:
        """What is known of a prompt without its vector."""
        keeping = self._keeping
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

    def _judged(
        self,
        asked: Asked,
        vector: NDArray[np.float32],
        near: Sequence[Near],
        *,
        again: bool = False,
    ) -> Recalled:
        """The first of the nearest that may answer; else what is known of the very nearest.

        Args:
            again: whether what came up at the first look has been counted.
        """
        recalled = Recalled(asked.rule)
        rule, guards_off = asked.rule, self._index.spec.cache.guards_off
        candidates = self._candidates(asked, vector, near)
        scores = [score for _, score in candidates]
        said = self._feedback.pairs.of_asked(asked.scope, asked.key)
        left, observed, settled = _JUDGED, again, False
        for at, (entry, score) in enumerate(candidates):
            verdicts = said.get(entry.key, UNSAID)
            # What comes after one that is not good enough is less near; unless somebody knows.
            if not left and not verdicts:
                continue
            left = max(left - 1, 0)
            look = self._judge.look(
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
                self._judge.observe(look)
            judgement = self._judge.judge(look, verdicts)
            good = _is_good(rule, score, judgement)
            refused_by = None
            if said_wrong(verdicts):
                refused_by = FEEDBACK
                self._statistics.contradicted += not again
            elif look.guard is not None and not judgement.verified:
                refused_by = look.guard
                if good and not again:
                    count(self._statistics.guards, look.guard)
            elif good:
                recalled.match = Match.ALIAS if judgement.verified else Match.NEAR
                recalled.entry, recalled.nearest = entry, None
                recalled.score, recalled.error = score, judgement.bound
                self._feedback.note(entry, asked.key, look)
                self._audit(asked, entry, look, judgement)
                return recalled
            if recalled.nearest is None:
                recalled.nearest = Nearest(entry, score, judgement.bound, refused_by)
            if refused_by is None and not verdicts and not settled:
                settled, left = True, 0
                if not again:
                    self._wonder(asked, entry, look)
            if rule.threshold is not None and score < rule.threshold:
                break
        return recalled

    def _wonder(self, asked: Asked, entry: Entry, look: Look) -> None:
        """One is near, and not good enough."""
        self._statistics.uncertain += 1
        self._feedback.note(entry, asked.key, look)
        if self._verifier is not None and asked.rule.threshold is None:
            self._verifier.wonder(self._feedback, asked, entry, look, served=False)

    def _audit(self, asked: Asked, entry: Entry, look: Look, judgement: Judgement) -> None:
        """One answers: a share of those that nobody has judged is looked at."""
        if self._verifier is None or judgement.verified:
            return
        if self._services.random.random() < self._settings.audit_share:
            self._verifier.wonder(self._feedback, asked, entry, look, served=True)

    def _candidates(
        self, asked: Asked, vector: NDArray[np.float32], near: Sequence[Near]
    ) -> list[Near]:
        """What may serve of the nearest, and of what was said to be the same; nearest first."""
        keeping = self._keeping
        now_ms = keeping.now_ms()
        candidates = [one for one in near if one.entry.may_serve(now_ms)]
        said = self._feedback.pairs.of_asked(asked.scope, asked.key)
        if said:
            there = {one.entry.key for one in candidates}
            for key in said.keys() - there:
                entry = keeping.find(asked.scope, key)
                its = None if entry is None else keeping.near.vector(entry)
                if entry is not None and its is not None:
                    candidates.append(Near(entry, min(float(its @ vector), 1.0)))
            candidates.sort(key=lambda one: -one.score)
        return candidates

    def _finish(self, asked: Asked, recalled: Recalled) -> Recalled | asyncio.Future[Recalled]:
        """Count a lookup, and have its response ready."""
        statistics, entry = self._statistics, recalled.entry
        statistics.recalls += 1
        self._keeping.table.looked_up()
        if entry is None or recalled.match is None:
            return recalled
        self._feedback.answered(entry, asked.key, recalled.match)
        if self._index.spec.cache.shadow:
            recalled.shadow = True
            count(statistics.shadow_hits, recalled.match)
            return recalled
        count(statistics.hits, recalled.match)
        self._keeping.served(entry)
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
