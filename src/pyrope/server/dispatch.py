"""The command table in the form that the hot path reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pyrope.commands.spec import Access, Command, Handler
from pyrope.errors import CommandError
from pyrope.metrics import CommandStats

# Redis quotes so much of an unknown command and of its arguments.
_SHOWN_BYTES = 128


class Entry:
    """One command or subcommand, with everything that is decided before its handler runs."""

    __slots__ = (
        "access",
        "closes",
        "defers",
        "high",
        "is_metered",
        "keeps_secret",
        "low",
        "name",
        "needs_authentication",
        "needs_loaded",
        "rank",
        "record",
        "run",
        "stats",
        "subcommands",
    )

    def __init__(self, command: Command) -> None:
        self.name = command.display_name
        self.closes = False
        self.run: Handler | None = command.handler
        self.low = abs(command.arity)
        self.high = command.arity if command.arity >= 0 else 1 << 62
        self.access: Access = command.access
        self.needs_authentication = "no_auth" not in command.flags
        self.needs_loaded = "loading" not in command.flags
        self.rank = command.rank
        # What touches an index counts against a tenant's quotas.
        self.is_metered = command.has_index
        self.defers = command.defers
        self.keeps_secret = "skip_slowlog" in command.flags
        self.stats: CommandStats = command.stats
        self.record: Callable[[float], None] = command.stats.record
        self.subcommands: dict[bytes, Entry] = {
            word.encode(): Entry(each) for word, each in command.subcommands.items()
        }


# What a web page can make a browser send to this host (as Redis' securityWarningCommand): the
# lines after them would be run as inline commands.
_HTTP = frozenset({b"POST", b"HOST:"})
_TURNED_AWAY = Entry(Command("HTTP", -1, None, "", ""))
_TURNED_AWAY.closes = True


class Dispatcher:
    """Finds the entry that a command's words name."""

    def __init__(self, table: Mapping[bytes, Command]) -> None:
        self.entries = {name: Entry(command) for name, command in table.items()}

    def find(self, args: list[bytes]) -> Entry:
        """The entry for `args`. Raises CommandError: no such command, or a wrong arity."""
        entry = self.entries.get(args[0]) or self.entries.get(args[0].upper())
        if entry is None:
            if args[0][:8].upper() in _HTTP:
                return _TURNED_AWAY
            raise CommandError(_unknown(args))
        if entry.subcommands and len(args) > 1:
            inner = entry.subcommands.get(args[1].upper())
            if inner is None:
                word = args[1][:_SHOWN_BYTES].decode(errors="replace")
                raise CommandError(f"unknown subcommand '{word}'. Try {entry.name.upper()} HELP.")
            entry = inner
        if not entry.low <= len(args) <= entry.high or entry.run is None:
            raise CommandError(f"wrong number of arguments for '{entry.name}' command")
        return entry


def _unknown(args: list[bytes]) -> str:
    name = args[0][:_SHOWN_BYTES].decode(errors="replace")
    shown = ""
    for arg in args[1:]:
        if len(shown) >= _SHOWN_BYTES:
            break
        shown += f"'{arg[: _SHOWN_BYTES - len(shown)].decode(errors='replace')}' "
    return f"unknown command '{name}', with args beginning with: {shown}"
