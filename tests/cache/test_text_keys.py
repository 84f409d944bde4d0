"""Normalisation of texts: what is the same query, and what it may cost."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.cache.text_keys import normalised


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I learn Python?", "  how do i\tlearn\n\nPYTHON? "),
        ("Straße", "STRASSE"),
        ("é", "e\u0301"),
        ("ﬁne", "FINE"),
        ("１２３", "123"),
        ("Ωμέγα", "ΩΜΈΓΑ"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("a\u00a0b", "a b"),
        ("a\u3000b", "A B"),
        ("\u1fb4", "\u03b1\u0345\u0301"),
    ],
)
def test_texts_that_differ_in_form_case_or_space_alone_are_the_same(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("python 2", "python 3"), ("ab", "a b"), ("résumé", "resume"), ("is it?", "is it")],
)
def test_texts_that_say_something_else_stay_apart(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


@given(st.text())
def test_canonically_equivalent_texts_have_one_form(text: str) -> None:
    assert normalised(unicodedata.normalize("NFD", text)) == normalised(text)
    assert normalised(unicodedata.normalize("NFC", text)) == normalised(text)


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_treated_like_everything_else(text: str) -> None:
    assert normalised(text + " é") == f"{normalised(text)} é".strip()


def test_long_runs_of_marks_are_broken_up_so_that_their_order_costs_little() -> None:
    # Without that, as many marks take 3 ms to put in order.
    alternating = "a" + "\u0301\u0323" * 1000
    found = normalised(alternating)
    runs = [len(run) for run in found.split("\u034f")]
    assert max(runs) <= 31
    assert sum(runs) == len(unicodedata.normalize("NFC", "a\u0301\u0323")) + len(alternating) - 3


def test_an_orderly_long_text_is_left_as_it_is() -> None:
    text = "naïve Straßen " * 100
    assert normalised(text) == " ".join(["naïve strassen"] * 100)


@pytest.mark.parametrize("character", ["\ufdfa", "\u0301", "\u0390", "\u1100\u1161\u11a8"])
def test_what_grows_or_takes_long_is_left_as_it_is_where_there_is_much_of_it(
    character: str,
) -> None:
    # In form KC the first of these would be 18 times as long, and take 30 ms.
    text = f"  {character * 20_000}\n x"
    found = normalised(text)
    assert found == f"{character * 20_000} x"
    assert normalised(found) == found


def test_blanks_do_not_make_a_text_long() -> None:
    assert normalised("É" + " " * 5000 + "ﬁn") == "é fin"


def test_a_long_text_in_ascii_is_folded_like_a_short_one() -> None:
    assert normalised("A B" * 5000) == normalised("a  b" * 5000)
