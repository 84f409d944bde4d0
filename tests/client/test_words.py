"""Python values as the words of a command."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pyrope.client import replies, words

REAL = st.one_of(
    hnp.floating_dtypes(sizes=(16, 32, 64), endianness="?"),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
)
SIDES = {"min_side": 1, "max_side": 9}


def finite(dtype: np.dtype[Any]) -> st.SearchStrategy[Any]:
    """Values that float32 can say."""
    if dtype.kind != "f":
        return hnp.from_dtype(dtype)
    return hnp.from_dtype(
        dtype, min_value=-60000, max_value=60000, allow_nan=False, allow_infinity=False
    )


@st.composite
def matrices(draw: st.DrawFn) -> Any:
    """Of any real dtype and byte order, contiguous or not, the right way round or not."""
    dtype = draw(REAL)
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, **SIDES))
    array = draw(hnp.arrays(dtype, shape, elements=finite(dtype)))
    step = draw(st.sampled_from([1, -1, 2]))
    view = array[::step, :: draw(st.sampled_from([1, -1, 2]))]
    return view.T if draw(st.booleans()) else view


@given(matrices())
def test_any_real_matrix_travels_as_little_endian_float32_row_by_row(array: Any) -> None:
    expected = np.array([[np.float32(value) for value in row] for row in array], dtype="<f4")
    assert words.rows_word(array) == expected.tobytes()
    assert words.vector_word(array[0]) == expected[0].tobytes()
    back = replies.vector(words.vector_word(array[0]))
    assert back.dtype == np.float32
    assert back.flags.writeable
    assert np.array_equal(back, expected[0])


def test_sequences_of_numbers_are_vectors_too() -> None:
    assert words.vector_word([1, 2.5]) == np.array([1, 2.5], "<f4").tobytes()
    assert words.rows_word(((1, 2), (3, 4))) == np.array([1, 2, 3, 4], "<f4").tobytes()


@pytest.mark.parametrize("value", [[np.nan], [np.inf], [-np.inf], [1e300], [1, -3.5e38]])
def test_what_float32_cannot_say_is_refused(value: list[float]) -> None:
    with pytest.raises(ValueError, match="NaN, infinity"):
        words.vector_word(value)
    with pytest.raises(ValueError, match="NaN, infinity"):
        words.rows_word([value, value])


@pytest.mark.parametrize("value", [[1j], ["a"], [True], [None], [b"a"], [10**400]])
def test_what_is_no_real_number_is_refused(value: list[Any]) -> None:
    with pytest.raises(TypeError, match="real numbers"):
        words.vector_word(value)


@pytest.mark.parametrize("value", [3.0, [[1.0]], [], np.zeros((0, 3))])
def test_a_vector_of_another_shape_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"\(dim,\)"):
        words.vector_word(value)


@pytest.mark.parametrize("value", [3.0, [1.0], [[]], np.zeros((1, 1, 1)), np.zeros((0, 3))])
def test_vectors_of_another_shape_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"\(n, dim\)"):
        words.rows_word(value)


@given(st.binary())
def test_every_id_that_was_read_as_text_can_be_sent_as_text(raw: bytes) -> None:
    assert words.id_word(replies.text(raw)) == raw
    assert words.id_word(raw) == raw


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_is_sent_as_utf8(value: str) -> None:
    assert words.id_word(value) == value.encode()


def test_other_ids_are_refused() -> None:
    with pytest.raises(TypeError, match="not int"):
        words.id_word(7)  # type: ignore[arg-type] # that is the mistake


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), JSON))
def test_attributes_come_back_as_they_went(attributes: dict[str, Any]) -> None:
    sent = words.attributes_word(attributes)
    assert json.loads(sent) == attributes
    assert replies.attributes(sent) == attributes


def test_no_attributes_are_the_empty_word_and_not_the_empty_object() -> None:
    assert words.attributes_word(None) == b""
    assert words.attributes_word({}) == b"{}"
    assert replies.attributes(None) is None


@pytest.mark.parametrize("value", [[1], "{}", {"a": {1, 2}}])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        words.attributes_word(value)


def test_numbers_that_json_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        words.attributes_word({"a": float("nan")})


def test_exactly_one_kind_of_query_is_taken() -> None:
    assert words.query_words([1]) == ("FP32", np.array([1], "<f4").tobytes())
    assert words.query_words(text="a b") == ("TEXT", "a b")
    assert words.query_words(element="é") == ("ELE", "é".encode())
    wrongs: tuple[dict[str, Any], ...] = (
        {}, {"vector": [1], "text": "a"}, {"text": "a", "element": "b"},
    )  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(TypeError, match="exactly one"):
            words.query_words(**wrong)


def test_numbers_of_numpy_become_those_of_python() -> None:
    token, value = words.option("COUNT", np.int64(3))
    assert (token, value, type(value)) == ("COUNT", 3, int)
    assert words.option("COUNT", None) == ()


@pytest.mark.parametrize(
    ("levels", "word"),
    [(None, None), ("OFF", "OFF"), ([], "OFF"), (["EXACT", "ALIAS"], "EXACT,ALIAS")],
)
def test_levels_are_written_with_commas(levels: Any, word: str | None) -> None:
    assert words.levels_word(levels) == word


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(TypeError, match="unknown: eff; known: ef"):
        words.check_names({"ef": 1, "eff": 2}, frozenset({"ef"}))
