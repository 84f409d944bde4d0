"""Remembered responses, blocking and in asyncio."""

from __future__ import annotations

from typing import Any

import pytest

from pyrope.client import CachePolicy, Lease, RecallInfo
from pyrope.client.caches import GUARDS as NAMES
from pyrope.client.responses import recall, remember
from pyrope.errors import CommandError, DimensionError, NoIndexError
from pyrope.semantic.guards import GUARDS

FORWARD, CLOSE, ACROSS = [1.0, 0, 0], [0.99, 0.1, 0], [0, 1.0, 0]


@pytest.fixture
def faq(calls: Any) -> Any:
    """A client of a server with an index of three dimensions."""
    calls.create("faq", 3)
    return calls


def test_what_is_remembered_is_recalled(faq: Any) -> None:
    id_ = faq.responses.remember("faq", "Où est-ce ?", b"L\xe0-bas", FORWARD)
    found = faq.responses.recall("faq", "où est-ce ?", ACROSS)
    assert (found.response, found.info) == (b"L\xe0-bas", None)
    assert found.text.encode("utf-8", "surrogateescape") == b"L\xe0-bas"
    told = faq.responses.recall("faq", "où est-ce ?", ACROSS, info=True).info
    assert isinstance(told, RecallInfo)
    assert (told.id, told.match, told.prompt) == (id_, "exact", "Où est-ce ?")
    assert (told.score, told.estimated_error, told.nearest) == (1.0, 0.0, None)
    assert told.age_s is not None
    assert told.tokens_saved > 0
    assert faq.responses.recall("faq", "Who is there?", ACROSS).response is None


def test_near_prompts_are_answered_by_the_rule_that_is_given(faq: Any) -> None:
    faq.responses.remember("faq", "How do I reset my password?", "Like so.", FORWARD)
    asked = "How can I reset my password?"
    found = faq.responses.recall("faq", asked, CLOSE, threshold=0.9, info=True)
    assert (found.text, found.info.match, found.info.threshold) == ("Like so.", "near", 0.9)
    assert found.info.score == pytest.approx(0.99 / (0.99**2 + 0.01) ** 0.5, abs=1e-6)
    missed = faq.responses.recall("faq", asked, CLOSE, max_error=0.0, info=True)
    assert (missed.response, missed.info.max_error, missed.info.threshold) == (None, 0.0, None)
    assert missed.info.nearest.prompt == "How do I reset my password?"
    assert missed.info.nearest.score == pytest.approx(found.info.score)
    assert missed.info.nearest.refused_by is None
    refused = "How do I not reset my password?"
    told = faq.responses.recall("faq", refused, CLOSE, threshold=0.9, info=True).info
    assert told.guard == told.nearest.refused_by == "negation"


def test_scopes_are_kept_apart(faq: Any) -> None:
    faq.responses.remember("faq", "Who am I?", "Ann", FORWARD, scope={"user": "ann", "v": 2})
    assert faq.responses.recall("faq", "Who am I?", FORWARD).text is None
    assert faq.responses.recall("faq", "Who am I?", FORWARD, scope={"user": "bob"}).text is None
    scope = {"v": b"2", "user": "ann"}
    assert faq.responses.recall("faq", "Who am I?", FORWARD, scope=scope).text == "Ann"


def test_a_response_goes_with_what_it_depends_on_and_with_its_time(faq: Any) -> None:
    faq.add("faq", "doc", FORWARD)
    faq.responses.remember(
        "faq", "a", "1", FORWARD, depends_on=("faq", ["doc"]), expires_s=1000, cost=2.5
    )
    found = faq.responses.recall("faq", "a", FORWARD, info=True)
    assert (found.text, found.info.cost_saved) == ("1", 2.5)
    faq.add("faq", "doc", ACROSS)
    assert faq.responses.recall("faq", "a", FORWARD).text is None
    with pytest.raises(CommandError):
        faq.responses.remember("faq", "a", "1", FORWARD, depends_on=("faq", ["none"]))


def test_responses_are_forgotten_by_id_prompt_and_scope(faq: Any) -> None:
    ids = [
        faq.responses.remember("faq", prompt, "x", FORWARD, scope=scope)
        for prompt, scope in (("a", {}), ("b", {"u": "1"}), ("b", {"u": "2"}), ("c", {"u": "2"}))
    ]
    assert faq.responses.forget("faq", id=ids[0]) == 1
    assert faq.responses.forget("faq", id=ids[0]) == 0
    assert faq.responses.forget("faq", prompt="B") == 2
    assert faq.responses.forget("faq", scope={"u": "2"}) == 1
    with pytest.raises(TypeError, match="exactly one"):
        faq.responses.forget("faq")
    with pytest.raises(TypeError, match="exactly one"):
        faq.responses.forget("faq", id="x", prompt="y")


def test_bad_feedback_takes_a_response_out(faq: Any) -> None:
    id_ = faq.responses.remember("faq", "a", "wrong", FORWARD)
    faq.responses.feedback("faq", id_, good=True)
    assert faq.responses.recall("faq", "a", FORWARD).text == "wrong"
    faq.responses.feedback("faq", id_, good=False, prompt="a")
    assert faq.responses.recall("faq", "a", FORWARD).text is None
    with pytest.raises(CommandError):
        faq.responses.feedback("faq", "0000000000000000", good=True)
    stats = faq.cache.stats("faq").remembered
    assert (stats["feedback_good"], stats["feedback_bad"], stats["quarantined"]) == (1, 1, 1)


def test_the_first_to_miss_gets_a_lease_and_gives_it_up_with_a_response(faq: Any) -> None:
    missed = faq.responses.recall("faq", "a", FORWARD, lease_s=20)
    assert missed.response is None
    assert isinstance(missed.lease, Lease)
    assert missed.lease.token not in repr(missed)
    assert faq.responses.remember("faq", "a", "1", FORWARD, lease=missed.lease)
    found = faq.responses.recall("faq", "a", FORWARD, lease_s=20)
    assert (found.text, found.lease, found.info.waited_s) == ("1", None, 0.0)
    with pytest.raises(CommandError, match="LEASE"):
        faq.responses.remember("faq", "b", "1", FORWARD, lease=Lease("no token"))


def test_what_the_server_refuses_is_raised(faq: Any) -> None:
    with pytest.raises(NoIndexError):
        faq.responses.recall("none", "a", FORWARD)
    with pytest.raises(DimensionError):
        faq.responses.remember("faq", "a", "x", [1.0, 2.0])
    for prompt, response in (("", "x"), ("a", ""), (" \t", "x")):
        with pytest.raises(CommandError):
            faq.responses.remember("faq", prompt, response, FORWARD)
    with pytest.raises(CommandError, match="embedder"):
        faq.responses.recall("faq", "a")
    with pytest.raises(CommandError, match="contradict"):
        faq.responses.recall("faq", "a", FORWARD, threshold=0.5, max_error=0.5)


def test_what_makes_no_sense_is_not_sent() -> None:
    with pytest.raises(TypeError, match="unknown: ttl"):
        remember("faq", "a", "b", ttl=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="not bool"):
        recall("faq", "a", scope={"admin": True})
    with pytest.raises(TypeError, match="not NoneType"):
        recall("faq", "a", scope={"user": None})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="shape"):
        recall("faq", "a", [[1.0]])


def test_a_policy_says_what_may_be_remembered(faq: Any) -> None:
    usual = faq.cache.policy("faq")
    assert usual == CachePolicy()
    faq.cache.set_policy(
        "faq", max_error=0.2, guards_off=["names", "units"], shadow=True, remember_ttl_s=60,
        sliding=True, remember_bytes=10_000, scope_fields=["user", "app"],
    )  # fmt: skip
    told = faq.cache.policy("faq")
    assert (told.max_error, told.guards_off) == (0.2, {"names", "units"})
    assert (told.shadow, told.remember_ttl_s, told.sliding) == (True, 60.0, True)
    assert (told.remember_bytes, told.scope_fields) == (10_000, {"user", "app"})
    faq.cache.set_policy("faq", guards_off=NAMES)
    assert faq.cache.policy("faq").guards_off == set(NAMES)
    faq.cache.set_policy(
        "faq", max_error="AUTO", guards_off=[], shadow=False, remember_ttl_s="AUTO", sliding=False,
        remember_bytes=0, scope_fields=[],
    )  # fmt: skip
    assert faq.cache.policy("faq") == usual
    with pytest.raises(TypeError, match="unknown: luck"):
        faq.cache.set_policy("faq", guards_off=["luck"])


def test_the_client_knows_all_guards() -> None:
    assert set(NAMES) == GUARDS.keys()
