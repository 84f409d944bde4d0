"""How questions are told apart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from pyrope.integrations.chat import Assembly, chunks, is_complete, spent_of, split, text_of
from pyrope.integrations.options import Spent
from pyrope.integrations.questions import digest, question

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
    max_leaves=8,
)


class Shape(BaseModel):
    sides: int
    name: str = "shape"


@given(VALUES)
def test_the_same_has_the_same_digest_in_any_order(value: Any) -> None:
    def turned(one: Any) -> Any:
        if isinstance(one, dict):
            return {name: turned(one[name]) for name in reversed(one)}
        return tuple(map(turned, one)) if isinstance(one, list) else one

    assert digest(value) == digest(turned(value))


@given(st.text(), st.text())
def test_something_else_has_another(one: str, other: str) -> None:
    assert (digest({"a": one}) == digest({"a": other})) == (one == other)
    assert digest({"a": one}) != digest({"b": one})
    assert digest([one, other]) != digest([one + other])


def test_models_and_sets_have_digests_too() -> None:
    assert digest(Shape(sides=3)) == digest({"sides": 3})
    assert digest(Shape(sides=3)) != digest(Shape(sides=4))
    assert digest({"a", "b"}) == digest(["a", "b"]) == digest(frozenset({"b", "a"}))
    with pytest.raises(TypeError, match="object in it cannot be compared"):
        digest({"a": object()})


def test_a_prompt_that_is_no_text_is_not_looked_up() -> None:
    assert question("a", "tests", None, {}) is not None
    assert question("\ud800", "tests", None, {}) is None
    assert question("  ", "tests", None, {}) is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a", "a"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        (["a", "b"], "a\nb"),
        ([{"type": "text", "text": "a", "cache_control": {}}], None),
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}], None),
        ([{"type": "text", "text": 3}], None),
        ([], None),
        (None, None),
        (3, None),
    ],
)
def test_text_is_known_from_what_is_more(content: Any, text: str | None) -> None:
    assert text_of(content) == text


def test_the_last_words_of_a_user_are_what_is_asked() -> None:
    before = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    last = {"role": "user", "name": "ann", "content": "b"}
    assert split([*before, last]) == ("b", [*before, {"role": "user", "name": "ann"}])
    assert split([*before, {"role": "assistant", "content": "b"}]) is None
    assert split([]) is None


def completion(**changes: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "yes"} | changes.pop("message", {})
    return {"choices": [{"finish_reason": "stop", "message": message} | changes]}


def test_a_completion_is_complete_or_not() -> None:
    assert is_complete(completion())
    wrongs: tuple[dict[str, Any], ...] = (
        {"choices": []}, {}, completion(finish_reason="length"), completion(finish_reason=None),
        completion(message={"content": None}), completion(message={"content": " "}),
        completion(message={"refusal": "no"}), completion(message={"tool_calls": [{}]}),
        completion(message={"function_call": {"name": "f"}}),
        {"choices": [*completion()["choices"], *completion(finish_reason="length")["choices"]]},
    )  # fmt: skip
    for wrong in wrongs:
        assert not is_complete(wrong), wrong


def test_what_comes_with_the_words_is_kept_and_streamed_again() -> None:
    odds = [{"token": each, "logprob": -0.5, "bytes": [], "top_logprobs": []} for each in "ab"]
    told = {
        "id": "1", "created": 1, "model": "m", "object": "chat.completion",
        "choices": [
            {
                "index": 0, "finish_reason": "stop", "logprobs": {"content": odds},
                "message": {"role": "assistant", "content": "ab", "reasoning_content": "hm"},
            }
        ],
    }  # fmt: skip
    parts = [ChatCompletionChunk.model_validate(each) for each in chunks(told, usage=False)]
    assert (parts[0].choices[0].delta.model_extra or {})["reasoning_content"] == "hm"
    assembly = Assembly()
    for part in parts:
        assembly.add(part)
    again = assembly.completion()
    assert again is not None
    assert again["choices"][0]["logprobs"] == {"content": odds}


def test_what_it_took_is_what_the_provider_says() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    assert spent_of({"model": "m", "usage": usage}) == Spent("m", 3, 5)
    assert spent_of({"usage": {"prompt_tokens": 3}}) is None
    assert spent_of({"usage": None}) is None
