"""What a query is known by: its text, or its vector."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from xxhash import xxh3_128_digest

from pyrope.cache.text_keys import normalised
from pyrope.errors import CommandError


class KeyKind(IntEnum):
    """What a key is made of. The numbers are on disk."""

    TEXT = 1
    VECTOR = 2


_TEXT_MARK, _VECTOR_MARK = b"t", b"v"
_SHOWN_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class QueryKey:
    """A query, and what tells it from others.

    Attributes:
        identity: two keys are the same query if, and only if, these are the same; the kind is in
            it. XXH3-128 of a vector's bytes stands for them, which tells vectors apart that nobody
            has made to collide: whoever may write to an index can do no more with that than they
            may do anyway.
        content: a text as it was given, in UTF-8; a vector's little-endian float32 values.
    """

    identity: bytes
    content: bytes

    @property
    def kind(self) -> KeyKind:
        return KeyKind.TEXT if self.identity.startswith(_TEXT_MARK) else KeyKind.VECTOR

    def __str__(self) -> str:
        """As an error names it."""
        if self.kind is KeyKind.VECTOR:
            return "the vector given"
        text = self.content.decode()
        return f"'{text[:_SHOWN_CHARACTERS]}'"


def text_key(text: bytes) -> QueryKey:
    """The key of a text in UTF-8.

    Raises:
        CommandError: it is no UTF-8, or nothing but white space.
    """
    try:
        identity = normalised(text.decode()).encode()
    except UnicodeDecodeError as error:
        raise CommandError("invalid text: UTF-8 is expected") from error
    if not identity:
        raise CommandError("invalid text: it is empty, or nothing but white space")
    return QueryKey(_TEXT_MARK + identity, text)


def vector_key(blob: bytes) -> QueryKey:
    """The key of a vector as the index has it: little-endian float32."""
    return QueryKey(_VECTOR_MARK + xxh3_128_digest(blob), blob)


def make_key(kind: KeyKind, content: bytes) -> QueryKey:
    """The key of a kind with this content. Raises CommandError as `text_key` does."""
    return text_key(content) if kind is KeyKind.TEXT else vector_key(content)
