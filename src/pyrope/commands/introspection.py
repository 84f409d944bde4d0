"""COMMAND and ACL: the command table, told to clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pyrope.commands.context import Context
from pyrope.commands.globs import matches
from pyrope.commands.options import quoted
from pyrope.commands.spec import Argument, Command
from pyrope.errors import CommandError
from pyrope.resp.values import SetReply, SimpleString
from pyrope.tenants.tenant import TENANT_KEY_ROLE, Role

# Redis' categories that a command of Pyrope can be in.
CATEGORIES = (
    "keyspace",
    "read",
    "write",
    "vector",
    "admin",
    "fast",
    "slow",
    "dangerous",
    "connection",
)


def find(table: Mapping[bytes, Command], name: bytes) -> Command | None:
    """A command by name, or a subcommand by ``parent|child``."""
    parent, _, child = name.upper().partition(b"|")
    command = table.get(parent)
    if command is None or not child:
        return command
    return command.subcommands.get(quoted(child))


def every(table: Mapping[bytes, Command]) -> Iterator[Command]:
    for command in table.values():
        yield command
        yield from command.subcommands.values()


def _flag_set(words: Any) -> SetReply:
    return SetReply(tuple(SimpleString(word) for word in sorted(words)))


def describe(command: Command) -> list[Any]:
    """The ten fields of COMMAND INFO."""
    key = int(command.has_index) * (1 + command.name.count("|"))
    flags = set(command.flags)
    specifications: list[Any] = []
    if command.has_index:
        access = "RO" if "readonly" in flags else "RW"
        specifications.append(
            {
                "flags": _flag_set({access, "access"} | ({"update"} if access == "RW" else set())),
                "begin_search": {"type": "index", "spec": {"index": key}},
                "find_keys": {"type": "range", "spec": {"lastkey": 0, "keystep": 1, "limit": 0}},
            }
        )
    return [
        command.display_name,
        command.arity,
        _flag_set(flags),
        key,
        key,
        key,
        _flag_set(f"@{category}" for category in command.categories),
        SetReply(()),
        SetReply(tuple(specifications)),
        SetReply(tuple(describe(each) for each in command.subcommands.values())),
    ]


def document(command: Command) -> dict[str, Any]:
    """What COMMAND DOCS tells of a command."""
    told: dict[str, Any] = {
        "summary": command.summary,
        "since": command.since,
        "group": command.group,
        "complexity": command.complexity,
    }
    if command.arguments:
        told["arguments"] = [
            _document_argument(argument, index) for index, argument in enumerate(command.arguments)
        ]
    if command.subcommands:
        told["subcommands"] = {
            each.display_name: document(each) for each in command.subcommands.values()
        }
    return told


def _document_argument(argument: Argument, position: int) -> dict[str, Any]:
    told: dict[str, Any] = {"name": argument.name, "type": argument.type}
    if argument.type not in ("oneof", "block", "pure-token"):
        told["display_text"] = argument.name
    if argument.type == "key" and position == 0:
        told["key_spec_index"] = 0
    if argument.token is not None:
        told["token"] = argument.token
    if argument.summary is not None:
        told["summary"] = argument.summary
    flags = [
        SimpleString(word)
        for word, on in (("optional", argument.optional), ("multiple", argument.multiple))
        if on
    ]
    if flags:
        told["flags"] = SetReply(tuple(flags))
    if argument.arguments:
        told["arguments"] = [
            _document_argument(inner, index + 1) for index, inner in enumerate(argument.arguments)
        ]
    return told


def command_all(context: Context, args: list[bytes]) -> list[Any]:
    return [describe(command) for command in context.server.commands.values()]


def command_count(context: Context, args: list[bytes]) -> int:
    return len(context.server.commands)


def command_info(context: Context, args: list[bytes]) -> list[Any]:
    table = context.server.commands
    if len(args) == 2:
        return command_all(context, args)
    found = (find(table, name) for name in args[2:])
    return [None if command is None else describe(command) for command in found]


def command_docs(context: Context, args: list[bytes]) -> dict[str, Any]:
    table = context.server.commands
    if len(args) == 2:
        return {command.display_name: document(command) for command in table.values()}
    found = (find(table, name) for name in args[2:])
    return {command.display_name: document(command) for command in found if command is not None}


def command_list(context: Context, args: list[bytes]) -> list[str]:
    commands = list(every(context.server.commands))
    if len(args) > 2:
        if len(args) != 5 or args[2].upper() != b"FILTERBY":
            raise CommandError("syntax error")
        word, wanted = args[3].upper(), quoted(args[4]).lower()
        if word == b"PATTERN":
            commands = [each for each in commands if matches(args[4].lower(), each.display_name)]
        elif word == b"ACLCAT":
            commands = [each for each in commands if wanted in each.categories]
        elif word == b"MODULE":
            commands = []
        else:
            raise CommandError("syntax error")
    return [each.display_name for each in commands]


def command_getkeys(context: Context, args: list[bytes]) -> list[bytes]:
    table = context.server.commands
    command = find(table, args[2])
    position = 2
    if command is not None and command.subcommands and len(args) > 3:
        command = command.subcommands.get(args[3].upper().decode(errors="replace"))
        position = 3
    if command is None:
        raise CommandError("Invalid command specified")
    if not command.has_index:
        raise CommandError("The command has no key arguments")
    if not command.accepts(len(args) - 2):
        raise CommandError("Invalid number of arguments specified for command")
    return [args[position + 1]]


def acl_whoami(context: Context, args: list[bytes]) -> str:
    return context.client.user


def acl_cat(context: Context, args: list[bytes]) -> list[str]:
    if len(args) > 3:
        raise CommandError("wrong number of arguments for 'acl|cat' command")
    if len(args) == 2:
        return list(CATEGORIES)
    category = quoted(args[2]).lower()
    if category not in CATEGORIES:
        raise CommandError(f"Unknown category '{quoted(args[2])}'")
    return [
        each.display_name for each in every(context.server.commands) if category in each.categories
    ]


def acl_list(context: Context, args: list[bytes]) -> list[str]:
    # The password is neither shown nor hashed: it is in the settings, not in an ACL file.
    secret = context.server.settings.admin_password is not None
    rules = [
        f"user {user} on {'#<password>' if secret else 'nopass'} ~* &* +@all"
        for user in ("default", "admin")
    ]
    registry = context.server.service.tenancy.registry
    for name in registry.names():
        tenant = registry.get(name)
        if tenant is not None:
            rules.append(_rule(name, TENANT_KEY_ROLE))
            rules += [_rule(f"{name}.{user.name}", user.role) for user in tenant.users.values()]
    return rules


def _rule(login: str, role: Role) -> str:
    rights = "+@read" if role is Role.READER else "+@read +@write"
    return f"user {login} on #<key> ~* resetchannels -@all {rights}"


_OPEN = frozenset({"loading", "stale"})
_CATEGORIES = frozenset({"slow", "connection"})
_ACL_FLAGS = frozenset({"admin", "noscript", "loading", "stale"})
_ACL = frozenset({"admin", "slow", "dangerous"})
_NAMES = (Argument("command-name", optional=True, multiple=True),)


def _command(
    word: str, arity: int, handler: Any, summary: str, arguments: tuple[Argument, ...] = ()
) -> Command:
    return Command(
        f"COMMAND|{word}", arity, handler, summary, "server",
        flags=_OPEN, categories=_CATEGORIES, arguments=arguments,
    )  # fmt: skip


COMMANDS = (
    Command(
        "COMMAND", -1, command_all, "Describes every command.", "server",
        flags=_OPEN, categories=_CATEGORIES,
        subcommands={
            each.name.split("|")[1]: each
            for each in (
                _command("COUNT", 2, command_count, "Counts the commands."),
                _command("INFO", -2, command_info, "Describes commands.", _NAMES),
                _command("DOCS", -2, command_docs, "Documents commands.", _NAMES),
                _command(
                    "LIST", -2, command_list, "Lists the names of commands.",
                    (
                        Argument(
                            "filterby", "oneof", "FILTERBY", optional=True,
                            arguments=(
                                Argument("module-name", "string", "MODULE"),
                                Argument("category", "string", "ACLCAT"),
                                Argument("pattern", "pattern", "PATTERN"),
                            ),
                        ),
                    ),
                ),
                _command(
                    "GETKEYS", -3, command_getkeys, "Finds the index that a command names.",
                    (Argument("command"), Argument("arg", optional=True, multiple=True)),
                ),
            )
        },
    ),
    Command(
        "ACL", -2, None, "Commands about users.", "server", categories=frozenset({"slow"}),
        subcommands={
            "WHOAMI": Command(
                "ACL|WHOAMI", 2, acl_whoami, "Tells the user of the connection.", "server",
                flags=_OPEN, categories=frozenset({"slow"}), returns="user",
            ),
            "CAT": Command(
                "ACL|CAT", -2, acl_cat, "Lists the categories, or the commands of one.", "server",
                flags=_OPEN, categories=frozenset({"slow"}),
                arguments=(Argument("category", optional=True),), returns="array of names",
            ),
            "LIST": Command(
                "ACL|LIST", 2, acl_list, "Lists the users.", "server",
                flags=_ACL_FLAGS, categories=_ACL, returns="array of rules",
            ),
        },
    ),
)  # fmt: skip
