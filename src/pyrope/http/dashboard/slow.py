"""The slow log, as people read it."""

from __future__ import annotations

from typing import Any

from pyrope.commands.slowlog import SlowCommand, SlowLog

# Commands that a dashboard shows, of so many that are looked through.
_SHOWN, _LOOKED_THROUGH = 20, 1000
# Of what a command was given.
_ARGUMENTS, _ARGUMENT_CHARACTERS = 12, 60


def slow_commands(log: SlowLog, tenant: str | None) -> list[dict[str, Any]]:
    """The latest, newest first.

    Args:
        tenant: whose; of these, nothing of what other users of the tenant have asked for, nor from
            where. None: everybody's.
    """
    if tenant is None:
        return [_told(one) | _who(one) for one in log.latest(_SHOWN)]
    own = [one for one in log.latest(_LOOKED_THROUGH) if one.tenant == tenant]
    return [_told(one) for one in own[:_SHOWN]]


def _told(one: SlowCommand) -> dict[str, Any]:
    return {
        "id": one.id,
        "at": one.at,
        "microseconds": one.microseconds,
        "command": _text(one.arguments[0]),
        "user": one.user,
        "tenant": one.tenant,
        "request_id": one.request_id,
        **one.parts,
    }


def _who(one: SlowCommand) -> dict[str, Any]:
    words = [_text(argument) for argument in one.arguments[:_ARGUMENTS]]
    if len(one.arguments) > _ARGUMENTS:
        words.append("…")
    return {"command": " ".join(words), "address": one.address}


def _text(argument: bytes) -> str:
    """Words as they are; nothing of vectors, and of what else is no text."""
    try:
        text = argument.decode()
    except UnicodeDecodeError:
        return "(binary)"
    if not text.isprintable():
        return "(binary)"
    return text if len(text) <= _ARGUMENT_CHARACTERS else f"{text[:_ARGUMENT_CHARACTERS]}…"
