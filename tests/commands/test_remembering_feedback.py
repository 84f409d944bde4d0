"""VECTOR.FEEDBACK: what people say of remembered responses, and shadow mode."""

from __future__ import annotations

import pytest
import redis

from remembered_calls import ANSWER, NEAR, QUESTION, REPHRASED, recall, remember, stats, told
from tenancy import as_map

OTHER = "What is the food that plants make?"


def test_what_is_bad_is_served_no_more_until_something_else_is_remembered(
    index: redis.Redis,
) -> None:
    id_ = remember(index, QUESTION, "nonsense")
    assert recall(index, REPHRASED, "FP32", NEAR, "THRESHOLD", 0.9) == b"nonsense"
    assert index.execute_command("VECTOR.FEEDBACK", "i", id_, "bad") == b"OK"
    assert recall(index, QUESTION) is None
    assert recall(index, REPHRASED, "FP32", NEAR, "THRESHOLD", -1) is None
    assert int(stats(index)["quarantined"]) == 1
    remember(index, QUESTION, ANSWER)
    assert recall(index, QUESTION) == ANSWER.encode()
    # The feedback was on an answer to the other prompt, and that is not forgotten.
    _, info = told(index, REPHRASED, "FP32", NEAR, "THRESHOLD", -1)
    assert info["guard"] == b"feedback"


def test_what_people_say_of_a_pair_of_prompts_is_learnt(index: redis.Redis) -> None:
    id_ = remember(index, QUESTION, ANSWER)
    words = (REPHRASED, "FP32", NEAR, "MAXERROR", 0.2)
    before = float(as_map(told(index, *words)[1]["nearest"])["estimated_error"])
    for _ in range(6):
        index.execute_command("VECTOR.FEEDBACK", "i", id_, "GOOD", "PROMPT", REPHRASED)
    response, info = told(index, *words)
    after = float(info["estimated_error"] or as_map(info["nearest"])["estimated_error"])
    assert after < before
    counted = stats(index)
    assert (int(counted["feedback_good"]), int(counted["pairs"])) == (6, 1)
    assert response in (None, ANSWER.encode())


def test_feedback_on_what_is_not_there_is_an_error(index: redis.Redis) -> None:
    id_ = remember(index, QUESTION, ANSWER)
    for name in ("0" * 16, "", "x" * 16, id_.upper() + b"0", b"\xff" * 16):
        with pytest.raises(redis.ResponseError, match=r"^no such entry"):
            index.execute_command("VECTOR.FEEDBACK", "i", name, "BAD")
    for words in (("MAYBE",), ("GOOD", "PROMPT"), ("GOOD", "PROMPT", "a", "b"), ("BAD", "X", "y")):
        with pytest.raises(redis.ResponseError):
            index.execute_command("VECTOR.FEEDBACK", "i", id_, *words)
    assert recall(index, QUESTION) == ANSWER.encode()


def test_in_shadow_mode_nothing_is_answered_and_everything_counted(index: redis.Redis) -> None:
    remember(index, QUESTION, ANSWER)
    index.execute_command("VECTOR.CACHE", "POLICY", "i", "SET", "SHADOW", "ON")
    response, info = told(index, QUESTION)
    assert response is None
    assert (info["match"], bool(info["shadow"])) == (b"exact", True)
    assert recall(index, REPHRASED, "THRESHOLD", 0.9) is None
    counted = stats(index)
    assert (int(counted["shadow_exact"]), int(counted["shadow_near"])) == (1, 1)
    assert int(counted["hits"]) == 0
    index.execute_command("VECTOR.CACHE", "POLICY", "i", "SET", "SHADOW", "OFF")
    assert recall(index, QUESTION) == ANSWER.encode()


def answered_last(index: redis.Redis) -> tuple[bool, bool]:
    """Whether what was said of the last answer was said of REPHRASED, and of OTHER."""
    remember(index, QUESTION, ANSWER)
    words = ("FP32", NEAR, "THRESHOLD", 0.9)
    guards = [told(index, prompt, *words)[1]["guard"] for prompt in (REPHRASED, OTHER)]
    return guards[0] == b"feedback", guards[1] == b"feedback"


def test_feedback_without_a_prompt_is_on_the_one_that_was_answered_last(
    index: redis.Redis,
) -> None:
    id_ = remember(index, QUESTION, "nonsense")
    for prompt in (OTHER, REPHRASED):
        assert recall(index, prompt, "FP32", NEAR, "THRESHOLD", 0.9) == b"nonsense"
    # This one was near, and was not answered.
    assert recall(index, OTHER, "FP32", NEAR, "THRESHOLD", 1) is None
    index.execute_command("VECTOR.FEEDBACK", "i", id_, "BAD")
    assert answered_last(index) == (True, False)


def test_an_answer_by_an_alias_is_the_last_one_too(index: redis.Redis) -> None:
    id_ = remember(index, QUESTION, "nonsense")
    index.execute_command("VECTOR.ALIAS", "SET", "i", OTHER, QUESTION)
    assert recall(index, REPHRASED, "FP32", NEAR, "THRESHOLD", 0.9) == b"nonsense"
    assert recall(index, OTHER, "FP32", NEAR) == b"nonsense"
    index.execute_command("VECTOR.FEEDBACK", "i", id_, "BAD")
    assert answered_last(index)[0] is False


def test_so_is_one_to_its_own_prompt_in_shadow_mode(index: redis.Redis) -> None:
    id_ = remember(index, QUESTION, "nonsense")
    assert recall(index, REPHRASED, "FP32", NEAR, "THRESHOLD", 0.9) == b"nonsense"
    index.execute_command("VECTOR.CACHE", "POLICY", "i", "SET", "SHADOW", "ON")
    assert recall(index, QUESTION) is None
    index.execute_command("VECTOR.CACHE", "POLICY", "i", "SET", "SHADOW", "OFF")
    index.execute_command("VECTOR.FEEDBACK", "i", id_, "BAD")
    assert answered_last(index) == (False, False)


def test_long_prompts_that_came_near_are_not_kept_without_bound(index: redis.Redis) -> None:
    remember(index, QUESTION, ANSWER)
    index.execute_command("VECTOR.CACHE", "POLICY", "i", "SET", "GUARDS", "OFF")
    before = int(stats(index)["bytes"])
    grown = []
    for number in range(600):
        prompt = f"{number} {REPHRASED} " + "x" * 60_000
        assert recall(index, prompt, "FP32", NEAR, "MAXERROR", 0) is None
        if number in {99, 599}:
            grown.append(int(stats(index)["bytes"]) - before)
    # Each is counted, and 16 MiB are kept.
    assert grown[0] > 100 * 60_000
    assert grown[1] < 17 * 2**20
