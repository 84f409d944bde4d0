"""Names of tenants and users, and the words by which they sign in.

``AUTH word key``: the word is ``admin``, the name of a tenant, or ``tenant.user``. Names of tenants
may hold dots, as index names may; names of users may not. So a word has two readings at most:

1. the whole word is a tenant, and the key is the tenant's own;
2. what stands before the *last* dot is a tenant, and what stands behind it is one of its users.

The first that exists is the one. They never both exist: `registry` refuses to make a tenant whose
name is already how somebody's user signs in, and the other way round. With tenants ``acme`` and
``acme.eu``, ``acme.eu.bob`` is user bob of ``acme.eu`` and nobody else.

``admin`` (in any case) is no tenant: it is the server's administrator. ``default`` is the tenant
of servers that have none, and may be configured like any other.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from pyrope.errors import CommandError

ADMINISTRATOR: Final = "admin"
"""Who administers the server, over all tenants."""

DEFAULT_TENANT: Final = "default"
"""The tenant of servers that have none, and the one that the administrator begins in."""

NAME_BYTES_MAX: Final = 128

_TENANT = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_USER = re.compile(r"[A-Za-z0-9_-]{1,128}")
_LOGIN = re.compile(rb"[A-Za-z0-9_.-]{1,257}")  # the two names and the dot between them


class Login(NamedTuple):
    """A word that somebody signs in by, with its second reading.

    Attributes:
        word: all of it, which is the first reading.
        tenant, user: the second reading; both empty where there is none.
    """

    word: str
    tenant: str
    user: str


def is_tenant_name(name: str) -> bool:
    """Whether a tenant may be called that."""
    return _TENANT.fullmatch(name) is not None and name.lower() != ADMINISTRATOR


def is_user_name(name: str) -> bool:
    """Whether a user may be called that."""
    return _USER.fullmatch(name) is not None


def parse_tenant_name(raw: bytes | str) -> str:
    """The name of a tenant. Raises CommandError where it cannot be one."""
    name = raw if isinstance(raw, str) else raw.decode("ascii", errors="replace")
    if name.lower() == ADMINISTRATOR:
        raise CommandError(
            f"{ADMINISTRATOR} is the server's administrator: no tenant has that name"
        )
    if not is_tenant_name(name):
        raise CommandError(
            f"invalid tenant name: 1 to {NAME_BYTES_MAX} letters, digits, '_', '.' or '-' are "
            "expected"
        )
    return name


def parse_user_name(raw: bytes | str) -> str:
    """The name of a user within its tenant. Raises CommandError where it cannot be one."""
    name = raw if isinstance(raw, str) else raw.decode("ascii", errors="replace")
    if not is_user_name(name):
        raise CommandError(
            f"invalid user name: 1 to {NAME_BYTES_MAX} letters, digits, '_' or '-' are expected, "
            "and no '.', which parts the user from the tenant when it signs in"
        )
    return name


def parse_login(raw: bytes) -> Login | None:
    """The readings of a word; None for one that cannot be anybody's."""
    if _LOGIN.fullmatch(raw) is None:
        return None
    word = raw.decode("ascii")
    tenant, _, user = word.rpartition(".")
    return Login(word, tenant, user) if tenant and user else Login(word, "", "")


def login_of(tenant: str, user: str | None) -> str:
    """The word by which a tenant's user signs in, or the tenant itself where the user is None."""
    return tenant if user is None else f"{tenant}.{user}"
