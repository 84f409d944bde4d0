"""Prompts that are near one another and may or may not mean the same: a language model is asked.

Off the path: the caller has had its answer, which was none. What the model says becomes a verdict
on the pair, which is weighed like any other; where it is trusted enough, the next one to ask is
served.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from pyrope.clock import Clock
from pyrope.config import LlmSettings, RememberSettings
from pyrope.llm.job import Job, JobKind
from pyrope.llm.questions import VerifyQuestion, bytes_of
from pyrope.semantic.remembered.entry import Entry
from pyrope.service.advice_work import RecallWork
from pyrope.service.remembered.asking import Asked
from pyrope.service.remembered.feedback import Feedback
from pyrope.service.remembered.judging import Look

# More likely wrong than that: it is not worth a question.
_MOST_ERROR = 0.8
# Pairs that are not asked about again, whatever came of it.
_ASKED = 4096
# What a hit is worth of which nobody has said what it saves, in cost units: a guess.
_USUAL_COST = 10_000.0


class RecallVerifier:
    """One of a server. For the event loop.

    Args:
        llm, remember: read at every use.
        submit: has a question asked.
    """

    def __init__(
        self,
        llm: LlmSettings,
        remember: RememberSettings,
        clock: Clock,
        submit: Callable[[Job], object],
    ) -> None:
        self._llm = llm
        self._remember = remember
        self._clock = clock
        self._submit = submit
        self._asked: OrderedDict[tuple[int, bytes, bytes, bytes], None] = OrderedDict()

    def wonder(
        self, feedback: Feedback, asked: Asked, entry: Entry, look: Look, *, served: bool
    ) -> None:
        """Have the model asked, if it is open and worth it; 20 us."""
        most = self._llm.text_bytes
        if not self._remember.verify or max(len(asked.prompt), len(entry.prompt)) > most:
            return
        error = feedback.likely_wrong(look)
        name = feedback.uid, asked.scope, asked.key, entry.key
        if name in self._asked or (error > _MOST_ERROR and not served):
            return
        self._asked[name] = None
        if len(self._asked) > _ASKED:
            self._asked.popitem(last=False)
        question = VerifyQuestion(asked.prompt.decode(), entry.prompt.decode())
        work = RecallWork(
            feedback.uid,
            question,
            is_wanted=lambda: feedback.may_learn(entry),
            answered=lambda same: feedback.verified(asked, entry, look, same=same, served=served),
        )
        # What comes of it: another hit, or one that would have been wrong again.
        value = (error if served else 1.0 - error) * (entry.cost or _USUAL_COST)
        deadline = self._clock.monotonic() + self._llm.job_ttl_s
        feedback.wondered(served=served)
        self._submit(
            Job(JobKind.VERIFY, feedback.tenant, name, value, deadline, work, bytes_of(question))
        )
