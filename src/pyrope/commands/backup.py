"""Backing up the running server. ``pyrope backup`` asks for it; so may anybody else on the host."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pyrope.commands.context import Context
from pyrope.commands.spec import Argument, Command
from pyrope.errors import CommandError, NoPermError

GROUP = "server"
_PATH_BYTES_MAX = 4096
"""PATH_MAX of Linux."""


def to(context: Context, args: list[bytes]) -> Coroutine[Any, Any, dict[str, Any]]:
    if not context.client.is_local:
        # As Redis has it with what writes files: a key that has leaked makes none.
        raise NoPermError(
            "a backup is written by the server where it runs: ask from there, over the loopback "
            "interface or its Unix socket"
        )
    raw = args[2]
    if not raw.startswith(b"/") or b"\0" in raw or len(raw) > _PATH_BYTES_MAX:
        raise CommandError(
            f"the path of a backup is an absolute one of at most {_PATH_BYTES_MAX} bytes"
        )
    path = Path(os.path.normpath(os.fsdecode(raw)))
    actor = context.actor

    async def made() -> dict[str, Any]:
        return asdict(await context.server.service.backups.make(actor, path))

    return made()


def status(context: Context, args: list[bytes]) -> dict[str, Any]:
    told = asdict(context.server.service.backups.status())
    return told | {"running": int(told["running"])}


def cancel(context: Context, args: list[bytes]) -> int:
    return int(context.server.service.backups.cancel())


_FLAGS = frozenset({"admin", "noscript"})
_CATEGORIES = frozenset({"admin", "slow", "dangerous"})

COMMANDS = (
    Command(
        "VECTOR.BACKUP", -2, None, "A container for commands about backups.", GROUP,
        categories=frozenset({"slow"}),
        subcommands={
            "TO": Command(
                "VECTOR.BACKUP|TO", 3, to,
                "Backs everything up, as of one moment, to a new folder on the server's host, "
                "while it goes on serving. Only for clients on that host.",
                GROUP, flags=_FLAGS, categories=_CATEGORIES, arguments=(Argument("path"),),
                complexity="O(N) in the bytes on disk",
                returns="map: path indexes files bytes seconds stall_us",
            ),
            "STATUS": Command(
                "VECTOR.BACKUP|STATUS", 2, status,
                "Tells how far a backup is that is under way, and what became of the last one.",
                GROUP, flags=_FLAGS, categories=_CATEGORIES,
                returns="map: running path done_bytes total_bytes last_at last_error",
            ),
            "CANCEL": Command(
                "VECTOR.BACKUP|CANCEL", 2, cancel,
                "Has the backup that is under way end, in an error.",
                GROUP, flags=_FLAGS, categories=_CATEGORIES, returns="1 | 0 (none is under way)",
            ),
        },
    ),
)  # fmt: skip
