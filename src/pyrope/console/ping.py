"""``pyrope ping``: whether the server answers, for health checks."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pyrope.console.connection import address_of, connect
from pyrope.console.options import EXIT_FAILED, load, settings_options
from pyrope.console.replies import BrokenReplyError, ReplyError

_ALIVE = ("NOAUTH ", "LOADING ")
"""A server that asks for a password, or that is still loading its data, is alive."""


@click.command(
    params=[
        *settings_options(),
        click.Option(
            ["timeout", "--timeout"],
            type=click.FloatRange(0.01, 3600),
            default=3.0,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait.",
        ),
        click.Option(
            ["ready", "--ready"],
            is_flag=True,
            help="Also fail while the server is still loading its data.",
        ),
    ]
)
def ping(config: Path | None, *, timeout: float, ready: bool, **flags: object) -> None:
    """Ask the server whether it is alive.

    Takes what `serve` takes, to know where it listens. Exits with 1 where it does not answer.
    """
    settings = load(config, flags).settings
    try:
        with connect(settings, timeout, sign_in=ready) as connection:
            # DBSIZE is refused while data are loaded, PING is not.
            reply = connection.command("DBSIZE" if ready else "PING")
        if not ready and reply != b"PONG":
            raise BrokenReplyError(f"it answers {reply!r}")
    except ReplyError as error:
        if ready or not str(error).startswith(_ALIVE):
            _fail(f"{address_of(settings)}: {error}")
    except (OSError, BrokenReplyError) as error:
        _fail(f"no answer from {address_of(settings)}: {error}")
    click.echo("PONG")


def _fail(reason: str) -> None:
    click.echo(f"pyrope: {reason}", err=True)
    sys.exit(EXIT_FAILED)
