from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.embed.texts import check_text
from pyrope.errors import CommandError


@given(st.text(min_size=1).filter(lambda text: not text.isspace()))
def test_a_text_is_let_through_as_it_is(text: str) -> None:
    raw = text.encode()
    assert check_text(raw, len(raw)) == text


@given(st.binary(max_size=40), st.integers(0, 30))
def test_bytes_are_a_text_or_an_error_and_nothing_else(raw: bytes, most: int) -> None:
    try:
        text = check_text(raw, most)
    except CommandError:
        return
    assert text.encode() == raw
    assert len(raw) <= most


@pytest.mark.parametrize("raw", [b"", b" ", b"\t\n", "\u3000".encode()])
def test_a_blank_text_is_none(raw: bytes) -> None:
    with pytest.raises(CommandError, match="white space"):
        check_text(raw, 100)


def test_a_text_has_a_limit() -> None:
    assert check_text(b"abc", 3) == "abc"
    with pytest.raises(CommandError, match="it has 4 bytes, at most 3 are"):
        check_text(b"abcd", 3)
