"""What a handler is given: the client that asked, and the server that it asked."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from pyrope.clock import Clock
from pyrope.commands.answering import Answering, Record
from pyrope.commands.latency import LatencyMonitor
from pyrope.commands.ranks import ADMINISTRATOR, OPERATOR, READER
from pyrope.commands.slowlog import SlowLog
from pyrope.config import Settings
from pyrope.metrics import Durations, ServerCounters
from pyrope.service.audit import Actor
from pyrope.service.kept_replies import KeptReplies
from pyrope.service.promise import Promise
from pyrope.service.service import Service
from pyrope.tenants.enforcer import Account
from pyrope.tenants.identity import Identity
from pyrope.tenants.names import DEFAULT_TENANT
from pyrope.tenants.registry import TenantRegistry
from pyrope.tenants.tenant import Role

if TYPE_CHECKING:
    from pyrope.commands.spec import Command


REPLY_OFF, REPLY_SKIP, REPLY_SKIP_NEXT = 1, 2, 4

RANKS = {Role.READER: READER, Role.OPERATOR: OPERATOR, Role.ADMIN: OPERATOR}
"""By role. What takes an admin of a tenant depends on which tenant, so its command decides."""


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


class SentSpans(Protocol):
    """How many spans of traces were sent, and could not be, since the start."""

    exported_total: int
    dropped_total: int


class RequestShutdown(Protocol):
    """Begins a clean stop of the server, with or without the saving of graphs."""

    def __call__(self, *, save: bool) -> None: ...


@dataclass(slots=True, eq=False)
class Client:
    """State of one connection. Times are of the monotonic clock, in seconds.

    Attributes:
        address, local_address: ``host:port``, or the socket's path.
        is_local: it comes from this host.
        identity: who it is; None before it has signed in.
        user: by which name it has signed in.
        tenant: whose indexes it sees.
        authenticated: whether it is anybody.
        rank: what it may do; see `Command.rank`.
        revision: of the registry of tenants, up to which all this is known to be true.
        quiet: what CLIENT REPLY has asked for: any of `REPLY_OFF`, `REPLY_SKIP` (this reply is not
            sent) and `REPLY_SKIP_NEXT`.
        request_id: of the request that it is, where a client is one request and no connection.
        deferred: the end of the line of writes that wait for their texts to be embedded, done once
            all are on their way to their indexes; None: there never was one.
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
    identity: Identity | None = None
    authenticated: bool = False
    rank: int = 0
    revision: int = -1
    quiet: int = 0
    request_id: str | None = None
    deferred: asyncio.Future[None] | None = None
    no_evict: bool = False
    no_touch: bool = False
    last_command: str = "NULL"

    @property
    def has_deferred(self) -> bool:
        """Whether writes wait for their texts to be embedded."""
        return self.deferred is not None and not self.deferred.done()

    def bind(self, identity: Identity | None, registry: TenantRegistry) -> None:
        """Be somebody; None: nobody, who may only sign in."""
        self.identity = identity
        self.authenticated = identity is not None
        if identity is None:
            self.user = self.tenant = DEFAULT_TENANT
            self.rank, self.revision = 0, -1
            return
        self.user, self.tenant = identity.name, identity.tenant
        self.rank = ADMINISTRATOR if identity.administrator else RANKS[identity.role]
        # Who has a key that expires is looked at each time.
        self.revision = registry.revision if identity.valid_until is None else -1


@dataclass(slots=True)
class Server:
    """What all connections share.

    Attributes:
        run_id: 40 hexadecimal digits that name this run of the server.
        request_shutdown: begins a clean stop.
        loop_lag: by how much the event loop was late.
        tracing: of traces; None: there are none.
        answered: how the query was answered that was answered last.
        told_id: the id that was told last in a reply, and the arguments of its command.
        watched: of tenants that somebody looks at right now, how long their queries take.
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
    loop_lag: Durations = field(default_factory=Durations)
    tracing: SentSpans | None = None
    answered: Record | None = None
    told_id: tuple[list[bytes] | None, str] = (None, "")
    watched: dict[str, Durations] = field(default_factory=dict)
    _request_numbers: Iterator[int] = field(default_factory=partial(itertools.count, 1))

    def request_id(self, client: Client) -> str:
        """Names a request in replies and in logs: another one each time, but for one of HTTP's."""
        return client.request_id or f"{self.run_id[:8]}-{next(self._request_numbers):x}"

    def answered_by(self, args: list[bytes]) -> Answering | None:
        """How these very arguments were answered, if nothing else has been answered since."""
        record = self.answered
        if record is None or record[0] is not args:
            return None
        told, request_id = self.told_id
        return Answering(*record, request_id if told is args else "")

    def note_slow(
        self, client: Client, args: list[bytes], seconds: float, *, keeps_secret: bool
    ) -> None:
        """Tell of a command that took long, where it took as long as is to be told.

        Args:
            keeps_secret: whether its arguments may hold a key.
        """
        settings = self.settings.slowlog
        if 0 < settings.spike_threshold_ms <= seconds * 1000:
            self.latency.record("command", at=self.clock.wall(), seconds=seconds)
        if 0 <= settings.slower_than_us <= seconds * 1e6 and not keeps_secret:
            answered = self.answered_by(args)
            request_id = answered.request_id if answered is not None else ""
            self.slow_log.add(
                args,
                at=self.clock.wall(),
                microseconds=seconds * 1e6,
                address=client.address,
                client_name=client.name,
                user=client.user,
                tenant=client.tenant,
                request_id=request_id or self.request_id(client),
                parts={} if answered is None else answered.parts(),
                max_len=settings.max_len,
            )


@dataclass(slots=True)
class Context:
    """A handler's first argument.

    Attributes:
        account: that pays for the command at hand, if it is one that is paid for.
        strain: on what it may take; see `pyrope.tenants.pressure`.
        repeatable: what may be told about the reply, if a command has been given one that is kept
            for its very words; whoever runs it takes it away.
        precondition: asked with what is about to be changed, before it is: an index's `IndexSpec`,
            a `Tenant`. It raises what the client is to be told where that is not what the client
            knows. None: whatever is there is changed, as commands have it.
    """

    client: Client
    server: Server
    account: Account | None = None
    strain: float = 0.0
    repeatable: tuple[KeptReplies, tuple[Hashable, ...]] | None = None
    precondition: Callable[[Any], None] | None = None

    @property
    def actor(self) -> Actor:
        """Who the client is, for the audit trail."""
        return Actor(self.client.user, self.client.address)


@dataclass(slots=True)
class Pending:
    """A reply that is not there yet.

    Attributes:
        future: its outcome; cancelled if the client goes before the work has started.
        render: makes the reply value out of the outcome and the protocol version.
    """

    future: asyncio.Future[Any] | Promise[Any]
    render: Callable[[Any, int], Any]
