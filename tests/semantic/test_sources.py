"""How far a source is believed, and what its word weighs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.semantic.sources import AT_FIRST, UNSAID, Source, Trust, Verdicts, mixed


def taught(accuracy: float, beliefs: str, seed: int, count: int = 3000) -> Trust:
    """A verifier's trust after verdicts on pairs whose probabilities are known."""
    generator = np.random.default_rng(seed)
    trust = AT_FIRST[Source.VERIFIER]
    for _ in range(count):
        p = float(generator.beta(2, 2)) if beliefs == "vague" else float(generator.beta(0.4, 0.4))
        right = generator.random() < p
        said = bool(right) ^ bool(generator.random() >= accuracy)
        trust = trust.after(said, p)
    return trust


@pytest.mark.parametrize("accuracy", [0.75, 0.9, 0.99])
@pytest.mark.parametrize("beliefs", ["vague", "sure"])
def test_accuracy_is_learned_from_what_is_believed_otherwise(accuracy: float, beliefs: str) -> None:
    learned = [taught(accuracy, beliefs, seed).accuracy for seed in range(3)]
    assert np.mean(learned) == pytest.approx(accuracy, abs=0.03)


def test_who_knows_nothing_teaches_nothing_of_a_source() -> None:
    trust = AT_FIRST[Source.VERIFIER]
    for said in [True, False, True, True] * 50:
        trust = trust.after(said, 0.5)
    assert trust.accuracy == pytest.approx(AT_FIRST[Source.VERIFIER].accuracy)
    assert trust.variance == pytest.approx(AT_FIRST[Source.VERIFIER].variance)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=60))
def test_whatever_is_said_accuracy_stays_between_a_coin_and_certainty(
    said: list[tuple[bool, float]],
) -> None:
    trust = AT_FIRST[Source.VERIFIER]
    for right, belief in said:
        trust = trust.after(right, belief)
    assert 0.5 <= trust.least_accuracy <= trust.accuracy < 1
    assert trust.verdicts == len(said)


def test_verdicts_add_up_by_source_and_repeated_ones_count_for_less() -> None:
    trust = dict(AT_FIRST)
    one = UNSAID.and_one(Source.VERIFIER, right=True)
    two = one.and_one(Source.VERIFIER, right=True)
    both = one.and_one(Source.FEEDBACK, right=True)
    torn = one.and_one(Source.VERIFIER, right=False)
    weight = one.weight(trust, cautious=False)
    assert weight == pytest.approx(trust[Source.VERIFIER].log_odds)
    assert weight < two.weight(trust, cautious=False) < 2 * weight
    assert both.weight(trust, cautious=False) == pytest.approx(
        weight + trust[Source.FEEDBACK].log_odds
    )
    assert torn.weight(trust, cautious=False) == 0
    assert both.weight(trust, cautious=False, but=Source.FEEDBACK) == weight
    assert not UNSAID
    assert torn


@given(source=st.sampled_from(list(Source)), right=st.booleans())
def test_caution_lessens_good_news_only(*, source: Source, right: bool) -> None:
    trust = dict(AT_FIRST)
    said = UNSAID.and_one(source, right=right)
    cautious, plain = (said.weight(trust, cautious=c) for c in (True, False))
    assert cautious < plain if right else cautious == plain < 0


def test_between_two_beliefs_a_source_is_less_certain_than_under_either() -> None:
    one, other = Trust(1.0, 0.1, 7), Trust(3.0, 0.2, 7)
    assert mixed(one, other, 0.0) == one
    assert mixed(one, other, 1.0).log_odds == other.log_odds
    assert mixed(one, other, 1.0).variance == pytest.approx(other.variance)
    between = mixed(one, other, 0.5)
    assert between.log_odds == 2.0
    assert between.variance > 1.0
    assert between.verdicts == 7
    assert one.least_accuracy < one.accuracy < one.most_accuracy < 1


def test_verdicts_are_values() -> None:
    assert Verdicts() == UNSAID
    assert UNSAID.and_one(Source.AUDIT, right=False).audit == (-1, 1)
