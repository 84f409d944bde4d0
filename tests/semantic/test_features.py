"""Features are bounded, symmetric, and tell likeness from unlikeness."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pyrope.semantic.features import NAMES, features
from pyrope.semantic.prompt_facts import facts_of

texts = st.text(max_size=80) | st.lists(
    st.sampled_from(
        [
            "how",
            "to",
            "cook",
            "Rice",
            "5",
            "kg",
            "not",
            "in",
            "Peru",
            "cooking",
            "best",
            "what",
            "is",
        ]
    ),
    max_size=30,
).map(" ".join)
cosines = st.floats(-1.5, 1.5)

TURNED = NAMES.index("order_turned")


@given(texts, texts, cosines)
def test_no_texts_and_no_similarity_lead_out_of_bounds(one: str, other: str, cosine: float) -> None:
    x = features(facts_of(one), facts_of(other), cosine)
    assert x.shape == (len(NAMES),)
    assert np.isfinite(x).all()
    assert (x >= -1).all()
    assert (x <= 12).all()


@given(texts, texts, cosines)
def test_the_two_can_change_places_but_for_the_order_of_words(
    one: str, other: str, cosine: float
) -> None:
    x = features(facts_of(one), facts_of(other), cosine)
    y = features(facts_of(other), facts_of(one), cosine)
    x[TURNED] = y[TURNED] = 0
    assert np.array_equal(x, y)


def test_shares_are_whole_for_the_same_text_and_none_for_strangers() -> None:
    same = dict(zip(NAMES, features(facts_of("cook rice"), facts_of("cook rice"), 1), strict=True))
    other = dict(zip(NAMES, features(facts_of("cook rice"), facts_of("sail home"), 0), strict=True))
    assert same["stems_jaccard"] == same["content_jaccard"] == same["words_same"] == 1
    assert same["content_only_all"] == same["only_both_sides"] == 0
    assert other["stems_jaccard"] == other["content_shared"] == 0
    assert other["only_both_sides"] == 1


def test_words_in_another_order_are_noticed() -> None:
    x = features(facts_of("red fox sees blue hen"), facts_of("blue hen sees red fox"), 0.9)
    assert x[TURNED] > 0
    assert x[NAMES.index("content_same")] == 1


def test_features_of_a_long_prompt_are_as_bounded() -> None:
    long = facts_of("a word and another one 7 " * 40_000)
    x = features(long, facts_of("word"), 0.5)
    assert (np.abs(x) <= 12).all()
