"""What bodies are made of, and the words of commands that stand for it.

Bodies have the words of the commands in lower case, each with one type. Ranges are left to the
commands, which know the limits that are in force.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from pyrope.errors import CommandError
from pyrope.http.plain import plain_bytes
from pyrope.types import CacheLevel

# Of numbers in one list: more than a body has room for at the setting's default.
_NUMBERS_MAX = 1_048_576
_TEXT_MAX = 65_536


class Body(BaseModel):
    """What a request says. Unknown members, and other types, are mistakes."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Told(BaseModel):
    """What an answer says. Later versions may add members."""

    model_config = ConfigDict(extra="allow")


class Base64(Body):
    """Bytes that are no text."""

    base64: Annotated[str, Field(max_length=_TEXT_MAX, pattern=r"^[A-Za-z0-9+/]*={0,2}$")]


Text = Annotated[str, Field(max_length=_TEXT_MAX)]
Identifier = Annotated[
    Text | Base64, Field(description="An id. One that is no UTF-8 is an object with its base64.")
]
Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(ge=-1.8e308, le=1.8e308)]
Numbers = Annotated[list[float], Field(fail_fast=True, min_length=1, max_length=_NUMBERS_MAX)]
Floats = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9+/]+={0,2}$",
        description="Little-endian float32 in base64: 4 bytes a dimension.",
    ),
]
WholeOrAuto = Annotated[int, Field(ge=0, le=2**53)] | Literal["AUTO"]
Levels = Annotated[
    str,
    Field(
        max_length=128,
        description=f"OFF, ALL, or some of {', '.join(CacheLevel)}, with commas between them.",
    ),
]
Key = Annotated[str, Field(min_length=1, max_length=512, description="A key of one's own making.")]


class Vector(Body):
    """A vector: one of its members is given."""

    vector: Numbers | None = None
    fp32: Floats | None = None

    def given(self) -> list[str]:
        """Names of the members that are."""
        return [name for name in ("vector", "fp32") if getattr(self, name) is not None]

    def words(self) -> list[bytes]:
        """``FP32`` and a blob. Raises CommandError unless one of the members is given."""
        check_one(self.given(), "vector or fp32")
        if self.fp32 is not None:
            return [b"FP32", decoded(self.fp32, "fp32")]
        assert self.vector is not None  # noqa: S101 - as just seen
        return [b"FP32", to_blob(self.vector)]


class AnyVector(Vector):
    """A vector, or an id whose vector it is, or a text: one of the members is given."""

    id: Identifier | None = None
    text: Text | None = None

    def given(self) -> list[str]:
        names = ("id", "text")
        return super().given() + [name for name in names if getattr(self, name) is not None]

    def words(self) -> list[bytes]:
        """As a command has them: ``FP32``, ``ELE`` or ``TEXT``. Raises CommandError."""
        check_one(self.given(), "vector, fp32, id or text")
        if self.id is not None:
            return [b"ELE", raw_id(self.id)]
        if self.text is not None:
            return [b"TEXT", self.text.encode()]
        return super().words()


def check_one(given: list[str], expected: str) -> None:
    """Raises CommandError unless one of the members is given."""
    if len(given) != 1:
        raise CommandError(f"one of {expected} is expected, and {len(given)} are given")


def to_blob(values: list[float]) -> bytes:
    """Little-endian float32. What does not fit becomes infinite, which commands refuse."""
    with np.errstate(over="ignore"):
        return np.asarray(values, "<f4").tobytes()


def decoded(text: str, name: str) -> bytes:
    """Bytes of base64. Raises CommandError."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise CommandError(f"invalid {name}: base64 is expected") from None


def raw_id(given: str | Base64) -> bytes:
    """The bytes of an id. Raises CommandError."""
    return given.encode() if isinstance(given, str) else decoded(given.base64, "id")


def words_of(body: BaseModel, *left_out: str, unset: bytes | None = None) -> list[bytes]:
    """The members that are given, as words and values of a command.

    True is a word alone; false, and null where there is no `unset`, are left out.

    Args:
        left_out: members that are no such words.
        unset: what the command has for null.
    """
    return list(_words(body, left_out, unset))


def _words(body: BaseModel, left_out: tuple[str, ...], unset: bytes | None) -> Iterator[bytes]:
    for name in type(body).model_fields:
        value = getattr(body, name)
        if name not in body.model_fields_set or name in left_out or value is False:
            continue
        if value is None:
            if unset is None:
                continue
            value = unset
        yield name.upper().encode()
        if value is not True:
            yield value if isinstance(value, bytes) else str(value).encode()


# -- what answers share ---------------------------------------------------------------------------

Cursor = Annotated[
    str | None,
    Field(description="Where the next page begins, as ?cursor=; null: this is the last one."),
]
Information = dict[str, JsonValue]


def shown_id(raw: bytes) -> Any:
    """An id as answers have it."""
    return plain_bytes(raw)
