"""Settings as options of the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pyrope.config import (
    CONFIG_ENV,
    InvalidSettingsError,
    LoadedSettings,
    Setting,
    every_setting,
    load_settings,
    nested,
    readable,
    readable_bounds,
)

EXIT_FAILED = 1
EXIT_BAD_SETTINGS = 2


def settings_options() -> list[click.Parameter]:
    """An option for each setting, and one for the file."""
    config = click.Option(
        ["config", "--config"],
        type=click.Path(path_type=Path),
        metavar="FILE",
        envvar=CONFIG_ENV,
        help=f"TOML file with settings. [environment: {CONFIG_ENV}]",
    )
    return [config, *map(_option, every_setting())]


def load(config: Path | None, flags: dict[str, object]) -> LoadedSettings:
    """The settings in force. Exits with 2, and a line for each problem, where they are wrong.

    Args:
        config: the file.
        flags: values of the options by their parameters' names; None: not given.
    """
    given = ((setting, flags[_parameter(setting)]) for setting in every_setting())
    try:
        return load_settings(config, nested((s, value) for s, value in given if value is not None))
    except InvalidSettingsError as error:
        for problem in error.problems:
            click.echo(f"pyrope: {problem}", err=True)
        sys.exit(EXIT_BAD_SETTINGS)


def _option(setting: Setting) -> click.Option:
    facts = [f"default: {readable(setting, setting.default) or 'unset'}"]
    if setting.unit:
        facts.append(setting.unit)
    bounds = readable_bounds(setting)
    if bounds and not setting.is_bool:
        facts.append(bounds)
    help_text = f"{setting.description} [{'; '.join(facts)}]"
    if setting.is_bool:
        pair = f"{setting.flag}/--no-{setting.flag.removeprefix('--')}"
        return click.Option([_parameter(setting), pair], default=None, help=help_text)
    # Checked with the other sources, by the settings classes, rather than here.
    return click.Option([_parameter(setting), setting.flag], metavar="VALUE", help=help_text)


def _parameter(setting: Setting) -> str:
    return "_".join(setting.path)
