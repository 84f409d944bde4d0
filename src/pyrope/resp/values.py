"""Reply values that plain Python types cannot say."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SimpleString:
    """A status such as ``OK``: one line.

    Raises:
        ValueError: the text holds a CR or LF.
    """

    text: str
    encoded: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if "\r" in self.text or "\n" in self.text:
            raise ValueError("a simple string cannot hold CR or LF")
        object.__setattr__(self, "encoded", b"+%b\r\n" % self.text.encode())


@dataclass(frozen=True, slots=True)
class NullArray:
    """No array: ``*-1`` in RESP2, a null in RESP3."""


@dataclass(frozen=True, slots=True)
class SetReply:
    """Members without order: a set in RESP3, an array in RESP2. Uniqueness is the caller's."""

    members: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Verbatim:
    """Text meant for people: a verbatim string of format ``txt`` in RESP3, a bulk in RESP2."""

    text: str


@dataclass(frozen=True, slots=True)
class Raw:
    """One reply encoded beforehand, in the protocol of the client that gets it."""

    encoded: bytes


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error that is a value: an element of an array, or one made without an exception."""

    prefix: str
    message: str


OK = SimpleString("OK")
PONG = SimpleString("PONG")
NULL_ARRAY = NullArray()
