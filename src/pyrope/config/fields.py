"""What a setting is made of: its value types, and what is said of it beside its value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

KIB: Final = 1024
MIB: Final = 1024**2
GIB: Final = 1024**3

_SIZE = re.compile(r"(\d+)\s*([a-z]*)", re.ASCII)
_SIZE_UNITS: Final = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": KIB,
    "kib": KIB,
    "m": 1000**2,
    "mb": MIB,
    "mib": MIB,
    "g": 1000**3,
    "gb": GIB,
    "gib": GIB,
}

SIZE_SYNTAX: Final = "a number of bytes, or a number with a unit such as 512kb, 64mb or 1gb"


def parse_size(value: object) -> object:
    """Read a memory size as redis.conf writes it: ``1k`` is 1000 bytes, ``1kb`` is 1024.

    Raises:
        ValueError: text that is not a size. What is no text is left to the integer check.
    """
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip().lower())
    if found is None or found[2] not in _SIZE_UNITS:
        raise ValueError(f"argument must be a memory value: {SIZE_SYNTAX}")
    return int(found[1]) * _SIZE_UNITS[found[2]]


def format_size(size: int) -> str:
    """The shortest text that `parse_size` reads back as `size`."""
    for unit, factor in (("gb", GIB), ("mb", MIB), ("kb", KIB)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _empty_is_unset(value: object) -> object:
    return None if value == "" else value


class _SizeMarker:
    """Tells a size from other integers, so that it can be shown with its unit."""


SIZE_MARKER: Final = _SizeMarker()

Size = Annotated[int, BeforeValidator(parse_size), SIZE_MARKER]
"""Bytes."""

OptionalPath = Annotated[Path | None, BeforeValidator(_empty_is_unset)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_empty_is_unset)]

DebugAccess = Literal["no", "local", "yes"]
ClientCertificates = Literal["no", "optional", "yes"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


class Group(BaseModel):
    """Settings that belong together: a table of the file."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, validate_default=True)


def setting(
    default: object,
    description: str,
    *,
    unit: str = "",
    redis: str = "",
    runtime: bool = False,
    ge: float | None = None,
    le: float | None = None,
    pattern: str | None = None,
) -> Any:
    """Declare a setting.

    Returns Any, as pydantic's own Field does: the annotation beside it gives the type.

    Args:
        unit: what a number counts: ``bytes``, ``s``, ``µs`` ...; empty where it has none.
        redis: what Redis calls the same setting in ``CONFIG GET``; empty where Redis has none.
        runtime: whether ``CONFIG SET`` may change it while the server runs.
        ge: lower bound, included.
        le: upper bound, included.
        pattern: regular expression that a text must match.
    """
    return Field(
        default,
        description=description,
        ge=ge,
        le=le,
        pattern=pattern,
        frozen=not runtime,
        json_schema_extra={"unit": unit, "redis": redis, "runtime": runtime},
    )
