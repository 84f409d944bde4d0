"""Cache policies as commands write and show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyrope.commands.options import Convert, choice, parse_float, parse_integer, quoted
from pyrope.config import LimitSettings
from pyrope.errors import CommandError
from pyrope.types import CacheLevel, CachePolicy

_LEVELS = {level.value.encode(): level for level in CacheLevel}
_TTL_MAX_S = 10 * 365 * 86_400
_BYTES_MAX = 2**50
_CANDIDATES_MAX = 10_000
_WRITES_MAX = 1e12


def levels(raw: bytes, _limits: LimitSettings) -> frozenset[CacheLevel]:
    """Names of levels with commas between them; OFF: none; ALL."""
    words = raw.upper().split(b",")
    if words == [b"OFF"]:
        return frozenset()
    if words == [b"ALL"]:
        return frozenset(CacheLevel)
    found = [_LEVELS.get(word.strip()) for word in words]
    if None in found or len(set(found)) < len(found):
        expected = ",".join(CacheLevel)
        raise CommandError(
            f"invalid cache levels '{quoted(raw)}': OFF, ALL, or some of {expected} are expected, "
            "each once, with commas between them"
        )
    return frozenset(level for level in found if level is not None)


def shown_levels(chosen: frozenset[CacheLevel]) -> str:
    """Levels as `levels` reads them."""
    return ",".join(level.value for level in CacheLevel if level in chosen) or "OFF"


def _whole(name: str, high: int) -> Convert:
    def convert(raw: bytes, _limits: LimitSettings) -> int:
        value = parse_integer(raw)
        if value is None or not 0 <= value <= high:
            raise CommandError(f"invalid {name}: an integer from 0 to {high} is expected")
        return value

    return convert


def _real(name: str, high: float) -> Convert:
    def convert(raw: bytes, _limits: LimitSettings) -> float:
        value = parse_float(raw)
        if value is None or not 0 <= value <= high:
            raise CommandError(f"invalid {name}: a number from 0 to {high:g} is expected")
        return value

    return convert


ttl: Convert = _real("CACHETTL", _TTL_MAX_S)
min_recall: Convert = _real("MINRECALL", 1.0)

_BASES = choice("BASIS", {b"CERTIFIED": "certified", b"ESTIMATED": "estimated"})
_FIELDS: Mapping[bytes, tuple[str, Convert]] = {
    b"LEVELS": ("levels", levels),
    b"TTL": ("ttl_s", _real("TTL", _TTL_MAX_S)),
    b"MAXBYTES": ("max_bytes", _whole("MAXBYTES", _BYTES_MAX)),
    b"CANDIDATES": ("candidates", _whole("CANDIDATES", _CANDIDATES_MAX)),
    b"MINRECALL": ("min_recall", min_recall),
    b"BASIS": ("certified", lambda raw, limits: _BASES(raw, limits) == "certified"),
    b"HOTWRITES": ("hot_writes", _real("HOTWRITES", _WRITES_MAX)),
}


def changed_fields(pairs: Sequence[bytes], limits: LimitSettings) -> dict[str, Any]:
    """Fields of `CachePolicy` with their new values.

    Raises:
        CommandError: an unknown or doubled field, or a value that is missing or not acceptable.
    """
    if not pairs or len(pairs) % 2:
        raise CommandError("fields and values in pairs are expected")
    found: dict[str, Any] = {}
    for name, raw in zip(pairs[::2], pairs[1::2], strict=True):
        field = _FIELDS.get(name.upper())
        if field is None:
            expected = ", ".join(word.decode() for word in _FIELDS)
            raise CommandError(f"unknown field '{quoted(name)}': one of {expected} is expected")
        key, convert = field
        if key in found:
            raise CommandError(f"the field {name.upper().decode()} is doubled")
        found[key] = convert(raw, limits)
    return found


def shown(policy: CachePolicy) -> dict[str, Any]:
    """A policy as a reply shows it, in the words of `changed_fields`."""
    return {
        "levels": shown_levels(policy.levels),
        "ttl": policy.ttl_s,
        "maxbytes": policy.max_bytes,
        "candidates": policy.candidates,
        "minrecall": policy.min_recall,
        "basis": "CERTIFIED" if policy.certified else "ESTIMATED",
        "hotwrites": policy.hot_writes,
    }
