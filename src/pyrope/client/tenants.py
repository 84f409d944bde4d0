"""VECTOR.TENANT: tenants, their users and keys, and what they have used.

Names, roles and limits are explained in docs/tenants.md. None of these is sent again when its
connection has failed, except those that read: a key may have been made that nobody has seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, TypedDict, Unpack

from pyrope.client.replies import fields, key_of, names, nothing, plain, rest, text
from pyrope.client.request import Request
from pyrope.client.results import Tenant, TenantUser, Usage
from pyrope.client.words import Word, check_names, option

Role = Literal["reader", "operator", "admin"]


class TenantLimits(TypedDict, total=False):
    """Limits of a tenant; None unsets one.

    Attributes:
        qps, burst: requests a second in the long run, and at once.
        concurrency: requests under way.
        budget: cost units in a month.
        max_vectors, max_bytes: what is kept in all indexes together.
        cache_bytes: of cached answers.
        on_budget: what becomes of searches when the budget is spent.
        soft_limit: pressure from which effort falls.
        ef_floor … max_scans_ceiling: bounds of the effort.
        degraded_recall: of near hits that will do when the budget is spent.
    """

    qps: float | None
    burst: int | None
    concurrency: int | None
    budget: float | None
    max_vectors: int | None
    max_bytes: int | None
    cache_bytes: int | None
    priority: Literal["HIGH", "NORMAL", "LOW"] | None
    on_budget: Literal["DEGRADE", "REJECT"] | None
    soft_limit: float | None
    ef_floor: int | None
    ef_ceiling: int | None
    nprobe_floor: int | None
    nprobe_ceiling: int | None
    max_scans_floor: int | None
    max_scans_ceiling: int | None
    degraded_recall: float | None


_LIMITS = frozenset(TenantLimits.__annotations__)
_UNSET = "NONE"


def create(tenant: str, *, key: str | None = None, **limits: Unpack[TenantLimits]) -> Request[str]:
    """Create a tenant; for the administrator.

    Args:
        key: None: the server makes one.

    Returns:
        The key: that which was given, or was made, which is told this once.

    Raises:
        ExistsError, NoPermError, CommandError: the server refuses.
    """
    words = (*option("KEY", key), *_limits(limits))
    return _change("CREATE", tenant, partial(key_of, key), *words)


def set_(tenant: str, *, key: str | None = None, **limits: Unpack[TenantLimits]) -> Request[None]:
    """Change limits of a tenant, or its key, at once; for the administrator.

    Raises:
        NoPermError, CommandError: the server refuses.
    """
    return _change("SET", tenant, nothing, *option("KEY", key), *_limits(limits))


def get(tenant: str) -> Request[Tenant]:
    """Describe a tenant. Raises NoPermError, CommandError (there is none)."""
    return Request(("VECTOR.TENANT", "GET", tenant), _tenant)


def drop(tenant: str) -> Request[bool]:
    """Remove a tenant, its users and its indexes. Returns whether there was one.

    Raises:
        NoPermError: only the administrator may.
    """
    return _change("DROP", tenant, bool)


def list_() -> Request[list[str]]:
    """The names of all tenants; for the administrator. Raises NoPermError."""
    return Request(("VECTOR.TENANT", "LIST"), names)


def usage(tenant: str, period: str | None = None) -> Request[Usage]:
    """What a tenant has used in a month of UTC, ``yyyy-mm``; None: in the present one.

    Raises:
        NoPermError, CommandError: the server refuses.
    """
    return Request(("VECTOR.TENANT", "USAGE", tenant, *option("PERIOD", period)), _usage)


def add_user(tenant: str, user: str, role: Role, *, key: str | None = None) -> Request[str]:
    """Add a user. Returns the key: that which was given, or was made, which is told this once.

    Raises:
        ExistsError, NoPermError, CommandError: the server refuses.
    """
    words = (tenant, user, "ROLE", role, *option("KEY", key))
    return _change("USER", "ADD", partial(key_of, key), *words)


def delete_user(tenant: str, user: str) -> Request[None]:
    """Remove a user, and end what it has open. Raises NoPermError, CommandError (there is none)."""
    return _change("USER", "DEL", nothing, tenant, user)


def rotate(
    tenant: str,
    *,
    user: str | None = None,
    key: str | None = None,
    overlap_s: float | None = None,
) -> Request[str]:
    """Replace the key of a tenant, or of one of its users.

    Args:
        overlap_s: seconds for which the one before is good as well; None: as the server has it.

    Returns:
        The key: that which was given, or was made, which is told this once.

    Raises:
        NoPermError, CommandError: the server refuses.
    """
    words = (*option("USER", user), *option("KEY", key), *option("OVERLAP", overlap_s))
    return _change("ROTATE", tenant, partial(key_of, key), *words)


def _change(verb: str, first: str, parse: Any, *words: Word) -> Request[Any]:
    return Request(("VECTOR.TENANT", verb, first, *words), parse, repeatable=False)


def _limits(limits: TenantLimits) -> list[Word]:
    check_names(limits, _LIMITS)
    words: list[Word] = []
    given: Mapping[str, Any] = dict(limits)
    for name, value in given.items():
        words += option(name.replace("_", "").upper(), _UNSET if value is None else value)
    return words


def _tenant(reply: Mapping[bytes, Any]) -> Tenant:
    told = fields(reply)
    take = told.pop
    return Tenant(
        name=text(take("tenant")),
        created_at=take("created_at"),
        key_expires_at=take("key_expires_at"),
        former_key_expires_at=take("former_key_expires_at"),
        users=tuple(map(_user, take("users"))),
        limits=rest(told),
    )


def _user(reply: Mapping[bytes, Any]) -> TenantUser:
    told = fields(reply)
    return TenantUser(
        name=text(told["user"]),
        role=text(told["role"]),
        key_expires_at=told["key_expires_at"],
        former_key_expires_at=told["former_key_expires_at"],
    )


def _usage(reply: Mapping[bytes, Any]) -> Usage:
    told = fields(reply)
    take = told.pop
    return Usage(
        tenant=text(take("tenant")),
        period=text(take("period")),
        answers=plain(take("answers")),
        nbytes=take("bytes"),
        **{name: take(name) for name in _NUMBERS},
        more=rest(told),
    )


_NUMBERS = (
    "budget", "remaining", "requests", "hits", "misses", "used", "compute_units", "llm_tokens_in",
    "llm_tokens_out", "llm_cost", "embeddings", "refused_quota", "refused_budget", "vectors",
    "cache_bytes",
)  # fmt: skip
