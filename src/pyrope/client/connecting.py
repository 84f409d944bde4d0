"""What a connection takes: the words of this client as those of redis-py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import quote, urlsplit

from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from pyrope.client.words import check_names

DEFAULT_PORT = 7379
_SCHEMES = ("redis", "rediss", "unix")


class ConnectionOptions(TypedDict, total=False):
    """How to reach a server, and as whom.

    Attributes:
        host, port: 127.0.0.1 and 7379; not with a URL or a Unix socket.
        unix_socket: path of one.
        tenant: who signs in: a tenant, ``tenant.user``, or ``admin``; not if the URL says it.
        key: the tenant's, the user's, or the administrator's password.
        use: the tenant that the administrator acts as, on every connection.
        name: of the connections, as CLIENT LIST shows it.
        timeout_s: wait so long for a reply, and for a connection to be free; None: without end.
        connect_timeout_s: wait so long for a connection to be made.
        max_connections: at a time; whoever needs one more waits.
        tls: use TLS, as the scheme ``rediss`` does.
        tls_ca: file of certificates that are trusted; without it, those of the system.
        tls_cert, tls_key: files of the client's own certificate and its key.
    """

    host: str
    port: int
    unix_socket: str | Path
    tenant: str
    key: str
    use: str
    name: str
    timeout_s: float | None
    connect_timeout_s: float | None
    max_connections: int
    tls: bool
    tls_ca: str | Path
    tls_cert: str | Path
    tls_key: str | Path


_NAMES = frozenset(ConnectionOptions.__annotations__)


def address(url: str | None, options: ConnectionOptions) -> str:
    """The URL that redis-py goes by. It holds no key but the one that `url` has.

    Raises:
        TypeError: an option is unknown.
        ValueError: options contradict the URL or one another.
    """
    check_names(options, _NAMES)
    places = sorted(options.keys() & {"host", "port", "unix_socket"})
    if url is not None:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            raise ValueError(f"a URL begins with one of {', '.join(_SCHEMES)}")
        if places:
            raise ValueError(f"with a URL, {', '.join(places)} mean nothing")
        if (parts.username or parts.password) and options.keys() & {"tenant", "key"}:
            raise ValueError("the URL says who signs in already")
        if options.get("tls") and parts.scheme != "rediss":
            raise ValueError("a URL with TLS begins with rediss")
        return url
    if "unix_socket" in options:
        if len(places) > 1 or options.get("tls"):
            raise ValueError("with a Unix socket, host, port and tls mean nothing")
        return f"unix://{quote(str(Path(options['unix_socket']).absolute()))}"
    host = options.get("host", "127.0.0.1")
    place = f"[{host}]" if ":" in host else host
    scheme = "rediss" if options.get("tls") else "redis"
    return f"{scheme}://{place}:{options.get('port', DEFAULT_PORT)}"


def pool_arguments(url: str, options: ConnectionOptions, retry: type[Any]) -> dict[str, Any]:
    """Arguments of redis-py's blocking connection pools.

    Args:
        url: as `address` makes it.
        retry: redis-py's Retry, of the one kind or the other. It is told not to: what may be sent
            again, only `pyrope.client.retrying` knows.
    """
    timeout_s = options.get("timeout_s", 30.0)
    arguments: dict[str, Any] = {
        "protocol": 3,
        "username": options.get("tenant"),
        "password": options.get("key"),
        "client_name": options.get("name"),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": options.get("connect_timeout_s", 5.0),
        "timeout": timeout_s,
        "max_connections": options.get("max_connections", 32),
        "retry": retry(NoBackoff(), 0),
    }
    scheme = urlsplit(url).scheme
    if scheme != "unix":
        # Another reply to wait for, of a command that is only of use with Redis' own service.
        arguments["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    files = {
        "ssl_ca_certs": options.get("tls_ca"),
        "ssl_certfile": options.get("tls_cert"),
        "ssl_keyfile": options.get("tls_key"),
    }
    given = {name: str(path) for name, path in files.items() if path is not None}
    if given and scheme != "rediss":
        raise ValueError("certificates mean nothing without TLS")
    return arguments | given


def use_words(options: ConnectionOptions) -> tuple[str, ...] | None:
    """What the administrator's connections begin with; None: nothing."""
    return ("VECTOR.USE", options["use"]) if "use" in options else None
