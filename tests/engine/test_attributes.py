from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.engine.attributes import MAX_DEPTH, JsonValue, parse_attributes
from pyrope.errors import CommandError

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False),
              st.text(st.characters(exclude_categories=["Cs"]))),
    lambda children: st.one_of(st.lists(children), st.dictionaries(st.text("ab\\\"[{"), children)),
    max_leaves=8,
)  # fmt: skip


@given(value=st.dictionaries(st.text("abc"), json_values), ascii_only=st.booleans())
def test_an_object_comes_back_as_written(value: dict[str, object], *, ascii_only: bool) -> None:
    assert parse_attributes(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


def object_or_error(raw: bytes) -> dict[str, JsonValue] | str:
    try:
        return parse_attributes(raw)
    except CommandError as error:
        return error.message


@given(st.one_of(st.binary(max_size=40), st.text('{}[]":,\\u0e-NaIfinty ', max_size=40)))
def test_any_bytes_are_an_object_or_a_command_error(raw: str | bytes) -> None:
    assert isinstance(object_or_error(raw.encode() if isinstance(raw, str) else raw), dict | str)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not valid JSON"),
        (b"notjson", "not valid JSON"),
        (b'{"a": 1', "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b'{"a": 01}', "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b'{"a": 1,}', "not valid JSON"),
        (b'{"a": "\n"}', "not valid JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "not valid JSON"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": [Infinity]}', "Infinity is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": "\\ud800"}', "lone surrogate"),
        (b'{"\\udc00": 1}', "lone surrogate"),
        (b'{"a": "\xff"}', "not valid UTF-8 at byte 7"),
        (b"[1]", "must be a JSON object"),
        (b"1", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"a"', "must be a JSON object"),
    ],
)
def test_what_is_no_json_object_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        parse_attributes(raw)


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 1000, 1_000_000])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_hostile_nesting_is_refused(opening: bytes, levels: int) -> None:
    with pytest.raises(CommandError, match="nest deeper than 64 levels"):
        parse_attributes(opening * levels)


def test_nesting_up_to_the_limit_is_read() -> None:
    arrays = MAX_DEPTH - 1
    assert "a" in parse_attributes(b'{"a":' + b"[" * arrays + b"]" * arrays + b"}")


def test_brackets_in_strings_and_side_by_side_do_not_nest() -> None:
    text = "[{" * 1000 + '"' + "[" * 1000
    raw = json.dumps({"a": text, "b": [[]] * 1000}).encode()
    assert parse_attributes(raw) == {"a": text, "b": [[]] * 1000}


def test_of_a_repeated_name_the_first_value_counts_as_in_redis() -> None:
    assert parse_attributes(b'{"a": 1, "b": 2, "a": 3}') == {"a": 1, "b": 2}


def test_numbers_beyond_a_double_become_infinite_and_cost_no_time() -> None:
    value = parse_attributes(b'{"a": 1' + b"0" * 1_000_000 + b', "b": -1e999}')
    assert value == {"a": math.inf, "b": -math.inf}


def test_an_escaped_surrogate_pair_is_one_character() -> None:
    assert parse_attributes(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}
