"""Reply values to bytes, in RESP2 or RESP3.

========================  ==========================  =============================
value                     RESP2                       RESP3
========================  ==========================  =============================
``int``                   ``:1``                      ``:1``
``bytes``, ``str``        bulk string                 bulk string
``None``                  ``$-1``                     ``_``
``bool``                  ``:1`` or ``:0``            ``#t`` or ``#f``
``float``                 bulk string                 ``,0.5``
``list``, ``tuple``       array                       array
``dict``                  flat array                  map
``SetReply``              array                       set
``Verbatim``              bulk string                 ``=7`` ``txt:...``
``SimpleString``          ``+OK``                     ``+OK``
``NullArray``             ``*-1``                     ``_``
``ErrorReply``, errors    ``-ERR ...``                ``-ERR ...``
``Raw``                   as it is                    as it is
========================  ==========================  =============================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pyrope.errors import ProtocolError, PyropeError
from pyrope.resp.values import (
    ErrorReply,
    NullArray,
    Raw,
    SetReply,
    SimpleString,
    Verbatim,
)

MAX_ERROR_BYTES = 1024
"""Longest error line without its CRLF. Ours are sentences; what is longer quotes a client."""

ENCODED_OK = b"+OK\r\n"
ENCODED_PONG = b"+PONG\r\n"
ENCODED_EMPTY_ARRAY = b"*0\r\n"
ENCODED_NULL = {2: b"$-1\r\n", 3: b"_\r\n"}
ENCODED_NULL_ARRAY = {2: b"*-1\r\n", 3: b"_\r\n"}

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_SMALL_INTS = tuple(b":%d\r\n" % number for number in range(1024))
# By the length of a text that already ends in CRLF: a score takes 15 bytes at most.
_SCORE_HEADERS = tuple(b"$%d\r\n" % (length - 2) for length in range(34))
_CRLF_TO_BLANKS = str.maketrans("\r\n", "  ")


def encode(value: object, protocol: int) -> bytes:
    """Return ``value`` as ``protocol`` (2 or 3) writes it; see the table above.

    Raises:
        TypeError: a value, or an element of it, is of none of these types.
        OverflowError: an integer does not fit in 64 bits.
    """
    if type(value) is Raw or type(value) is SimpleString:
        return value.encoded
    out: list[bytes] = []
    encode_into(out, value, protocol)
    return out[0] if len(out) == 1 else b"".join(out)


def encode_into(out: list[bytes], value: object, protocol: int) -> None:
    """Append what ``encode`` returns to ``out``, in pieces. On an error ``out`` may have some."""
    encoder = _ENCODERS.get(type(value)) or _encoder_of_base(value)
    encoder(out, value, protocol)


def encode_bulk(data: bytes) -> bytes:
    """Return the bulk string of ``data``."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def decode_bulk(encoded: bytes) -> bytes:
    """What `encode_bulk` made a bulk string of."""
    return encoded[encoded.index(b"\n") + 1 : -2]


def encode_error(prefix: str, message: str) -> bytes:
    """Return the error line; CR and LF become blanks, and a long message ends in ``...``."""
    # Cut first: a message may quote megabytes of a client's.
    text = f"{prefix} {message[:MAX_ERROR_BYTES]}".translate(_CRLF_TO_BLANKS)
    line = text.encode("utf-8", "backslashreplace")
    if len(line) > MAX_ERROR_BYTES:
        # "ignore" drops the character that the cut went through.
        line = line[: MAX_ERROR_BYTES - 3].decode("utf-8", "ignore").encode() + b"..."
    return b"-%b\r\n" % line


def encode_scores(scores: Sequence[float], protocol: int) -> list[bytes]:
    """Return each of the float32 ``scores`` encoded: bulk strings in RESP2, doubles in RESP3.

    Nine significant digits tell any two float32 values apart (IEEE 754-2019, 5.12.2), and
    ``%.9g`` drops trailing zeros: 1 and 0.5 stay short.
    """
    if protocol == 3:
        return (b",%.9g\r\n" * len(scores) % tuple(scores)).splitlines(keepends=True)
    texts = (b"%.9g\r\n" * len(scores) % tuple(scores)).splitlines(keepends=True)
    headers = _SCORE_HEADERS
    return [headers[len(text)] + text for text in texts]


def format_double(number: float) -> bytes:
    """Return the shortest text that reads back as ``number``: ``1``, ``0.1``, ``inf``, ``nan``."""
    return repr(float(number)).removesuffix(".0").encode()


def _encode_int(out: list[bytes], value: int, protocol: int) -> None:
    if 0 <= value < len(_SMALL_INTS):
        out.append(_SMALL_INTS[value])
    elif _INT64_MIN <= value <= _INT64_MAX:
        out.append(b":%d\r\n" % value)
    else:
        raise OverflowError("an integer reply does not fit in 64 bits")


def _encode_bytes(out: list[bytes], value: bytes, protocol: int) -> None:
    out.append(b"$%d\r\n%b\r\n" % (len(value), value))


def _encode_str(out: list[bytes], value: str, protocol: int) -> None:
    out.append(encode_bulk(value.encode("utf-8", "surrogateescape")))


def _encode_none(out: list[bytes], value: None, protocol: int) -> None:
    out.append(ENCODED_NULL[protocol])


def _encode_bool(out: list[bytes], value: bool, protocol: int) -> None:  # noqa: FBT001 - a value
    if protocol == 3:
        out.append(b"#t\r\n" if value else b"#f\r\n")
    else:
        out.append(_SMALL_INTS[value])


def _encode_float(out: list[bytes], value: float, protocol: int) -> None:
    text = format_double(value)
    out.append(b",%b\r\n" % text if protocol == 3 else encode_bulk(text))


def _encode_sequence(out: list[bytes], value: Sequence[object], protocol: int) -> None:
    out.append(b"*%d\r\n" % len(value))
    for element in value:
        encoder = _ENCODERS.get(type(element)) or _encoder_of_base(element)
        encoder(out, element, protocol)


def _encode_mapping(out: list[bytes], value: Mapping[object, object], protocol: int) -> None:
    out.append(b"%%%d\r\n" % len(value) if protocol == 3 else b"*%d\r\n" % (2 * len(value)))
    for key, element in value.items():
        encode_into(out, key, protocol)
        encode_into(out, element, protocol)


def _encode_set(out: list[bytes], value: SetReply, protocol: int) -> None:
    kind = b"~" if protocol == 3 else b"*"
    out.append(b"%b%d\r\n" % (kind, len(value.members)))
    for element in value.members:
        encode_into(out, element, protocol)


def _encode_simple(out: list[bytes], value: SimpleString, protocol: int) -> None:
    out.append(value.encoded)


def _encode_null_array(out: list[bytes], value: NullArray, protocol: int) -> None:
    out.append(ENCODED_NULL_ARRAY[protocol])


def _encode_verbatim(out: list[bytes], value: Verbatim, protocol: int) -> None:
    text = value.text.encode("utf-8", "surrogateescape")
    if protocol == 3:
        out.append(b"=%d\r\ntxt:%b\r\n" % (len(text) + 4, text))
    else:
        out.append(encode_bulk(text))


def _encode_raw(out: list[bytes], value: Raw, protocol: int) -> None:
    out.append(value.encoded)


def _encode_error_reply(out: list[bytes], value: ErrorReply, protocol: int) -> None:
    out.append(encode_error(value.prefix, value.message))


def _encode_pyrope_error(out: list[bytes], value: PyropeError, protocol: int) -> None:
    out.append(encode_error(value.prefix, value.message))


def _encode_protocol_error(out: list[bytes], value: ProtocolError, protocol: int) -> None:
    out.append(encode_error("ERR", str(value)))


_ENCODERS: dict[type, Callable[..., None]] = {
    bytes: _encode_bytes,
    int: _encode_int,
    bool: _encode_bool,
    type(None): _encode_none,
    str: _encode_str,
    float: _encode_float,
    list: _encode_sequence,
    tuple: _encode_sequence,
    dict: _encode_mapping,
    SimpleString: _encode_simple,
    NullArray: _encode_null_array,
    SetReply: _encode_set,
    Verbatim: _encode_verbatim,
    Raw: _encode_raw,
    ErrorReply: _encode_error_reply,
    PyropeError: _encode_pyrope_error,
    ProtocolError: _encode_protocol_error,
}


def _encoder_of_base(value: object) -> Callable[..., None]:
    """Find the encoder of a subclass: an enumeration's member, a named tuple, a kind of error."""
    for base in type(value).__mro__:
        encoder = _ENCODERS.get(base)
        if encoder is not None:
            return encoder
    raise TypeError(f"no reply can hold a {type(value).__name__}")
