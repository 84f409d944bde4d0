"""Who may reach the server, who somebody is, and what they may run: by whatever wire they came."""

from __future__ import annotations

import ipaddress

from pyrope.commands.context import Client
from pyrope.config import Settings
from pyrope.errors import CommandError, DeniedError, LoadingError, NoAuthError, NoPermError
from pyrope.tenants.identity import Identity
from pyrope.tenants.names import ADMINISTRATOR, DEFAULT_TENANT
from pyrope.tenants.registry import TenantRegistry

_PROTECTED = (
    "Pyrope is running in protected mode because no admin_password is set. In this mode "
    "connections are only accepted from this host. Set admin_password (or the environment "
    "variable PYROPE_ADMIN_PASSWORD) to let others in."
)


def is_loopback(host: str) -> bool:
    """Whether an IP address is of this host."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def check_reachable(settings: Settings, *, is_local: bool) -> None:
    """Raises DeniedError for who is not on this host, in protected mode."""
    if settings.protected_mode and settings.admin_password is None and not is_local:
        raise DeniedError(_PROTECTED)


def sign_in(registry: TenantRegistry, login: bytes | None, key: bytes, address: str) -> Identity:
    """Who somebody is that has this key.

    Args:
        login: whose key it is said to be; None: the administrator's, whatever the tenant called
            default has for a key.
        address: where they come from.

    Raises:
        CommandError: no login is named, and there is no password to be had.
        WrongPassError, LoadingError: as `TenantRegistry.authenticate`.
    """
    if login is None:
        if registry.is_open:
            raise CommandError(
                "AUTH <password> called without any password configured for the default user. "
                "Are you sure your configuration is correct?"
            )
        has_default = registry.get(DEFAULT_TENANT) is not None
        login = (ADMINISTRATOR if has_default else DEFAULT_TENANT).encode()
    return registry.authenticate(login, key, address)


def check_may_run(
    client: Client,
    registry: TenantRegistry,
    command: str,
    *,
    rank: int,
    loading: bool,
    needs_authentication: bool = True,
    needs_loaded: bool = True,
) -> None:
    """See whether a client may run a command now; who it is is brought up to date.

    Args:
        command: its name, for the error.
        rank: that it takes.
        loading: whether the server still is.

    Raises:
        NoAuthError, NoPermError, LoadingError: it may not.
    """
    if client.identity is not None:
        # A key may have been taken away, or a tenant, or a role.
        client.bind(registry.current(client.identity), registry)
    if needs_authentication:
        if not client.authenticated:
            raise NoAuthError("Authentication required.")
        if rank > client.rank:
            raise NoPermError(
                f"User {client.user} has no permissions to run the '{command}' command"
            )
    if loading and needs_loaded:
        raise LoadingError("Pyrope is loading the dataset in memory")
