"""The schemas that providers are given, and instructions in their place."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from pyrope.llm.provider import Prompt
from pyrope.llm.reply_schema import reply_text, strict_schema, system_text
from pyrope.llm.schemas import AdviceReply, CanonicalReply, NextReply, VerifyReply


class Inner(BaseModel):
    name: str = Field(default="x", max_length=9, pattern="^a", title="T")
    kind: Literal["one"]


class Outer(BaseModel):
    description: str
    items: list[Inner] = Field(default=[], max_length=3)
    share: float | None = Field(None, ge=0, le=1, description="of the whole")


def test_every_property_is_required_and_no_other_allowed_at_every_depth() -> None:
    assert strict_schema(Outer) == {
        "type": "object",
        "properties": {
            "description": {"type": "string"},
            "items": {"type": "array", "items": {"$ref": "#/$defs/Inner"}, "maxItems": 3},
            "share": {
                "anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}],
                "description": "of the whole",
            },
        },
        "required": ["description", "items", "share"],
        "additionalProperties": False,
        "$defs": {
            "Inner": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "kind": {"type": "string", "enum": ["one"]},
                },
                "required": ["name", "kind"],
                "additionalProperties": False,
            }
        },
    }


@pytest.mark.parametrize("reply", [CanonicalReply, NextReply, AdviceReply, VerifyReply])
def test_the_replies_of_all_questions_have_strict_schemas(reply: type[BaseModel]) -> None:
    def check(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object":
                assert node["additionalProperties"] is False
                assert node["required"] == list(node["properties"])
            for value in node.values():
                check(value)
        elif isinstance(node, list):
            for value in node:
                check(value)

    check(strict_schema(reply))
    assert strict_schema(reply)["type"] == "object"


def test_instructions_hold_the_schema_only_where_the_api_does_not_get_it() -> None:
    prompt = Prompt("Do it.", "user", Inner, 5)
    assert system_text(prompt, "json_schema") == "Do it."
    for form in ("json_object", "text"):
        text = system_text(prompt, form)
        assert text.startswith("Do it.\n\nReply with one JSON object")
        assert '"required":["name","kind"]' in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('  ```\n{"a": 1}\n```\n', '{"a": 1}'),
        ("```", "```"),
        ("``````", "``````"),
        ("```json {} ```", "```json {} ```"),
        ("```json\nunfinished", "```json\nunfinished"),
        ("", ""),
    ],
)
def test_only_a_whole_fence_is_taken_off(text: str, shown: str) -> None:
    assert reply_text(text, "text") == shown
    assert reply_text(text, "json_schema") == text
