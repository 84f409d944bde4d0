"""Replies of RESP2, and the bytes of commands. No sockets."""

from __future__ import annotations

from typing import TypeAlias

Reply: TypeAlias = "bytes | int | list[Reply] | ReplyError | None"
"""A simple string is bytes, as a bulk string is."""

_MAX_DEPTH = 32
"""Arrays within arrays: a server's replies have three levels."""


class ReplyError(Exception):
    """The server has answered an error: prefix and sentence."""


class BrokenReplyError(Exception):
    """What came is no reply of RESP2."""


def encode_command(*args: bytes | str | int) -> bytes:
    """The bytes of a command."""
    raw = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in raw)


class ReplyReader:
    """Bytes in, replies out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        self._buffer += data

    def take(self) -> tuple[Reply] | None:
        """The next reply that is whole, in a tuple, as it may be None itself; None: there is none.

        Raises:
            BrokenReplyError: there never will be.
        """
        found = _parse(self._buffer, 0, 0)
        if found is None:
            return None
        reply, end = found
        del self._buffer[:end]
        return (reply,)


def _parse(data: bytearray, start: int, depth: int) -> tuple[Reply, int] | None:
    """The reply that begins at `start`, and its end; None: it is not all there."""
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        return None
    kind, line, end = chr(data[start]), bytes(data[start + 1 : line_end]), line_end + 2
    if kind == "+":
        return line, end
    if kind == "-":
        return ReplyError(line.decode(errors="replace")), end
    if kind not in ":$*":
        raise BrokenReplyError(f"a reply of RESP2 does not begin with {kind!r}")
    try:
        number = int(line)
    except ValueError:
        raise BrokenReplyError(f"{line[:64]!r} is no number") from None
    if kind == ":":
        return number, end
    return (None, end) if number < 0 else _parse_long(data, end, kind, number, depth)


def _parse_long(
    data: bytearray, start: int, kind: str, number: int, depth: int
) -> tuple[Reply, int] | None:
    """The rest of a bulk string of so many bytes, or of an array of so many replies."""
    if kind == "$":
        stop = start + number
        return (bytes(data[start:stop]), stop + 2) if len(data) >= stop + 2 else None
    if depth == _MAX_DEPTH:
        raise BrokenReplyError("the reply is nested too deep")
    items: list[Reply] = []
    end = start
    for _ in range(number):
        found = _parse(data, end, depth + 1)
        if found is None:
            return None
        items.append(found[0])
        end = found[1]
    return items, end
