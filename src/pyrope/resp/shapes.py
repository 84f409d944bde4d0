"""A memo of the layouts that one connection repeats, so that C code can parse them.

Clients repeat themselves: a search after a search differs in its vector, not in where its headers
stand. A *shape* is such a layout, as a ``struct`` format that cuts a chunk of one exact size into
header, argument, header, argument, ..., final CRLF. When all headers of a new chunk are byte for
byte those of the shape, the chunk *is* the canonical encoding of commands of these lengths: nothing
is assumed, and a blob may hold any bytes. When one differs, the exact parser takes the chunk.

Why not hiredis, which parses a search of 1.5 KB in 0.4 us: it reserves what an aggregate header
claims, and skips the two bytes behind a bulk string unread, so that a header may follow any bytes
(``...PINGxx%1000000``). No search for bytes that follow a CRLF can therefore guard it, and one
``bytes.find`` over such a chunk takes 1.0 us, more than a whole match here (0.6 us). Figures:
``benchmarks/micro_resp.py``, CPython 3.11.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

# Shapes of one connection. Each holds some 100 bytes per argument.
_MAX_SHAPES = 8
# Sizes that were seen once. A layout is learnt at the second sight, so that traffic that never
# repeats itself does not pay for building shapes.
_MAX_CANDIDATES = 8
# A pipeline beyond this many arguments is left to the exact parser: its shape would be big, and
# would seldom come again.
_MAX_ARGS = 64

_Shape = tuple[Callable[[bytes], tuple[bytes, ...]], tuple[bytes, ...], tuple[slice, ...]]
"""How to cut a chunk into fields; the fields that are headers; where each command's arguments are
among the fields that are not (empty: there is one command)."""


def _build(data: bytes, commands: list[list[bytes]]) -> _Shape | None:
    """Return the shape of ``data``, or None where it is not the canonical encoding."""
    if not commands or sum(map(len, commands)) > _MAX_ARGS:
        return None
    headers: list[bytes] = []
    layout: list[str] = []
    cuts: list[slice] = []
    header = b""
    for command in commands:
        cuts.append(slice(len(headers), len(headers) + len(command)))
        header += b"*%d\r\n" % len(command)
        for arg in command:
            header += b"$%d\r\n" % len(arg)
            headers.append(header)
            layout.append(f"{len(header)}s{len(arg)}s")
            header = b"\r\n"
    headers.append(header)
    cutter = struct.Struct("".join(layout) + "2s")
    expected = tuple(headers)
    if cutter.size != len(data) or cutter.unpack(data)[::2] != expected:
        return None
    return cutter.unpack, expected, tuple(cuts) if len(cuts) > 1 else ()


class ShapeMemo:
    """The shapes of one connection, by the size of a chunk. Bounded; the oldest goes first."""

    __slots__ = ("_candidates", "_shapes")

    def __init__(self) -> None:
        self._shapes: dict[int, _Shape] = {}
        self._candidates: dict[int, None] = {}

    def match(self, data: bytes) -> list[list[bytes]] | None:
        """Return the commands that ``data`` consists of, where its layout is known."""
        shape = self._shapes.get(len(data))
        if shape is None:
            return None
        unpack, headers, cuts = shape
        fields = unpack(data)
        if fields[::2] != headers:
            del self._shapes[len(data)]
            return None
        args = list(fields[1::2])
        return [args[cut] for cut in cuts] if cuts else [args]

    def learn(self, data: bytes, commands: list[list[bytes]]) -> None:
        """Note that ``data`` consists of ``commands``, as the exact parser found."""
        if not data.startswith(b"*"):
            return
        size = len(data)
        if size not in self._candidates:
            if len(self._candidates) == _MAX_CANDIDATES:
                del self._candidates[next(iter(self._candidates))]
            self._candidates[size] = None
            return
        del self._candidates[size]
        shape = _build(data, commands)
        if shape is None:
            return
        if len(self._shapes) == _MAX_SHAPES:
            del self._shapes[next(iter(self._shapes))]
        self._shapes[size] = shape

    def clear(self) -> None:
        """Forget all shapes: they were learnt under limits that are no longer in force."""
        self._shapes.clear()
        self._candidates.clear()
