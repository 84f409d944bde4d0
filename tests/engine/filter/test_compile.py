from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.filter.filter_oracle import Node, expressions, render
from pyrope.engine.filter import Filter, compile_filter
from pyrope.engine.filter.ast import Literal, Operator, Selector
from pyrope.engine.filter.parser import parse
from pyrope.errors import CommandError

PIECES = [
    ".a", ".b-c", "..", ".", "1", "-2", "3.5", "1e", "1e-5", "1.2.3", '"x"', "'y z'", '"\\"', "'",
    "[1, 2]", '["a",]', "[", "]", ",", "(", ")", "not", "!", "and", "&&", "or", "||", "in", "+",
    "-", "**", "/", "%", "<", ">=", "==", "!=", "=", "&", "null", "true", "é", "²", "\0", "\n", " ",
]  # fmt: skip


def filter_or_error(text: str | bytes) -> Filter | CommandError:
    try:
        return compile_filter(text)
    except CommandError as error:
        return error


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60)))
@example(b"\xff")
@example("\ud800")
def test_any_input_is_a_filter_or_a_command_error(text: str | bytes) -> None:
    outcome = filter_or_error(text)
    assert isinstance(outcome, Filter) or "FILTER expression" in outcome.message


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_any_mix_of_tokens_is_a_filter_or_a_command_error(text: str) -> None:
    outcome = filter_or_error(text)
    assert isinstance(outcome, Filter) or "FILTER expression" in outcome.message


@given(expressions)
def test_a_well_formed_expression_compiles_whatever_the_white_space(expression: Node) -> None:
    text = render(expression)
    assert compile_filter(f" \t\n{text}\r\v\f ").fields == compile_filter(text.encode()).fields


def test_operators_come_after_their_operands_by_precedence() -> None:
    assert parse(".a + 2 * 3 ** -4 > 1 and not .b", 99, 99) == (
        Selector("a"),
        Literal(2.0),
        Literal(3.0),
        Literal(-4.0),
        Operator.POWER,
        Operator.MULTIPLY,
        Operator.ADD,
        Literal(1.0),
        Operator.GREATER,
        Selector("b"),
        Operator.NOT,
        Operator.AND,
    )


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        (r'"say \"hi\""', 'say "hi"'),
        (r"'it\'s'", "it's"),
        (r'"it\'s"', "it's"),
        (r'"a\\b"', r"a\b"),
        (r'"C:\new"', r"C:\new"),
        ('"línea\n2"', "línea\n2"),
        ('""', ""),
    ],
)
def test_a_backslash_escapes_quotes_and_itself_and_nothing_else(literal: str, value: str) -> None:
    assert parse(literal, 9, 9) == (Literal(value),)


def test_filters_are_equal_and_hash_by_their_text() -> None:
    one, other = compile_filter(".a"), compile_filter(".a", max_terms=7)
    assert one is not other
    assert one == other
    assert hash(one) == hash(other)
    assert one != compile_filter(".a ")
    assert one != ".a"
    with pytest.raises(AttributeError):
        one.text = ".b"  # type: ignore[misc]


def test_a_filter_is_compiled_once() -> None:
    assert compile_filter(".a == 1") is compile_filter(b".a == 1")


def test_a_filter_names_the_fields_it_selects() -> None:
    assert compile_filter(".a + .b > .a").fields == {"a", "b"}


def test_an_expression_longer_than_the_limit_is_refused() -> None:
    text = '.a == "' + "é" * 4092 + '"'
    assert len(text.encode()) == 8192
    assert compile_filter(text).text == text
    with pytest.raises(CommandError, match="FILTER expression has 8193 bytes, the limit is 8192"):
        compile_filter(text + " ")
    with pytest.raises(CommandError, match="has 3 bytes, the limit is 2"):
        compile_filter(".ab", max_bytes=2)


@pytest.mark.parametrize("deep", ["(" * 65 + "1" + ")" * 65, "!" * 65 + "1", "2**" * 65 + "1"])
def test_an_expression_that_nests_too_deep_is_refused(deep: str) -> None:
    with pytest.raises(CommandError, match="FILTER expression nests deeper than 64 levels"):
        compile_filter(deep)
    assert compile_filter(deep, max_nesting=65).text == deep


def test_an_expression_with_too_many_terms_is_refused() -> None:
    text = "+".join("1" * 257)
    with pytest.raises(CommandError, match="FILTER expression has more than 512 terms"):
        compile_filter(text)
    assert compile_filter(text, max_terms=513).text == text


def test_items_of_a_tuple_are_no_terms() -> None:
    text = f".a in [{','.join('1' * 4000)}]"
    assert compile_filter(text).text == text


def test_invalid_utf8_is_refused() -> None:
    with pytest.raises(CommandError, match="FILTER expression is not valid UTF-8"):
        compile_filter(b'.a == "\xff"')


def test_an_error_repeats_at_most_the_start_of_a_long_expression() -> None:
    with pytest.raises(CommandError) as caught:
        compile_filter("@" * 8000)
    assert caught.value.message == f"syntax error in FILTER expression near: {'@' * 200}"
