"""One line of a chained log: canonical JSON that says what it is and proves it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import Enum
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.storage.chained_entry import (
    EMPTY,
    MAX_DEPTH,
    MAX_LINE_BYTES,
    AlteredLineError,
    Head,
    JsonValue,
    LogEntry,
    decode_entry,
    encode_entry,
    timestamp,
)

AT = "2024-05-01T00:00:00.000000Z"
NAMES = st.text(max_size=8).filter(lambda name: name not in {"seq", "at", "prev", "hash"})
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
PAYLOADS = st.dictionaries(NAMES, VALUES, max_size=5)


@given(PAYLOADS, st.integers(0, 10**12))
def test_what_was_written_is_read(payload: dict[str, JsonValue], seq: int) -> None:
    before = Head(seq, "ab" * 32)
    line, head = encode_entry(payload, AT, before)
    assert head.seq == seq + 1
    assert decode_entry(line) == LogEntry(seq + 1, AT, payload, "ab" * 32, head.hash)
    assert decode_entry(line[:-1]) == decode_entry(line)


@given(PAYLOADS)
def test_the_line_is_canonical_json_whose_hash_anyone_can_check(payload: dict[str, object]) -> None:
    line, head = encode_entry(payload, AT, EMPTY)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    fields = json.loads(line)
    assert fields.pop("hash") == head.hash
    assert fields == {**payload, "seq": 1, "at": AT, "prev": "0" * 64}
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    assert blake2b(canonical, digest_size=32).hexdigest() == head.hash
    assert line == canonical[:-1] + b',"hash":"' + head.hash.encode() + b'"}\n'


def test_what_a_client_sent_reaches_no_terminal_as_control_characters() -> None:
    line, _ = encode_entry({"name": "a\x1b[2J\x9b\u2028\n\rb"}, AT, EMPTY)
    assert all(32 <= byte < 127 for byte in line[:-1])


@given(st.data())
def test_every_altered_byte_is_noticed(data: st.DataObject) -> None:
    line, _ = encode_entry(data.draw(PAYLOADS), AT, EMPTY)
    position = data.draw(st.integers(0, len(line) - 2))
    altered = bytearray(line)
    altered[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(AlteredLineError, match="has been altered"):
        decode_entry(bytes(altered))
    with pytest.raises(AlteredLineError, match="has been altered"):
        decode_entry(line[:position])


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]}",
        b'{"seq":1,"at":"a"}',
        b'{"at":"a","prev":"b","seq":"1"}',
        b'{"at":"a","prev":"b","seq":true}',
        b'{"at":"a","prev":2,"seq":1}',
        b'{"at":1,"prev":"b","seq":1}',
        b"[" * 100_000 + b"}",
    ],
)
def test_a_line_of_someone_elses_with_a_right_hash_is_no_entry(body: bytes) -> None:
    digest = blake2b(body, digest_size=32).hexdigest().encode()
    with pytest.raises(AlteredLineError, match="it is no entry"):
        decode_entry(body[:-1] + b',"hash":"' + digest + b'"}')


class Colour(Enum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        b"bytes",
        (1, 2),
        {1, 2},
        {1: "a number as a name"},
        {None: 1},
        "\ud800",
        {"\ud800": 1},
        object(),
        Colour.RED,
        datetime(2024, 5, 1, tzinfo=UTC),
        np.int64(1),
        pytest.param(10**5000, id="10**5000"),
    ],
)
def test_what_is_not_json_is_refused(value: object) -> None:
    for payload in ({"field": value}, {"field": [{"deep": value}]}):
        with pytest.raises(ValueError, match=r"JSON|no text|limit"):
            encode_entry(payload, AT, EMPTY)


def test_a_payload_that_contains_itself_is_refused() -> None:
    payload: dict[str, object] = {}
    payload["self"] = payload
    with pytest.raises(ValueError, match=f"at most {MAX_DEPTH} levels"):
        encode_entry(payload, AT, EMPTY)


@pytest.mark.parametrize("name", ["seq", "at", "prev", "hash"])
def test_a_field_that_the_log_itself_has_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"log itself has: {name}"):
        encode_entry({name: 1}, AT, EMPTY)


def test_a_line_has_a_limit() -> None:
    overhead = len(encode_entry({"text": ""}, AT, EMPTY)[0])
    line, _ = encode_entry({"text": "x" * (MAX_LINE_BYTES - overhead)}, AT, EMPTY)
    assert len(line) == MAX_LINE_BYTES
    with pytest.raises(ValueError, match=f"at most {MAX_LINE_BYTES} bytes, not"):
        encode_entry({"text": "x" * (MAX_LINE_BYTES - overhead + 1)}, AT, EMPTY)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1700000000.25, "2023-11-14T22:13:20.250000Z"),
        (1735689599.999999, "2024-12-31T23:59:59.999999Z"),
    ],
)
def test_times_are_utc_to_the_microsecond(seconds: float, text: str) -> None:
    assert timestamp(seconds) == text


@pytest.mark.parametrize("seconds", [1e20, float("nan"), float("inf")])
def test_a_time_without_a_date_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="no time of day"):
        timestamp(seconds)
