"""The writer: what it writes, hiredis reads back as the same value."""

from __future__ import annotations

import enum
import math
from typing import Any

import hiredis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.errors import BusyError, CommandError, ProtocolError
from pyrope.resp import writer
from pyrope.resp.values import (
    NULL_ARRAY,
    OK,
    PONG,
    ErrorReply,
    Raw,
    SetReply,
    SimpleString,
    Verbatim,
)
from pyrope.resp.writer import encode, encode_bulk, encode_into, encode_scores

BOTH = pytest.mark.parametrize("protocol", [2, 3])


def read_back(encoded: bytes) -> Any:
    """The one value that ``encoded`` holds, according to hiredis."""
    reader = hiredis.Reader()
    reader.feed(encoded)
    value = reader.gets()
    assert not reader.has_data()
    return value


@pytest.mark.parametrize(
    ("value", "resp2", "resp3"),
    [
        (0, b":0\r\n", b":0\r\n"),
        (-1, b":-1\r\n", b":-1\r\n"),
        (1023, b":1023\r\n", b":1023\r\n"),
        (1024, b":1024\r\n", b":1024\r\n"),
        (2**63 - 1, b":9223372036854775807\r\n", b":9223372036854775807\r\n"),
        (-(2**63), b":-9223372036854775808\r\n", b":-9223372036854775808\r\n"),
        (b"", b"$0\r\n\r\n", b"$0\r\n\r\n"),
        (b"a\r\n", b"$3\r\na\r\n\r\n", b"$3\r\na\r\n\r\n"),
        ("é", b"$2\r\n\xc3\xa9\r\n", b"$2\r\n\xc3\xa9\r\n"),
        (None, b"$-1\r\n", b"_\r\n"),
        (True, b":1\r\n", b"#t\r\n"),
        (False, b":0\r\n", b"#f\r\n"),
        (1.0, b"$1\r\n1\r\n", b",1\r\n"),
        (-0.5, b"$4\r\n-0.5\r\n", b",-0.5\r\n"),
        (0.1, b"$3\r\n0.1\r\n", b",0.1\r\n"),
        (math.inf, b"$3\r\ninf\r\n", b",inf\r\n"),
        (-math.inf, b"$4\r\n-inf\r\n", b",-inf\r\n"),
        (math.nan, b"$3\r\nnan\r\n", b",nan\r\n"),
        ([], b"*0\r\n", b"*0\r\n"),
        ((1, b"a"), b"*2\r\n:1\r\n$1\r\na\r\n", b"*2\r\n:1\r\n$1\r\na\r\n"),
        ({}, b"*0\r\n", b"%0\r\n"),
        ({"a": 1.5}, b"*2\r\n$1\r\na\r\n$3\r\n1.5\r\n", b"%1\r\n$1\r\na\r\n,1.5\r\n"),
        (SetReply((1, 2)), b"*2\r\n:1\r\n:2\r\n", b"~2\r\n:1\r\n:2\r\n"),
        (Verbatim("hé"), b"$3\r\nh\xc3\xa9\r\n", b"=7\r\ntxt:h\xc3\xa9\r\n"),
        (OK, b"+OK\r\n", b"+OK\r\n"),
        (PONG, b"+PONG\r\n", b"+PONG\r\n"),
        (NULL_ARRAY, b"*-1\r\n", b"_\r\n"),
        (Raw(b":7\r\n"), b":7\r\n", b":7\r\n"),
        (ErrorReply("ERR", "no"), b"-ERR no\r\n", b"-ERR no\r\n"),
        (BusyError("timeout"), b"-BUSY timeout\r\n", b"-BUSY timeout\r\n"),
        (
            ProtocolError("Protocol error: invalid bulk length"),
            b"-ERR Protocol error: invalid bulk length\r\n",
            b"-ERR Protocol error: invalid bulk length\r\n",
        ),
    ],
)
def test_each_kind_of_value_is_written_as_its_protocol_says(
    value: object, resp2: bytes, resp3: bytes
) -> None:
    assert encode(value, 2) == resp2
    assert encode(value, 3) == resp3


def test_constants_are_what_encoding_gives() -> None:
    assert encode(OK, 2) == writer.ENCODED_OK
    assert encode(PONG, 2) == writer.ENCODED_PONG
    assert encode([], 2) == encode([], 3) == writer.ENCODED_EMPTY_ARRAY
    for protocol in (2, 3):
        assert encode(None, protocol) == writer.ENCODED_NULL[protocol]
        assert encode(NULL_ARRAY, protocol) == writer.ENCODED_NULL_ARRAY[protocol]


_KEYS = st.one_of(st.binary(max_size=8), st.integers(-(2**63), 2**63 - 1))
_LEAVES = st.one_of(
    _KEYS, st.none(), st.booleans(), st.floats(allow_nan=False), st.text(max_size=8)
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(_KEYS, inner, max_size=4),
    ),
    max_leaves=20,
)


def as_resp2(value: object) -> object:
    match value:
        case bool():
            return int(value)
        case float():
            return repr(value).removesuffix(".0").encode()
        case dict():
            return [as_resp2(part) for item in value.items() for part in item]
        case list() | tuple():
            return [as_resp2(element) for element in value]
        case str():
            return value.encode()
    return value


def as_resp3(value: object) -> object:
    match value:
        case dict():
            return {key: as_resp3(element) for key, element in value.items()}
        case list() | tuple():
            return [as_resp3(element) for element in value]
        case str():
            return value.encode()
    return value


@given(_VALUES)
def test_what_is_written_reads_back_as_the_same_value(value: object) -> None:
    assert read_back(encode(value, 2)) == as_resp2(value)
    assert read_back(encode(value, 3)) == as_resp3(value)


@given(_VALUES)
def test_pieces_join_to_what_encode_returns(value: object) -> None:
    for protocol in (2, 3):
        out = [b"before"]
        encode_into(out, value, protocol)
        assert b"".join(out) == b"before" + encode(value, protocol)


@given(st.floats(allow_nan=False))
def test_a_double_reads_back_exactly(number: float) -> None:
    assert float(read_back(encode(number, 2))) == number
    back = read_back(encode(number, 3))
    assert back == number
    assert math.copysign(1, back) == math.copysign(1, number)


@BOTH
@given(st.lists(st.floats(width=32, allow_nan=False)))
def test_float32_scores_read_back_exactly(protocol: int, scores: list[float]) -> None:
    encoded = encode_scores(scores, protocol)
    assert len(encoded) == len(scores)
    back = np.array([float(read_back(text)) for text in encoded], dtype=np.float32)
    assert np.array_equal(back, np.array(scores, dtype=np.float32))


@BOTH
def test_neighbouring_float32_scores_stay_apart(protocol: int) -> None:
    # Between 1000 and 1024 float32 values lie 6e-5 apart: eight digits would merge some.
    first = int(np.float32(1000).view(np.uint32))
    scores = np.arange(first, first + 2000, dtype=np.uint32).view(np.float32)
    back = [float(read_back(text)) for text in encode_scores(scores.tolist(), protocol)]
    assert np.array_equal(np.array(back, dtype=np.float32), scores)


def test_scores_are_short_where_their_numbers_are() -> None:
    assert encode_scores([1.0, 0.5, -0.25, math.inf], 3) == [
        b",1\r\n",
        b",0.5\r\n",
        b",-0.25\r\n",
        b",inf\r\n",
    ]
    assert encode_scores([1.0, 0.5], 2) == [b"$1\r\n1\r\n", b"$3\r\n0.5\r\n"]
    assert encode_scores([], 2) == []


@BOTH
def test_scores_are_whole_elements_of_an_array(protocol: int) -> None:
    scores = [-1.17549435e-38, 3.4028235e38, 0.1, math.nan, 1.0]
    array = b"*%d\r\n" % len(scores) + b"".join(encode_scores(scores, protocol))
    assert [math.isnan(float(element)) for element in read_back(array)] == [
        False,
        False,
        False,
        True,
        False,
    ]


@given(st.text())
def test_an_error_is_one_line_whatever_its_message_holds(message: str) -> None:
    encoded = encode(CommandError(message), 2)
    assert encoded.startswith(b"-ERR ")
    assert encoded.endswith(b"\r\n")
    assert not {ord("\r"), ord("\n")} & set(encoded[:-2])
    assert len(encoded) <= writer.MAX_ERROR_BYTES + 3
    assert isinstance(read_back(encoded), hiredis.ReplyError)


def test_a_message_of_the_clients_line_ends_becomes_blanks() -> None:
    assert encode(ErrorReply("ERR", "unknown command 'a\r\nb'"), 2) == (
        b"-ERR unknown command 'a  b'\r\n"
    )


def test_a_lone_surrogate_in_a_message_is_escaped() -> None:
    assert encode(ErrorReply("ERR", "\udcff"), 2) == b"-ERR \\udcff\r\n"


def test_a_long_message_is_cut_between_characters() -> None:
    encoded = encode(ErrorReply("ERR", "é" * 5000), 2)
    assert encoded.endswith("é...\r\n".encode())
    assert writer.MAX_ERROR_BYTES - 1 <= len(encoded) - 3 <= writer.MAX_ERROR_BYTES


class _Role(enum.StrEnum):
    MASTER = "master"


class _Level(enum.IntEnum):
    THREE = 3


def test_members_of_enumerations_are_written_as_their_values() -> None:
    assert encode(_Role.MASTER, 2) == b"$6\r\nmaster\r\n"
    assert encode(_Level.THREE, 2) == b":3\r\n"


@BOTH
@pytest.mark.parametrize("value", [object(), {1, 2}, bytearray(b"a"), [1, [object()]]])
def test_a_value_without_a_reply_is_an_error_of_ours(value: object, protocol: int) -> None:
    with pytest.raises(TypeError, match="no reply can hold"):
        encode(value, protocol)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_an_integer_beyond_64_bits_is_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        encode(number, 2)


@pytest.mark.parametrize("text", ["a\r", "a\nb"])
def test_a_simple_string_cannot_span_lines(text: str) -> None:
    with pytest.raises(ValueError, match="CR or LF"):
        SimpleString(text)


@given(st.binary())
def test_a_bulk_string_reads_back(data: bytes) -> None:
    assert read_back(encode_bulk(data)) == data


def test_surrogate_escapes_in_text_are_written_as_the_bytes_they_stand_for() -> None:
    assert encode(b"\xff".decode("utf-8", "surrogateescape"), 2) == b"$1\r\n\xff\r\n"
