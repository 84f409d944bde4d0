"""The list of all settings, read from the classes, with the names each goes by outside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, cast, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from pyrope.config.fields import SIZE_MARKER, format_size
from pyrope.config.schema import ENV_DELIMITER, ENV_PREFIX, Settings

MASK = "********"
"""Shown in place of a secret."""


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """One setting, without its value.

    Attributes:
        path: names of the group (where it has one) and of the field.
        unit: what a number counts; empty where it has no unit.
        redis: what Redis calls the same setting; empty where Redis has none.
        runtime: whether ``CONFIG SET`` may change it.
        bounds: smallest and largest number allowed, both included; None where it is no number.
    """

    path: tuple[str, ...]
    field: FieldInfo
    unit: str
    redis: str
    runtime: bool
    bounds: tuple[float, float] | None

    @property
    def key(self) -> str:
        """Its name in the file: ``limits.max_clients``."""
        return ".".join(self.path)

    @property
    def name(self) -> str:
        """Its name in ``CONFIG GET``: Redis' own, else ``limits-id-bytes``."""
        return self.redis or self.flag.removeprefix("--")

    @property
    def env(self) -> str:
        """Its environment variable: ``PYROPE_LIMITS__MAX_CLIENTS``."""
        return ENV_PREFIX + ENV_DELIMITER.join(self.path).upper()

    @property
    def flag(self) -> str:
        """Its flag: ``--limits-max-clients``."""
        return "--" + "-".join(self.path).replace("_", "-")

    @property
    def description(self) -> str:
        return self.field.description or ""

    @property
    def default(self) -> object:
        return self.field.default

    @property
    def is_size(self) -> bool:
        return SIZE_MARKER in self.field.metadata

    @property
    def is_bool(self) -> bool:
        return self.field.annotation is bool

    @property
    def is_secret(self) -> bool:
        return SecretStr in get_args(self.field.annotation)

    @property
    def choices(self) -> tuple[str, ...]:
        """The words allowed; empty where it is no choice among words."""
        annotation = self.field.annotation
        return get_args(annotation) if get_origin(annotation) is Literal else ()

    def value(self, settings: Settings) -> object:
        """Its value in `settings`."""
        found: object = settings
        for part in self.path:
            found = getattr(found, part)
        return found


def _read(path: tuple[str, ...], field: FieldInfo) -> Setting:
    facts = cast("dict[str, object]", field.json_schema_extra)
    lower = next((cast("float", mark.ge) for mark in field.metadata if isinstance(mark, Ge)), None)
    upper = next((cast("float", mark.le) for mark in field.metadata if isinstance(mark, Le)), None)
    return Setting(
        path=path,
        field=field,
        unit=str(facts["unit"]),
        redis=str(facts["redis"]),
        runtime=bool(facts["runtime"]),
        bounds=None if lower is None or upper is None else (lower, upper),
    )


def _walk() -> Iterator[Setting]:
    groups = dict(every_group())
    for name, field in Settings.model_fields.items():
        if name in groups:
            for inner, inner_field in groups[name].model_fields.items():
                yield _read((name, inner), inner_field)
        else:
            yield _read((name,), field)


@cache
def every_group() -> tuple[tuple[str, type[BaseModel]], ...]:
    """Name and class of each group of settings."""
    return tuple(
        (name, field.annotation)
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    )


@cache
def every_setting() -> tuple[Setting, ...]:
    """All settings, in the order of the classes: those of no group first."""
    return tuple(_walk())


@cache
def settings_by_path() -> dict[tuple[str, ...], Setting]:
    return {setting.path: setting for setting in every_setting()}


def plain(value: object) -> bool | int | float | str:
    """A setting's value as a file or a reply can hold it; None and secrets become text."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, (bool, int, float)):
        return value
    return str(value)


def readable(setting: Setting, value: object) -> str:
    """A value for people to read: sizes with their unit, words as they are."""
    shown = plain(value)
    if setting.is_size and isinstance(shown, int):
        return format_size(shown)
    if isinstance(shown, bool):
        return "true" if shown else "false"
    return str(shown)


def readable_bounds(setting: Setting) -> str:
    """What may be set, for people to read; empty where any text may be."""
    if setting.choices:
        return ", ".join(setting.choices)
    if setting.is_bool:
        return "true, false"
    if setting.bounds is None:
        return ""
    lower, upper = (readable(setting, bound) for bound in setting.bounds)
    return f"{lower} to {upper}"
