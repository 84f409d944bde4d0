"""What is read from prompts."""

from __future__ import annotations

import time
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.semantic.prompt_facts import READ_CHARACTERS, PromptFacts, facts_of
from pyrope.semantic.vocabulary.stems import stem


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,000.00 or 007", ("1000", "7")),
        ("version 1.10", ("1.10",)),
        ("twelve of 5k", ("12", "5000")),
        ("the third, the 3rd", ("3th", "3th")),
        ("World War II", ("2",)),
        ("-5 at 7pm", ("-5", "7pm")),
        ("$3m", ("3000000",)),
        ("10-20", ("10", "20")),
        ("no one", ()),
    ],
)
def test_numbers_are_brought_to_one_form(text: str, numbers: tuple[str, ...]) -> None:
    assert facts_of(text).numbers == tuple(sorted(numbers))


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("5kg and 3 miles", {("mass", "kg"), ("length", "mile")}),
        ("20 C", {("temperature", "celsius")}),
        ("$5 or €5", {("money", "$"), ("money", "€")}),
        ("50%", {("share", "%")}),
    ],
)
def test_units_are_found_beside_numbers_and_by_their_names(
    text: str, units: set[tuple[str, str]]
) -> None:
    assert facts_of(text).units >= units


def test_letters_are_units_only_after_a_number() -> None:
    assert facts_of("plan C and plan F").units == frozenset()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("What is Peru like?", {"peru"}),
        ("Peru is far. Chile is too.", set()),
        ("Is NASA in the U.S. or not?", {"nasa", "us"}),
        ("WHAT IS PERU LIKE", set()),
        ("What Is The Best Way To Cook Rice In Peru", set()),
    ],
)
def test_names_are_capitals_inside_a_sentence(text: str, names: set[str]) -> None:
    assert facts_of(text).names == names


def test_dates_need_a_capital_where_their_names_have_another_meaning() -> None:
    assert facts_of("may I march in May, on monday?").dates == {"may", "monday"}


def test_identifiers_symbols_and_quotes_are_told_from_words() -> None:
    facts = facts_of("Does foo_bar of v1.2.3 log 'no luck' to /var/log/x or a != b?")
    assert facts.identifiers == {"foo_bar", "v1.2.3", "/var/log/x"}
    assert facts.symbols == {"!="}
    assert facts.quotes == {"no luck"}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("I can't, I won't, never", 3),
        ("dont do it", 1),
        ("kein Problem ohne dich", 2),
        ("这不是", 1),
        ("nothing but notes", 1),
    ],
)
def test_negations_are_counted(text: str, count: int) -> None:
    assert facts_of(text).negations == count


@pytest.mark.parametrize(
    ("word", "stemmed"),
    [("cities", "cit"), ("city", "city"), ("cats", "cat"), ("class", "class"), ("https", "https")],
)
def test_endings_are_cut_off(word: str, stemmed: str) -> None:
    assert stem(word) == stemmed


@given(st.text(max_size=300))
def test_any_text_has_facts(text: str) -> None:
    facts = facts_of(text)
    assert isinstance(facts, PromptFacts)
    assert facts.length == len(text)
    assert len(facts.words) == len(facts.stems)
    assert facts.content_set <= facts.stem_set
    assert facts_of(text) == facts


@given(st.text(st.characters(codec="ascii"), max_size=300))
def test_white_space_around_and_between_words_does_not_matter(text: str) -> None:
    assert facts_of("\t".join(text.split())).words == facts_of(text).words


def test_of_a_long_text_beginning_and_end_are_read_and_the_rest_is_digested() -> None:
    text = "begin " + "x" * 1_000_000 + " 42 " + "y" * 1_000_000 + " 17"
    facts = facts_of(text)
    assert facts.numbers == ("17",)
    assert facts.words[0] == "begin"
    assert facts.unread != facts_of(text.replace("42", "43")).unread
    assert facts_of("z" * READ_CHARACTERS).unread == b""


def test_a_text_that_grows_in_its_normal_form_is_cut_again() -> None:
    # This ligature is of 18 characters.
    facts = facts_of("begin " + "\ufdfa " * (READ_CHARACTERS // 2 - 10) + "end")
    assert sum(map(len, facts.words)) <= READ_CHARACTERS + 1
    assert (facts.words[0], facts.words[-1]) == ("begin", "end")
    assert facts.unread != b""


@given(st.lists(st.text("aeéö漢.,' 1", min_size=1, max_size=40), min_size=10, max_size=60))
def test_a_long_text_is_read_alike_in_all_its_normal_forms(words: list[str]) -> None:
    text = " ".join(words)
    composed, apart = facts_of(normalize("NFC", text)), facts_of(normalize("NFD", text))
    for name in ("words", "negations", "numbers", "quotes", "identifiers", "symbols", "unread"):
        assert getattr(composed, name) == getattr(apart, name), name


@pytest.mark.parametrize("opening", "“„«「")
def test_quotation_marks_that_are_never_closed_take_no_longer_than_words(opening: str) -> None:
    def seconds(text: str) -> float:
        start = time.perf_counter()
        facts_of(text)
        return time.perf_counter() - start

    marks, words = opening * READ_CHARACTERS, "word " * (READ_CHARACTERS // 5)
    # Half as long; it was 5 times as long.
    assert min(map(seconds, [marks] * 5)) < 2 * min(map(seconds, [words] * 5))


def test_a_long_run_of_marks_takes_no_time_by_the_square() -> None:
    def seconds(text: str) -> float:
        start = time.perf_counter()
        facts_of(text)
        return time.perf_counter() - start

    half = READ_CHARACTERS // 2 - 1
    marks, words = "a" + "\u0301" * half + "\u0316" * half, "word " * (READ_CHARACTERS // 5)
    # 4 times; it was 150 times.
    assert min(map(seconds, [marks] * 5)) < 40 * min(map(seconds, [words] * 5))


@pytest.mark.parametrize("piece", ["a ", "1.", "'", "A", '"', "$-", "a_b ", "to A ", "§", "x" * 50])
def test_no_megabyte_takes_long(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    start = time.perf_counter()
    facts_of(text)
    # It takes 10 ms at most; a text that took time by the square would take minutes.
    assert time.perf_counter() - start < 2
