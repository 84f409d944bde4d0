"""Scopes: the hard partitions of what is remembered.

A scope is a set of fields with values, in no order. Its canonical form is one string of bytes, by
which scopes are compared: the fields in ascending order, each with its length and its value's
before it, so that no two scopes share a form.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

_LENGTHS = struct.Struct("<HI")

EVERYBODY = b""
"""The scope without fields. Nothing that is remembered in another one is found in it."""


def encode_scope(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The canonical form of a scope.

    Args:
        pairs: fields, each once and at most 65,535 bytes, with their values.
    """
    parts: list[bytes] = []
    for field, value in sorted(pairs):
        parts += (_LENGTHS.pack(len(field), len(value)), field, value)
    return b"".join(parts)


def decode_scope(scope: bytes) -> Sequence[tuple[bytes, bytes]]:
    """Fields with their values, by ascending field."""
    pairs = []
    position = 0
    while position < len(scope):
        field_length, value_length = _LENGTHS.unpack_from(scope, position)
        position += _LENGTHS.size
        field = scope[position : position + field_length]
        position += field_length
        pairs.append((field, scope[position : position + value_length]))
        position += value_length
    return pairs


def includes(scope: bytes, pairs: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a scope has all of these fields, with these values."""
    return set(pairs) <= set(decode_scope(scope))
