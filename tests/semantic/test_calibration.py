"""What is served within an error, before labels, with them, and where the prior is wrong."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import exp, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.semantic.calibration import CalibrationError, Calibrator, Judgement, Near
from pyrope.semantic.evidence import NOTHING, Evidence
from pyrope.semantic.prior import load
from pyrope.semantic.prompt_facts import facts_of
from pyrope.semantic.sources import UNSAID, Source

PRIOR = load("all-minilm-l6-v2")
ASKED = facts_of("How can I repair my wooden boat?")
STORED = facts_of("How do I repair a wooden boat?")
OTHER = facts_of("How do I paint a wooden boat?")


def candidate(calibrator: Calibrator, similarity: float = 0.97, entry: Evidence = NOTHING) -> Near:
    return calibrator.near(ASKED, STORED, similarity, entry=entry)


def world(seed: int, count: int, shift: float) -> Iterator[tuple[Near, bool]]:
    """Candidates whose log-odds are the prior's plus `shift`, all of one entry of no account."""
    generator = np.random.default_rng(seed)
    probabilities = PRIOR.traffic / PRIOR.traffic.sum()
    for _ in range(count):
        z = -6 + 0.0625 * (float(generator.choice(len(probabilities), p=probabilities)) + 0.5)
        phi = np.array([1.0, z, 0.0, 0.0, 0.5, 0.2, 0.0, 0.0])
        right = bool(generator.random() < 1 / (1 + exp(-(z + shift))))
        yield Near(phi, z, z, NOTHING, NOTHING), right


def scored(calibrator: Calibrator, near: Near) -> Near:
    """The same candidate with what has been learned by now."""
    z = near.prior_log_odds + float(calibrator._beliefs.mean @ near.phi)
    return Near(near.phi, near.prior_log_odds, min(6.0, max(-6.0, z)), NOTHING, NOTHING)


def play(
    shift: float, count: int, max_error: float, accuracy: float = 1.0, seed: int = 1
) -> tuple[int, int, int, Calibrator]:
    """Served, wrong among them, served of the last half; with labels of everything."""
    calibrator = Calibrator(PRIOR)
    lies = np.random.default_rng(seed + 100)
    served = wrong = late = 0
    for place, (raw, right) in enumerate(world(seed, count, shift)):
        near = scored(calibrator, raw)
        calibrator.observe(near)
        if calibrator.judge(near).serves(max_error):
            served += 1
            wrong += not right
            late += place >= count // 2
        source = Source.FEEDBACK if accuracy == 1.0 else Source.VERIFIER
        calibrator.learn(near, source, right=right ^ bool(lies.random() >= accuracy))
    return served, wrong, late, calibrator


def likely_at_most(served: int, error: float) -> float:
    """Errors that so many answers may have, two standard deviations included."""
    return error * served + 2 * sqrt(error * served) + 1


@pytest.mark.parametrize("max_error", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("accuracy", [1.0, 0.9])
def test_errors_among_served_keep_to_what_was_asked_where_the_prior_holds(
    max_error: float, accuracy: float
) -> None:
    served, wrong, _, _ = play(0.0, 2500, max_error, accuracy)
    assert wrong <= likely_at_most(served, max_error)
    assert max_error < 0.1 or served > 60


def test_where_the_prior_is_too_bold_next_to_nothing_is_served_after_a_few_hundred_labels() -> None:
    served, _, late, calibrator = play(-3.0, 2000, 0.1)
    assert served < 50
    assert late == 0
    assert calibrator.statistics().elsewhere > 0.99


def test_where_it_is_too_shy_more_is_served_with_labels_than_without() -> None:
    served, wrong, late, _ = play(1.5, 3000, 0.1)
    without = Calibrator(PRIOR)
    unlabelled = sum(without.judge(near).serves(0.1) for near, _ in world(1, 3000, 1.5))
    assert late > unlabelled
    assert wrong <= likely_at_most(served, 0.1)


@pytest.mark.parametrize("shift", [-2.0, 2.0])
def test_a_verifier_is_not_blamed_for_a_prior_that_is_wrong(shift: float) -> None:
    calibrator = Calibrator(PRIOR)
    for raw, right in world(1, 2000, shift):
        calibrator.learn(scored(calibrator, raw), Source.VERIFIER, right=right)
    learned = calibrator.statistics()
    assert learned.elsewhere > 0.99
    assert learned.verifier_accuracy > 0.95


def test_where_the_prior_holds_a_verifier_gets_the_accuracy_it_deserves() -> None:
    for accuracy in (0.8, 0.97):
        _, _, _, calibrator = play(0.0, 3000, 0.1, accuracy)
        learned = calibrator.statistics()
        assert learned.elsewhere < 0.1
        assert learned.verifier_accuracy == pytest.approx(accuracy, abs=0.03)


def test_nothing_is_served_at_an_error_that_nobody_can_promise() -> None:
    calibrator = Calibrator(PRIOR)
    judged = calibrator.judge(candidate(calibrator))
    assert not judged.serves(0.0)
    assert not judged.serves(0.01)
    assert judged.serves(1.0)


@given(bound=st.floats(0, 1), error=st.floats(0, 1), verified=st.booleans())
def test_more_leave_to_err_never_serves_less(*, bound: float, error: float, verified: bool) -> None:
    judged = Judgement(error, bound, verified)
    served = [judged.serves(e / 20) for e in range(21)]
    assert served == sorted(served)
    assert judged.serves(judged.least_max_error)


def test_a_flood_of_sure_hits_does_not_pay_for_one_that_is_likely_wrong() -> None:
    calibrator = Calibrator(PRIOR)
    sure, doubtful = (
        next(n for n, _ in world(1, 9999, 0) if low < n.score < high)
        for low, high in ((2.5, 9), (-0.5, 0))
    )
    for _ in range(20_000):
        calibrator.observe(sure)
    judged = calibrator.judge(doubtful)
    assert judged.bound < 0.2
    assert not judged.serves(0.2)


def test_a_verified_pair_is_judged_by_its_verdicts() -> None:
    calibrator = Calibrator(PRIOR)
    near = calibrator.near(ASKED, OTHER, 0.85)
    unsaid = calibrator.judge(near)
    good = calibrator.judge(near, UNSAID.and_one(Source.FEEDBACK, right=True))
    bad = calibrator.judge(near, UNSAID.and_one(Source.FEEDBACK, right=False))
    assert good.error < unsaid.error < bad.error
    assert good.verified
    assert bad.verified
    assert good.error <= good.bound


def test_a_verifier_is_weighed_and_not_believed() -> None:
    calibrator = Calibrator(PRIOR)
    unlikely = calibrator.near(ASKED, facts_of("Who was king of Norway in 1905?"), 0.2)
    said = UNSAID.and_one(Source.VERIFIER, right=True)
    assert not calibrator.judge(unlikely, said).serves(0.1)
    by_people = UNSAID.and_one(Source.FEEDBACK, right=True)
    assert calibrator.judge(unlikely, by_people).error < calibrator.judge(unlikely, said).error


def test_labels_of_an_entry_move_that_entry_more_than_others() -> None:
    calibrator = Calibrator(PRIOR)
    before = candidate(calibrator).score
    entry = NOTHING
    for _ in range(4):
        near = candidate(calibrator, entry=entry)
        entry, _ = calibrator.learn(near, Source.FEEDBACK, right=False)
    assert candidate(calibrator, entry=entry).score < candidate(calibrator).score - 0.3
    # Four labels cost the others less than half of what they cost the entry.
    assert before - candidate(calibrator).score < 0.5 * (before - near.score)
    assert entry.information > 0
    assert entry.variance(0.5) < 0.5


def test_repeated_bad_news_of_a_cluster_raises_the_bar_there() -> None:
    calibrator = Calibrator(PRIOR)
    cluster = NOTHING
    for _ in range(6):
        near = calibrator.near(ASKED, STORED, 0.97, cluster=cluster)
        _, cluster = calibrator.learn(near, Source.FEEDBACK, right=False)
    there = calibrator.near(ASKED, STORED, 0.97, cluster=cluster)
    assert calibrator.judge(there).bound > calibrator.judge(candidate(calibrator)).bound


def test_what_one_source_repeats_of_a_pair_teaches_nothing_more() -> None:
    calibrator = Calibrator(PRIOR)
    near = candidate(calibrator)
    calibrator.learn(near, Source.VERIFIER, right=True)
    state = calibrator.encode()
    said = UNSAID.and_one(Source.VERIFIER, right=True)
    assert calibrator.learn(near, Source.VERIFIER, right=True, before=said) == (NOTHING, NOTHING)
    assert calibrator.encode() == state


def test_a_source_that_is_no_better_than_a_coin_teaches_nothing() -> None:
    calibrator = Calibrator(PRIOR)
    generator = np.random.default_rng(5)
    for near, _ in world(5, 1500, 0):
        calibrator.learn(near, Source.VERIFIER, right=bool(generator.random() < 0.5))
    assert calibrator.statistics().verifier_accuracy < 0.65
    near = candidate(calibrator)
    assert abs(calibrator.judge(near).error - Calibrator(PRIOR).judge(near).error) < 0.25


def test_runner_up_and_neighbours_count_only_once_labels_have_shown_their_worth() -> None:
    calibrator = Calibrator(PRIOR)
    close = calibrator.near(ASKED, STORED, 0.9, runner_up=0.9, neighbours=6)
    alone = calibrator.near(ASKED, STORED, 0.9)
    assert close.score == alone.score
    for _ in range(100):
        near = calibrator.near(ASKED, STORED, 0.9, runner_up=0.9, neighbours=6)
        calibrator.learn(near, Source.FEEDBACK, right=False)
    close = calibrator.near(ASKED, STORED, 0.9, runner_up=0.9, neighbours=6)
    assert close.score < calibrator.near(ASKED, STORED, 0.9).score


def test_what_was_learned_can_be_stored_and_is_small() -> None:
    _, _, _, calibrator = play(1.0, 300, 0.1, accuracy=0.9)
    state = calibrator.encode()
    restored = Calibrator(PRIOR)
    restored.restore(state)
    assert len(state) < 8192
    assert restored.encode() == state
    assert restored.statistics() == calibrator.statistics()
    assert restored.judge(candidate(restored)) == calibrator.judge(candidate(calibrator))


def test_a_state_of_unnamed_vectors_goes_with_their_dimension() -> None:
    calibrator = Calibrator(load("generic"), 8)
    calibrator.meet(ASKED, np.eye(8, dtype=np.float32)[0])
    restored = Calibrator(load("generic"), 8)
    restored.restore(calibrator.encode())
    assert restored.encode() == calibrator.encode()
    with pytest.raises(CalibrationError, match="other vectors"):
        Calibrator(load("generic"), 9).restore(calibrator.encode())


def test_a_state_of_vectors_that_were_recognised_brings_their_prior_along() -> None:
    learned = Calibrator(load("all-minilm-l6-v2"))
    learned.learn(candidate(learned), Source.FEEDBACK, right=True)
    calibrator = Calibrator(load("generic"), 384)
    calibrator.restore(learned.encode())
    assert calibrator.prior.name == "all-minilm-l6-v2"
    assert calibrator.encode() == learned.encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state[:5], "cut off"),
        (lambda state: b"XXXX" + state[4:], "another format"),
        (lambda state: state[:-1], "broken"),
        (lambda state: state[:-1] + bytes([state[-1] ^ 1]), "broken"),
        (lambda state: state[:4] + b"\xff" + state[5:], "another format"),
        (lambda state: state[:6] + struct.pack("<H", 999) + state[8:], "version 999"),
    ],
)
def test_a_state_that_cannot_be_read_is_refused_and_changes_nothing(
    change: object, message: str
) -> None:
    assert callable(change)
    calibrator = Calibrator(PRIOR)
    calibrator.learn(candidate(calibrator), Source.FEEDBACK, right=True)
    before = calibrator.encode()
    with pytest.raises(CalibrationError, match=message):
        calibrator.restore(change(before))
    assert calibrator.encode() == before


def test_a_state_of_another_prior_is_refused() -> None:
    with pytest.raises(CalibrationError, match="wordllama"):
        Calibrator(PRIOR).restore(Calibrator(load("wordllama")).encode())


def test_vectors_of_unknown_origin_are_worth_nothing_at_first() -> None:
    calibrator = Calibrator(load("generic"), 384)
    near = calibrator.near(ASKED, OTHER, 0.99)
    assert near.score == calibrator.near(ASKED, OTHER, 0.1).score
    assert not calibrator.judge(near).serves(0.2)


@given(
    one=st.text(max_size=40),
    other=st.text(max_size=40),
    similarity=st.floats(-1, 1),
    right=st.booleans(),
)
def test_whatever_is_compared_and_learned_estimates_stay_between_0_and_1(
    *, one: str, other: str, similarity: float, right: bool
) -> None:
    calibrator = Calibrator(PRIOR)
    entry = cluster = NOTHING
    for source in Source:
        near = calibrator.near(
            facts_of(one), facts_of(other), similarity, entry=entry, cluster=cluster
        )
        calibrator.observe(near)
        judged = calibrator.judge(near, UNSAID.and_one(source, right=right))
        assert 0 <= judged.error <= judged.bound <= 1
        entry, cluster = calibrator.learn(near, source, right=right)
