"""Vectors of unknown origin: measured, and recognised if they are of an embedder that is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pyrope.semantic.background import LEAST_VECTORS, Background
from pyrope.semantic.origin import Origin
from pyrope.semantic.prompt_facts import PromptFacts, facts_of
from pyrope.semantic.recognition import (
    MOST_PROMPTS,
    QUESTIONS,
    Probes,
    Recogniser,
    answers,
    probes_for,
)

DIM = 64
WORDS = [
    "What",
    "How",
    "Why",
    "Which",
    "Is",
    "rice",
    "boat",
    "in",
    "Peru",
    "7",
    "cheap",
    "good",
    "cook",
    "sail",
    "it",
    "today",
    "made",
]


def prompts(count: int, seed: int) -> list[PromptFacts]:
    generator = np.random.default_rng(seed)
    return [
        facts_of(" ".join(generator.choice(WORDS, size=generator.integers(2, 16))))
        for _ in range(count)
    ]


def embedder(seed: int) -> Probes:
    """Directions along which an embedder says what its texts tell."""
    generator = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(generator.standard_normal((DIM, len(QUESTIONS))))
    return Probes(f"embedder-{seed}", 8.0 * directions.T, np.zeros(len(QUESTIONS)))


def vector_of(
    facts: PromptFacts, by: Probes, generator: np.random.Generator
) -> NDArray[np.float32]:
    told = np.where(answers(facts), 1.0, -1.0) @ by.weights / 8.0
    vector = told + 0.15 * generator.standard_normal(DIM)
    unit: NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return unit


def test_an_embedder_is_recognised_by_what_its_vectors_say_of_their_texts() -> None:
    generator = np.random.default_rng(1)
    recogniser = Recogniser(embedder(1))
    for facts in prompts(40, 2):
        recogniser.observe(facts, vector_of(facts, embedder(1), generator))
    assert recogniser.name == "embedder-1"


def test_others_are_not_however_many_prompts_come() -> None:
    generator = np.random.default_rng(1)
    recogniser = Recogniser(embedder(1))
    for facts in prompts(MOST_PROMPTS + 50, 2):
        recogniser.observe(facts, vector_of(facts, embedder(9), generator))
    assert recogniser.name == ""
    assert not recogniser.undecided


def test_texts_that_are_all_alike_prove_nothing() -> None:
    generator = np.random.default_rng(1)
    facts = facts_of("How good is it in Peru")
    recogniser = Recogniser(embedder(1))
    for _ in range(MOST_PROMPTS):
        recogniser.observe(facts, vector_of(facts, embedder(1), generator))
    assert not recogniser.recognised


def test_the_shipped_probes_fit_the_questions_and_one_dimension() -> None:
    probes = probes_for(384)
    assert probes is not None
    assert probes.name == "all-minilm-l6-v2"
    assert probes.weights.shape == (len(QUESTIONS), 384)
    assert probes_for(256) is None


@pytest.mark.parametrize("offset", [0.0, 1.0, 3.0])
def test_similarity_is_measured_from_that_of_unrelated_texts(offset: float) -> None:
    generator = np.random.default_rng(4)
    rows = generator.standard_normal((600, 300)) / np.sqrt(300)
    rows[:, 0] += offset
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    background = Background(300)
    for row in rows.astype(np.float32):
        background.observe(row)
    assert background.similarity(1.0) == pytest.approx(1)
    unrelated = float(rows[0] @ rows[1])
    assert background.similarity(unrelated) == pytest.approx(0, abs=0.2)


def test_of_few_vectors_similarity_is_worth_nothing() -> None:
    background = Background(4)
    for _ in range(LEAST_VECTORS - 1):
        background.observe(np.eye(4, dtype=np.float32)[0])
    assert background.similarity(0.99) == 0
    background.observe(np.eye(4, dtype=np.float32)[1])
    assert background.similarity(1.0) > 0


def test_vectors_that_are_all_the_same_are_worth_nothing() -> None:
    background = Background(4)
    for _ in range(LEAST_VECTORS):
        background.observe(np.eye(4, dtype=np.float32)[0])
    assert background.similarity(1.0) == 0


def test_a_prompt_that_is_looked_at_again_at_once_counts_once() -> None:
    origin = Origin(4)
    facts = facts_of("once")
    for _ in range(LEAST_VECTORS + 5):
        origin.meet(facts, np.eye(4, dtype=np.float32)[1])
    assert origin.similarity(1.0) == 0


def test_what_was_measured_can_be_stored_and_belongs_to_one_dimension() -> None:
    generator = np.random.default_rng(4)
    origin, other = Origin(16), Origin(16)
    for facts in prompts(50, 3):
        row = generator.standard_normal(16)
        origin.meet(facts, (row / np.linalg.norm(row)).astype(np.float32))
    other.restore(origin.encode())
    assert other.similarity(0.7) == origin.similarity(0.7)
    with pytest.raises(ValueError, match="16 numbers for 8 dimensions"):
        Origin(8).restore(origin.encode())
