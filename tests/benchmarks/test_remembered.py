"""The evaluation of remembered responses: what it fits, counts and says."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.harness.labelled_pairs import LabelledPairs, join
from benchmarks.harness.made_questions import made_pairs
from benchmarks.harness.network import fit_networks, isotonic_knots
from benchmarks.harness.probes import fit_probes
from benchmarks.harness.remembered_pairs import TEACHINGS, best_threshold, part_of, replay
from benchmarks.harness.remembered_stream import play, requests_of, topics_of
from benchmarks.harness.shares import grouped_share, share

from benchmarks import fit_prior
from benchmarks import remembered as evaluation
from pyrope.semantic.prior import Prior, from_record
from pyrope.semantic.prompt_facts import PromptFacts, facts_of
from pyrope.semantic.recognition import Recogniser


@pytest.fixture(scope="module")
def pairs() -> LabelledPairs:
    return made_pairs(700, seed=5)


@pytest.fixture(scope="module")
def facts(pairs: LabelledPairs) -> list[PromptFacts]:
    return [facts_of(question) for question in pairs.questions]


@pytest.fixture(scope="module")
def prior(pairs: LabelledPairs, facts: list[PromptFacts]) -> Prior:
    similarities = pairs.similarities(pairs.vectors)
    record = fit_prior.fit("all-minilm-l6-v2", pairs, facts, [similarities], seed=1)
    return from_record(json.loads(json.dumps(record)))


def test_pairs_that_share_a_question_are_in_one_fold() -> None:
    rows = np.array([(0, 1), (1, 2), (3, 4), (5, 6), (6, 0)])
    pairs = LabelledPairs(["q"] * 7, np.eye(7, dtype=np.float32), rows, np.zeros(5, np.int64))
    assert join(7, rows).tolist() == [0, 0, 0, 3, 3, 0, 0]
    for seed in range(20):
        folds = pairs.folds(4, seed)
        assert len(set(folds[[0, 1, 3, 4]].tolist())) == 1


def test_a_network_learns_what_no_line_separates() -> None:
    generator = np.random.default_rng(1)
    x = generator.standard_normal((4000, 2))
    y = (x[:, 0] * x[:, 1] > 0).astype(float)
    network = fit_networks(x[:3000], y[:3000], seed=[1])
    said = network.log_odds(x[3000:]) > 0
    assert np.mean(said == y[3000:]) > 0.85


def test_the_map_from_scores_is_monotone_and_honest() -> None:
    generator = np.random.default_rng(2)
    truth = generator.normal(0, 1.5, 20_000)
    y = (generator.random(20_000) < 1 / (1 + np.exp(-truth))).astype(float)
    # Twice too bold, and off by one.
    raw, mapped = isotonic_knots(2 * truth + 1, y)
    assert (np.diff(raw) > 0).all()
    assert (np.diff(mapped) >= 0).all()
    for z in (-1.0, 0.0, 1.0, 2.0):
        assert np.interp(2 * z + 1, raw, mapped) == pytest.approx(z, abs=0.2)


def test_what_is_fitted_tells_the_same_from_the_close_by(
    pairs: LabelledPairs, facts: list[PromptFacts], prior: Prior
) -> None:
    part = part_of(pairs, facts, pairs.similarities(pairs.vectors), prior, seed=1)
    needed = replay(part, TEACHINGS[0], seed=1)
    assert needed[part.right].mean() < needed[~part.right].mean() - 0.1


def test_the_label_of_a_pair_is_not_seen_before_it_is_served(
    pairs: LabelledPairs, facts: list[PromptFacts], prior: Prior
) -> None:
    other = LabelledPairs(pairs.questions, pairs.vectors, pairs.rows, pairs.labels.copy())
    part = part_of(pairs, facts, pairs.similarities(pairs.vectors), prior, seed=1)
    changed = part_of(other, facts, pairs.similarities(pairs.vectors), prior, seed=1)
    changed.pairs.labels[400:] ^= 1
    feedback = TEACHINGS[1]
    before, after = replay(part, feedback, seed=1), replay(changed, feedback, seed=1)
    assert np.array_equal(before[:401], after[:401])
    assert not np.array_equal(before, after)


def test_the_best_threshold_with_hindsight_serves_most_at_its_error() -> None:
    similarities = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    right = np.array([True, False, True, True, False])
    assert best_threshold(similarities, right, 0.25) == 0.6
    assert best_threshold(similarities, right, 0.0) == 0.9
    assert best_threshold(similarities, ~right, 0.0) == float("inf")
    tied = np.array([0.9, 0.9, 0.9, 0.5, 0.4])
    assert best_threshold(tied, right, 0.25) == 0.5
    assert best_threshold(tied, right, 0.0) == float("inf")


def test_intervals_hold_the_share_and_widen_where_trials_come_in_groups() -> None:
    alone = share(30, 100)
    assert alone.low < 0.3 < alone.high
    assert (share(0, 0).low, share(0, 0).high) == (0, 1)
    counted = np.repeat(np.arange(20) < 6, 50)
    grouped = grouped_share(counted, np.ones(1000, bool), np.repeat(np.arange(20), 50), seed=1)
    single = share(300, 1000)
    assert grouped.value == single.value
    assert grouped.high - grouped.low > 2 * (single.high - single.low)


def test_a_perfect_verifier_gives_most_hits_there_can_be_and_few_errors(
    pairs: LabelledPairs, facts: list[PromptFacts], prior: Prior
) -> None:
    topics = topics_of(pairs)
    requests = requests_of(topics, 1500, 0.9, seed=1)
    result = play(pairs, topics, facts, requests, prior, 0.1, 1.0, seed=1)
    assert result.possible == 1500 - len({int(topics.topic_of[row]) for row in requests})
    assert result.hits.count == result.exact + result.verified + result.near
    assert result.of_possible > 0.8
    assert result.errors.value <= 0.03


def test_without_near_hits_only_the_same_words_are_served(
    pairs: LabelledPairs, facts: list[PromptFacts], prior: Prior
) -> None:
    topics = topics_of(pairs)
    requests = requests_of(topics, 800, 0.9, seed=1)
    result = play(pairs, topics, facts, requests, prior, 0.0, 1.0, seed=1)
    assert result.hits.count == result.exact == 800 - len(set(requests))
    assert result.errors.count == 0


def test_probes_recognise_the_vectors_they_were_fitted_to_and_no_others() -> None:
    generator = np.random.default_rng(1)
    words = ["What", "How", "Why", "Is", "Which", "boat", "Peru", "7", "rice", "today"]
    facts = [facts_of(" ".join(generator.choice(words, 9))) for _ in range(900)]
    one, other = (generator.standard_normal((len(words), 32)) for _ in range(2))

    def vectors(table: np.ndarray) -> np.ndarray:
        rows = []
        for of in facts:
            counts = [of.words.count(word.casefold()) for word in words]
            row = (
                np.array(counts) @ table
                + 3
                * table[
                    words.index(of.words[0].capitalize())
                    if of.words[0].capitalize() in words
                    else 0
                ]
            )
            rows.append(row / np.linalg.norm(row))
        return np.array(rows, np.float32)

    probes = fit_probes("one", facts[:800], vectors(one)[:800])
    for table, recognised in ((one, True), (other, False)):
        recogniser = Recogniser(probes)
        for of, row in zip(facts[800:], vectors(table)[800:], strict=True):
            recogniser.observe(of, row)
        assert recogniser.recognised == recognised


def test_the_whole_evaluation_runs_on_made_up_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["remembered", "--made", "300", "--requests", "400", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    evaluation.main()
    page = (tmp_path / "remembered.md").read_text()
    assert capsys.readouterr().out.strip() == page.strip()
    assert all(f"## {part}" in page for part in ("Pairs", "Stream", "Pairs that plainly differ"))
    assert str(tmp_path) not in page
    result = json.loads((tmp_path / "remembered.json").read_text())
    assert {"rows", "curve", "stream", "shift", "plain"} <= result.keys()


def test_priors_can_be_fitted_from_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: LabelledPairs
) -> None:
    with gzip.open(tmp_path / "questions.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(pairs.questions) + "\n")
    np.save(tmp_path / "embeddings.f16.npy", pairs.vectors.astype(np.float16))
    np.save(tmp_path / "pairs.npy", np.column_stack([pairs.rows, pairs.labels]).astype(np.int32))
    out = tmp_path / "priors"
    monkeypatch.setattr(
        "sys.argv", ["fit_prior", str(tmp_path), "--out", str(out), "--data-name", "made up"]
    )
    fit_prior.main()
    for name in ("generic", "wordllama", "all-minilm-l6-v2"):
        record = json.loads((out / f"{name}.json").read_text())
        assert from_record(record).name == name
        assert record["provenance"]["data"] == "made up"
    assert json.loads((out / "probes.json").read_text())["name"] == "all-minilm-l6-v2"
