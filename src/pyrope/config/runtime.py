"""What ``CONFIG GET`` shows and ``CONFIG SET`` changes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pyrope.config.catalogue import Setting, every_setting, plain
from pyrope.config.schema import Settings
from pyrope.config.sources import nested
from pyrope.errors import CommandError


@cache
def _by_name() -> dict[str, Setting]:
    return {setting.name: setting for setting in every_setting()}


def config_names(settings: Settings) -> dict[str, str]:
    """Every setting under its ``CONFIG GET`` name, with its value as text.

    Booleans are ``yes`` and ``no``, sizes plain bytes, paths absolute; what is unset is empty.
    Secrets are left out.
    """
    return {
        name: _text(setting.value(settings))
        for name, setting in _by_name().items()
        if not setting.is_secret
    }


def config_set(settings: Settings, changes: Mapping[str, str]) -> None:
    """Change settings while the server runs: all of them, or none.

    Args:
        settings: changed in place.
        changes: ``CONFIG GET`` names (in any case) and the new values as text.

    Raises:
        CommandError: an unknown, doubled or immutable name, or a value that is not allowed.
    """
    wanted: dict[str, tuple[Setting, str]] = {}
    for given, text in changes.items():
        setting = _by_name().get(given.lower())
        if setting is None:
            raise CommandError(f"Unknown option or number of arguments for CONFIG SET - '{given}'")
        if not setting.runtime:
            raise _refusal(given, "can't set immutable config")
        if setting.name in wanted:
            raise _refusal(given, "duplicate parameter")
        wanted[setting.name] = (setting, text)
    candidate = _checked(settings, wanted)
    # Groups first: the rules between settings run when a field of Settings itself is assigned,
    # and by then the groups are in their final state.
    for setting, _ in sorted(wanted.values(), key=lambda change: -len(change[0].path)):
        owner: BaseModel = settings
        for part in setting.path[:-1]:
            owner = getattr(owner, part)
        setattr(owner, setting.path[-1], setting.value(candidate))


def _checked(settings: Settings, wanted: Mapping[str, tuple[Setting, str]]) -> Settings:
    values = {setting: setting.value(settings) for setting in every_setting()}
    values |= dict(wanted.values())
    try:
        return Settings(**nested(values.items()))
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
    path = tuple(str(part) for part in detail["loc"])
    changed = [setting for setting, _ in wanted.values()]
    blamed = next((s for s in changed if s.path == path[: len(s.path)]), None)
    if blamed is None:  # a rule between settings, which names them
        blamed = next((s for s in changed if s.key in detail["msg"]), changed[0])
    raise _refusal(blamed.name, _reason(detail, blamed))


def _refusal(name: str, reason: str) -> CommandError:
    return CommandError(f"CONFIG SET failed (possibly related to argument '{name}') - {reason}")


def _reason(detail: ErrorDetails, setting: Setting) -> str:
    """The sentence of Redis for the same mistake, where Redis knows it."""
    kind = detail["type"]
    if kind in {"greater_than_equal", "less_than_equal", "finite_number"} and setting.bounds:
        lower, upper = (plain(bound) for bound in setting.bounds)
        return f"argument must be between {lower} and {upper} inclusive"
    if kind.startswith("int_"):
        return "argument couldn't be parsed into an integer"
    if kind.startswith("float_"):
        return "argument couldn't be parsed into a number"
    if kind.startswith("bool_"):
        return "argument must be 'yes' or 'no'"
    if setting.choices:
        return f"argument(s) must be one of the following: {', '.join(setting.choices)}"
    return detail["msg"].removeprefix("Value error, ")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Path):
        return str(value.absolute())
    return str(plain(value))
