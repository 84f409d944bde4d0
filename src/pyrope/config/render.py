"""The settings as text: the commented file, the reference page, and what is in force."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from textwrap import wrap

from pyrope.config.catalogue import (
    Setting,
    every_group,
    every_setting,
    plain,
    readable,
    readable_bounds,
)
from pyrope.config.schema import ENV_DELIMITER, Settings

_FILE_HEAD = """\
# Every setting of Pyrope, with its default. A file needs to hold only what it changes.
# The environment (PYROPE_...) wins over this file, and a flag of `pyrope serve` over both.
# Check a file with:  pyrope check --config FILE
"""

_PAGE_HEAD = f"""\
# Settings

Made from the settings classes by `make docs`; edit `src/pyrope/config/schema.py` instead.

A setting comes from a flag, else from the environment, else from the file that `--config` (or
`PYROPE_CONFIG`) names, else it has its default. Anything unknown in the file, or in the
environment under `PYROPE_`, is an error. `pyrope check` takes the same file, environment and
flags, and prints what would be in force and where each value comes from.

For `max_clients` of the group `limits`, the names are:

| in | it is called |
| --- | --- |
| the file | `max_clients` in the table `[limits]` |
| the environment | `PYROPE_LIMITS{ENV_DELIMITER}MAX_CLIENTS` |
| a flag | `--limits-max-clients` |
| `CONFIG GET` | the name in the table below |

Sizes are written as in `redis.conf`: plain bytes, or with a unit, where `1k` is 1000 and `1kb`
is 1024 bytes (`kb`, `mb`, `gb`). An empty text stands for *unset*. Settings marked *live* can be
changed with `CONFIG SET` while the server runs; such a change lasts until the server stops.
Secrets never appear in `CONFIG GET`.

On Kubernetes, a Service named `pyrope` makes the cluster inject variables such as
`PYROPE_SERVICE_HOST` into containers: set `enableServiceLinks: false`.
"""


def toml_value(setting: Setting, value: object) -> str:
    """A value in TOML; secrets are masked."""
    shown = plain(value)
    if isinstance(shown, str) or (setting.is_size and shown):
        # A JSON string is a TOML string, but for DEL, which TOML wants escaped.
        text = json.dumps(readable(setting, value), ensure_ascii=False)
        return text.replace("\x7f", "\\u007f")
    return readable(setting, value)


def default_toml() -> str:
    """The commented file that holds every setting at its default: ``configs/pyrope.toml``."""

    def lines(setting: Setting) -> Iterator[str]:
        facts = [readable_bounds(setting)] if setting.bounds or setting.choices else []
        if setting.unit:
            facts.insert(0, f"unit {setting.unit}")
        tail = f" ({'; '.join(facts)})" if facts else ""
        yield ""
        yield from wrap(setting.description + tail, 98, initial_indent="# ", subsequent_indent="# ")
        yield f"{setting.path[-1]} = {toml_value(setting, setting.default)}"

    return _FILE_HEAD + "\n".join(_tables(lines, commented=True)) + "\n"


def toml_in_force(settings: Settings, origins: Mapping[tuple[str, ...], str]) -> str:
    """Every setting with its value and, as a comment, its source."""

    def lines(setting: Setting) -> Iterator[str]:
        value = toml_value(setting, setting.value(settings))
        yield f"{setting.path[-1]} = {value}  # {origins[setting.path]}"

    return "\n".join(_tables(lines, commented=False)) + "\n"


def _tables(lines: Callable[[Setting], Iterable[str]], *, commented: bool) -> Iterator[str]:
    for setting in every_setting():
        if len(setting.path) == 1:
            yield from lines(setting)
    for name, group in every_group():
        yield ""
        if commented:
            yield from (f"# {line}".rstrip() for line in (inspect.getdoc(group) or "").splitlines())
        yield f"[{name}]"
        for setting in every_setting():
            if setting.path[0] == name:
                yield from lines(setting)


def markdown() -> str:
    """The reference page: ``docs/settings.md``."""
    parts = [_PAGE_HEAD, "## Server\n", *_table(s for s in every_setting() if len(s.path) == 1)]
    for name, group in every_group():
        parts += [f"\n## `{name}`\n", f"{inspect.getdoc(group)}\n"]
        parts += _table(s for s in every_setting() if s.path[0] == name)
    return "\n".join(parts) + "\n"


def _table(settings: Iterable[Setting]) -> Iterator[str]:
    yield "| setting | default | allowed | unit | `CONFIG GET` | live | |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for setting in settings:
        cells = (
            f"`{setting.path[-1]}`",
            f"`{readable(setting, setting.default) or '(unset)'}`",
            readable_bounds(setting),
            setting.unit,
            "(secret)" if setting.is_secret else f"`{setting.name}`",
            "live" if setting.runtime else "",
            setting.description,
        )
        yield f"| {' | '.join(cells)} |"
