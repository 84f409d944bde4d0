"""The limits of a tenant by the words that set them: ranges, parsing, the form they are kept in.

Every field has a range; out of it, and whatever is no number, is a CommandError. ``NONE`` or ``-``
unsets a field, which then is what `TenantLimits` has by default: no limit for a quota. A quota of 0
means that none are allowed: ``QPS 0`` suspends a tenant, ``BUDGET 0`` lets it spend nothing,
``CACHEBYTES 0`` keeps none of its answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pyrope.errors import CommandError
from pyrope.tenants.keys import check_key
from pyrope.tenants.limits import OnBudget, Priority, TenantLimits

DEFAULT_LIMITS: Final = TenantLimits()

Value = int | float | str | Priority | OnBudget | None
"""Of a field: its own type; or as JSON has it, where enumerations are strings."""

_MOST = 2**53
"""Beyond it floats, and the numbers of JSON, skip integers. No server counts that far."""

_WHOLE = re.compile(rb"[0-9]{1,16}")
_DECIMAL = re.compile(rb"[0-9]{1,32}(\.[0-9]{1,32})?([eE][+-]?[0-9]{1,3})?")
_UNSET = frozenset({b"NONE", b"-"})


@dataclass(frozen=True, slots=True)
class NumberField:
    """A field that holds a number.

    Attributes:
        word: as the wire has it.
        attribute: of `TenantLimits`.
        low, high: the range.
        whole: whether it is an int; a float otherwise.
        zero: whether 0 is taken although `low` is above it.
    """

    word: str
    attribute: str
    low: float
    high: float
    whole: bool = True
    zero: bool = False

    def parse(self, raw: bytes) -> int | float | None:
        """The value that a word stands for. Raises CommandError."""
        if raw.upper() in _UNSET:
            return self.check(None)
        if (_WHOLE if self.whole else _DECIMAL).fullmatch(raw) is None:
            raise self._refusal()
        return self.check(int(raw) if self.whole else float(raw))

    def check(self, value: object) -> int | float | None:
        """The value, in the type that the field has; None unsets it. Raises CommandError."""
        if value is None:
            default: int | float | None = getattr(DEFAULT_LIMITS, self.attribute)
            return default
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            raise self._refusal()
        # NaN is not in the range either.
        if not (self.low <= value <= self.high or (self.zero and value == 0)):
            raise self._refusal()
        return int(value) if self.whole else abs(float(value))  # -0.0 is 0.0

    def _refusal(self) -> CommandError:
        kind = "an integer" if self.whole else "a number"
        zero = " or 0 (none allowed)" if self.zero and self.low > 0 else ""
        high = "2^53" if self.high == _MOST else f"{self.high:g}"
        return CommandError(
            f"invalid {self.word}: {kind} from {self.low:g} to {high}{zero} is expected, or NONE"
        )


@dataclass(frozen=True, slots=True)
class ChoiceField:
    """A field that holds one of a few words. Attributes as in `NumberField`."""

    word: str
    attribute: str
    kind: type[Priority | OnBudget]

    def parse(self, raw: bytes) -> Priority | OnBudget:
        """The value that a word stands for, in any case. Raises CommandError."""
        return self.check(None if raw.upper() in _UNSET else raw.decode(errors="replace"))

    def check(self, value: object) -> Priority | OnBudget:
        """The member that a value is or names; None unsets the field. Raises CommandError."""
        if value is None:
            default: Priority | OnBudget = getattr(DEFAULT_LIMITS, self.attribute)
            return default
        try:
            return self.kind(value.upper() if isinstance(value, str) else value)
        except ValueError:
            words = ", ".join(member.value for member in self.kind)
            raise CommandError(f"invalid {self.word}: one of {words} is expected") from None


LimitField = NumberField | ChoiceField

_FIELDS: Final[tuple[LimitField, ...]] = (
    # One request in a quarter of an hour: what is slower is a suspension with a delay.
    NumberField("QPS", "qps", 0.001, _MOST, whole=False, zero=True),
    NumberField("BURST", "burst", 1, _MOST),
    NumberField("CONCURRENCY", "concurrency", 0, _MOST),
    # A thousandth of a unit is less than any request costs; shares of it stay finite.
    NumberField("BUDGET", "budget", 0.001, _MOST, whole=False, zero=True),
    NumberField("MAXVECTORS", "max_vectors", 0, _MOST),
    NumberField("MAXBYTES", "max_bytes", 0, _MOST),
    NumberField("CACHEBYTES", "cache_bytes", 0, _MOST),
    ChoiceField("PRIORITY", "priority", Priority),
    ChoiceField("ONBUDGET", "on_budget", OnBudget),
    # 1: lower effort as soon as spending is ahead of the month; above: let it run ahead.
    NumberField("SOFTLIMIT", "soft_limit", 0.01, 100, whole=False),
    NumberField("EFFLOOR", "ef_floor", 1, _MOST),
    NumberField("EFCEILING", "ef_ceiling", 1, _MOST),
    NumberField("NPROBEFLOOR", "nprobe_floor", 1, _MOST),
    NumberField("NPROBECEILING", "nprobe_ceiling", 1, _MOST),
    NumberField("MAXSCANSFLOOR", "max_scans_floor", 1, _MOST),
    NumberField("MAXSCANSCEILING", "max_scans_ceiling", 1, _MOST),
    NumberField("DEGRADEDRECALL", "degraded_recall", 0, 1, whole=False),
)
LIMIT_FIELDS: Final[Mapping[bytes, LimitField]] = {one.word.encode(): one for one in _FIELDS}
"""By the word that the wire has, in upper case."""

_BY_ATTRIBUTE: Final = {one.attribute: one for one in _FIELDS}
_BOUNDS = (
    ("EFFLOOR", "ef_floor", "EFCEILING", "ef_ceiling"),
    ("NPROBEFLOOR", "nprobe_floor", "NPROBECEILING", "nprobe_ceiling"),
    ("MAXSCANSFLOOR", "max_scans_floor", "MAXSCANSCEILING", "max_scans_ceiling"),
)
_DEFAULTS: Final = {one.attribute: getattr(DEFAULT_LIMITS, one.attribute) for one in _FIELDS}
_TOGETHER = ("burst", "qps", *(name for bound in _BOUNDS for name in bound[1::2]))


class Fields(NamedTuple):
    """What a client wants a tenant to have.

    Attributes:
        values: by attribute of `TenantLimits`.
        key: its new key; None: none was given.
    """

    values: dict[str, Value]
    key: bytes | None


def parse_fields(args: Sequence[bytes]) -> Fields:
    """Words and values in turn, each word once: ``QPS 10 PRIORITY LOW KEY secret``.

    Raises:
        CommandError: an unknown or doubled word, one without its value, or a value out of range.
    """
    values: dict[str, Value] = {}
    key: bytes | None = None
    seen: set[bytes] = set()
    for position in range(0, len(args), 2):
        word = args[position].upper()
        field = LIMIT_FIELDS.get(word)
        if field is None and word != b"KEY":
            raise _unknown(args[position].decode(errors="replace"))
        if word in seen:
            raise CommandError(f"{word.decode()} is given twice")
        if position + 1 == len(args):
            raise CommandError(f"{word.decode()} needs a value")
        seen.add(word)
        raw = args[position + 1]
        if field is None:
            key = parse_key(raw)
        else:
            values[field.attribute] = field.parse(raw)
    return Fields(values, key)


def parse_key(raw: bytes) -> bytes:
    """A key. Raises CommandError where it cannot be one, or reads like the lack of one."""
    if raw.upper() in _UNSET:
        raise CommandError("invalid KEY: there always is one; leave KEY out to have it generated")
    return check_key(raw)


def _unknown(word: str) -> CommandError:
    return CommandError(f"unknown field '{word[:128]}' of a tenant")


def change_limits(limits: TenantLimits, values: Mapping[str, Value]) -> TenantLimits:
    """The limits with other values, by attribute; None unsets one.

    Raises:
        CommandError: an attribute that does not exist, a value out of its range, a floor above its
            ceiling, a BURST without a QPS.
    """
    checked = _check_each(values)
    changed = replace(limits, **checked)
    _check_together({name: getattr(changed, name) for name in _TOGETHER})
    return changed


def _check_each(values: Mapping[str, Value]) -> dict[str, Any]:
    checked = {}
    for attribute, value in values.items():
        field = _BY_ATTRIBUTE.get(attribute)
        if field is None:
            raise _unknown(attribute)
        checked[attribute] = field.check(value)
    return checked


def _check_together(values: Mapping[str, Any]) -> None:
    """Check what depends on one another; `values` has all of `_TOGETHER`."""
    for floor_word, floor_name, ceiling_word, ceiling_name in _BOUNDS:
        floor, ceiling = values[floor_name], values[ceiling_name]
        if ceiling is not None and floor > ceiling:
            raise CommandError(f"{floor_word} {floor} is above {ceiling_word} {ceiling}")
    if values["burst"] is not None and values["qps"] is None:
        raise CommandError("BURST means nothing without QPS: set both, or neither")


def describe_limits(limits: TenantLimits) -> dict[str, int | float | str | None]:
    """Every field by its word in lower case, as people and JSON have it; None: no limit."""
    return {one.word.lower(): _plain(getattr(limits, one.attribute)) for one in _FIELDS}


def changed_fields(limits: TenantLimits) -> dict[str, int | float | str | None]:
    """What differs from the defaults, by attribute, as JSON has it."""
    return _changed({name: getattr(limits, name) for name in _DEFAULTS})


def _changed(values: Mapping[str, Any]) -> dict[str, int | float | str | None]:
    return {name: _plain(one) for name, one in values.items() if one != _DEFAULTS[name]}


# A `TenantLimits` takes 170 bytes and its numbers 24 or 32 each, which 100,000 tenants that do
# nothing do not get. They hold JSON of what differs from the defaults, in one object that
# those with the same limits share; the limits of those that are busy stay decoded.
_BUSY = 8192
_SHARED = 512
_encode_json = json.JSONEncoder(separators=(",", ":")).encode


def pack_limits(limits: TenantLimits) -> bytes:
    """The form that a tenant keeps; empty for the defaults."""
    return _pack(tuple(changed_fields(limits).items()))


def pack_fields(values: Mapping[str, Value]) -> bytes:
    """As `pack_limits`, of values as `changed_fields` has them. Raises CommandError."""
    return _check_and_pack(tuple(values.items()))


@lru_cache(_BUSY)
def unpack_limits(packed: bytes) -> TenantLimits:
    """What `pack_limits` has packed."""
    return change_limits(DEFAULT_LIMITS, json.loads(packed)) if packed else DEFAULT_LIMITS


@lru_cache(_SHARED)
def _pack(changed: tuple[tuple[str, object], ...]) -> bytes:
    return _encode_json(dict(changed)).encode() if changed else b""


@lru_cache(_SHARED)
def _check_and_pack(values: tuple[tuple[str, Value], ...]) -> bytes:
    # A record is checked without making a `TenantLimits`, which would take twice the time.
    checked = _check_each(dict(values))
    _check_together(_DEFAULTS | checked)
    return _pack(tuple(_changed(checked).items()))


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
