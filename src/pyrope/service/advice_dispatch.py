"""What becomes of the language model's answers: aliases, prefetches, advice on clusters, labels.

An answer has been validated by its schema; what the schema cannot know is checked here, against the
index as it is by now. All that it can do is name one of the texts that the very index was asked
for, and move a factor within guardrails. Whatever it does expires, can be removed, and yields to
what was set by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyrope.cache.alias import Alias, AliasSource
from pyrope.cache.asked_texts import AskedText
from pyrope.cache.prefetch_budget import PrefetchLimits
from pyrope.cache.query_key import KeyKind, QueryKey, text_key
from pyrope.clock import Clock
from pyrope.config import AliasSettings, LlmSettings
from pyrope.errors import CommandError, PyropeError
from pyrope.llm.job import Job
from pyrope.llm.schemas import AdviceReply, CanonicalReply, NextReply, VerifyReply
from pyrope.log import get_logger
from pyrope.semantic.advice import Advice, Nature
from pyrope.semantic.labels import Label, LabelSource
from pyrope.service.advice_signals import IndexAdvisor
from pyrope.service.advice_work import (
    AdviceWork,
    CanonicalWork,
    NextWork,
    RecallWork,
    VerifyWork,
)
from pyrope.service.answers import Key

_log = get_logger(__name__)

_LEAST_PROBABILITY = PrefetchLimits().least_probability


@dataclass(slots=True)
class DispatchStatistics:
    """Counters since the server was started.

    Attributes:
        aliases_set, aliases_removed: by the model's word.
        coined: wordings that have become candidates.
        foreseen: queries that prefetching was told of.
        advised: clusters that advice was given on.
        labelled: pairs of queries.
        verifying: answers that were sure enough for a second question only.
        unsure: answers that were not even that.
        refused: answers that name what there is not, or that what was set by hand, or other
            aliases, stand against.
    """

    aliases_set: int = 0
    aliases_removed: int = 0
    coined: int = 0
    foreseen: int = 0
    advised: int = 0
    labelled: int = 0
    verifying: int = 0
    unsure: int = 0
    refused: int = 0


class Dispatcher:
    """For the event loop.

    Args:
        find: the advisor of an index by its number; None: the index has gone.
        submit: has a question asked.

    Attributes:
        statistics: of all indexes.
    """

    def __init__(
        self,
        settings: LlmSettings,
        aliases: AliasSettings,
        clock: Clock,
        *,
        find: Callable[[int], IndexAdvisor | None],
        submit: Callable[[Job], object],
    ) -> None:
        self.statistics = DispatchStatistics()
        self._settings = settings
        self._aliases = aliases
        self._clock = clock
        self._find = find
        self._submit = submit

    async def deliver(self, job: Job, reply: object) -> None:
        """Make of an answer what it is good for.

        Args:
            reply: what the schema of the question has validated.
        """
        try:
            match job.question, reply:
                case CanonicalWork() as work, CanonicalReply() as answer:
                    await self._canonical(work, answer, job.value)
                case NextWork() as work, NextReply() as answer:
                    self._next(work, answer)
                case AdviceWork() as work, AdviceReply() as answer:
                    self._advice(work, answer)
                case VerifyWork() as work, VerifyReply() as answer:
                    await self._verify(work, answer)
                case RecallWork() as work, VerifyReply() as answer:
                    self._recall(work, answer)
                case _:
                    raise TypeError(f"no {type(reply).__name__} answers a question of {job.kind}")
        except CommandError:
            # A chain, or something that was set by hand. What is in it is not for a log.
            self.statistics.refused += 1
        except PyropeError as error:
            _log.warning("advice cannot be followed", kind=job.kind.value, reason=error.prefix)

    # -- by kind ----------------------------------------------------------------------------------

    async def _canonical(self, work: CanonicalWork, reply: CanonicalReply, value: float) -> None:
        advisor = self._find(work.uid)
        if advisor is None:
            return
        if reply.confidence < self._settings.alias_confidence_min:
            self.statistics.unsure += 1
            return
        if reply.match > len(work.candidates):
            self.statistics.refused += 1
            return
        found = (
            work.candidates[reply.match - 1]
            if reply.match
            else self._worded(advisor, work.asked, reply)
        )
        if found is None:
            return
        candidate, cosine = found
        text, group = work.asked.text, work.asked.group
        if reply.confidence >= self._aliases.threshold:
            await self._link(advisor, text, candidate.text, group, reply.confidence)
            return
        job = advisor.verify(text, candidate.text, group, cosine, value)
        if job is not None:
            self.statistics.verifying += 1
            self._submit(job)

    def _worded(
        self, advisor: IndexAdvisor, asked: AskedText, reply: CanonicalReply
    ) -> tuple[AskedText, float] | None:
        """What a wording of the model's own leads to: a text near by that is worded just so.

        Where there is none yet, it becomes one.
        """
        if not reply.canonical.strip():
            return None
        wording = text_key(reply.canonical.encode("utf-8", "replace"))
        found = advisor.worded(wording, asked)
        if found is None and advisor.coin(wording, asked, reply.confidence):
            self.statistics.coined += 1
        return found

    async def _link(
        self,
        advisor: IndexAdvisor,
        text: QueryKey,
        canonical: QueryKey,
        group: Key,
        confidence: float,
    ) -> None:
        """Let a text be another name of another one.

        Others may have been linked while the model was asked: what is an alias by now stands for
        its canonical, and what is a canonical by now stays one, and becomes the other's.
        """
        aliases = advisor.index.aliases
        beyond = aliases.get(canonical)
        if beyond is None:
            if aliases.is_canonical(text) and canonical.identity not in advisor.coined:
                text, canonical = canonical, text
        elif self._is_followed(beyond):
            canonical = beyond.canonical.key
            confidence = min(confidence, beyond.canonical.confidence)
            if canonical.identity == text.identity:
                return  # the other way round, which is as good
        coined = advisor.coined.get(canonical.identity)
        cache, is_first = advisor.index.cache, not aliases.is_canonical(canonical)
        if coined is not None and coined[0].identity != text.identity:
            # Nobody has asked for the wording itself: its answer is that of what it stands for.
            asked, sure = coined
            if aliases.get(asked) is None:
                await self._set(advisor, asked, canonical, min(sure, confidence))
                cache.name_answer(asked.identity, canonical.identity, group, widen=is_first)
                is_first = False
        await self._set(advisor, text, canonical, confidence)
        cache.name_answer(text.identity, canonical.identity, group, widen=is_first)

    def _is_followed(self, alias: Alias) -> bool:
        """Whether searches with the text of an alias are led to another text."""
        canonical = alias.canonical
        is_sure = canonical.confidence >= self._aliases.threshold and not alias.is_suspended
        return is_sure and canonical.key.kind is KeyKind.TEXT

    async def _set(
        self, advisor: IndexAdvisor, text: QueryKey, canonical: QueryKey, confidence: float
    ) -> None:
        await advisor.index.aliases.set(
            text,
            canonical,
            confidence=confidence,
            source=AliasSource.LLM,
            lifetime_s=round(self._settings.alias_ttl_s),
        )
        self.statistics.aliases_set += 1

    def _next(self, work: NextWork, reply: NextReply) -> None:
        advisor = self._find(work.uid)
        if advisor is None:
            return
        likely: dict[int, float] = {}
        for one in reply.foreseen:
            if one.number > len(work.candidates):
                self.statistics.refused += 1
            elif one.probability >= _LEAST_PROBABILITY:
                likely.setdefault(one.number, one.probability)
        ranked = sorted(likely, key=likely.__getitem__, reverse=True)
        following = [work.candidates[number - 1] for number in ranked]
        if following:
            self.statistics.foreseen += len(following)
            advisor.index.cache.foresee(work.previous, following, work.count)
        elif not reply.foreseen:
            self.statistics.unsure += 1

    def _advice(self, work: AdviceWork, reply: AdviceReply) -> None:
        advisor = self._find(work.uid)
        if advisor is None:
            return
        registry = advisor.index.clusters.registry
        if registry.epoch != work.epoch:
            return  # its number means another cluster by now
        settings = self._settings
        if reply.confidence < settings.alias_confidence_min:
            self.statistics.unsure += 1
            return
        floor, ceiling = settings.advice_floor, settings.advice_ceiling
        nature = Nature(reply.nature)
        # What changes often is not kept for longer, whatever the factor says.
        most = 1.0 if nature is Nature.VOLATILE else ceiling
        registry.advice.set(
            work.cluster,
            Advice(
                nature=nature,
                ttl_factor=min(max(reply.ttl_factor, floor), most),
                value_factor=min(max(reply.value_factor, floor), ceiling),
                confidence=reply.confidence,
                until=self._clock.monotonic() + settings.advice_ttl_s,
            ),
        )
        self.statistics.advised += 1

    async def _verify(self, work: VerifyWork, reply: VerifyReply) -> None:
        advisor = self._find(work.uid)
        if advisor is None:
            return
        if reply.confidence < self._settings.alias_confidence_min:
            self.statistics.unsure += 1
            return
        text, other = work.text, work.other
        label = Label(reply.same, reply.confidence, work.score, LabelSource.LLM, self._clock.wall())
        advisor.labels.add(text.identity, other.identity, label)
        self.statistics.labelled += 1
        if work.doubted:
            if not reply.same:
                await self._doubt(advisor, text, other)
        elif reply.same and reply.confidence >= self._aliases.threshold:
            await self._link(advisor, text, other, work.group, reply.confidence)

    def _recall(self, work: RecallWork, reply: VerifyReply) -> None:
        if reply.confidence < self._settings.alias_confidence_min:
            self.statistics.unsure += 1
            return
        self.statistics.labelled += 1
        work.answered(reply.same)

    async def _doubt(self, advisor: IndexAdvisor, text: QueryKey, canonical: QueryKey) -> None:
        """An alias is wrong, says the model: its own ones go, others are counted as audited so."""
        aliases = advisor.index.aliases
        there = aliases.get(text)
        if there is None or there.canonical.key.identity != canonical.identity:
            return
        if there.canonical.source is AliasSource.LLM:
            self.statistics.aliases_removed += await aliases.remove(text)
        else:
            aliases.audited(text, canonical, alike=False)
