"""Keys of queries: texts and vectors, which never meet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.cache.query_key import KeyKind, make_key, text_key, vector_key
from pyrope.errors import CommandError


def test_a_text_is_known_by_its_normal_form_and_kept_as_it_was_given() -> None:
    one, other = text_key("Wie  heißt DU".encode()), text_key(b"wie heisst du")
    assert one.identity == other.identity
    assert one.content == "Wie  heißt DU".encode()
    assert one.kind is KeyKind.TEXT


def test_vectors_are_known_by_their_bytes() -> None:
    assert vector_key(b"12345678") == vector_key(b"12345678")
    assert vector_key(b"12345678").identity != vector_key(b"12345679").identity
    assert vector_key(b"12345678").kind is KeyKind.VECTOR


@given(st.binary(min_size=1, max_size=40).filter(lambda raw: bool(raw.strip())))
def test_a_text_and_a_vector_of_the_same_bytes_are_different_keys(raw: bytes) -> None:
    vector = vector_key(raw)
    for text in (raw, vector.identity):
        try:
            key = text_key(text)
        except CommandError:
            continue
        assert key.identity != vector.identity


@pytest.mark.parametrize("text", [b"", b" \t\n", "\u3000".encode(), b"\xff\xfe", b"\xed\xa0\x80"])
def test_what_is_empty_or_no_utf_8_is_refused(text: bytes) -> None:
    with pytest.raises(CommandError, match="invalid text"):
        text_key(text)


def test_a_key_is_made_again_of_its_kind_and_content() -> None:
    for key in (text_key(b"A text"), vector_key(bytes(16))):
        assert make_key(key.kind, key.content) == key


def test_an_error_names_a_key_by_its_beginning() -> None:
    assert str(text_key(b"x" * 5000)) == f"'{'x' * 100}'"
    assert str(vector_key(bytes(4))) == "the vector given"
