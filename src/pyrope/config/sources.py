"""Laying the sources over one another: flags over environment over file over defaults."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource
from pydantic_settings import SettingsError as EnvironmentSyntaxError

from pyrope.config.catalogue import Setting, every_group, every_setting, settings_by_path
from pyrope.config.schema import ENV_PREFIX, Settings

CONFIG_ENV = ENV_PREFIX + "CONFIG"
"""Names the file where ``--config`` does not."""

Layer = Mapping[str, Any]
"""Settings of one source, nested as in the file: ``{"port": 1, "limits": {"dim": 2}}``."""


class InvalidSettingsError(Exception):
    """Settings that the server cannot run with.

    Attributes:
        problems: a sentence for each.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings in force, and where each comes from.

    Attributes:
        origins: for each setting's path, its source in words: ``default``, ``file pyrope.toml``,
            ``environment PYROPE_PORT`` or ``flag --port``.
    """

    settings: Settings
    origins: Mapping[tuple[str, ...], str]


def load_settings(config_file: Path | None = None, flags: Layer | None = None) -> LoadedSettings:
    """Read file and environment, lay the flags over them, and check the result.

    Args:
        config_file: a TOML file.
        flags: values from the command line; texts are converted as those of the environment are.

    Raises:
        InvalidSettingsError: the file cannot be read, something is unknown, or a value is wrong.
    """
    file = _read_file(config_file) if config_file else {}
    environment = _read_environment()
    flags = flags or {}
    origins = {
        setting.path: _origin(setting, config_file, file, environment, flags)
        for setting in every_setting()
    }
    try:
        settings = Settings(**_overlay(_overlay(file, environment), flags))
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        problems = [_explain(detail, config_file, origins) for detail in details]
        raise InvalidSettingsError(problems) from None
    if settings.tls.port or (settings.http_port and settings.http.tls):
        missing = [
            f"tls.{name}: there is no file {path} ({origins['tls', name]})"
            for name, path in settings.tls.files.items()
            if path and not path.is_file()
        ]
        if missing:
            raise InvalidSettingsError(missing)
    return LoadedSettings(settings, origins)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSettingsError([f"{path}: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettingsError([f"{path}: not a TOML file: {error}"]) from None


def _read_environment() -> dict[str, Any]:
    # A misspelt PYROPE_ADMIN_PASSWORD must not start a server without a password.
    known = {setting.env for setting in every_setting()} | {CONFIG_ENV}
    ours = (name for name in os.environ if name.upper().startswith(ENV_PREFIX))
    unknown = [name for name in ours if name.upper() not in known]
    if unknown:
        raise InvalidSettingsError(
            f"environment {name}: no such setting{_suggest(name.upper(), known)}"
            for name in sorted(unknown)
        )
    try:
        return EnvSettingsSource(Settings)()
    except EnvironmentSyntaxError as error:
        raise InvalidSettingsError([f"environment: {error}"]) from None


def _overlay(below: Layer, above: Layer) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            merged[name] = _overlay(under, value)
        else:
            merged[name] = value
    return merged


def _has(layer: Layer, path: tuple[str, ...]) -> bool:
    found: object = layer
    for part in path:
        if not isinstance(found, Mapping) or part not in found:
            return False
        found = found[part]
    return True


def _origin(
    setting: Setting, config_file: Path | None, file: Layer, environment: Layer, flags: Layer
) -> str:
    if _has(flags, setting.path):
        return f"flag {setting.flag}"
    if _has(environment, setting.path):
        return f"environment {setting.env}"
    if _has(file, setting.path):
        return f"file {config_file}"
    return "default"


def _explain(
    detail: ErrorDetails, config_file: Path | None, origins: Mapping[tuple[str, ...], str]
) -> str:
    path = tuple(str(part) for part in detail["loc"])
    key = ".".join(path)
    if detail["type"] == "extra_forbidden":
        near = _suggest(key, (setting.key for setting in every_setting()))
        return f"{key}: no such setting{near} (file {config_file})"
    if detail["type"].startswith("model_") and key in dict(every_group()):
        return f"{key}: must be a table of settings (file {config_file})"
    message = detail["msg"].removeprefix("Value error, ")
    setting = settings_by_path().get(path[:2]) or settings_by_path().get(path[:1])
    if setting is None:  # a rule between settings, which names them itself
        return message
    given = f"{detail['input']!r}"
    # An address may have a password in it, or a key behind it.
    value = "" if setting.is_secret or "://" in given else f", not {given}"
    return f"{setting.key}: {message}{value} ({origins[setting.path]})"


def _suggest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def nested(values: Iterable[tuple[Setting, object]]) -> Layer:
    """Build a layer from settings and values."""
    layer: dict[str, Any] = {}
    for setting, value in values:
        group = layer
        for part in setting.path[:-1]:
            group = group.setdefault(part, {})
        group[setting.path[-1]] = value
    return layer
