"""Cache policies as commands write and show them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pyrope.commands.options import Convert, choice, parse_float, parse_integer, quoted
from pyrope.config import LimitSettings
from pyrope.errors import CommandError
from pyrope.semantic.guards import GUARDS
from pyrope.types import CacheLevel, CachePolicy

_LEVELS = {level.value.encode(): level for level in CacheLevel}
_TTL_MAX_S = 10 * 365 * 86_400
_BYTES_MAX = 2**50
_CANDIDATES_MAX = 10_000
_WRITES_MAX = 1e12
_SCOPES_MAX = 64
_FIELD_NAME = re.compile(rb"[A-Za-z0-9_.-]{1,128}")


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


def _or_auto(convert: Convert) -> Convert:
    """As `convert`, or the word AUTO: as the settings have it."""
    return lambda raw, limits: None if raw.upper() == b"AUTO" else convert(raw, limits)


def _guards_off(raw: bytes, _limits: LimitSettings) -> frozenset[str]:
    """What ALL, OFF, or names of guards that are on, leave off."""
    word = raw.upper()
    if word in (b"ALL", b"OFF"):
        return frozenset() if word == b"ALL" else frozenset(GUARDS)
    names = [name.strip().decode(errors="replace").lower() for name in raw.split(b",")]
    if len(set(names)) < len(names) or not GUARDS.keys() >= set(names):
        raise CommandError(
            f"invalid GUARDS '{quoted(raw)}': ALL, OFF, or some of {','.join(GUARDS)} are "
            "expected, each once, with commas between them"
        )
    return frozenset(GUARDS) - frozenset(names)


def _shown_guards(off: frozenset[str]) -> str:
    on = [name for name in GUARDS if name not in off]
    return ("ALL" if len(on) == len(GUARDS) else ",".join(on)) or "OFF"


def _scopes(raw: bytes, _limits: LimitSettings) -> frozenset[str]:
    """Names of fields with commas between them; ANY."""
    if raw.upper() == b"ANY":
        return frozenset()
    names = raw.split(b",")
    if len(names) > _SCOPES_MAX or not all(_FIELD_NAME.fullmatch(name) for name in names):
        raise CommandError(
            f"invalid SCOPES '{quoted(raw)}': ANY, or at most {_SCOPES_MAX} names of letters, "
            'digits, "_", "." and "-" are expected, with commas between them'
        )
    return frozenset(name.decode() for name in names)


ttl: Convert = _real("CACHETTL", _TTL_MAX_S)
min_recall: Convert = _real("MINRECALL", 1.0)

_ON_OFF = choice("value", {b"ON": "on", b"OFF": "off"})
_BASES = choice("BASIS", {b"CERTIFIED": "certified", b"ESTIMATED": "estimated"})
_FIELDS: Mapping[bytes, tuple[str, Convert]] = {
    b"LEVELS": ("levels", levels),
    b"TTL": ("ttl_s", _real("TTL", _TTL_MAX_S)),
    b"MAXBYTES": ("max_bytes", _whole("MAXBYTES", _BYTES_MAX)),
    b"CANDIDATES": ("candidates", _whole("CANDIDATES", _CANDIDATES_MAX)),
    b"MINRECALL": ("min_recall", min_recall),
    b"BASIS": ("certified", lambda raw, limits: _BASES(raw, limits) == "certified"),
    b"HOTWRITES": ("hot_writes", _real("HOTWRITES", _WRITES_MAX)),
    b"MAXERROR": ("max_error", _or_auto(_real("MAXERROR", 1.0))),
    b"GUARDS": ("guards_off", _guards_off),
    b"SHADOW": ("shadow", lambda raw, limits: _ON_OFF(raw, limits) == "on"),
    b"REMEMBERTTL": ("remember_ttl_s", _or_auto(_real("REMEMBERTTL", _TTL_MAX_S))),
    b"SLIDING": ("sliding", lambda raw, limits: _ON_OFF(raw, limits) == "on"),
    b"REMEMBERBYTES": ("remember_bytes", _whole("REMEMBERBYTES", _BYTES_MAX)),
    b"SCOPES": ("scope_fields", _scopes),
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
        "maxerror": "AUTO" if policy.max_error is None else policy.max_error,
        "guards": _shown_guards(policy.guards_off),
        "shadow": "ON" if policy.shadow else "OFF",
        "rememberttl": "AUTO" if policy.remember_ttl_s is None else policy.remember_ttl_s,
        "sliding": "ON" if policy.sliding else "OFF",
        "rememberbytes": policy.remember_bytes,
        "scopes": ",".join(sorted(policy.scope_fields)) or "ANY",
    }
