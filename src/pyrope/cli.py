"""The command line: settings in, a running server out. The only place that installs uvloop."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import click
import uvloop

import pyrope.native_threads  # noqa: F401 - before NumPy and FAISS
from pyrope import __version__
from pyrope.bench.command import bench
from pyrope.clock import Clock, SystemClock
from pyrope.config import Settings, toml_in_force
from pyrope.console.backups import backup, restore
from pyrope.console.options import EXIT_FAILED, load, settings_options
from pyrope.console.ping import ping
from pyrope.errors import CommandError, PyropeError
from pyrope.log import configure_logging, get_logger, iso_utc
from pyrope.storage.store import StorageError


class Serve(Protocol):
    """`pyrope.server.lifecycle.serve`: returns when the server has drained after a signal.

    It calls `ready` once, with the addresses it listens on, and raises OSError, StorageError or a
    PyropeError before that where it cannot start.
    """

    def __call__(
        self, settings: Settings, clock: Clock, *, ready: Callable[[str], None]
    ) -> Coroutine[Any, Any, None]: ...


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pyrope", message="%(prog)s %(version)s")
def main() -> None:
    """Pyrope: a vector cache server that speaks the Redis protocol."""


for command in (backup, restore, ping, bench):
    main.add_command(command)


@main.command("version")
def print_version() -> None:
    """Print the version."""
    click.echo(f"pyrope {__version__}")


@main.command(params=settings_options())
def check(config: Path | None, **flags: object) -> None:
    """Validate settings and print what is in force, with the source of each value.

    Takes what `serve` takes. Exits with 2 where something is wrong.
    """
    loaded = load(config, flags)
    click.echo(toml_in_force(loaded.settings, loaded.origins), nl=False)


@main.command(params=settings_options())
def serve(config: Path | None, **flags: object) -> None:
    """Run the server until SIGTERM or SIGINT.

    A flag wins over the environment (PYROPE_PORT, PYROPE_LIMITS__MAX_CLIENTS, ...), the
    environment over the file. One line on standard error says when the server is ready.
    """
    settings = load(config, flags).settings
    # The engines take half a second to import: `pyrope check` and `--help` do without.
    from pyrope.engine.free_memory import keep_little  # noqa: PLC0415
    from pyrope.http.control_plane import HttpControlPlane  # noqa: PLC0415
    from pyrope.server import lifecycle  # noqa: PLC0415

    keep_little()
    server = partial(lifecycle.serve, control_plane=HttpControlPlane)
    sys.exit(run(settings, SystemClock(), server))


@main.command(params=settings_options())
def doctor(config: Path | None, **flags: object) -> None:
    """Look for damage in the data directory, while no server runs on it. Changes nothing.

    Looks at the checksum of every record and vector, and at every line of the audit trail and of
    the billing log. Takes what `serve` takes. Exits with 1 where something is wrong.
    """
    from pyrope.service.doctor import examine  # noqa: PLC0415 - imports the engines

    data_dir = Path(load(config, flags).settings.data_dir)
    wrong = 0
    try:
        for what, problems in examine(data_dir):
            click.echo(f"{'damaged' if problems else 'ok':8}{what}")
            for problem in problems:
                click.echo(f"        {problem}")
            wrong += len(problems)
    except (PyropeError, StorageError) as error:
        click.echo(f"pyrope: {error}", err=True)
        sys.exit(EXIT_FAILED)
    sys.exit(1 if wrong else 0)


_BILLING_FIELDS = (
    "tenant",
    "period",
    "at",
    "requests",
    "hits",
    "misses",
    "used",
    "compute_units",
    "llm_tokens_in",
    "llm_tokens_out",
    "llm_cost",
    "embeddings",
    "refused_quota",
    "refused_budget",
    "most_vectors",
    "most_bytes",
    "most_cache_bytes",
)


@main.command(
    params=[
        *settings_options(),
        click.Option(["period", "--period"], metavar="YYYY-MM", help="Of this month only."),
        click.Option(
            ["form", "--format"],
            type=click.Choice(["csv", "json"]),
            default="csv",
            show_default=True,
            help="What to print.",
        ),
    ]
)
def billing(config: Path | None, period: str | None, form: str, **flags: object) -> None:
    """Print what tenants have used, by month, as the billing log has it.

    The server may be running; what was used since the last entry (tenants.billing_interval_s) is
    not in it yet. Takes what `serve` takes. Exits with 1 where the log is damaged.
    """
    from pyrope.service.billing import latest_entries  # noqa: PLC0415 - imports the engines
    from pyrope.service.tenancy import BILLING_FOLDER  # noqa: PLC0415 - likewise
    from pyrope.tenants.period import Period  # noqa: PLC0415 - likewise

    folder = Path(load(config, flags).settings.data_dir) / BILLING_FOLDER
    try:
        if period is not None:
            Period.parse(period)
        if not folder.is_dir():
            raise StorageError(f"there is no billing log in {folder}")
        entries = latest_entries(folder)
    except (CommandError, StorageError) as error:
        click.echo(f"pyrope: {error}", err=True)
        sys.exit(EXIT_FAILED)
    rows = [
        {name: entry[name] for name in _BILLING_FIELDS}
        for (_, month), entry in sorted(entries.items())
        if period in (None, month)
    ]
    if form == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    writer = csv.DictWriter(sys.stdout, _BILLING_FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def run(settings: Settings, clock: Clock, server: Serve) -> int:
    """Run `server` on uvloop until it returns.

    Returns:
        The exit code: 0 after a drain, 1 where the server could not start; one line on standard
        error then says why. What fails later is a bug, and leaves as the exception it is.
    """
    configure_logging(
        level=lambda: settings.log.level,
        output=settings.log.format,
        now=clock.wall,
        stream=sys.stderr,
    )
    started = False

    def ready(addresses: str) -> None:
        nonlocal started
        started = True
        click.echo(_ready_line(settings, clock, addresses), err=True)

    try:
        uvloop.run(server(settings, clock, ready=ready))
    except (OSError, PyropeError, StorageError) as error:
        if started:
            raise
        get_logger(__name__).error(f"cannot start: {error}")
        return EXIT_FAILED
    return 0


def _ready_line(settings: Settings, clock: Clock, addresses: str) -> str:
    """What supervisors wait for, whatever the log level; JSON where the log is JSON."""
    if settings.log.format == "text":
        return f"Pyrope {__version__} ready on {addresses}"
    line = {
        "event": "ready",
        "version": __version__,
        "addresses": addresses,
        "level": "info",
        "timestamp": iso_utc(clock.wall()),
    }
    return json.dumps(line)
