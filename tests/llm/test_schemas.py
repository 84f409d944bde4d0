"""Replies: what a hostile or broken model says is an error and not advice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from pyrope.llm.replies import MalformedReplyError, parse_reply
from pyrope.llm.schemas import AdviceReply, CanonicalReply, NextReply, VerifyReply

GOOD: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (CanonicalReply, {"match": 1, "canonical": "", "confidence": 0.9}),
    (CanonicalReply, {"match": 0, "canonical": "age of Berlin", "confidence": 1}),
    (NextReply, {"foreseen": []}),
    (NextReply, {"foreseen": [{"number": 2, "probability": 0.5}]}),
    (
        AdviceReply,
        {"nature": "lasting", "ttl_factor": 2, "value_factor": 0.5, "confidence": 0.8},
    ),
    (VerifyReply, {"same": False, "confidence": 0}),
]


@pytest.mark.parametrize(("schema", "reply"), GOOD)
def test_what_is_asked_for_is_taken(schema: type[BaseModel], reply: dict[str, Any]) -> None:
    assert parse_reply(schema, json.dumps(reply), 4096).model_dump() == reply


@pytest.mark.parametrize(("schema", "reply"), GOOD)
def test_no_member_may_be_missing_or_one_too_many(
    schema: type[BaseModel], reply: dict[str, Any]
) -> None:
    for name in reply:
        with pytest.raises(MalformedReplyError):
            parse_reply(schema, json.dumps({k: v for k, v in reply.items() if k != name}), 4096)
    for name in ("tenant", "index", "system", "__class__", "model_config"):
        with pytest.raises(MalformedReplyError):
            parse_reply(schema, json.dumps(reply | {name: "alpha"}), 4096)


@pytest.mark.parametrize(
    ("schema", "member", "value"),
    [
        (CanonicalReply, "match", -1),
        (CanonicalReply, "match", 9),
        (CanonicalReply, "match", 10**30),
        (CanonicalReply, "match", 1.5),
        (CanonicalReply, "match", "1"),
        (CanonicalReply, "match", True),
        (CanonicalReply, "match", None),
        (CanonicalReply, "match", "another tenant's query"),
        (CanonicalReply, "canonical", "x" * 201),
        (CanonicalReply, "canonical", ["a"]),
        (CanonicalReply, "confidence", 1.01),
        (CanonicalReply, "confidence", -0.01),
        (CanonicalReply, "confidence", "high"),
        (CanonicalReply, "confidence", float("nan")),
        (CanonicalReply, "confidence", float("inf")),
        (NextReply, "foreseen", [{"number": 0, "probability": 0.5}]),
        (NextReply, "foreseen", [{"number": 9, "probability": 0.5}]),
        (NextReply, "foreseen", [{"number": 1, "probability": 2}]),
        (NextReply, "foreseen", [{"number": 1, "probability": 0.5, "text": "x"}]),
        (NextReply, "foreseen", [{"number": 1, "probability": 0.5}] * 4),
        (NextReply, "foreseen", {"number": 1}),
        (AdviceReply, "nature", "eternal"),
        (AdviceReply, "ttl_factor", 0),
        (AdviceReply, "ttl_factor", 1e300),
        (AdviceReply, "value_factor", -1),
        (AdviceReply, "value_factor", float("inf")),
        (VerifyReply, "same", "true"),
        (VerifyReply, "same", 1),
    ],
)
def test_a_member_is_within_its_bounds_and_of_its_type(
    schema: type[BaseModel], member: str, value: Any
) -> None:
    good = next(reply for its, reply in GOOD if its is schema)
    with pytest.raises(MalformedReplyError) as caught:
        parse_reply(schema, json.dumps(good | {member: value}), 4096)
    # What a model writes may repeat what clients wrote: it is not for a log.
    assert "another tenant" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "1", '"match"', "{", '{"match": 1', "sure! {}", "\x00", "x" * 2**20,
        '{"match": 1, "match": 0}', "[" * 5000, '{"a":' * 5000,
    ],
)  # fmt: skip
def test_what_is_no_such_object_is_refused(text: str) -> None:
    for schema in (CanonicalReply, NextReply, AdviceReply, VerifyReply):
        with pytest.raises(MalformedReplyError):
            parse_reply(schema, text, 65536)
