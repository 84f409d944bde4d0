"""The command table: every command, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pyrope.commands import (
    aliases,
    backup,
    cache,
    clusters,
    connection,
    indexes,
    introspection,
    llm,
    remembering,
    search,
    server,
    tenants,
    vectors,
)
from pyrope.commands.context import Context
from pyrope.commands.spec import Command
from pyrope.metrics import CommandStats
from pyrope.resp.values import SimpleString

_FAMILIES = (
    connection,
    introspection,
    server,
    indexes,
    vectors,
    search,
    cache,
    aliases,
    clusters,
    tenants,
    remembering,
    llm,
    backup,
)


def _help(parent: Command) -> Command:
    """The HELP that every command with subcommands has."""
    lines = [f"{parent.name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    for word, command in parent.subcommands.items():
        lines += [word, f"    {command.summary}"]
    lines += ["HELP", "    Print this help."]

    def handler(context: Context, args: list[bytes]) -> Any:
        return [SimpleString(line) for line in lines]

    return Command(
        f"{parent.name}|HELP",
        2,
        handler,
        "Explains the subcommands.",
        parent.group,
        flags=frozenset({"loading", "stale"}),
        categories=frozenset({"slow"}),
    )


def build_table() -> Mapping[bytes, Command]:
    """A fresh table: name in upper case -> command. Statistics begin at zero."""
    table: dict[bytes, Command] = {}
    for family in _FAMILIES:
        for command in family.COMMANDS:
            subcommands = {
                word: replace(each, stats=CommandStats())
                for word, each in command.subcommands.items()
            }
            if subcommands:
                subcommands["HELP"] = _help(command)
            table[command.name.encode()] = replace(
                command, subcommands=subcommands, stats=CommandStats()
            )
    return table
