r"""One entry of a chained log as a line of text, and how an altered one is found.

A line is a JSON object in canonical form: fields in the order of their names, no spaces, ASCII
with ``\uXXXX`` for everything else (what clients send must not reach a terminal as control
characters). Besides the payload's own fields it has

    seq   number of the entry, from 1, without gaps
    at    wall time, ISO 8601 in UTC with microseconds
    prev  `hash` of the entry before, 64 hexadecimal digits; zeros in the first
    hash  BLAKE2b (RFC 7693) of 256 bits of the same JSON without this field; it comes last

so that each entry's hash covers all that were before it (linear linking: Haber and Stornetta,
How to Time-Stamp a Digital Document, J. Cryptology 3, 1991, section 5.1). To check one without
Pyrope: take ``,"hash":"…"`` out of the line and hash what is left.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import NamedTuple, TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

MAX_LINE_BYTES = 64 * 2**10
"""Of a line with its end. An administrative act with what was before and after has a few KiB."""

MAX_DEPTH = 16
"""Of lists and objects within one another. It is far from where parsers give up."""

_RESERVED = frozenset({"seq", "at", "prev", "hash"})
_HASH_BYTES = 32
_HASH_FIELD = b',"hash":"%b"}'
_HASH_FIELD_LENGTH = len(_HASH_FIELD % b"") + 2 * _HASH_BYTES
_encode = json.JSONEncoder(
    ensure_ascii=True, allow_nan=False, check_circular=False, sort_keys=True, separators=(",", ":")
).encode


class Head(NamedTuple):
    """Where a log ends: what covers all that is in it.

    Attributes:
        seq: number of the last entry, 0 where there is none.
        hash: of that entry, 64 hexadecimal digits; zeros where there is none.
    """

    seq: int
    hash: str


EMPTY = Head(0, "0" * 2 * _HASH_BYTES)
"""The head of a log without entries."""


class LogEntry(NamedTuple):
    """One entry as it is read.

    Attributes:
        seq, at, prev, hash: as in the line.
        payload: the other fields.
    """

    seq: int
    at: str
    payload: dict[str, JsonValue]
    prev: str
    hash: str


class AlteredLineError(Exception):
    """A line is not one that Pyrope has written."""


def timestamp(seconds: float) -> str:
    """Unix time as ISO 8601 in UTC, to the microsecond: ``2023-11-14T22:13:20.000000Z``.

    Raises:
        ValueError: there is no such date.
    """
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"{seconds} is no time of day: {error}") from error
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def encode_entry(payload: Mapping[str, object], at: str, before: Head) -> tuple[bytes, Head]:
    """The line of the entry after `before`, its end included, and the head that it makes.

    Args:
        payload: fields with any names but `seq`, `at`, `prev` and `hash`.
        at: what `timestamp` answered.

    Raises:
        ValueError: the payload is not JSON, or the line has more than `MAX_LINE_BYTES`.
    """
    if not _RESERVED.isdisjoint(payload):
        taken = ", ".join(sorted(_RESERVED.intersection(payload)))
        raise ValueError(f"a payload cannot have the fields that the log itself has: {taken}")
    fields = {**payload, "seq": before.seq + 1, "at": at, "prev": before.hash}
    _check_json(fields, MAX_DEPTH)
    body = _encode(fields).encode("ascii")
    length = len(body) + _HASH_FIELD_LENGTH
    if length > MAX_LINE_BYTES:
        raise ValueError(f"an entry has at most {MAX_LINE_BYTES} bytes, not {length}")
    digest = blake2b(body, digest_size=_HASH_BYTES).hexdigest()
    line = b"%b%b\n" % (body[:-1], _HASH_FIELD % digest.encode("ascii"))
    return line, Head(before.seq + 1, digest)


def decode_entry(line: bytes) -> LogEntry:
    """The entry of a line with or without its end.

    Raises:
        AlteredLineError: the hash is not that of the line.
    """
    line = line.removesuffix(b"\n")
    body = line[:-_HASH_FIELD_LENGTH] + b"}"
    digest = blake2b(body, digest_size=_HASH_BYTES).hexdigest()
    if line[-_HASH_FIELD_LENGTH:] != _HASH_FIELD % digest.encode("ascii"):
        raise AlteredLineError("the line has been altered: its hash is not that of its content")
    # The hash is no secret, so a line can have a right one and still be none of ours.
    try:
        payload = json.loads(body)
        seq, at, prev = payload.pop("seq"), payload.pop("at"), payload.pop("prev")
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise AlteredLineError("the line has been altered: it is no entry") from error
    if type(seq) is not int or not (isinstance(at, str) and isinstance(prev, str)):
        raise AlteredLineError("the line has been altered: it is no entry")
    return LogEntry(seq, at, payload, prev, digest)


def _check_json(value: object, depth: int) -> None:
    """Raise ValueError for what JSON cannot say, or what would come back as something else."""
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no number of JSON's")
    elif isinstance(value, dict | list):
        if not depth:
            raise ValueError(f"an entry has at most {MAX_DEPTH} levels")
        if isinstance(value, dict):
            for name in value:
                _check_text(name)
            value = list(value.values())
        for item in value:
            _check_json(item, depth - 1)
    elif value is not None and not isinstance(value, int):
        raise ValueError(f"a {type(value).__name__} cannot be written as JSON")


def _check_text(value: object) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no name of a field: it is no text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{value!r} is no text: {error}") from error
