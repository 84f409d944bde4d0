"""The priors that are shipped."""

from __future__ import annotations

import json
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from pyrope.semantic.features import NAMES, features
from pyrope.semantic.prior import LEAST_LOG_ODDS, MOST_LOG_ODDS, from_record, load, prior_for
from pyrope.semantic.prompt_facts import facts_of
from pyrope.semantic.risk import BINS

SHIPPED = ("generic", "wordllama", "all-minilm-l6-v2")


def record(name: str) -> dict[str, Any]:
    text = files("pyrope.semantic").joinpath("priors", f"{name}.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@pytest.mark.parametrize("name", SHIPPED)
def test_each_fits_the_features_and_says_where_it_is_from(name: str) -> None:
    prior = load(name)
    assert prior.name == name
    assert prior.centre.shape == prior.scale.shape == (len(NAMES),)
    assert prior.traffic.shape == (BINS,)
    assert prior.traffic.sum() == pytest.approx(1, abs=1e-3)
    assert {"made_by", "data", "pairs", "seed", "served"} <= record(name)["provenance"].keys()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_map_to_honest_log_odds_rises(name: str) -> None:
    prior = load(name)
    assert all(a < b for a, b in pairwise(prior.raw_knots))
    assert all(a <= b for a, b in pairwise(prior.knots))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_same_question_is_likelier_right_than_a_close_one_and_that_than_a_stranger(
    name: str,
) -> None:
    asked = facts_of("How do I repair a wooden boat?")
    log_odds = [
        load(name).log_odds(features(asked, facts_of(stored), similarity))
        for stored, similarity in (
            ("How can I repair a wooden boat?", 0.97),
            ("How do I repair a glass kettle?", 0.7),
            ("Who was the first king of Norway?", 0.05),
        )
    ]
    assert log_odds[0] > 1.5
    assert log_odds == sorted(log_odds, reverse=True)
    assert log_odds[2] < -1


@pytest.mark.parametrize("name", SHIPPED)
def test_no_features_lead_out_of_bounds(name: str) -> None:
    generator = np.random.default_rng(3)
    for scale in (1.0, 1e3, 1e9):
        for _ in range(50):
            z = load(name).log_odds(generator.standard_normal(len(NAMES)) * scale)
            assert LEAST_LOG_ODDS <= z <= MOST_LOG_ODDS


@pytest.mark.parametrize("name", SHIPPED)
def test_log_odds_are_those_of_the_network_and_the_map_as_numpy_has_them(name: str) -> None:
    prior = load(name)
    generator = np.random.default_rng(5)
    for scale in (0.1, 1.0, 30.0):
        for _ in range(100):
            x = prior.centre + generator.standard_normal(len(NAMES)) * scale / prior.scale
            scaled = np.clip((x - prior.centre) * prior.scale, -5, 5)
            hidden = np.tanh(scaled @ prior.hidden + prior.hidden_bias)
            raw = hidden @ prior.output + prior.output_bias
            expected = np.interp(raw, prior.raw_knots, prior.knots).clip(-6, 6)
            assert prior.log_odds(x) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize(
    ("embedder", "name"),
    [
        ("wordllama:256:0123456789ab", "wordllama"),
        ("wordllama", "wordllama"),
        ("sentence-transformers/all-MiniLM-L6-v2", "all-minilm-l6-v2"),
        ("openai:text-embedding-3-small", "generic"),
        ("", "generic"),
    ],
)
def test_an_embedder_gets_its_own_prior_and_a_stranger_the_generic_one(
    embedder: str, name: str
) -> None:
    assert prior_for(embedder).name == name


def test_a_prior_for_other_features_is_refused() -> None:
    other = record("generic") | {"features": ["similarity"]}
    with pytest.raises(ValueError, match="fit it again"):
        from_record(other)
