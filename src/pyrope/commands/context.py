"""What a handler is given: the client that asked, and the server that it asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pyrope.clock import Clock
from pyrope.commands.latency import LatencyMonitor
from pyrope.commands.slowlog import SlowLog
from pyrope.config import Settings
from pyrope.metrics import ServerCounters
from pyrope.service.promise import Promise
from pyrope.service.service import Service

if TYPE_CHECKING:
    from pyrope.commands.spec import Command


REPLY_OFF, REPLY_SKIP, REPLY_SKIP_NEXT = 1, 2, 4


class Link(Protocol):
    """What a command may do to the connection it came by."""

    def close_after_reply(self) -> None:
        """Close once everything answered so far has been sent."""
        ...

    def kill(self) -> None:
        """Close now."""
        ...

    @property
    def input_buffered(self) -> int:
        """Bytes held of commands that have not run yet."""
        ...

    @property
    def output_buffered(self) -> int:
        """Bytes of replies that the client has not read yet."""
        ...

    @property
    def in_flight(self) -> int:
        """Commands that have begun and not been answered."""
        ...


class RequestShutdown(Protocol):
    """Begins a clean stop of the server, with or without the saving of graphs."""

    def __call__(self, *, save: bool) -> None: ...


@dataclass(slots=True, eq=False)
class Client:
    """State of one connection. Times are of the monotonic clock, in seconds.

    Attributes:
        address, local_address: ``host:port``, or the socket's path.
        is_local: it comes from this host.
        user: who it has authenticated as.
        tenant: whose indexes it sees.
        quiet: what CLIENT REPLY has asked for: any of `REPLY_OFF`, `REPLY_SKIP` (this reply is not
            sent) and `REPLY_SKIP_NEXT`.
    """

    id: int
    address: str
    local_address: str
    is_local: bool
    link: Link
    connected_at: float
    last_command_at: float
    descriptor: int = -1
    protocol: int = 2
    name: bytes = b""
    library_name: bytes = b""
    library_version: bytes = b""
    user: str = "default"
    tenant: str = "default"
    authenticated: bool = False
    quiet: int = 0
    no_evict: bool = False
    no_touch: bool = False
    last_command: str = "NULL"


@dataclass(slots=True)
class Server:
    """What all connections share.

    Attributes:
        run_id: 40 hexadecimal digits that name this run of the server.
        request_shutdown: begins a clean stop.
    """

    settings: Settings
    clock: Clock
    service: Service
    commands: Mapping[bytes, Command]
    slow_log: SlowLog
    latency: LatencyMonitor
    run_id: str
    started_at: float
    started_at_wall: float
    request_shutdown: RequestShutdown
    counters: ServerCounters = field(default_factory=ServerCounters)
    clients: dict[int, Client] = field(default_factory=dict)
    listening: tuple[str, ...] = ()


@dataclass(slots=True)
class Context:
    """A handler's first argument."""

    client: Client
    server: Server


@dataclass(slots=True)
class Pending:
    """A reply that is not there yet.

    Attributes:
        future: its outcome; cancelled if the client goes before the work has started.
        render: makes the reply value out of the outcome and the protocol version.
    """

    future: asyncio.Future[Any] | Promise[Any]
    render: Callable[[Any, int], Any]
