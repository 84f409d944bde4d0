from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pyrope.embed import wordllama, words
from pyrope.embed.words import Words


@cache
def tokenizer() -> Any:
    async def run(function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    embedder = wordllama.WordLlamaEmbedder(run)
    asyncio.run(embedder.start())
    return embedder._tokenizer


def expected(text: str) -> list[int]:
    ids: list[int] = tokenizer().encode(text, add_special_tokens=False).ids
    return ids


# What could be taken apart wrongly: spaces, marks of spaces, special tokens, bytes, numbers.
_PIECES = st.sampled_from(
    (" ", " ", " ", "  ", "a", "the", "ing", "\n", "\t", "\r\n", "<s>", "</s>", "<unk>", "<", ">")
)
_ODD = st.sampled_from(
    ("\u2581", "\u00e9", "\U0001f600", "0", "42", "3.14", "-", "'", '"', ".", "\x00", "A", "ZZ")
)


@given(st.lists(st.one_of(_PIECES, _ODD, st.text(max_size=3)), max_size=30).map("".join))
def test_tokens_are_those_that_the_tokenizer_finds_in_the_whole_text(text: str) -> None:
    found = Words(tokenizer())
    assert found.encode(text) == expected(text)
    # From what was kept, too.
    assert found.encode(text) == expected(text)


def test_no_token_goes_across_a_space() -> None:
    mark = "\u2581"
    for token in tokenizer().get_vocab():
        assert mark not in token.lstrip(mark)


def test_only_so_many_words_are_kept_and_no_long_ones() -> None:
    found = Words(tokenizer())
    found.encode("x" * 100)
    assert len(found) == 0
    most = 0
    for number in range(words._KEPT + 1000):
        found.encode(str(number))
        most = max(most, len(found))
    assert most == words._KEPT
    assert found.encode("1 2 3") == expected("1 2 3")
