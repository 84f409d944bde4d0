"""Evaluation (a): over labelled pairs, the first is remembered, the second recalled, then labelled.

What serves is decided before the label is seen, and by a prior that was fitted to other pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.labelled_pairs import LabelledPairs
from benchmarks.harness.shares import Share, grouped_share
from pyrope.semantic.calibration import Calibrator
from pyrope.semantic.guards import check
from pyrope.semantic.prior import Prior
from pyrope.semantic.prompt_facts import PromptFacts
from pyrope.semantic.sources import Source

ERRORS = (0.02, 0.05, 0.1, 0.2)
CURVE = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
THRESHOLDS = (0.8, 0.85, 0.9, 0.95)
WARM = 2000
"""Labels after which a calibrator is measured once more."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Teaching:
    """Who labels what was recalled.

    Attributes:
        source: None: nobody does.
        accuracy: how often it is right.
    """

    name: str
    source: Source | None
    accuracy: float = 1.0


TEACHINGS = (
    Teaching("without labels", None),
    Teaching("with feedback", Source.FEEDBACK),
    Teaching("with a verifier that is right 90 %", Source.VERIFIER, 0.9),
    Teaching("with a verifier that is right 100 %", Source.VERIFIER, 1.0),
)


@dataclass(frozen=True, slots=True, eq=False)
class PairsPart:
    """Pairs that are measured, in the order in which they are asked.

    Attributes:
        facts: of all questions.
        similarities: of these pairs, shape (pairs,).
        refused: which of them a guard refuses.
        groups: connected components.
        prior: fitted to other pairs.
    """

    pairs: LabelledPairs
    facts: Sequence[PromptFacts]
    similarities: NDArray[np.float64]
    refused: Flags
    groups: NDArray[np.int64]
    prior: Prior

    @property
    def right(self) -> Flags:
        return np.equal(self.pairs.labels, 1)

    def shifted(self, *, kept: float, added: float, seed: int) -> PairsPart:
        """The same with other labels: a share of right ones kept, one of wrong ones made right."""
        drawn = np.random.default_rng(seed).random(len(self.refused))
        labels = np.where(self.right, drawn < kept, drawn < added).astype(np.int64)
        pairs = LabelledPairs(self.pairs.questions, self.pairs.vectors, self.pairs.rows, labels)
        return replace(self, pairs=pairs)


@dataclass(frozen=True, slots=True)
class Served:
    """How one policy did.

    Attributes:
        asked: what it was asked to keep to: an error, or a threshold.
        hits: of all pairs; `errors` among those.
    """

    policy: str
    asked: str
    hits: Share
    errors: Share

    def record(self) -> dict[str, object]:
        return {
            "policy": self.policy,
            "asked": self.asked,
            "hits": self.hits.record(),
            "errors": self.errors.record(),
        }


def part_of(
    pairs: LabelledPairs,
    facts: Sequence[PromptFacts],
    similarities: NDArray[np.float64],
    prior: Prior,
    seed: int,
) -> PairsPart:
    """Pairs in a random order.

    Args:
        similarities: of `pairs`, in their order.
    """
    order = np.random.default_rng(seed).permutation(len(pairs.labels))
    shuffled = LabelledPairs(pairs.questions, pairs.vectors, pairs.rows[order], pairs.labels[order])
    refused = np.array([check(facts[a], facts[b]) is not None for a, b in shuffled.rows.tolist()])
    return PairsPart(shuffled, facts, similarities[order], refused, shuffled.components(), prior)


def replay(part: PairsPart, teaching: Teaching, seed: int) -> NDArray[np.float64]:
    """The least ``MAXERROR`` with which each pair would have been served, asked in order.

    Returns:
        Shape (pairs,); infinity where a guard refuses.
    """
    generator = np.random.default_rng(seed)
    calibrator = Calibrator(part.prior)
    needed = np.full(len(part.refused), np.inf)
    lies = generator.random(len(needed)) >= teaching.accuracy
    rows, right = part.pairs.rows.tolist(), part.right.tolist()
    for place in np.flatnonzero(~part.refused).tolist():
        stored, asked = rows[place]
        near = calibrator.near(
            part.facts[asked], part.facts[stored], float(part.similarities[place])
        )
        calibrator.observe(near)
        needed[place] = calibrator.judge(near).least_max_error
        if teaching.source is not None:
            calibrator.learn(near, teaching.source, right=right[place] ^ bool(lies[place]))
    return needed


def served(
    policy: str, asked: str, serves: Flags, right: Flags, groups: NDArray[np.int64]
) -> Served:
    """Count."""
    everything = np.ones(len(serves), bool)
    return Served(
        policy,
        asked,
        grouped_share(serves, everything, groups, seed=0),
        grouped_share(~right, serves, groups, seed=0),
    )


def best_threshold(similarities: NDArray[np.float64], right: Flags, error: float) -> float:
    """With hindsight: the cosine threshold that serves most of all that keep to an error.

    Returns:
        Infinity where none does.
    """
    order = np.argsort(-similarities, kind="stable")
    counts = np.arange(1, len(order) + 1)
    ordered = similarities[order]
    # A threshold serves all that are as similar, or none of them.
    last = np.append(ordered[1:] < ordered[:-1], [True])
    within = np.flatnonzero((np.cumsum(~right[order]) / counts <= error) & last)
    if not len(within):
        return float("inf")
    return float(ordered[within[-1]])
