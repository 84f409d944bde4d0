"""VECTOR.REMEMBER, RECALL, FORGET and FEEDBACK at a real server, in both protocols."""

from __future__ import annotations

import time
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from pyrope.semantic.guards import GUARDS
from pyrope.testing.clock import ManualClock
from remembered_calls import (
    ANSWER,
    FAR,
    NEAR,
    QUESTION,
    REPHRASED,
    ROW,
    recall,
    remember,
    stats,
    told,
)
from servers import RunningServer, encode, exchange, running_server
from tenancy import administrator, as_map, signed_in, tenant, tenant_server, usage

# -- finding again ---------------------------------------------------------------------------------


def test_what_is_remembered_answers_its_prompt_however_it_is_written(
    any_client: redis.Redis,
) -> None:
    any_client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
    id_ = remember(any_client, QUESTION, ANSWER)
    assert len(id_) == 16
    assert recall(any_client, QUESTION) == ANSWER.encode()
    assert recall(any_client, "  HOW do plants\tmake FOOD? ", "FP32", FAR) == ANSWER.encode()
    response, info = told(any_client, QUESTION)
    assert response == ANSWER.encode()
    assert (info["id"], info["match"], info["prompt"]) == (id_, b"exact", QUESTION.encode())
    assert info["nearest"] is info["lease"] is info["guard"] is None
    assert float(info["score"]) == 1
    assert int(info["tokens_saved"]) > 10


def test_what_is_not_remembered_is_null(any_client: redis.Redis) -> None:
    any_client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
    assert recall(any_client, QUESTION) is None
    response, info = told(any_client, QUESTION)
    assert response is None
    assert info["id"] is info["match"] is info["nearest"] is None


def test_a_response_is_any_bytes_and_of_any_length_up_to_the_limit(index: redis.Redis) -> None:
    for response in (b"\x00\r\n\xff", b"x" * 100_000, bytes(range(256)) * 4096):
        remember(index, QUESTION, response)
        assert recall(index, QUESTION) == response
    with pytest.raises(redis.ResponseError, match=r"^the response has 1048577 bytes"):
        remember(index, QUESTION, b"x" * (2**20 + 1))
    with pytest.raises(redis.ResponseError, match=r"^the response has 0 bytes"):
        remember(index, QUESTION, b"")
    assert len(recall(index, QUESTION)) == 2**20


def test_a_near_prompt_is_served_by_threshold(index: redis.Redis) -> None:
    id_ = remember(index, QUESTION, ANSWER)
    response, info = told(index, REPHRASED, "FP32", NEAR, "THRESHOLD", 0.99)
    assert response == ANSWER.encode()
    assert (info["match"], info["id"]) == (b"near", id_)
    assert float(info["score"]) == pytest.approx(1 / np.sqrt(1.01))
    response, info = told(index, REPHRASED, "FP32", NEAR, "THRESHOLD", 0.999)
    assert response is None
    nearest = as_map(info["nearest"])
    assert nearest["id"] == id_
    assert nearest["prompt"] == QUESTION.encode()
    assert float(nearest["score"]) == pytest.approx(1 / np.sqrt(1.01))


def test_without_a_threshold_nothing_uncertain_is_served(index: redis.Redis) -> None:
    remember(index, QUESTION, ANSWER)
    response, info = told(index, REPHRASED, "FP32", NEAR)
    assert response is None
    assert float(info["max_error"]) == 0.05
    assert float(as_map(info["nearest"])["estimated_error"]) > 0.05
    assert recall(index, REPHRASED, "FP32", NEAR, "MAXERROR", 0) is None
    assert recall(index, REPHRASED, "FP32", NEAR, "MAXERROR", 1) == ANSWER.encode()


def test_guards_refuse_whatever_the_score_and_can_be_switched_off(index: redis.Redis) -> None:
    remember(index, "Is it safe to swim after a meal?", "Yes.")
    turned = "Is it not safe to swim after a meal?"
    response, info = told(index, turned, "THRESHOLD", 0.9)
    assert (response, info["guard"]) == (None, b"negation")
    assert int(stats(index)["guard_negation"]) == 1
    others = ",".join(["numbers", "units", "direction"])
    index.execute_command("VECTOR.CACHE", "POLICY", "i", "SET", "GUARDS", others)
    assert recall(index, turned, "THRESHOLD", 0.9) == b"Yes."
    index.execute_command("VECTOR.CACHE", "POLICY", "i", "SET", "GUARDS", "ALL")
    assert recall(index, turned, "THRESHOLD", 0.9) is None
    lines = index.info("cache")
    assert {name: lines[f"remembered_guard_{name}"] for name in GUARDS} == {
        name: 2 * (name == "negation") for name in GUARDS
    }


def test_an_alias_of_the_index_leads_to_a_response(index: redis.Redis) -> None:
    remember(index, QUESTION, ANSWER)
    index.execute_command("VECTOR.ALIAS", "SET", "i", "photosynthesis?", QUESTION)
    response, info = told(index, "Photosynthesis?", "FP32", FAR, "MAXERROR", 0.01)
    assert (response, info["match"]) == (ANSWER.encode(), b"alias")


def test_the_latest_response_to_a_prompt_counts(index: redis.Redis) -> None:
    first = remember(index, QUESTION, "one")
    second = remember(index, QUESTION.upper(), "two")
    assert first != second
    assert recall(index, QUESTION) == b"two"
    assert int(stats(index)["entries"]) == 1
    with pytest.raises(redis.ResponseError, match="no such entry"):
        index.execute_command("VECTOR.FEEDBACK", "i", first, "BAD")


def test_an_index_of_any_metric_compares_prompts_by_cosine(client: redis.Redis) -> None:
    for metric in ("COSINE", "IP", "L2"):
        client.execute_command("VECTOR.CREATE", "i", "DIM", 3, "METRIC", metric)
        remember(client, QUESTION, ANSWER, "FP32", np.array([5, 0, 0], "<f4").tobytes())
        _, info = told(client, REPHRASED, "FP32", NEAR, "THRESHOLD", 0.9)
        assert float(info["score"]) == pytest.approx(1 / np.sqrt(1.01))
        client.execute_command("VECTOR.DROP", "i")


# -- scopes ----------------------------------------------------------------------------------------


def test_scopes_never_mix(index: redis.Redis) -> None:
    mine: tuple[Any, ...] = ("SCOPE", 2, "user", "a", "model", "m")
    remember(index, QUESTION, "for a", *mine)
    remember(index, QUESTION, "for nobody")
    same: tuple[Any, ...] = ("SCOPE", 2, "model", "m", "user", "a")
    words: tuple[Any, ...]
    for words in (mine, same):
        assert recall(index, QUESTION, *words) == b"for a"
        assert recall(index, REPHRASED, "THRESHOLD", -1, *words) == b"for a"
    for words in (
        ("SCOPE", 1, "user", "a"), ("SCOPE", 2, "user", "m", "model", "a"),
        ("SCOPE", 1, "usera", "modelm"), ("SCOPE", 2, "user", "b", "model", "m"),
    ):  # fmt: skip
        assert recall(index, QUESTION, *words) is None
        assert recall(index, REPHRASED, "THRESHOLD", -1, *words) is None
    for words in ((), ("SCOPE", 0)):
        assert recall(index, QUESTION, *words) == b"for nobody"


def test_a_policy_may_name_the_fields_that_scopes_have(index: redis.Redis) -> None:
    index.execute_command("VECTOR.CACHE", "POLICY", "i", "SET", "SCOPES", "user,model")
    remember(index, QUESTION, ANSWER, "SCOPE", 1, "user", "a")
    for run in (remember, recall):
        words = (ANSWER,) if run is remember else ()
        with pytest.raises(redis.ResponseError, match=r"^unknown SCOPE field 'usr'"):
            run(index, QUESTION, *words, "SCOPE", 1, "usr", "a")
    with pytest.raises(redis.ResponseError, match=r"^unknown SCOPE field 'usr'"):
        index.execute_command("VECTOR.FORGET", "i", "SCOPE", 1, "usr", "a")
    assert int(stats(index)["entries"]) == 1


# -- lives -----------------------------------------------------------------------------------------


def test_a_response_lives_as_long_as_was_asked_or_the_policy_has_it() -> None:
    clock = ManualClock()
    with running_server(clock=clock) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
        remember(client, QUESTION, ANSWER, "EX", 100)
        client.execute_command("VECTOR.CACHE", "POLICY", "i", "SET", "REMEMBERTTL", 50)
        remember(client, REPHRASED, ANSWER)
        clock.advance(44.9)
        assert recall(client, QUESTION, "THRESHOLD", 1) == ANSWER.encode()
        assert recall(client, REPHRASED, "THRESHOLD", 1) == ANSWER.encode()
        clock.advance(5.2)
        assert told(client, REPHRASED, "THRESHOLD", 1)[1]["match"] == b"near"
        clock.advance(49.8)
        assert recall(client, QUESTION) == ANSWER.encode()
        clock.advance(0.2)
        assert recall(client, QUESTION, "THRESHOLD", -1) is None


def test_a_sliding_life_is_renewed_by_hits() -> None:
    clock = ManualClock()
    with running_server(clock=clock) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
        client.execute_command("VECTOR.CACHE", "POLICY", "i", "SET", "SLIDING", "ON")
        remember(client, QUESTION, ANSWER, "EX", 10)
        for _ in range(5):
            clock.advance(9)
            assert recall(client, QUESTION) == ANSWER.encode()
        clock.advance(10)
        assert recall(client, QUESTION) is None


# -- documents -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        ("VECTOR.ADD", "docs", "a", "FP32", FAR),
        ("VECTOR.SETATTR", "docs", "a", "{}"),
        ("VECTOR.DEL", "docs", "x", "a"),
        ("VECTOR.MADD", "docs", "FP32", FAR * 2, "IDS", 2, "z", "a"),
        ("VECTOR.DROP", "docs"),
    ],
    ids=["update", "attributes", "delete", "many", "drop"],
)
def test_a_change_to_a_document_forgets_what_was_made_from_it(
    index: redis.Redis, change: tuple[Any, ...]
) -> None:
    index.execute_command("VECTOR.CREATE", "docs", "DIM", 3)
    for id_ in ("a", "b"):
        index.execute_command("VECTOR.ADD", "docs", id_, "FP32", ROW)
    remember(index, QUESTION, "from both", "DEPENDS", "docs", 2, "a", "b")
    remember(index, REPHRASED, "from b", "DEPENDS", "docs", 1, "b", "FP32", NEAR)
    index.execute_command("VECTOR.ADD", "docs", "c", "FP32", ROW)
    assert recall(index, QUESTION) == b"from both"
    index.execute_command(*change)
    assert recall(index, QUESTION, "THRESHOLD", 1) is None
    expected = None if change[0] == "VECTOR.DROP" else b"from b"
    assert recall(index, REPHRASED, "THRESHOLD", 1) == expected
    assert int(stats(index)["gone_changed"]) == (2 if expected is None else 1)


def test_documents_may_be_of_the_index_itself_and_come_in_the_same_pipeline(
    index: redis.Redis,
) -> None:
    with index.pipeline(transaction=False) as pipeline:
        pipeline.execute_command("VECTOR.ADD", "i", "doc", "FP32", ROW)
        pipeline.execute_command(
            "VECTOR.REMEMBER", "i", QUESTION, ANSWER, "FP32", ROW, "DEPENDS", "i", 1, "doc"
        )
        pipeline.execute_command("VECTOR.RECALL", "i", QUESTION, "FP32", ROW)
        pipeline.execute_command("VECTOR.DEL", "i", "doc")
        pipeline.execute_command("VECTOR.RECALL", "i", QUESTION, "FP32", ROW)
        added, id_, found, deleted, lost = pipeline.execute()
    assert (added, len(id_), found, deleted, lost) == (1, 16, ANSWER.encode(), 1, None)


def test_documents_that_are_not_there_are_refused(index: redis.Redis) -> None:
    index.execute_command("VECTOR.ADD", "i", "a", "FP32", ROW)
    with pytest.raises(redis.ResponseError, match=r"^DEPENDS names 'b', which is not in"):
        remember(index, QUESTION, ANSWER, "DEPENDS", "i", 2, "a", "b")
    with pytest.raises(redis.ResponseError, match=r"^no such index 'docs'|^NOINDEX"):
        remember(index, QUESTION, ANSWER, "DEPENDS", "docs", 1, "a")
    assert recall(index, QUESTION) is None
    index.execute_command("VECTOR.DEL", "i", "a")
    assert int(stats(index)["remembered"]) == 0


# -- forgetting ------------------------------------------------------------------------------------


def test_forgetting_by_id_by_prompt_and_by_scope(index: redis.Redis) -> None:
    scopes = [(), ("SCOPE", 1, "user", "a"), ("SCOPE", 2, "user", "a", "model", "m")]
    ids = [remember(index, QUESTION, "x", *scope) for scope in scopes]
    remember(index, REPHRASED, "y", "SCOPE", 1, "user", "b")
    forget: Any = index.execute_command
    assert forget("VECTOR.FORGET", "i", "ID", ids[0]) == 1
    assert forget("VECTOR.FORGET", "i", "ID", ids[0]) == 0
    assert forget("VECTOR.FORGET", "i", "ID", "nobody's") == 0
    assert recall(index, QUESTION) is None
    assert forget("VECTOR.FORGET", "i", "PROMPT", QUESTION.lower()) == 2
    assert forget("VECTOR.FORGET", "i", "PROMPT", QUESTION) == 0
    for scope in scopes[1:]:
        remember(index, QUESTION, "x", *scope)
    assert forget("VECTOR.FORGET", "i", "SCOPE", 1, "user", "a") == 2
    assert recall(index, REPHRASED, "SCOPE", 1, "user", "b") == b"y"
    assert forget("VECTOR.FORGET", "i", "SCOPE", 0) == 1
    assert int(stats(index)["entries"]) == 0


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("REMEMBER", "i", "", "r", "FP32", ROW),
        ("REMEMBER", "i", " \t\n", "r", "FP32", ROW),
        ("REMEMBER", "i", "\x00\x01\x7f\u200b", "r", "FP32", ROW),
        ("REMEMBER", "i", b"\xff\xfe", "r", "FP32", ROW),
        ("REMEMBER", "i", "x" * 2**20, "r", "FP32", ROW),
        ("REMEMBER", "i", "p", "", "FP32", ROW),
        ("REMEMBER", "i", "p", "r"),
        ("REMEMBER", "i", "p", "r", "FP32", ROW[:8]),
        ("REMEMBER", "i", "p", "r", "FP32", ROW[:7]),
        ("REMEMBER", "i", "p", "r", "FP32", np.array([1, np.nan, 1], "<f4").tobytes()),
        ("REMEMBER", "i", "p", "r", "ELE", "a"),
        ("REMEMBER", "i", "p", "r", "FP32", ROW, "FP32", ROW),
        ("REMEMBER", "i", "p", "r", "FP32", ROW, "EX", 0),
        ("REMEMBER", "i", "p", "r", "FP32", ROW, "EX", "1e3"),
        ("REMEMBER", "i", "p", "r", "FP32", ROW, "COST", -1),
        ("REMEMBER", "i", "p", "r", "FP32", ROW, "COST", "nan"),
        ("REMEMBER", "i", "p", "r", "FP32", ROW, "LEASE", "x"),
        ("REMEMBER", "i", "p", "r", "FP32", ROW, "WITHINFO"),
        ("REMEMBER", "i", "p", "r", "FP32", ROW, "SCOPE", 1, "user"),
        ("REMEMBER", "i", "p", "r", "FP32", ROW, "SCOPE", 2, "u", "a", "u", "b"),
        ("REMEMBER", "i", "p", "r", "FP32", ROW, "SCOPE", 1, "", "a"),
        ("REMEMBER", "i", "p", "r", "FP32", ROW, "SCOPE", -1),
        ("REMEMBER", "i", "p", "r", "FP32", ROW, "SCOPE", 1, "u", "x" * 5000),
        ("REMEMBER", "i", "p", "r", "FP32", ROW, "SCOPE", 10**9, "u", "x"),
        ("REMEMBER", "i", "p", "r", "FP32", ROW, "DEPENDS", "i", 0),
        ("REMEMBER", "i", "p", "r", "FP32", ROW, "DEPENDS", "i", 2, "a"),
        ("REMEMBER", "i", "p", "r", "FP32", ROW, "DEPENDS", "i", 1, ""),
        ("REMEMBER", "none", "p", "r", "FP32", ROW),
        ("RECALL", "i", "", "FP32", ROW),
        ("RECALL", "i", "p"),
        ("RECALL", "i", "p", "FP32", ROW * 2),
        ("RECALL", "i", "p", "FP32", ROW, "THRESHOLD", 1.1),
        ("RECALL", "i", "p", "FP32", ROW, "MAXERROR", -0.1),
        ("RECALL", "i", "p", "FP32", ROW, "THRESHOLD", 0.5, "MAXERROR", 0.1),
        ("RECALL", "i", "p", "FP32", ROW, "LEASE", 0),
        ("RECALL", "i", "p", "FP32", ROW, "LEASE", 10**9),
        ("RECALL", "i", "p", "FP32", ROW, "DEPENDS", "i", 1, "a"),
        ("RECALL", "none", "p", "FP32", ROW),
        ("FORGET", "i", "ID"),
        ("FORGET", "i", "EVERYTHING", "x"),
        ("FORGET", "i", "PROMPT", ""),
        ("FORGET", "i", "SCOPE", 1, "u"),
        ("FORGET", "i", "SCOPE", 0, "u"),
    ],
    ids=lambda words: "-".join(str(word)[:12] for word in words[:1] + words[2:]),
)
def test_what_makes_no_sense_is_an_error_and_changes_nothing(
    index: redis.Redis, words: tuple[Any, ...]
) -> None:
    index.execute_command("VECTOR.ADD", "i", "a", "FP32", ROW)
    remember(index, QUESTION, ANSWER)
    before = as_map(index.execute_command("VECTOR.INFO", "i"))
    with pytest.raises(redis.ResponseError):
        index.execute_command(f"VECTOR.{words[0]}", *words[1:])
    after = as_map(index.execute_command("VECTOR.INFO", "i"))
    assert after == before
    assert recall(index, QUESTION) == ANSWER.encode()


def test_a_prompt_may_be_of_characters_that_are_younger_than_pythons_tables(
    index: redis.Redis,
) -> None:
    young = chr(0x1FAEA)
    assert unicodedata.category(young) == "Cn"
    remember(index, young, ANSWER)
    assert recall(index, young) == ANSWER.encode()


def test_prompts_that_differ_in_control_characters_only_are_two(index: redis.Redis) -> None:
    remember(index, "what is it", "one")
    remember(index, "what \x00is it", "two", "FP32", NEAR)
    assert recall(index, "what is it") == b"one"
    assert recall(index, "what \x00is it") == b"two"


# -- money, quotas, budgets ------------------------------------------------------------------------


def test_savings_are_told_and_billed() -> None:
    with tenant_server() as server, administrator(server) as admin:
        tenant(admin, "CREATE", "a", "KEY", "k")
        with signed_in(server, "a", "k") as client:
            client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
            remember(client, QUESTION, ANSWER, "COST", 1500)
            before = usage(client, "a")["compute_units"]
            for _ in range(3):
                assert recall(client, QUESTION) == ANSWER.encode()
            assert recall(client, "Who was first?", "FP32", FAR) is None
            used = usage(client, "a")
            assert (used["recalls"], used["recalled"]) == (4, 3)
            assert used["saved_cost"] == 4500
            assert used["saved_tokens"] == 3 * (-(-len(QUESTION) // 4) + -(-len(ANSWER) // 4))
            assert used["compute_units"] > before
            counted = stats(client)
            assert float(counted["cost_saved"]) == 4500
        info = admin.info("cache")
        assert (info["remembered_entries"], info["remembered_hits"]) == (1, 3)


def test_the_models_price_is_what_a_hit_saves_where_nobody_says() -> None:
    llm = {"model": "m", "prices": "m=1000/4000"}
    with running_server(llm=llm) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
        remember(client, "x" * 40, "y" * 400)
        _, info = told(client, "x" * 40)
        assert float(info["cost_saved"]) == 10 * 1 + 100 * 4


def test_remembered_bytes_count_against_the_quota_and_are_told() -> None:
    with tenant_server() as server, administrator(server) as admin:
        tenant(admin, "CREATE", "a", "KEY", "k")
        with signed_in(server, "a", "k") as client:
            client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
            before = usage(client, "a")["bytes"]
            noise = np.random.default_rng(1).bytes(50_000)
            remember(client, QUESTION, noise)
            taken = usage(client, "a")["bytes"] - before
            assert 50_000 < taken < 70_000
            assert as_map(client.execute_command("VECTOR.INFO", "i"))["remembered_bytes"] >= 50_000
            tenant(admin, "SET", "a", "MAXBYTES", int(before + 100_000))
            with pytest.raises(redis.ResponseError, match=r"^QUOTA|bytes"):
                remember(client, REPHRASED, noise)
            assert recall(client, REPHRASED, "MAXERROR", 0) is None
            assert client.execute_command("VECTOR.FORGET", "i", "SCOPE", 0) == 1
            remember(client, REPHRASED, noise)


@pytest.mark.parametrize("words", [(), ("DEPENDS", "i", 1, "doc")], ids=["alone", "depends"])
def test_what_comes_at_a_time_keeps_to_the_quota_together(words: tuple[Any, ...]) -> None:
    with tenant_server() as server, administrator(server) as admin:
        tenant(admin, "CREATE", "a", "KEY", "k")
        with signed_in(server, "a", "k") as client:
            client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
            client.execute_command("VECTOR.ADD", "i", "doc", "FP32", ROW)
            before = usage(client, "a")["bytes"]
            tenant(admin, "SET", "a", "MAXBYTES", int(before + 200_000))
            noise = np.random.default_rng(1)
            with client.pipeline(transaction=False) as pipeline:
                for number in range(40):
                    response = noise.bytes(20_000)
                    asked = ("i", f"question {number}", response, "FP32", ROW, *words)
                    pipeline.execute_command("VECTOR.REMEMBER", *asked)
                replies = pipeline.execute(raise_on_error=False)
            refused = [str(each) for each in replies if isinstance(each, redis.ResponseError)]
            assert 4 <= 40 - len(refused) <= 10
            assert all(each.startswith("QUOTA") for each in refused)
            assert int(stats(client)["entries"]) == 40 - len(refused)
            assert client.execute_command("VECTOR.FORGET", "i", "SCOPE", 0) == 40 - len(refused)
            # What was on its way is no more.
            remember(client, QUESTION, noise.bytes(100_000))


def test_past_its_budget_an_index_forgets_what_is_worth_least(index: redis.Redis) -> None:
    index.execute_command("VECTOR.CACHE", "POLICY", "i", "SET", "REMEMBERBYTES", 40_000)
    noise = np.random.default_rng(1)
    for number in range(8):
        remember(index, f"question {number}", noise.bytes(4000), "COST", 10)
        if number < 3:
            for _ in range(50):
                recall(index, f"question {number}")
    for number in range(8, 40):
        remember(index, f"question {number}", noise.bytes(4000), "COST", 10)
    counted = stats(index)
    assert int(counted["bytes"]) < 60_000
    assert int(counted["gone_evicted"]) == 40 - int(counted["entries"])
    for number in (0, 1, 2, 39):
        assert recall(index, f"question {number}", "THRESHOLD", 1) is not None
    with pytest.raises(redis.ResponseError, match="responses here may take 40000 in all"):
        remember(index, "too large", noise.bytes(50_000))


def test_feedback_and_forgetting_do_not_cross_tenants() -> None:
    with tenant_server() as server, administrator(server) as admin:
        for name in ("a", "b"):
            tenant(admin, "CREATE", name, "KEY", name)
        with signed_in(server, "a", "a") as one, signed_in(server, "b", "b") as other:
            for client in (one, other):
                client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
            id_ = remember(one, QUESTION, ANSWER)
            remember(other, REPHRASED, "other's")
            with pytest.raises(redis.ResponseError, match="no such entry"):
                other.execute_command("VECTOR.FEEDBACK", "i", id_, "BAD")
            assert other.execute_command("VECTOR.FORGET", "i", "ID", id_) == 0
            assert other.execute_command("VECTOR.FORGET", "i", "PROMPT", QUESTION) == 0
            assert recall(other, QUESTION, "MAXERROR", 0) is None
            assert recall(one, QUESTION) == ANSWER.encode()


# -- the rest --------------------------------------------------------------------------------------


def test_the_time_of_an_answer_can_be_blurred() -> None:
    with running_server(remember={"blur_ms": 40}) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
        remember(client, QUESTION, ANSWER)
        for prompt in (QUESTION, "something else"):
            began = time.monotonic()
            recall(client, prompt)
            assert time.monotonic() - began >= 0.039


def test_a_text_has_to_be_one_even_where_the_prompt_is_known(client: redis.Redis) -> None:
    client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "wordllama")
    client.execute_command("VECTOR.REMEMBER", "t", QUESTION, ANSWER)
    recalling = ("VECTOR.RECALL", "t", QUESTION, "TEXT")
    for text in ("", b"\xff", "x" * 40_000):
        with pytest.raises(redis.ResponseError, match=r"^invalid TEXT: "):
            client.execute_command(*recalling, text)
    assert client.execute_command(*recalling, "another text") == ANSWER.encode()


def test_texts_are_embedded_by_the_index(client: redis.Redis) -> None:
    client.execute_command("VECTOR.CREATE", "t", "EMBEDDER", "wordllama")
    run: Any = client.execute_command
    id_ = run("VECTOR.REMEMBER", "t", QUESTION, ANSWER)
    assert run("VECTOR.RECALL", "t", QUESTION) == ANSWER.encode()
    response, info = run("VECTOR.RECALL", "t", REPHRASED, "THRESHOLD", 0.7, "WITHINFO")
    assert (response, as_map(info)["match"]) == (ANSWER.encode(), b"near")
    assert run("VECTOR.RECALL", "t", "the price of gold", "THRESHOLD", 0.7) is None
    assert run("VECTOR.FEEDBACK", "t", id_, "GOOD", "PROMPT", "food of plants?") == b"OK"
    with pytest.raises(redis.ResponseError, match="at most 32768 are embedded"):
        run("VECTOR.RECALL", "t", "x" * 40_000)
    with client.pipeline(transaction=False) as pipeline:
        for number in range(20):
            pipeline.execute_command("VECTOR.REMEMBER", "t", f"question {number}", f"r{number}")
        pipeline.execute_command("VECTOR.REMEMBER", "t", "question 3", "the last")
        for number in range(20):
            pipeline.execute_command("VECTOR.RECALL", "t", f"question {number}")
        replies = pipeline.execute()[21:]
    assert replies[3] == b"the last"
    assert replies[4:] == [b"r%d" % number for number in range(4, 20)]


def test_an_index_without_embedder_needs_vectors(index: redis.Redis) -> None:
    for words in (("REMEMBER", "i", QUESTION, ANSWER), ("RECALL", "i", QUESTION)):
        with pytest.raises(redis.ResponseError, match="has no embedder"):
            index.execute_command(f"VECTOR.{words[0]}", *words[1:])


def test_replies_are_nulls_of_their_protocol(server: RunningServer) -> None:
    with server.connect() as connection:
        exchange(connection, encode("VECTOR.CREATE", "i", "DIM", 3), replies=b"\r\n")
        asked = encode("VECTOR.RECALL", "i", "p", "FP32", ROW)
        assert exchange(connection, asked, replies=b"\r\n") == b"$-1\r\n"
        exchange(connection, encode("HELLO", "3"), replies=b"modules")
        assert exchange(connection, asked, replies=b"_\r\n").endswith(b"_\r\n")


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 3)
        client.execute_command("VECTOR.ADD", "i", "doc", "FP32", ROW)
        kept = remember(client, QUESTION, ANSWER, "SCOPE", 1, "user", "a", "EX", 1000)
        remember(client, "from a document", "x", "DEPENDS", "i", 1, "doc")
        bad = remember(client, "bad", "nonsense")
        client.execute_command("VECTOR.FEEDBACK", "i", bad, "BAD")
        client.execute_command("VECTOR.FEEDBACK", "i", kept, "BAD", "PROMPT", REPHRASED)
        remember(client, QUESTION, "again", "SCOPE", 1, "user", "a", "EX", 1000)
    with running_server(tmp_path / "data") as server, server.client() as client:
        assert recall(client, QUESTION, "SCOPE", 1, "user", "a") == b"again"
        assert recall(client, "bad", "MAXERROR", 0) is None
        assert recall(client, "from a document") == b"x"
        words = (REPHRASED, "FP32", NEAR, "THRESHOLD", 0.5, "SCOPE", 1, "user", "a")
        assert told(client, *words)[1]["guard"] == b"feedback"
        client.execute_command("VECTOR.DEL", "i", "doc")
        assert recall(client, "from a document", "MAXERROR", 0) is None
