r"""The exact parser: bytes in any slices to commands, in time linear in the bytes.

A request is an array of bulk strings (``*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n``) or an inline line.
The rules and the wording of errors are those of Redis 8 (``networking.c``), and so is what nobody
looks at: the byte after the CR of a header, and the two bytes after a bulk string.

Three states, told apart by what is held between two calls:

- *idle*: nothing of a command is held; the next byte starts one.
- *mid-command*: ``_args`` has what is complete of it, ``_missing`` says how many are to come, and
  ``_buffer`` holds the bytes of an incomplete line (``_bulk`` is -1) or of a bulk string whose
  length is known (``_bulk``).
- *stalled*: bytes that break a rule follow commands that are complete. Those are delivered first;
  the next call looks at the bytes again, under the limits then in force, so that a pipelined AUTH
  may lift the limit that its successor breaks.

Why linear: while a bulk string or a line is incomplete, bytes are only appended to ``_buffer``, and
the search for a line's end goes on where it stopped. When it completes, what is behind it came with
the last chunk, and is copied out once. Nothing is reserved for what a client only claims.
"""

from __future__ import annotations

import re

from pyrope.errors import ProtocolError
from pyrope.resp.inline import split_inline
from pyrope.resp.limits import ReaderLimits

Command = list[bytes]
"""A command as it was sent: its name, then its arguments."""

_STAR = ord("*")
_DOLLAR = ord("$")
_PARTIAL = -1
_INT64_MIN = -(2**63)

# The headers of nearly every command. One look-up checks type byte, number and CRLF together.
_COUNTS_BELOW_10 = {b"*%d\r\n" % count: count for count in range(10)}
_COUNTS_BELOW_100 = {b"*%d\r\n" % count: count for count in range(10, 100)}
_LENGTHS_BELOW_10 = {b"$%d\r\n" % length: length for length in range(10)}
_LENGTHS_BELOW_100 = {b"$%d\r\n" % length: length for length in range(10, 100)}

_LENGTH_HEADER = re.compile(rb"\$(0|[1-9][0-9]{0,18})\r.", re.DOTALL)
_NUMBER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
# A flood of empty lines is skipped at the speed of C. Longer lines of blanks take the usual path.
_BLANK_LINES = re.compile(rb"(?:[ \t\r\v\f]{0,64}\n)+")


def _parse_number(digits: bytes) -> int | None:
    """Return the number that a header states, or None where Redis would not read one."""
    if _NUMBER.fullmatch(digits) is None:
        return None
    number = int(digits)
    return number if number >= _INT64_MIN else None


def _printable(byte: int) -> str:
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"


class Framer:
    """Cuts a stream of bytes into commands.

    The state after a call depends on the bytes alone, never on how they were sliced.
    """

    __slots__ = (
        "_args",
        "_buffer",
        "_bulk",
        "_failure",
        "_missing",
        "_scanned",
        "_size",
        "idle",
        "limits",
        "stalled",
    )

    def __init__(self, limits: ReaderLimits) -> None:
        self.limits = limits
        """In force from the next header on; what was accepted before stays accepted."""
        self.idle = True
        """Nothing is held: the next byte starts a command."""
        self.stalled = False
        """Bytes that break a rule are held: the next call judges them (see the module)."""
        self._failure = ""
        self._reset()

    def _reset(self) -> None:
        self._args: Command = []
        self._missing = 0
        self._size = 0  # bytes of the command at hand that left the buffer
        self._buffer = bytearray()
        self._bulk = _PARTIAL
        self._scanned = 0

    @property
    def buffered(self) -> int:
        """Bytes received of a command that is not complete."""
        return self._size + len(self._buffer)

    def feed(self, data: bytes) -> list[Command]:
        """Return the commands that ``data`` completes, in the order they were sent.

        Raises:
            ProtocolError: the bytes are not RESP or break a limit, and no complete command
                precedes them. Every later call raises it again.
        """
        if self.idle:
            return self._walk(data, [])
        if self._failure:
            raise ProtocolError(self._failure)
        if self._bulk >= 0:
            return self._feed_bulk(data)
        if not self._buffer:
            return self._walk(data, [])
        self._buffer += data
        if not self.stalled and not self._has_line():
            return []
        rest = bytes(self._buffer)
        self._buffer = bytearray()
        self._scanned = 0
        self.stalled = False
        return self._walk(rest, [])

    def _feed_bulk(self, data: bytes) -> list[Command]:
        """Go on with a bulk string whose length is known."""
        buffer = self._buffer
        buffer += data
        length = self._bulk
        if len(buffer) < length + 2:
            return []
        with memoryview(buffer) as view:
            self._args.append(bytes(view[:length]))
            rest = bytes(view[length + 2 :])
        self._buffer = bytearray()
        self._bulk = _PARTIAL
        self._missing -= 1
        self._size += length + 2
        return self._walk(rest, [])

    def _has_line(self) -> bool:
        """Whether the line at the start of the buffer has its end, or is too long to go on."""
        buffer = self._buffer
        is_header = self._missing or buffer[0] == _STAR
        found = buffer.find(b"\r" if is_header else b"\n", self._scanned)
        if found >= 0:
            return True
        self._scanned = len(buffer)
        return len(buffer) > self.limits.max_inline_bytes

    def _walk(  # noqa: C901, PLR0912, PLR0915 - the hot loop: calls would show
        self, data: bytes, commands: list[Command]
    ) -> list[Command]:
        """Parse ``data``, which starts where a header or an inline line does."""
        limits = self.limits
        max_args = limits.max_args
        max_arg_bytes = limits.max_arg_bytes
        max_command_bytes = limits.max_command_bytes
        end = len(data)
        position = 0
        start = -self._size  # where the command at hand began: before this data, where negative
        # Bytes behind `bound` have not arrived, or belong to a command that is too big.
        tight = end - start > max_command_bytes
        bound = start + max_command_bytes if tight else end
        args = self._args or []  # never the list that a later call would find
        missing = self._missing
        try:
            while True:
                while missing:
                    first = position + 4
                    length = _LENGTHS_BELOW_10.get(data[position:first])
                    if length is None:
                        first = position + 5
                        length = _LENGTHS_BELOW_100.get(data[position:first])
                        if length is None:
                            length, first = self._read_length(data, position)
                            if first < 0:
                                return self._keep(data, position, start, args, missing, commands)
                    last = first + length
                    if length > max_arg_bytes:
                        raise ProtocolError(self._bad_length())
                    if last + 2 > bound:
                        if last + 2 - start > max_command_bytes:
                            raise ProtocolError("Protocol error: too big request")
                        self._bulk = length
                        return self._keep(data, first, start, args, missing, commands)
                    args.append(data[first:last])
                    position = last + 2
                    missing -= 1
                if args:
                    commands.append(args)
                    args = []
                start = position
                if position == end:
                    if not self.idle:
                        self._reset()
                        self.idle = True
                    return commands
                if tight:
                    bound = min(end, start + max_command_bytes)
                after = position + 4
                count = _COUNTS_BELOW_10.get(data[position:after])
                if count is None:
                    after = position + 5
                    count = _COUNTS_BELOW_100.get(data[position:after])
                    if count is None:
                        count, args, after = self._begin(data, position)
                        if after < 0:
                            return self._keep(data, position, start, [], 0, commands)
                if count > max_args:
                    raise ProtocolError(self._bad_count())
                position = after
                missing = count
        except ProtocolError as error:
            if commands:
                self.stalled = True
                return self._keep(data, position, start, args, missing, commands)
            self._reset()
            self.idle = False
            self._failure = str(error)
            raise

    def _keep(
        self,
        data: bytes,
        position: int,
        start: int,
        args: Command,
        missing: int,
        commands: list[Command],
    ) -> list[Command]:
        """Hold what ``data`` has from ``position`` on, of a command begun at ``start``."""
        self._args = args
        self._missing = missing
        self._size = position - start
        self.idle = False
        if position < len(data):
            with memoryview(data) as view:
                self._buffer += view[position:]
        return commands

    def _begin(self, data: bytes, position: int) -> tuple[int, Command, int]:
        """Read an unusual start of a command.

        Returns:
            The number of bulk strings to come; the words of an inline command, where it is one; and
            where what was read ends, or -1 where it has not all arrived.
        """
        if data[position] != _STAR:
            words, after = self._read_inline(data, position)
            return 0, words, after
        after = self._end_of_header(data, position, "too big mbulk count string")
        if after < 0:
            return 0, [], _PARTIAL
        count = _parse_number(data[position + 1 : after - 2])
        if count is None:
            raise ProtocolError("Protocol error: invalid multibulk length")
        return max(count, 0), [], after

    def _read_length(self, data: bytes, position: int) -> tuple[int, int]:
        """Return the length of the bulk header there, and where the header ends (-1: not yet)."""
        found = _LENGTH_HEADER.match(data, position)
        if found is not None:
            return int(found[1]), found.end()
        if position == len(data):
            return 0, _PARTIAL
        if data[position] != _DOLLAR:
            got = _printable(data[position])
            raise ProtocolError(f"Protocol error: expected '$', got '{got}'")
        if self._end_of_header(data, position, "too big bulk count string") < 0:
            return 0, _PARTIAL
        raise ProtocolError("Protocol error: invalid bulk length")

    def _end_of_header(self, data: bytes, position: int, too_big: str) -> int:
        longest = self.limits.max_inline_bytes
        found = data.find(b"\r", position, position + longest + 1)
        if found < 0 and len(data) - position > longest:
            raise ProtocolError(f"Protocol error: {too_big}")
        return found + 2 if 0 <= found <= len(data) - 2 else _PARTIAL

    def _read_inline(self, data: bytes, position: int) -> tuple[Command, int]:
        """Return the words of the line there (none: skip it), and where it ends (-1: not yet)."""
        blank = _BLANK_LINES.match(data, position)
        if blank is not None:
            return [], blank.end()
        limits = self.limits
        longest = limits.max_inline_bytes
        newline = data.find(b"\n", position, position + longest + 1)
        if newline < 0:
            if len(data) - position > longest:
                raise ProtocolError("Protocol error: too big inline request")
            return [], _PARTIAL
        words = split_inline(data[position:newline].removesuffix(b"\r"))
        if words is None:
            raise ProtocolError("Protocol error: unbalanced quotes in request")
        if len(words) > limits.max_args or any(len(word) > limits.max_arg_bytes for word in words):
            raise ProtocolError("Protocol error: too big inline request")
        return words, newline + 1

    def _bad_count(self) -> str:
        kind = "unauthenticated" if self.limits.unauthenticated else "invalid"
        return f"Protocol error: {kind} multibulk length"

    def _bad_length(self) -> str:
        kind = "unauthenticated" if self.limits.unauthenticated else "invalid"
        return f"Protocol error: {kind} bulk length"
