"""What a command is: the record that dispatch, COMMAND DOCS, ACL and the reference read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from pyrope.commands.ranks import ADMINISTRATOR, OPERATOR, READER
from pyrope.metrics import CommandStats

if TYPE_CHECKING:
    from pyrope.commands.context import Context

Handler = Callable[["Context", list[bytes]], Any]
"""Takes the context and the arguments (the command's name first). Returns a reply value
(`pyrope.resp.writer`), a `Pending`, or an awaitable of a reply value."""


class Access(Enum):
    """How a command relates to the others of its connection that are still running.

    Commands of a connection take effect in the order sent. Those that do not touch the data run
    at once; reads run together, and so do writes (each index queues its own in order); a switch
    between the two waits for what was sent before; EXCLUSIVE ones run alone.
    """

    NONE = "none"
    READ = "read"
    WRITE = "write"
    EXCLUSIVE = "exclusive"


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument, as COMMAND DOCS describes it.

    Attributes:
        type: one of Redis' types: string, integer, double, key, pattern, unix-time, pure-token,
            oneof, block.
        token: the word that comes before it (or is it, for a pure-token).
        arguments: the parts of a block or the choices of a oneof.
    """

    name: str
    type: str = "string"
    token: str | None = None
    optional: bool = False
    multiple: bool = False
    arguments: tuple[Argument, ...] = ()
    summary: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """One command or subcommand.

    Attributes:
        name: in upper case; a subcommand's is ``PARENT|CHILD``.
        arity: number of arguments with the name; -n means n or more (Redis' convention). For a
            subcommand both words count.
        flags: Redis' command flags (readonly, write, denyoom, admin, fast, loading, stale,
            no_auth, noscript, blocking, dangerous).
        categories: ACL categories without the @.
        has_index: whether the first argument after the name is an index (the command's key).
        summary: one sentence; with `returns`, what the reference says.
        defers: of a write, tells from its arguments whether it takes effect later, in line with
            others that do (see `pyrope.commands.text_vector`); None: it never does.
    """

    name: str
    arity: int
    handler: Handler | None
    summary: str
    group: str
    access: Access = Access.NONE
    flags: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    has_index: bool = False
    arguments: tuple[Argument, ...] = ()
    complexity: str = "O(1)"
    since: str = "0.1.0"
    returns: str = ""
    subcommands: Mapping[str, Command] = field(default_factory=dict)
    defers: Callable[[list[bytes]], bool] | None = None
    stats: CommandStats = field(default_factory=CommandStats, compare=False)

    @property
    def rank(self) -> int:
        """The least rank that may use it; see `pyrope.commands.ranks`."""
        if "admin" in self.flags:
            return ADMINISTRATOR
        return OPERATOR if "write" in self.flags else READER

    def accepts(self, count: int) -> bool:
        """Whether `count` arguments, names included, satisfy the arity."""
        return count == self.arity if self.arity >= 0 else count >= -self.arity

    @property
    def display_name(self) -> str:
        """The name as Redis writes it in errors and stats."""
        return self.name.lower()
