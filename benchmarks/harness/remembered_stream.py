"""Evaluation (b): a stream of questions that come again and again in other words.

Topics are clusters of questions that people have called the same. How often each comes falls as
1 / rank^exponent; its wordings are equally likely. What is not served is answered by somebody who
knows, and remembered. Candidates that were neither served nor refused, and are not hopeless, are
put to a verifier, who answers 50 requests later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.labelled_pairs import LabelledPairs, join
from benchmarks.harness.shares import Share, share
from pyrope.semantic.calibration import Calibrator, Near
from pyrope.semantic.evidence import NOTHING, Evidence
from pyrope.semantic.guards import check
from pyrope.semantic.prior import Prior
from pyrope.semantic.prompt_facts import PromptFacts
from pyrope.semantic.sources import UNSAID, Source, Verdicts

VERIFIED_AFTER = 50
_CANDIDATES = 4
_HOPELESS = 0.8
_NEARLY = 0.1


@dataclass(frozen=True, slots=True)
class Topics:
    """Clusters of questions with one answer.

    Attributes:
        wordings: rows of the questions of each.
        topic_of: of every question; those that are in no cluster have their own.
    """

    wordings: list[list[int]]
    topic_of: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StreamResult:
    """What became of one stream.

    Attributes:
        hits: of all requests; `possible` of them an all-knowing cache would have served.
        errors: among hits.
        exact, verified, near: how many hits came from the same words, from a pair that had been
            verified, from the calibrated score.
        asked_verifier: jobs that the verifier was given.
    """

    hits: Share
    possible: int
    errors: Share
    exact: int
    verified: int
    near: int
    asked_verifier: int
    verifier_accuracy: float

    @property
    def of_possible(self) -> float:
        right = self.hits.count - self.errors.count
        return right / self.possible if self.possible else 0.0


def topics_of(pairs: LabelledPairs, least: int = 2) -> Topics:
    """Connected components of pairs that are the same, with at least so many questions."""
    roots = join(len(pairs.questions), pairs.rows[pairs.labels == 1])
    members: dict[int, list[int]] = {}
    for row, root in enumerate(roots.tolist()):
        members.setdefault(root, []).append(row)
    used = set(pairs.rows[pairs.labels == 1].ravel().tolist())
    wordings = [rows for rows in members.values() if len(rows) >= least and used.issuperset(rows)]
    return Topics(wordings, roots)


def requests_of(topics: Topics, count: int, exponent: float, seed: int) -> list[int]:
    """Rows of the questions asked, in order."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(topics.wordings))
    weights = 1.0 / np.arange(1, len(order) + 1) ** exponent
    drawn = generator.choice(len(order), size=count, p=weights / weights.sum())
    picks = generator.random(count)
    found = []
    for topic, pick in zip(order[drawn].tolist(), picks.tolist(), strict=True):
        wordings = topics.wordings[topic]
        found.append(wordings[int(pick * len(wordings))])
    return found


class _World:
    """A cache in one process: what is remembered, and what has been said."""

    def __init__(
        self, vectors: NDArray[np.float32], facts: Sequence[PromptFacts], prior: Prior
    ) -> None:
        self.vectors = vectors
        self.facts = facts
        self.calibrator = Calibrator(prior)
        self.rows: list[int] = []
        self.remembered: dict[str, int] = {}
        self.verdicts: dict[tuple[int, int], Verdicts] = {}
        self.evidence: dict[int, Evidence] = {}
        self._stored = np.empty((1024, vectors.shape[1]), np.float32)

    def remember(self, text: str, row: int) -> None:
        if len(self.rows) == len(self._stored):
            self._stored = np.vstack([self._stored, np.empty_like(self._stored)])
        self._stored[len(self.rows)] = self.vectors[row]
        self.rows.append(row)
        self.remembered[text] = row

    def candidates(self, row: int) -> list[tuple[int, Near]]:
        """Stored questions near this one, nearest first, without those that a guard refuses."""
        if not self.rows:
            return []
        scores = self._stored[: len(self.rows)] @ self.vectors[row]
        count = min(_CANDIDATES, len(scores))
        best = np.argpartition(-scores, count - 1)[:count]
        best = best[np.argsort(-scores[best], kind="stable")]
        similar = scores[best].tolist()
        found = []
        for place, slot in enumerate(best.tolist()):
            stored = self.rows[slot]
            if check(self.facts[row], self.facts[stored]) is None:
                found.append((stored, self.look(row, stored, similar[place], similar, place)))
        return found

    def look(self, row: int, stored: int, score: float, similar: list[float], place: int) -> Near:
        return self.calibrator.near(
            self.facts[row],
            self.facts[stored],
            score,
            runner_up=similar[place + 1] if place + 1 < len(similar) else None,
            neighbours=sum(other >= score - _NEARLY for other in similar) - 1,
            entry=self.evidence.get(stored, NOTHING),
        )


def play(
    pairs: LabelledPairs,
    topics: Topics,
    facts: Sequence[PromptFacts],
    requests: Sequence[int],
    prior: Prior,
    max_error: float,
    accuracy: float,
    seed: int,
) -> StreamResult:
    """Ask a cache all that, with a verifier of that accuracy.

    Args:
        max_error: what is asked for with every request.
    """
    generator = np.random.default_rng(seed)
    world = _World(pairs.vectors, facts, prior)
    jobs: deque[tuple[int, int, int, Near]] = deque()
    asked: set[tuple[int, int]] = set()
    counts = {"exact": 0, "verified": 0, "near": 0}
    wrong = possible = 0
    known: set[int] = set()
    for now, row in enumerate(requests):
        while jobs and jobs[0][0] <= now:
            _, of, stored, near = jobs.popleft()
            _verify(world, topics, of, stored, near, lies=generator.random() >= accuracy)
        topic = int(topics.topic_of[row])
        possible += topic in known
        known.add(topic)
        text = pairs.questions[row]
        if text in world.remembered:
            counts["exact"] += 1
            continue
        how, found, jobs_of = _near_hit(world, row, max_error)
        if how:
            counts[how] += 1
            wrong += int(topics.topic_of[found]) != topic
        else:
            world.remember(text, row)
        for stored, near in jobs_of:
            if (row, stored) not in asked:
                asked.add((row, stored))
                jobs.append((now + VERIFIED_AFTER, row, stored, near))
    hits = sum(counts.values())
    return StreamResult(
        share(hits, len(requests)),
        possible,
        share(wrong, hits),
        **counts,
        asked_verifier=len(asked),
        verifier_accuracy=world.calibrator.statistics().verifier_accuracy,
    )


def _near_hit(world: _World, row: int, max_error: float) -> tuple[str, int, list[tuple[int, Near]]]:
    """How a request is served and by which question, and what is worth a verifier's time."""
    uncertain = []
    candidates = world.candidates(row)
    if candidates:
        world.calibrator.observe(candidates[0][1])
    for stored, near in candidates:
        verdicts = world.verdicts.get((row, stored), UNSAID)
        judgement = world.calibrator.judge(near, verdicts)
        if judgement.serves(max_error):
            # What was served on a score is looked into afterwards.
            return (
                "verified" if judgement.verified else "near",
                stored,
                [] if judgement.verified else [(stored, near)],
            )
        if not judgement.verified and judgement.error < _HOPELESS:
            uncertain.append((stored, near))
    return "", -1, uncertain[:1]


def _verify(
    world: _World, topics: Topics, row: int, stored: int, near: Near, *, lies: bool
) -> None:
    right = bool(topics.topic_of[row] == topics.topic_of[stored]) ^ lies
    before = world.verdicts.get((row, stored), UNSAID)
    of_entry, _ = world.calibrator.learn(near, Source.VERIFIER, right=right, before=before)
    world.evidence[stored] = of_entry
    world.verdicts[row, stored] = before.and_one(Source.VERIFIER, right=right)
