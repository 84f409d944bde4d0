"""Whose vectors are these? Known by what they say about their texts.

A client that brings its own vectors does not say who made them, and a prior that was fitted to one
embedder is wrong for another. So vectors are asked things that their texts tell, too: does it begin
with *how*, has it a number, is it long? For each such question there is a probe, a linear model
fitted to one embedder's vectors (``python -m benchmarks.fit_prior``). Another embedder's vectors
know as much, but not along the same directions.

The test is prequential (Dawid, Journal of the Royal Statistical Society A 147, 1984): before each
text is looked at, the probe says how likely a yes is, and so does somebody who has seen no vector,
only how many yeses there were so far (Krichevsky and Trofimov's estimate). The logarithms of what
either gave to the truth are summed up, and the vectors are recognised when the probes are ahead by
`_ENOUGH`. Questions whose answer is always the same give nothing to either side.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from math import log
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pyrope.semantic.prompt_facts import PromptFacts

Float32Vector = NDArray[np.float32]
Float64Vector = NDArray[np.float64]
Float64Matrix = NDArray[np.float64]

QUESTIONS: Final = (
    "begins_with_what",
    "begins_with_how",
    "begins_with_why",
    "begins_with_which",
    "asks_for_yes_or_no",
    "has_number",
    "has_name",
    "is_long",
)
"""What probes are asked, in the order of `answers`."""

MOST_PROMPTS: Final = 400
"""Who has not been recognised by then is a stranger."""

_ENOUGH: Final = 10.0
_LEAST_PROMPTS: Final = 8
_YES_OR_NO: Final = frozenset(
    {"is", "are", "was", "were", "be", "do", "does", "did", "can", "could", "should", "would"}
    | {"will", "has", "have", "may", "must"}
)
_LONG: Final = 12
_SUREST: Final = 0.98


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """Of one embedder.

    Attributes:
        name: of the embedder, and of its prior.
        weights: shape (questions, dim); `bias` (questions,).
    """

    name: str
    weights: Float64Matrix
    bias: Float64Vector


def answers(facts: PromptFacts) -> tuple[bool, ...]:
    """What a text tells by itself, in the order of `QUESTIONS`."""
    first = facts.words[0] if facts.words else ""
    return (
        first == "what",
        first == "how",
        first == "why",
        first == "which",
        first in _YES_OR_NO,
        bool(facts.numbers),
        bool(facts.names),
        len(facts.words) >= _LONG,
    )


class Recogniser:
    """Looks at the prompts of one index until it knows, or has given up. 15 us a prompt.

    Args:
        probes: of the embedder that it may be.
    """

    def __init__(self, probes: Probes) -> None:
        self._probes = probes
        self._ahead = 0.0
        self._yes = np.full(len(QUESTIONS), 0.5)
        self._count = 0

    @property
    def undecided(self) -> bool:
        """Whether more prompts are worth looking at."""
        return self._count < MOST_PROMPTS and not self.recognised

    @property
    def recognised(self) -> bool:
        return self._count >= _LEAST_PROMPTS and self._ahead >= _ENOUGH

    @property
    def candidate(self) -> str:
        """Name of the embedder that it may be."""
        return self._probes.name

    @property
    def name(self) -> str:
        """Of the embedder if it is recognised, else ``""``."""
        return self._probes.name if self.recognised else ""

    def observe(self, facts: PromptFacts, vector: Float32Vector) -> None:
        """Compare a prompt with its vector.

        Args:
            vector: of length 1, shape (dim,).
        """
        if not self.undecided:
            return
        said = 1.0 / (1.0 + np.exp(-(self._probes.weights @ vector + self._probes.bias)))
        said = np.clip(said, 1 - _SUREST, _SUREST)
        counted = self._yes / (self._count + 1.0)
        for place, yes in enumerate(answers(facts)):
            if yes:
                self._ahead += log(said[place] / counted[place])
                self._yes[place] += 1.0
            else:
                self._ahead += log((1.0 - said[place]) / (1.0 - counted[place]))
        self._count += 1


@lru_cache(maxsize=4)
def probes_for(dim: int) -> Probes | None:
    """Those shipped for vectors of that dimension, if there are any."""
    record = json.loads(
        files("pyrope.semantic").joinpath("priors", "probes.json").read_text("utf-8")
    )
    weights = np.array(record["weights"], np.float64)
    if weights.shape[1] != dim or record["questions"] != list(QUESTIONS):
        return None
    return Probes(record["name"], weights, np.array(record["bias"], np.float64))
