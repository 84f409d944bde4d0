"""RESP2 as the harness needs it: requests encoded ahead of time, and one blocking client."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import hiredis
import numpy as np
from numpy.typing import NDArray


class Field(Enum):
    """A place in a template that each request fills from its own rows."""

    VECTORS = "vectors"
    """The rows as one little-endian float32 blob."""
    ID = "id"
    """The number of the first row, in decimal."""
    IDS = "ids"
    """How many rows, then the number of each: two or more arguments."""


Template = tuple[bytes | Field, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A description of requests small enough to send to the load generator, which encodes them.

    Attributes:
        template: the command's arguments, with fields to be filled.
        vectors: a ``.npy`` file, float32, shape (n, dim); None for commands without a vector.
        rows_per_request: rows that fill one request.
        rows: only the first so many rows of the file; None: all.
        first_id: the id of the first row.
        ahead: encode every request before the first is sent. Without, each is encoded when it is
            its turn, for data that should not be in memory a second time.
    """

    template: Template
    vectors: Path | None = None
    rows_per_request: int = 1
    rows: int | None = None
    first_id: int = 0
    ahead: bool = True

    def encode(self) -> Sequence[bytes]:
        """The requests' bytes; one request if there are no vectors."""
        if self.vectors is None:
            return [pack(argument for argument in self.template if isinstance(argument, bytes))]
        rows = np.load(self.vectors, mmap_mode="r")[: self.rows]
        requests = _Requests(self, rows)
        return list(requests) if self.ahead else requests


class _Requests(Sequence[bytes]):
    """A recipe's requests, each encoded when it is asked for."""

    def __init__(self, recipe: Recipe, rows: NDArray[np.float32]) -> None:
        self._recipe = recipe
        self._rows = rows

    def __len__(self) -> int:
        step = self._recipe.rows_per_request
        return (len(self._rows) + step - 1) // step

    @overload
    def __getitem__(self, number: int) -> bytes: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[bytes]: ...

    def __getitem__(self, number: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(f"there is no request {number}")
        step = self._recipe.rows_per_request
        first = number * step
        rows = self._rows[first : first + step]
        return pack(_fill(self._recipe.template, self._recipe.first_id + first, rows))


def pack(arguments: Iterable[bytes]) -> bytes:
    """One command as an array of bulk strings."""
    parts = [b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments]
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


def _fill(template: Template, first: int, rows: NDArray[np.float32]) -> list[bytes]:
    filled: list[bytes] = []
    for argument in template:
        if isinstance(argument, bytes):
            filled.append(argument)
        elif argument is Field.VECTORS:
            filled.append(rows.astype("<f4", copy=False).tobytes())
        elif argument is Field.ID:
            filled.append(b"%d" % first)
        else:
            filled.append(b"%d" % len(rows))
            filled.extend(b"%d" % (first + offset) for offset in range(len(rows)))
    return filled


def opened(port: int, opening: bytes = b"") -> socket.socket:
    """A connection to 127.0.0.1 that blocks, after its first command.

    Args:
        opening: the command, encoded; empty: none.

    Raises:
        hiredis.ReplyError: the server's answer to it.
        OSError: nobody listens there, or not in time.
    """
    made = socket.create_connection(("127.0.0.1", port), timeout=10)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if opening:
        reader = hiredis.Reader()
        made.sendall(opening)
        while (reply := reader.gets()) is False:
            chunk = made.recv(65536)
            if not chunk:
                made.close()
                raise ConnectionError("the server closed the connection after its first command")
            reader.feed(chunk)
        if isinstance(reply, hiredis.ReplyError):
            made.close()
            raise reply
    return made


class Client:
    """One blocking connection, for everything that is not measured."""

    def __init__(self, port: int, timeout: float) -> None:
        """Connect to 127.0.0.1.

        Args:
            timeout: seconds that connecting, and each read, may take.

        Raises:
            OSError: nobody listens there, or not in time.
        """
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._reader = hiredis.Reader()

    def call(self, *arguments: bytes) -> Any:
        """Send one command and wait for its reply.

        Raises:
            hiredis.ReplyError: the server's own error.
            OSError: the connection failed, or the reply did not come in time.
        """
        self._socket.sendall(pack(arguments))
        while (reply := self._reader.gets()) is False:
            chunk = self._socket.recv(65536)
            if not chunk:
                raise ConnectionError(f"the server closed the connection after {arguments[0]!r}")
            self._reader.feed(chunk)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
