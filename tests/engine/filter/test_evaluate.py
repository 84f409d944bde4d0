from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.filter.filter_oracle import Node, attributes, expressions, matches, render
from pyrope.engine.attributes import JsonValue
from pyrope.engine.columns import AttributeColumns
from pyrope.engine.filter import compile_filter


def columns_of(*elements: Mapping[str, JsonValue]) -> AttributeColumns:
    columns = AttributeColumns()
    for slot, element in enumerate(elements):
        columns.set(slot, element)
    return columns


def matching(expression: str, *elements: Mapping[str, JsonValue]) -> list[int]:
    mask = compile_filter(expression).mask(columns_of(*elements), len(elements))
    slots: list[int] = np.flatnonzero(mask).tolist()
    return slots


@settings(max_examples=400, deadline=None)
@given(expression=expressions, elements=st.lists(attributes, max_size=12))
def test_a_mask_agrees_with_evaluating_each_element(
    expression: Node, elements: list[dict[str, JsonValue] | None]
) -> None:
    columns = AttributeColumns()
    for slot, element in enumerate(elements):
        if element is not None:
            columns.set(slot, element)
    mask = compile_filter(render(expression)).mask(columns, len(elements))
    assert mask.dtype == np.bool_
    assert mask.tolist() == [matches(expression, element) for element in elements]


@settings(max_examples=60, deadline=None)
@given(
    expression=expressions,
    element=attributes.filter(lambda drawn: drawn is not None),
    count=st.sampled_from([40, 70, 200]),
    every=st.sampled_from([1, 2, 40]),
)
def test_dense_and_sparse_fields_give_the_same_answer(
    expression: Node, element: dict[str, JsonValue], count: int, every: int
) -> None:
    columns = AttributeColumns()
    for slot in range(0, count * every, every):
        columns.set(slot, element)
    mask = compile_filter(render(expression)).mask(columns, count * every)
    expected = np.zeros(count * every, np.bool_)
    expected[::every] = matches(expression, element)
    assert np.array_equal(mask, expected)


def test_the_filter_of_the_wire_contract() -> None:
    expression = '.year >= 1980 and .genre in ["sf", "noir"] and not .hidden'
    assert matching(
        expression,
        {"year": 1984, "genre": "sf", "hidden": False},
        {"year": 1979, "genre": "sf", "hidden": False},
        {"year": 1984, "genre": "drama", "hidden": False},
        {"year": 1984, "genre": "noir", "hidden": True},
        {"year": 1984, "genre": "noir"},
        {"year": "1984", "genre": "noir", "hidden": False},
        {"year": 1999, "genre": "noir", "hidden": 0},
    ) == [0, 6]


@pytest.mark.parametrize("expression", [".a != 1", "not .a", ".b or .a == 1", ".a in []", ".a"])
def test_an_element_without_the_field_does_not_match(expression: str) -> None:
    assert matching(expression, {"b": 1}) == []


@pytest.mark.parametrize(
    "expression",
    [
        ".a < 5",
        ".a != 5",
        "not (.a == 5)",
        ".b or .a == 5",
        ".a + 1 != 0",
        "not (.a in [1, 2])",
        "not (1 in .a)",
        "not (.a in .b)",
    ],
)
def test_an_element_whose_field_has_another_type_does_not_match(expression: str) -> None:
    assert matching(expression, {"a": "x", "b": 1}) == []


def test_an_element_without_attributes_matches_nothing_not_even_a_constant() -> None:
    columns = columns_of({"a": 1}, {}, {"a": 1})
    columns.clear(0)
    assert compile_filter("1").mask(columns, 5).tolist() == [False, True, True, False, False]


def test_a_mask_may_be_shorter_or_longer_than_the_columns() -> None:
    elements: list[dict[str, JsonValue]] = [{"a": n, "l": [n, "x"]} for n in range(100)]
    columns = columns_of(*elements)
    for expression in (".a >= 0", '"x" in .l', ".a in .l", ".a + 0 in .l"):
        compiled = compile_filter(expression)
        assert compiled.mask(columns, 0).tolist() == []
        assert compiled.mask(columns, 7).tolist() == [True] * 7
        assert compiled.mask(columns, 150).tolist() == [True] * 100 + [False] * 50


def test_a_mask_leaves_out_what_a_sparse_field_has_beyond_its_end() -> None:
    columns = AttributeColumns()
    columns.set(3, {"a": 1})
    columns.set(300, {"a": 1})
    assert compile_filter(".a").mask(columns, 5).tolist() == [False, False, False, True, False]


def test_a_mask_follows_every_change_of_the_attributes() -> None:
    columns = columns_of({"a": 1}, {"a": 2})
    compiled = compile_filter(".a == 1")
    assert compiled.mask(columns, 2).tolist() == [True, False]
    columns.set(1, {"a": 1})
    columns.set(0, {"a": "1"})
    assert compiled.mask(columns, 2).tolist() == [False, True]
    columns.clear(1)
    assert compiled.mask(columns, 2).tolist() == [False, False]


def test_a_mask_is_the_callers_own() -> None:
    columns = columns_of({"a": True})
    compiled = compile_filter(".a")
    compiled.mask(columns, 1)[:] = False
    assert compiled.mask(columns, 1).tolist() == [True]


def test_the_result_of_a_division_by_zero_is_as_in_c() -> None:
    assert matching(".a / 0 > 1e308", {"a": 1}, {"a": -1}, {"a": 0}) == [0]
    assert matching(".a / 0", {"a": 1}, {"a": 0}) == [0, 1]  # NaN is not zero, hence true
    assert matching(".a % 0 == .a % 0", {"a": 1}) == []  # NaN is not equal to itself


def test_long_strings_are_told_apart_to_the_last_character() -> None:
    long = "x" * 10_000
    assert matching(f'.a == "{"x" * 200}y"', {"a": "x" * 200 + "y"}, {"a": "x" * 200 + "z"}) == [0]
    assert matching(".a == .b", {"a": long, "b": long}, {"a": long, "b": long + "x"}) == [0]


def test_two_fields_are_equal_where_both_are_null() -> None:
    null, one = {"a": None, "b": None}, {"a": None, "b": 1}
    assert matching(".a == .b", null, one) == [0]
    assert matching(".a != .b", null, one) == [1]


def test_a_list_is_no_item_of_another() -> None:
    assert matching("not (.a in .b)", {"a": [1], "b": [2]}, {"a": 1, "b": [[1]]}) == [1]


def test_a_large_tuple_is_looked_up() -> None:
    numbers = ", ".join(str(n) for n in range(0, 1000, 2))
    assert matching(f".a in [{numbers}]", *({"a": n} for n in range(8))) == [0, 2, 4, 6]
    assert matching(f".a in [{numbers}]", {"a": 998}, {"a": 999}, {"a": 1000}) == [0]
    strings = ", ".join(f'"s{n}"' for n in range(0, 600, 2))
    elements: list[dict[str, JsonValue]] = [{"a": f"s{n}"} for n in range(8)]
    assert matching(f".a in [{strings}]", *elements, {"a": None}) == [0, 2, 4, 6]


def test_hundreds_of_chained_operators_neither_recurse_nor_fail() -> None:
    chain = " or ".join(f".a == {n}" for n in range(100))
    assert matching(chain, {"a": 99}, {"a": 100}) == [0]


def test_threads_may_evaluate_at_the_same_time() -> None:
    elements: list[dict[str, JsonValue]] = [{"a": n, "l": [n]} for n in range(2000)]
    columns = columns_of(*elements)
    compiled = compile_filter(".a % 2 == 0 and .a in .l and not (5 in .l)")
    expected = compiled.mask(columns, 2000)
    results: list[bool] = []

    def work() -> None:
        results.extend(np.array_equal(compiled.mask(columns, 2000), expected) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 80
