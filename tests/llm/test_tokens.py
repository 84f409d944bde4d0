"""Counting tokens, offline and in bounded time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.llm.adapter import T
from pyrope.llm.tokens import (
    ENCODING,
    MOST_TOKENISED,
    ByteCounter,
    TokenCounter,
    load_token_counter,
)


async def at_once(function: Callable[[], T]) -> T:
    return function()


@pytest.fixture(scope="module")
def counter() -> TokenCounter:
    import asyncio  # noqa: PLC0415 - the fixture lives longer than any test's loop

    return asyncio.run(load_token_counter(at_once))


def test_the_vocabulary_is_the_one_that_comes_with_a_package(counter: TokenCounter) -> None:
    assert (counter.name, counter.is_estimate) == (ENCODING, False)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("hello world", 2),
        ("antidisestablishmentarianism", 6),
        ("お誕生日おめでとう", 9),
        ("2 + 2 = 4", 7),
    ],
)
def test_counts_are_those_of_cl100k_base(counter: TokenCounter, text: str, tokens: int) -> None:
    # As in the examples of OpenAI's cookbook, "How to count tokens with tiktoken".
    assert counter.count(text) == tokens


def test_what_looks_like_a_special_token_is_text(counter: TokenCounter) -> None:
    assert counter.count("<|endoftext|>") > 1


@given(text=st.text(alphabet=st.characters(exclude_categories=()), max_size=300))
def test_the_estimate_is_never_below_the_count(counter: TokenCounter, text: str) -> None:
    assert 0 <= counter.count(text) <= ByteCounter().count(text)


@pytest.mark.parametrize(
    "unit", ["a", " ", "\n", "^", "0", "中", "\U0001f469\u200d", "\ud800", "e\u0301", "ab", " x"]
)
def test_hostile_texts_take_bounded_time(counter: TokenCounter, unit: str) -> None:
    text = unit * 1_000_000
    began = time.process_time()
    count = counter.count(text)
    assert time.process_time() - began < 0.5  # measured: 10 ms, most of it for the bytes
    assert count >= ByteCounter().count(text[MOST_TOKENISED:])


async def test_without_a_vocabulary_bytes_are_counted_and_it_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)  # as if it were not installed
    counter = await load_token_counter(at_once)
    assert (counter.name, counter.is_estimate) == ("utf-8 bytes", True)
    assert counter.count("süß") == 5
