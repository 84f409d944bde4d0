"""Streams for the reader's tests: written, cut, spoilt, and read plainly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from hypothesis import strategies as st

from pyrope.errors import ProtocolError
from pyrope.resp.framer import Command, Framer
from pyrope.resp.inline import split_inline
from pyrope.resp.limits import ReaderLimits
from pyrope.resp.reader import CommandReader

Outcome = tuple[list[Command], str | None]
"""The commands that a stream held, and the protocol error that ended it, where one did."""

SMALL_LIMITS = ReaderLimits(
    max_args=12, max_arg_bytes=40, max_command_bytes=150, max_inline_bytes=64
)
"""So low that generated streams break each of them."""


class Feedable(Protocol):
    @property
    def stalled(self) -> bool: ...

    def feed(self, data: bytes) -> list[Command]: ...


def encode_command(args: Sequence[bytes]) -> bytes:
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in args)


def encode_commands(commands: Iterable[Sequence[bytes]]) -> bytes:
    return b"".join(map(encode_command, commands))


def cut(stream: bytes, places: Iterable[int]) -> Iterator[bytes]:
    start = 0
    for place in sorted(place % (len(stream) + 1) for place in places):
        yield stream[start:place]
        start = place
    yield stream[start:]


def drain(reader: Feedable, chunks: Iterable[bytes]) -> Outcome:
    """Feed all chunks as a server does, until an error."""
    commands: list[Command] = []
    try:
        for chunk in chunks:
            commands += reader.feed(chunk)
            while reader.stalled:
                commands += reader.feed(b"")
    except ProtocolError as error:
        return commands, str(error)
    return commands, None


def read_all(chunks: Iterable[bytes], limits: ReaderLimits) -> Outcome:
    return drain(CommandReader(limits), chunks)


def frame_all(chunks: Iterable[bytes], limits: ReaderLimits) -> Outcome:
    return drain(Framer(limits), chunks)


def read_plainly(stream: bytes, limits: ReaderLimits) -> Outcome:
    """The oracle: the rules written down once more, for a stream that is there as a whole."""
    plain = _PlainReader(stream, limits)
    commands: list[Command] = []
    try:
        while plain.place < len(stream):
            if command := plain.command():
                commands.append(command)
    except ProtocolError as error:
        return commands, f"Protocol error: {error}"
    except _EndOfStreamError:
        pass
    return commands, None


class _EndOfStreamError(Exception):
    pass


class _PlainReader:
    def __init__(self, stream: bytes, limits: ReaderLimits) -> None:
        self.stream = stream
        self.limits = limits
        self.place = 0

    def command(self) -> Command:
        start = self.place
        if self.stream[start] != ord("*"):
            return self.inline()
        complaint = "invalid multibulk length"
        count = self.number("too big mbulk count string", complaint)
        if count > self.limits.max_args:
            raise ProtocolError(complaint)
        return [self.argument(start) for _ in range(count)]

    def inline(self) -> Command:
        line = self.line(b"\n", "too big inline request").removesuffix(b"\r")
        words = split_inline(line)
        if words is None:
            raise ProtocolError("unbalanced quotes in request")
        longest = max(map(len, words), default=0)
        if len(words) > self.limits.max_args or longest > self.limits.max_arg_bytes:
            raise ProtocolError("too big inline request")
        return words

    def argument(self, start: int) -> bytes:
        if self.place < len(self.stream) and self.stream[self.place] != ord("$"):
            raise ProtocolError(f"expected '$', got {_quote(self.stream[self.place])}")
        complaint = "invalid bulk length"
        length = self.number("too big bulk count string", complaint)
        if not 0 <= length <= self.limits.max_arg_bytes:
            raise ProtocolError(complaint)
        end = self.place + length
        if end + 2 - start > self.limits.max_command_bytes:
            raise ProtocolError("too big request")
        if end + 2 > len(self.stream):
            raise _EndOfStreamError
        argument = self.stream[self.place : end]
        self.place = end + 2
        return argument

    def number(self, too_big: str, complaint: str) -> int:
        digits = self.line(b"\r", too_big)[1:]
        if not re.fullmatch(rb"0|-?[1-9][0-9]{0,18}", digits) or abs(int(digits)) >= 2**63:
            raise ProtocolError(complaint)
        return int(digits)

    def line(self, end: bytes, too_big: str) -> bytes:
        text, found, _ = self.stream[self.place :].partition(end)
        if len(text) > self.limits.max_inline_bytes:
            raise ProtocolError(too_big)
        self.place += len(text) + (2 if end == b"\r" else 1)
        if not found or self.place > len(self.stream):
            raise _EndOfStreamError
        return text


def _quote(byte: int) -> str:
    character = chr(byte)
    shown = character if character.isascii() and character.isprintable() else f"\\x{byte:02x}"
    return f"'{shown}'"


# Arguments that look like protocol, beside ordinary ones and blobs.
_TRICKY = st.sampled_from(
    [b"", b"\r\n", b"\r", b"$4\r\nPING\r\n", b"*1000000000\r\n", b"\r\n%9\r\n", b"*1", b"\x00\xff"]
)
args = st.one_of(st.binary(max_size=20), _TRICKY, st.binary(min_size=90, max_size=130))
commands = st.lists(st.lists(args, min_size=1, max_size=12), max_size=6)
places = st.lists(st.integers(0, 2000), max_size=12)

_FRAGMENTS = st.sampled_from(
    [
        *(b"*%d\r\n" % n for n in (-1, 0, 1, 2, 3, 9, 10, 11, 13, 99, 1_000_000_000)),
        *(b"$%d\r\n" % n for n in (-1, 0, 1, 2, 9, 10, 39, 40, 41, 100, 1_000_000_000)),
        b"*",
        b"$",
        b"*1\r\n$4\r\nPING\r\n",
        b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"PING\r\n",
        b"SET \"a\\x41\\n\" 'b'\r\n",
        b'"unbalanced\n',
        b"it's\n",
        b"*01\r\n",
        b"*+1\r\n",
        b"*1_0\r\n",
        b"* 1\r\n",
        b"*99999999999999999999\r\n",
        b"*-9999999999999999999\r\n",
        b"%1\r\n",
        b"~1\r\n",
        b">1\r\n",
        b"|1\r\n",
        b":1\r\n",
        b"+OK\r\n",
        b"_\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b" \t\n",
        b"\x00",
        b"a" * 63,
        b"1" * 70,
        b" " * 70,
    ]
)
noise = st.lists(st.one_of(_FRAGMENTS, st.binary(max_size=6)), max_size=12).map(b"".join)


@st.composite
def spoilt_streams(draw: st.DrawFn) -> bytes:
    """A valid stream with a few bytes replaced, left out or put in."""
    stream = bytearray(encode_commands(draw(commands)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(stream)))
        stream[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(stream)
