"""What one index knows of how far near hits can be trusted: guards, calibration, regions.

Joins `pyrope.semantic.guards` and `pyrope.semantic.calibration` with what is remembered. What is
written in a prompt is read once and kept for a while, for all indexes of the server together.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrope.log import get_logger
from pyrope.semantic.calibration import (
    CalibrationError,
    CalibrationStatistics,
    Calibrator,
    Judgement,
    Near,
)
from pyrope.semantic.evidence import NOTHING, Evidence
from pyrope.semantic.guards import check
from pyrope.semantic.prior import GENERIC, prior_for
from pyrope.semantic.prompt_facts import PromptFacts, facts_of
from pyrope.semantic.sources import UNSAID, Source, Verdicts
from pyrope.service.remembered.regions import Regions
from pyrope.types import IndexSpec

_log = get_logger(__name__)

_LENGTH = struct.Struct("<I")
# Similarities that are nearly as high: their number tells how crowded it is there.
_NEARLY = 0.1
# Words of prompts whose facts are kept, 40 bytes each in several tables; 20 MB in all. The facts
# themselves, and the prompt, count as so many.
_KEPT_WORDS, _FACTS_WORDS, _WORD_BYTES = 60_000, 20, 320
# Of a calibrator, beside its regions.
_CALIBRATOR_BYTES = 12_000


class FactsCache:
    """What is written in prompts that were looked at of late. One of a server."""

    def __init__(self, max_words: int = _KEPT_WORDS) -> None:
        self._max_words = max_words
        self._facts: OrderedDict[bytes, PromptFacts] = OrderedDict()
        self._words = 0

    def of(self, prompt: bytes) -> PromptFacts:
        """The facts of a prompt in UTF-8: 40 us for a question that is new."""
        found = self._facts.get(prompt)
        if found is not None:
            self._facts.move_to_end(prompt)
            return found
        found = facts_of(prompt.decode())
        self._facts[prompt] = found
        self._words += _words(prompt, found)
        while self._words > self._max_words:
            self._words -= _words(*self._facts.popitem(last=False))
        return found


def _words(prompt: bytes, facts: PromptFacts) -> int:
    return len(facts.words) + _FACTS_WORDS + len(prompt) // _WORD_BYTES


@dataclass(frozen=True, slots=True)
class Look:
    """A prompt beside one that is remembered.

    Attributes:
        asked, stored: the prompts, UTF-8.
        vector: of the one that was asked, of length 1.
        score: cosine of the two.
        guard: the name of the one that refuses.
        near: what the calibrator made of them.
    """

    asked: bytes
    stored: bytes
    vector: NDArray[np.float32]
    score: float
    runner_up: float | None
    neighbours: int
    guard: str | None
    near: Near


class Judge:
    """For the event loop.

    Args:
        facts: shared with other indexes.

    Attributes:
        is_changed: whether it has been told something since it was encoded last.
        has_seen: whether it has seen something since then, which is of less weight.
    """

    def __init__(self, spec: IndexSpec, facts: FactsCache) -> None:
        self._spec = spec
        self._facts = facts
        # Made when something is near for the first time: most indexes remember nothing.
        self._made: Calibrator | None = None
        self._regions = Regions(spec.dim)
        self.is_changed = self.has_seen = False

    @property
    def nbytes(self) -> int:
        return 0 if self._made is None else _CALIBRATOR_BYTES + self._regions.nbytes

    @property
    def _calibrator(self) -> Calibrator:
        if self._made is None:
            self._made = Calibrator(prior_for(self._spec.embedder), self._spec.dim)
        return self._made

    def meet(self, prompt: bytes, vector: NDArray[np.float32]) -> None:
        """Look at a prompt and its vector, which may tell who has made it; 0.1 ms, or nothing."""
        if self._calibrator.prior.name == GENERIC:
            self._calibrator.meet(self._facts.of(prompt), vector)
            self.has_seen = True

    def look(
        self,
        asked: bytes,
        stored: bytes,
        vector: NDArray[np.float32],
        score: float,
        *,
        others: Sequence[float] = (),
        evidence: Evidence = NOTHING,
        guards_off: frozenset[str],
    ) -> Look:
        """Put a prompt beside one that is remembered; 0.1 ms.

        Args:
            vector: of the one that is asked.
            score: cosine of the two.
            others: cosines of the other candidates.
            evidence: of the one that is remembered.
        """
        below = [other for other in others if other <= score]
        runner_up = max(below, default=None)
        neighbours = sum([other >= score - _NEARLY for other in others])
        one, other = self._facts.of(asked), self._facts.of(stored)
        self._calibrator.meet(one, vector)
        near = self._calibrator.near(
            one,
            other,
            score,
            runner_up=runner_up,
            neighbours=neighbours,
            entry=evidence,
            cluster=self._regions.of(vector),
        )
        guard = check(one, other, guards_off)
        return Look(asked, stored, vector, score, runner_up, neighbours, guard, near)

    def observe(self, look: Look) -> None:
        """Count a candidate that guards have let pass, once for each prompt that is asked."""
        self._calibrator.observe(look.near)
        self.has_seen = True

    def judge(self, look: Look, verdicts: Verdicts = UNSAID) -> Judgement:
        """How likely the stored response is wrong.

        Args:
            verdicts: what was said of this very pair.
        """
        return self._calibrator.judge(look.near, verdicts)

    def learn(
        self, look: Look, evidence: Evidence, before: Verdicts, source: Source, *, right: bool
    ) -> Evidence:
        """Take in whether a response was right.

        Args:
            evidence: of the entry, by now.
            before: what had been said of the same pair.

        Returns:
            What is known of the entry now.
        """
        calibrator = self._calibrator
        region = self._regions.of(look.vector)
        near = calibrator.near(
            self._facts.of(look.asked),
            self._facts.of(look.stored),
            look.score,
            runner_up=look.runner_up,
            neighbours=look.neighbours,
            entry=evidence,
            cluster=region,
        )
        of_entry, of_region = calibrator.learn(near, source, right=right, before=before)
        if of_region is not region:
            self._regions.learn(look.vector, of_region)
        self.is_changed = True
        return of_entry

    def statistics(self) -> CalibrationStatistics | None:
        """What has been learnt; None: nothing was ever near."""
        return None if self._made is None else self._made.statistics()

    def encode(self) -> bytes:
        """All that was learnt, to be stored."""
        self.is_changed = self.has_seen = False
        state = self._calibrator.encode()
        return _LENGTH.pack(len(state)) + state + self._regions.encode()

    def restore(self, stored: bytes) -> None:
        """Take over what `encode` gave; what is of another prior is left, and learnt anew."""
        (length,) = _LENGTH.unpack_from(stored)
        end = _LENGTH.size + length
        try:
            self._calibrator.restore(stored[_LENGTH.size : end])
            self._regions.restore(stored[end:])
        except (CalibrationError, ValueError) as error:
            _log.warning(
                "what was learnt of near hits cannot be used, and is learnt anew",
                index=self._spec.name,
                reason=str(error),
            )
