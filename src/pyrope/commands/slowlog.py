"""The commands that took longest, as SLOWLOG shows them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

# Redis' own bounds: an entry shows so many arguments, and so much of each.
_ARGUMENTS_MAX = 32
_ARGUMENT_BYTES_MAX = 128


@dataclass(frozen=True, slots=True)
class SlowCommand:
    """One entry.

    Attributes:
        at: Unix time in seconds.
        microseconds: how long the command took.
        arguments: shortened.
        user, tenant: who has sent it, and whose indexes it meant.
        request_id: as its reply tells it, if it does, and as a log names it.
        parts: of a search, what took how long; see `Answering.parts`.
    """

    id: int
    at: int
    microseconds: int
    arguments: tuple[bytes, ...]
    address: str
    client_name: bytes
    user: str
    tenant: str
    request_id: str
    parts: Mapping[str, str | int] = field(default_factory=dict)

    def details(self) -> dict[str, str | int]:
        """What Redis does not tell."""
        return {
            "request_id": self.request_id,
            "user": self.user,
            "tenant": self.tenant,
            **self.parts,
        }


class SlowLog:
    """A ring of the latest slow commands."""

    def __init__(self) -> None:
        self._entries: deque[SlowCommand] = deque()
        self._next_id = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(  # noqa: PLR0913 - what is told of it
        self,
        args: list[bytes],
        *,
        at: float,
        microseconds: float,
        address: str,
        client_name: bytes,
        user: str,
        tenant: str,
        request_id: str,
        parts: Mapping[str, str | int],
        max_len: int,
    ) -> None:
        """Keep one more; the oldest go, so that there are `max_len` at the most."""
        entry = SlowCommand(
            self._next_id,
            int(at),
            int(microseconds),
            _shorten(args),
            address,
            client_name,
            user,
            tenant,
            request_id,
            parts,
        )
        self._next_id += 1
        self._entries.appendleft(entry)
        while len(self._entries) > max_len:
            self._entries.pop()

    def latest(self, count: int) -> list[SlowCommand]:
        """The latest `count` entries, newest first; all of them for -1."""
        return list(self._entries if count < 0 else islice(self._entries, count))

    def clear(self) -> None:
        self._entries.clear()


def _shorten(args: list[bytes]) -> tuple[bytes, ...]:
    shown = args if len(args) <= _ARGUMENTS_MAX else args[: _ARGUMENTS_MAX - 1]
    shortened = [
        arg
        if len(arg) <= _ARGUMENT_BYTES_MAX
        else arg[:_ARGUMENT_BYTES_MAX] + b"... (%d more bytes)" % (len(arg) - _ARGUMENT_BYTES_MAX)
        for arg in shown
    ]
    if shown is not args:
        shortened.append(b"... (%d more arguments)" % (len(args) - len(shown)))
    return tuple(shortened)
