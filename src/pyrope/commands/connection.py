"""Commands about the connection itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from pyrope import __version__
from pyrope.commands.admission import sign_in
from pyrope.commands.context import REPLY_OFF, REPLY_SKIP_NEXT, Client, Context
from pyrope.commands.options import parse_float, parse_integer, quoted
from pyrope.commands.spec import Access, Argument, Command
from pyrope.errors import CommandError, NoAuthError, NoProtoError
from pyrope.resp.values import OK, PONG, Raw, SimpleString, Verbatim
from pyrope.service.audit import Actor

GROUP = "connection"
# Redis: printable ASCII without the space, so that CLIENT LIST stays parseable.
_PRINTABLE = re.compile(rb"[!-~]*")
_NAME_BYTES_MAX = 256
# Connections that the audit trail names one by one.
_NAMED = 100
_LIBRARY_FIELDS = {b"LIB-NAME": "library_name", b"LIB-VER": "library_version"}


def ping(context: Context, args: list[bytes]) -> Any:
    if len(args) > 2:
        raise CommandError("wrong number of arguments for 'ping' command")
    return PONG if len(args) == 1 else args[1]


def echo(context: Context, args: list[bytes]) -> bytes:
    return args[1]


def quit_(context: Context, args: list[bytes]) -> Any:
    context.client.link.close_after_reply()
    return OK


def reset(context: Context, args: list[bytes]) -> Any:
    client = context.client
    client.protocol = 2
    client.name = b""
    registry = context.server.service.tenancy.registry
    client.bind(registry.anonymous(), registry)
    client.quiet = 0
    client.no_evict = client.no_touch = False
    # Whoever has the connection next knows nothing of what it was to remember.
    context.server.service.client_gone(client.id)
    return SimpleString("RESET")


def select(context: Context, args: list[bytes]) -> Any:
    database = parse_integer(args[1])
    if database is None:
        raise CommandError("value is not an integer or out of range")
    if database != 0:
        raise CommandError("DB index is out of range")
    return OK


def _authenticate(context: Context, user: bytes | None, password: bytes) -> None:
    """Bind the client to a user, or raise WrongPassError and leave it as it was."""
    client = context.client
    registry = context.server.service.tenancy.registry
    client.bind(sign_in(registry, user, password, client.address), registry)


def auth(context: Context, args: list[bytes]) -> Any:
    if len(args) > 3:
        raise CommandError("syntax error")
    user = args[1] if len(args) == 3 else None
    _authenticate(context, user, args[-1])
    return OK


def hello(context: Context, args: list[bytes]) -> Any:
    client = context.client
    protocol = client.protocol
    position = 1
    if len(args) > 1:
        wanted = parse_integer(args[1])
        if wanted is None:
            raise CommandError("Protocol version is not an integer or out of range")
        if wanted not in (2, 3):
            raise NoProtoError("unsupported protocol version")
        protocol = wanted
        position = 2
    credentials: tuple[bytes, bytes] | None = None
    name: bytes | None = None
    while position < len(args):
        word = args[position].upper()
        if word == b"AUTH" and position + 2 < len(args):
            credentials = (args[position + 1], args[position + 2])
            position += 3
        elif word == b"SETNAME" and position + 1 < len(args):
            name = _checked_name(args[position + 1])
            position += 2
        else:
            option = quoted(args[position])
            raise CommandError(f"Syntax error in HELLO option '{option}'")
    if credentials is not None:
        _authenticate(context, *credentials)
    if not client.authenticated:
        raise NoAuthError(
            "HELLO must be called with the client already authenticated, otherwise the "
            "HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and "
            "select the RESP protocol version at the same time"
        )
    if name is not None:
        client.name = name
    client.protocol = protocol
    return {
        "server": "pyrope",
        "version": __version__,
        "proto": protocol,
        "id": client.id,
        "mode": "standalone",
        "role": "master",
        "modules": [],
    }


# -- CLIENT --------------------------------------------------------------------------------------


def _checked_name(name: bytes) -> bytes:
    if len(name) > _NAME_BYTES_MAX:
        raise CommandError(f"Client names have at most {_NAME_BYTES_MAX} bytes.")
    if not _PRINTABLE.fullmatch(name):
        raise CommandError("Client names cannot contain spaces, newlines or special characters.")
    return name


def client_id(context: Context, args: list[bytes]) -> int:
    return context.client.id


def client_getname(context: Context, args: list[bytes]) -> bytes | None:
    return context.client.name or None


def client_setname(context: Context, args: list[bytes]) -> Any:
    context.client.name = _checked_name(args[2])
    return OK


def client_setinfo(context: Context, args: list[bytes]) -> Any:
    attribute = _LIBRARY_FIELDS.get(args[2].upper())
    if attribute is None:
        option = quoted(args[2])
        raise CommandError(f"Unrecognized option '{option}'")
    if len(args[3]) > _NAME_BYTES_MAX or not _PRINTABLE.fullmatch(args[3]):
        word = args[2].lower().decode()
        raise CommandError(f"{word} cannot contain spaces, newlines or special characters.")
    setattr(context.client, attribute, args[3])
    return OK


def describe(client: Client, now: float) -> str:
    """One line of CLIENT LIST, with Redis' fields where Pyrope has what they tell."""
    link = client.link
    fields = {
        "id": client.id,
        "addr": client.address,
        "laddr": client.local_address,
        "fd": client.descriptor,
        "name": client.name.decode(),
        "age": int(now - client.connected_at),
        "idle": int(now - client.last_command_at),
        "flags": ("e" if client.no_evict else "") + ("T" if client.no_touch else "") or "N",
        "db": 0,
        "qbuf": link.input_buffered,
        "obl": link.output_buffered,
        "oll": link.in_flight,
        "cmd": client.last_command,
        "user": client.user,
        "tenant": client.tenant,
        "resp": client.protocol,
        "lib-name": client.library_name.decode(),
        "lib-ver": client.library_version.decode(),
    }
    return " ".join(f"{key}={value}" for key, value in fields.items())


def _visible(context: Context) -> list[Client]:
    return list(context.server.clients.values())


def client_info(context: Context, args: list[bytes]) -> Verbatim:
    return Verbatim(describe(context.client, context.server.clock.monotonic()) + "\n")


def client_list(context: Context, args: list[bytes]) -> Verbatim:
    clients = _visible(context)
    if len(args) > 2:
        word = args[2].upper()
        if word == b"ID" and len(args) > 3:
            wanted = {_client_number(arg) for arg in args[3:]}
            clients = [client for client in clients if client.id in wanted]
        elif word == b"TYPE" and len(args) == 4:
            if not _is_normal(args[3]):
                clients = []
        else:
            raise CommandError("syntax error")
    now = context.server.clock.monotonic()
    return Verbatim("".join(describe(client, now) + "\n" for client in clients))


def _client_number(raw: bytes) -> int:
    number = parse_integer(raw)
    if number is None or number < 1:
        raise CommandError("client-id should be greater than 0")
    return number


def _is_normal(raw: bytes) -> bool:
    kind = raw.lower()
    if kind not in (b"normal", b"master", b"slave", b"replica", b"pubsub"):
        raise CommandError(f"Unknown client type '{quoted(raw)}'")
    return kind == b"normal"


def _either(raw: bytes, yes: bytes, no: bytes) -> bool:
    """Whether an argument is the one of two words rather than the other."""
    word = raw.lower()
    if word not in (yes, no):
        raise CommandError("syntax error")
    return word == yes


def client_kill(context: Context, args: list[bytes]) -> Any:
    if len(args) == 3:
        address = quoted(args[2])
        for client in _visible(context):
            if client.address == address:
                return _killed(context, context.actor, [client], OK)
        raise CommandError("No such client")
    tests: list[Callable[[Client], bool]] = []
    skip_me = True
    if len(args) % 2:
        raise CommandError("syntax error")
    for word, value in zip(args[2::2], args[3::2], strict=True):
        if word.upper() == b"SKIPME":
            skip_me = _either(value, b"yes", b"no")
        else:
            tests.append(_kill_filter(context, word.upper(), value))
    found = [
        client
        for client in _visible(context)
        if not (skip_me and client is context.client) and all(test(client) for test in tests)
    ]
    return _killed(context, context.actor, found, len(found))


async def _killed(context: Context, actor: Actor, clients: list[Client], reply: Any) -> Any:
    names = {str(client.id): f"{client.user} {client.address}" for client in clients[:_NAMED]}
    async with context.server.service.tenancy.audit.act(
        actor, "client.kill", "", f"{len(clients)} connections", names
    ):
        for client in clients:
            _kill(context, client)
    return reply


def _kill_filter(context: Context, word: bytes, value: bytes) -> Callable[[Client], bool]:
    match word:
        case b"ID":
            number = _client_number(value)
            return lambda client: client.id == number
        case b"ADDR":
            address = quoted(value)
            return lambda client: client.address == address
        case b"LADDR":
            local = quoted(value)
            return lambda client: client.local_address == local
        case b"USER":
            user = quoted(value)
            if not context.server.service.tenancy.registry.has_login(value):
                raise CommandError(f"No such user '{user}'")
            return lambda client: client.user == user
        case b"TYPE":
            normal = _is_normal(value)
            return lambda client: normal
        case b"MAXAGE":
            age = parse_integer(value)
            if age is None or age < 1:
                raise CommandError("maxage is not an integer or out of range")
            oldest = context.server.clock.monotonic() - age
            return lambda client: client.connected_at <= oldest
    raise CommandError("syntax error")


def _kill(context: Context, client: Client) -> None:
    if client is context.client:
        client.link.close_after_reply()
    else:
        client.link.kill()


def client_reply(context: Context, args: list[bytes]) -> Any:
    word = args[2].upper()
    if word not in (b"ON", b"OFF", b"SKIP"):
        raise CommandError("syntax error")
    client = context.client
    if word == b"ON":
        client.quiet = 0
    elif word == b"OFF":
        client.quiet |= REPLY_OFF
    elif not client.quiet & REPLY_OFF:
        client.quiet |= REPLY_SKIP_NEXT
    # Redis does not answer OFF and SKIP themselves.
    return OK if word == b"ON" else Raw(b"")


def client_no_evict(context: Context, args: list[bytes]) -> Any:
    context.client.no_evict = _either(args[2], b"on", b"off")
    return OK


def client_no_touch(context: Context, args: list[bytes]) -> Any:
    context.client.no_touch = _either(args[2], b"on", b"off")
    return OK


# -- DEBUG ---------------------------------------------------------------------------------------


def debug_sleep(context: Context, args: list[bytes]) -> Any:
    allowed = context.server.settings.enable_debug_command
    if allowed == "no" or (allowed == "local" and not context.client.is_local):
        raise CommandError(
            'DEBUG command not allowed. If the enable-debug-command option is set to "local", '
            "you can run it from a local connection, otherwise you need to set this option in the "
            "configuration file, and then restart the server."
        )
    seconds = parse_float(args[2])
    if seconds is None or not 0 <= seconds <= 3600:
        raise CommandError("value is not a valid float, or not within 0 and 3600 seconds")

    async def sleep() -> Any:
        await asyncio.sleep(seconds)
        return OK

    return sleep()


_CONNECTION = frozenset({"connection", "fast"})
_OPEN = frozenset({"noscript", "loading", "stale", "fast"})
_ALWAYS = _OPEN | {"no_auth"}
_ADMIN = frozenset({"admin", "noscript", "loading", "stale"})
_ADMIN_CATEGORIES = frozenset({"admin", "slow", "dangerous", "connection"})


def _client_command(
    word: str,
    arity: int,
    handler: Any,
    summary: str,
    arguments: tuple[Argument, ...] = (),
    *,
    admin: bool = False,
) -> Command:
    return Command(
        f"CLIENT|{word}",
        arity,
        handler,
        summary,
        GROUP,
        access=Access.EXCLUSIVE if admin else Access.NONE,
        flags=_ADMIN if admin else _OPEN,
        categories=_ADMIN_CATEGORIES if admin else frozenset({"slow", "connection"}),
        arguments=arguments,
    )


def _words(name: str, *words: str) -> Argument:
    return Argument(
        name, "oneof", arguments=tuple(Argument(w.lower(), "pure-token", w) for w in words)
    )


_KILL_FILTERS = Argument(
    "filter",
    "oneof",
    multiple=True,
    arguments=(
        Argument("client-id", "integer", "ID"),
        Argument("client-type", "string", "TYPE"),
        Argument("username", "string", "USER"),
        Argument("addr", "string", "ADDR"),
        Argument("laddr", "string", "LADDR"),
        Argument("maxage", "integer", "MAXAGE"),
        Argument("yes/no", "string", "SKIPME"),
    ),
)

CLIENT_SUBCOMMANDS = (
    _client_command("ID", 2, client_id, "Returns the connection's number."),
    _client_command("GETNAME", 2, client_getname, "Returns the name of the connection."),
    _client_command(
        "SETNAME", 3, client_setname, "Names the connection.", (Argument("connection-name"),)
    ),
    _client_command(
        "SETINFO",
        4,
        client_setinfo,
        "Tells the server which client library this is.",
        (
            Argument(
                "attr",
                "oneof",
                arguments=(
                    Argument("libname", "string", "LIB-NAME"),
                    Argument("libver", "string", "LIB-VER"),
                ),
            ),
        ),
    ),
    _client_command("INFO", 2, client_info, "Describes this connection."),
    _client_command(
        "LIST",
        -2,
        client_list,
        "Lists the open connections.",
        (
            Argument("client-type", "string", "TYPE", optional=True),
            Argument("client-id", "integer", "ID", optional=True, multiple=True),
        ),
        admin=True,
    ),
    _client_command(
        "KILL",
        -3,
        client_kill,
        "Closes connections.",
        (Argument("filter", "oneof", arguments=(Argument("ip:port"), _KILL_FILTERS)),),
        admin=True,
    ),
    _client_command(
        "REPLY",
        3,
        client_reply,
        "Turns the replies of this connection on or off, or skips the next one.",
        (_words("action", "ON", "OFF", "SKIP"),),
    ),
    _client_command(
        "NO-EVICT",
        3,
        client_no_evict,
        "Exempts the connection from eviction for its memory.",
        (_words("enabled", "ON", "OFF"),),
        admin=True,
    ),
    _client_command(
        "NO-TOUCH",
        3,
        client_no_touch,
        "Has the connection's reads not count as use.",
        (_words("enabled", "ON", "OFF"),),
    ),
)

COMMANDS = (
    Command(
        "PING",
        -1,
        ping,
        "Answers PONG, or the message given.",
        GROUP,
        flags=frozenset({"fast"}),
        categories=_CONNECTION,
        arguments=(Argument("message", optional=True),),
        returns="PONG | the message",
    ),
    Command(
        "ECHO",
        2,
        echo,
        "Answers the message given.",
        GROUP,
        flags=frozenset({"fast", "loading", "stale"}),
        categories=_CONNECTION,
        arguments=(Argument("message"),),
        returns="the message",
    ),
    Command(
        "QUIT",
        -1,
        quit_,
        "Closes the connection.",
        GROUP,
        flags=_ALWAYS,
        categories=_CONNECTION,
        returns="OK",
    ),
    Command(
        "RESET",
        1,
        reset,
        "Puts the connection back into its first state.",
        GROUP,
        access=Access.EXCLUSIVE,
        flags=_ALWAYS,
        categories=_CONNECTION,
        returns="RESET",
    ),
    Command(
        "SELECT",
        2,
        select,
        "Selects the database; there is one, 0.",
        GROUP,
        flags=frozenset({"fast", "loading", "stale"}),
        categories=_CONNECTION,
        arguments=(Argument("index", "integer"),),
        returns="OK",
    ),
    Command(
        "AUTH",
        -2,
        auth,
        "Authenticates the connection.",
        GROUP,
        # What was sent before is still somebody else's.
        access=Access.EXCLUSIVE,
        flags=_ALWAYS | {"skip_slowlog"},
        categories=_CONNECTION,
        arguments=(Argument("username", optional=True), Argument("password")),
        returns="OK",
    ),
    Command(
        "HELLO",
        -1,
        hello,
        "Chooses the protocol version, authenticates and names.",
        GROUP,
        access=Access.EXCLUSIVE,
        flags=_ALWAYS | {"skip_slowlog"},
        categories=_CONNECTION,
        arguments=(
            Argument(
                "arguments",
                "block",
                optional=True,
                arguments=(
                    Argument("protover", "integer"),
                    Argument(
                        "auth",
                        "block",
                        "AUTH",
                        optional=True,
                        arguments=(Argument("username"), Argument("password")),
                    ),
                    Argument("clientname", "string", "SETNAME", optional=True),
                ),
            ),
        ),
        returns="map: server version proto id mode role modules",
    ),
    Command(
        "CLIENT",
        -2,
        None,
        "Commands about connections.",
        GROUP,
        categories=frozenset({"slow"}),
        subcommands={command.name.split("|")[1]: command for command in CLIENT_SUBCOMMANDS},
    ),
    Command(
        "DEBUG",
        -2,
        None,
        "Commands for debugging.",
        "server",
        categories=frozenset({"admin", "slow", "dangerous"}),
        subcommands={
            "SLEEP": Command(
                "DEBUG|SLEEP",
                3,
                debug_sleep,
                "Answers after some seconds; holds nobody else up.",
                "server",
                access=Access.EXCLUSIVE,
                flags=_ADMIN,
                categories=frozenset({"admin", "slow", "dangerous"}),
                arguments=(Argument("seconds", "double"),),
                returns="OK",
            )
        },
    ),
)
