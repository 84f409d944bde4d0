"""Attributes as clients send them: one JSON object per vector, checked when it is written."""

from __future__ import annotations

import json
import re
from typing import TypeAlias

from pyrope.errors import CommandError

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

MAX_DEPTH = 64
"""Arrays and objects inside one another. The parser of the standard library recurses, and gives up
at a depth that depends on its caller; a fixed limit far below that depends on nothing. Filters look
one level deep, so the number itself is a guess at what no honest document reaches."""

_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_OPENING = (b"[", b"{")
_CLOSING = (b"]", b"}")


def parse_attributes(raw: bytes, max_depth: int = MAX_DEPTH) -> dict[str, JsonValue]:
    """Read one JSON object (RFC 8259, strictly: no NaN, no Infinity, no lone surrogates).

    Numbers become floats, for that is how filters see them; one beyond a double's range becomes an
    infinity. Of a name that occurs twice the first value counts, as in Redis.

    Raises:
        CommandError: `raw` is not UTF-8, not JSON, not an object, or nests deeper than
            `max_depth`.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CommandError(f"attributes are not valid UTF-8 at byte {error.start}") from None
    # Brackets in strings count here too: an upper bound that spares most the closer look.
    if raw.count(b"[") + raw.count(b"{") > max_depth and _nests_deeper(raw, max_depth):
        raise CommandError(f"attributes nest deeper than {max_depth} levels")
    try:
        value = _DECODER.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise CommandError(f"attributes are not valid JSON: {error}") from None
    except UnicodeEncodeError:
        raise CommandError("attributes are not valid JSON: lone surrogate in a string") from None
    if not isinstance(value, dict):
        raise CommandError('attributes must be a JSON object, such as {"year": 1984}')
    return value


def _nests_deeper(raw: bytes, limit: int) -> bool:
    """Whether arrays and objects nest beyond the limit, by a scan that itself does not recurse."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(raw):
        token = match[0]
        if token in _OPENING:
            depth += 1
            if depth > limit:
                return True
        elif token in _CLOSING:
            depth -= 1
    return False


def _refuse_constant(name: str) -> JsonValue:
    raise CommandError(f"attributes are not valid JSON: {name} is not a JSON number")


def _first_of_each(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    members = dict(pairs)
    if len(members) != len(pairs):
        members = dict(reversed(pairs))
    return members


_DECODER = json.JSONDecoder(
    object_pairs_hook=_first_of_each,
    # An int of thousands of digits takes quadratic time to read; a float does not.
    parse_int=float,
    parse_constant=_refuse_constant,
)
