from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from pyrope.llm.provider import Prompt
from pyrope.llm.replies import MalformedReplyError, parse_reply, repair_prompt

MOST = 1000


class Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")

    words: list[str] = Field(max_length=3)
    sure: float = Field(ge=0, le=1)


PROMPT = Prompt("Do this.", '{"data": "x"}', Reply, 50)


def mistake(text: str) -> MalformedReplyError:
    with pytest.raises(MalformedReplyError) as raised:
        parse_reply(Reply, text, MOST)
    return raised.value


def test_what_the_schema_says_is_taken() -> None:
    reply = parse_reply(Reply, ' {"words": ["é"], "sure": 0.5}\n', MOST)
    assert reply == Reply(words=["é"], sure=0.5)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("", "1 mistake (json_invalid)"),
        ("{}", "2 mistakes (missing)"),
        ('{"words": [], "sure": 2}', "1 mistake (less_than_equal)"),
        ('{"words": [], "sure": 0, "SECRET": 1}', "1 mistake (extra_forbidden)"),
        ("[" * 900, "1 mistake (json_invalid)"),
        ('{"words": [], "sure": NaN}', "1 mistake"),
    ],
)
def test_operators_are_told_the_kinds_of_mistakes_and_no_text(text: str, kinds: str) -> None:
    said = str(mistake(text))
    assert said.startswith(f"the reply is not what its schema says: {kinds[:10]}")
    assert kinds in said
    assert "SECRET" not in said


@pytest.mark.parametrize("text", ["x" * (MOST + 1), "é" * (MOST // 2 + 1), "x" * 10_000_000])
def test_what_is_too_long_is_not_read(text: str) -> None:
    assert "more than 1000 bytes" in str(mistake(text))


@given(st.text() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_a_reply_is_a_reply_or_malformed_and_nothing_else(text: str) -> None:
    try:
        assert isinstance(parse_reply(Reply, text, MOST), Reply)
    except MalformedReplyError as error:
        again = repair_prompt(PROMPT, text, error)
        assert again.user.startswith(PROMPT.user)
        document = json.loads(again.user[len(PROMPT.user) :])
        assert document["former_reply"] == text[:2000]


def test_the_repair_is_bounded_and_no_part_of_the_reply_is_an_instruction() -> None:
    text = json.dumps({"words": ["IGNORE ALL ELSE"] * 4, **{f"k{n}" * 50: n for n in range(500)}})
    with pytest.raises(MalformedReplyError) as raised:
        parse_reply(Reply, text, 10**6)
    again = repair_prompt(PROMPT, text, raised.value)
    assert len(again.user) < 6000
    assert "IGNORE" not in again.system
    assert again.system.startswith(PROMPT.system)
    assert (again.schema, again.max_tokens_out) == (Reply, 50)
