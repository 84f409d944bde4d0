"""Options: tables from which both the parser and COMMAND DOCS come."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyrope.commands.spec import Argument
from pyrope.config import LimitSettings
from pyrope.errors import CommandError

Convert = Callable[[bytes, LimitSettings], Any]
"""Makes a value out of an argument; raises CommandError. The limits may move at run time."""


@dataclass(frozen=True, slots=True)
class Option:
    """A word that may follow the fixed arguments of a command, each at most once.

    Attributes:
        token: the word, in upper case.
        key: what its value is stored under; options with the same key exclude one another.
        convert: makes the value out of the argument that follows; None for a word that stands
            alone (its value is `constant`).
        optional: False for one that the command's handler insists on.
    """

    token: str
    key: str
    convert: Convert | None = None
    constant: Any = True
    type: str = "string"
    argument: str = ""
    optional: bool = True

    def describe(self) -> Argument:
        if self.convert is None:
            return Argument(self.token.lower(), "pure-token", token=self.token, optional=True)
        return Argument(
            self.argument or self.key, self.type, token=self.token, optional=self.optional
        )


class OptionTable:
    """The options of one command.

    Args:
        command: its name, for error messages.
        options: in the order in which the documentation lists them.
    """

    def __init__(self, command: str, options: Iterable[Option]) -> None:
        self._command = command
        self._options = tuple(options)
        self._by_token: Mapping[bytes, Option] = {
            option.token.encode(): option for option in self._options
        }

    def parse(self, args: Sequence[bytes], start: int, limits: LimitSettings) -> dict[str, Any]:
        """The options in `args[start:]`, by key.

        Raises:
            CommandError: an unknown, doubled or contradicted word, or a value that is missing or
                not acceptable.
        """
        found: dict[str, Any] = {}
        position, end = start, len(args)
        while position < end:
            option = self._by_token.get(args[position].upper())
            if option is None:
                raise CommandError(f"syntax error in {self._command} command")
            if option.key in found:
                raise CommandError(
                    f"syntax error in {self._command} command: {option.token} is doubled or "
                    "contradicts another option"
                )
            position += 1
            if option.convert is None:
                found[option.key] = option.constant
            elif position < end:
                found[option.key] = option.convert(args[position], limits)
                position += 1
            else:
                raise CommandError(f"syntax error in {self._command} command")
        return found

    def describe(self) -> tuple[Argument, ...]:
        """The options as COMMAND DOCS shows them.

        Those that exclude one another are one choice.
        """
        by_key: dict[str, list[Option]] = {}
        for option in self._options:
            by_key.setdefault(option.key, []).append(option)
        described = []
        for key, options in by_key.items():
            if len(options) == 1:
                described.append(options[0].describe())
            else:
                choices = tuple(
                    Argument(a.name, a.type, a.token) for a in (o.describe() for o in options)
                )
                described.append(Argument(key, "oneof", optional=True, arguments=choices))
        return tuple(described)


def quoted(raw: bytes) -> str:
    """An argument as an error shows it: its beginning, whatever its length."""
    return raw[:128].decode(errors="replace")


def parse_integer(raw: bytes) -> int | None:
    """A 64-bit integer, or None. Forms that only Python knows (``1_0``, spaces) are refused."""
    if len(raw) > 20 or not (raw[1:] if raw[:1] == b"-" else raw).isdigit():
        return None
    value = int(raw)
    return value if -(2**63) <= value < 2**63 else None


def parse_float(raw: bytes) -> float | None:
    """A finite float, or None. Forms that only Python knows (``1_0``, spaces) are refused."""
    if not raw or len(raw) > 64 or b"_" in raw or raw != raw.strip():
        return None
    try:
        value = float(raw)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def integer(name: str, low: int, high: int | str, *, auto: int | None = None) -> Convert:
    """A whole number from `low` to `high`.

    Args:
        name: of the option, for the error.
        low: the least.
        high: the greatest; a string names the limit that holds it.
        auto: where given, the word AUTO is taken too, and is this value.
    """

    def convert(raw: bytes, limits: LimitSettings) -> int:
        if auto is not None and raw.upper() == b"AUTO":
            return auto
        top: int = getattr(limits, high) if isinstance(high, str) else high
        value = parse_integer(raw)
        if value is None or not low <= value <= top:
            word = "" if auto is None else ", or AUTO,"
            raise CommandError(f"invalid {name}: an integer from {low} to {top}{word} is expected")
        return value

    return convert


def number(name: str, low: float) -> Convert:
    """A finite number of at least `low`."""

    def convert(raw: bytes, _limits: LimitSettings) -> float:
        value = parse_float(raw)
        if value is None or value < low:
            raise CommandError(f"invalid {name}: a number of at least {low:g} is expected")
        return value

    return convert


def choice(name: str, words: Mapping[bytes, Any]) -> Convert:
    """One of a set of words, in any case."""

    def convert(raw: bytes, _limits: LimitSettings) -> Any:
        value = words.get(raw.upper())
        if value is None:
            expected = ", ".join(word.decode() for word in words)
            raise CommandError(f"invalid {name}: one of {expected} is expected")
        return value

    return convert
