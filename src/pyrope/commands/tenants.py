"""Commands about tenants, their users and keys, and what they have used."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from pyrope.commands.context import Context
from pyrope.commands.options import parse_float, quoted
from pyrope.commands.spec import Access, Argument, Command
from pyrope.errors import CommandError, NoAuthError
from pyrope.resp.values import OK
from pyrope.service.tenancy import Tenancy
from pyrope.tenants.identity import Identity
from pyrope.tenants.keys import check_key
from pyrope.tenants.limit_fields import LIMIT_FIELDS, parse_fields
from pyrope.tenants.names import NAME_BYTES_MAX
from pyrope.tenants.tenant import parse_role

GROUP = "tenant"
_KEY = b"KEY"
_NAME_SHOWN_BYTES = 2 * NAME_BYTES_MAX


def _tenancy(context: Context) -> Tenancy:
    return context.server.service.tenancy


def _identity(context: Context) -> Identity:
    identity = context.client.identity
    if identity is None:
        raise NoAuthError("Authentication required.")
    return identity


def _words(args: Sequence[bytes], *allowed: bytes) -> dict[bytes, bytes]:
    """Words with their values, each at most once, in any order. Raises CommandError."""
    if len(args) % 2:
        raise CommandError("syntax error: each word takes a value")
    found: dict[bytes, bytes] = {}
    for given, raw in zip(args[::2], args[1::2], strict=True):
        word = given.upper()
        if word not in allowed or word in found:
            raise CommandError(f"syntax error: '{quoted(given)}' is unknown or doubled")
        found[word] = raw
    return found


def _name(raw: bytes) -> str:
    """A name to look up. One that is too long to be anybody's is cut, and still too long."""
    return raw[:_NAME_SHOWN_BYTES].decode(errors="replace")


def create(context: Context, args: list[bytes]) -> Coroutine[Any, Any, Any]:
    values, key = parse_fields(args[3:])

    async def created() -> Any:
        generated = await _tenancy(context).create(context.actor, _name(args[2]), values, key)
        return OK if generated is None else generated

    return created()


def set_(context: Context, args: list[bytes]) -> Coroutine[Any, Any, Any]:
    values, key = parse_fields(args[3:])

    async def changed() -> Any:
        await _tenancy(context).set(
            context.actor, _name(args[2]), values, key, precondition=context.precondition
        )
        return OK

    return changed()


def get(context: Context, args: list[bytes]) -> dict[str, Any]:
    return _tenancy(context).describe(_identity(context), _name(args[2]))


def drop(context: Context, args: list[bytes]) -> Coroutine[Any, Any, int]:
    service = context.server.service

    async def dropped() -> int:
        return int(await service.tenancy.drop(context.actor, _name(args[2]), service.drop_all))

    return dropped()


def list_(context: Context, args: list[bytes]) -> list[str]:
    return _tenancy(context).registry.names()


def usage(context: Context, args: list[bytes]) -> Coroutine[Any, Any, dict[str, Any]]:
    words = _words(args[3:], b"PERIOD")
    period = words.get(b"PERIOD")
    identity = _identity(context)

    async def used() -> dict[str, Any]:
        return await _tenancy(context).usage(
            identity, _name(args[2]), None if period is None else quoted(period)
        )

    return used()


def user(context: Context, args: list[bytes]) -> Coroutine[Any, Any, Any]:
    word = args[2].upper()
    identity, tenancy = _identity(context), _tenancy(context)
    tenant, name = _name(args[3]), _name(args[4])
    if word == b"ADD":
        words = _words(args[5:], _KEY, b"ROLE")
        if b"ROLE" not in words:
            raise CommandError("ROLE is missing: reader, operator or admin is expected")
        role = parse_role(words[b"ROLE"])
        key = words.get(_KEY)
        if key is not None:
            check_key(key)

        async def added() -> Any:
            generated = await tenancy.add_user(identity, context.actor, tenant, name, role, key)
            return OK if generated is None else generated

        return added()
    if word == b"DEL":
        if len(args) > 5:
            raise CommandError("syntax error in VECTOR.TENANT USER DEL command")

        async def removed() -> Any:
            await tenancy.delete_user(identity, context.actor, tenant, name)
            return OK

        return removed()
    raise CommandError(f"unknown subcommand '{quoted(args[2])}': ADD or DEL is expected")


def rotate(context: Context, args: list[bytes]) -> Coroutine[Any, Any, Any]:
    words = _words(args[3:], b"USER", _KEY, b"OVERLAP")
    identity, tenancy = _identity(context), _tenancy(context)
    key = words.get(_KEY)
    if key is not None:
        check_key(key)
    overlap_s: float | None = None
    if b"OVERLAP" in words:
        overlap_s = parse_float(words[b"OVERLAP"])
        if overlap_s is None:
            raise CommandError("invalid OVERLAP: a number of seconds is expected")
    name = words.get(b"USER")

    async def rotated() -> Any:
        generated = await tenancy.rotate(
            identity,
            context.actor,
            _name(args[2]),
            user=None if name is None else _name(name),
            key=key,
            overlap_s=overlap_s,
        )
        return OK if generated is None else generated

    return rotated()


def use(context: Context, args: list[bytes]) -> Any:
    registry = _tenancy(context).registry
    context.client.bind(registry.use(_identity(context), _name(args[1])), registry)
    return OK


_ADMIN = frozenset({"admin"})
_ADMIN_CATEGORIES = frozenset({"admin", "slow", "dangerous"})
_OWN = frozenset({"write"})
_TENANT = Argument("tenant")
_FIELDS = Argument(
    "field",
    "oneof",
    optional=True,
    multiple=True,
    arguments=(
        Argument("key", "string", "KEY"),
        *(Argument(word.decode().lower(), token=word.decode()) for word in LIMIT_FIELDS),
    ),
)
_OPTIONAL_KEY = Argument("key", "string", "KEY", optional=True)

COMMANDS = (
    Command(
        "VECTOR.TENANT", -2, None, "A container for commands about tenants.", GROUP,
        categories=frozenset({"slow"}),
        subcommands={
            "CREATE": Command(
                "VECTOR.TENANT|CREATE", -3, create,
                "Creates a tenant. Without KEY, the server makes one, which is shown this once.",
                GROUP, access=Access.EXCLUSIVE, flags=_ADMIN | {"skip_slowlog"},
                categories=_ADMIN_CATEGORIES, arguments=(_TENANT, _FIELDS),
                returns="OK | the key that was made",
            ),
            "SET": Command(
                "VECTOR.TENANT|SET", -5, set_,
                "Changes limits of a tenant, at once; NONE unsets one. KEY replaces its key, "
                "without an overlap.",
                GROUP, access=Access.EXCLUSIVE, flags=_ADMIN | {"skip_slowlog"},
                categories=_ADMIN_CATEGORIES, arguments=(_TENANT, _FIELDS), returns="OK",
            ),
            "GET": Command(
                "VECTOR.TENANT|GET", 3, get, "Describes a tenant: its limits and users.",
                GROUP, flags=frozenset({"readonly"}), categories=frozenset({"slow"}),
                arguments=(_TENANT,), returns="map",
            ),
            "DROP": Command(
                "VECTOR.TENANT|DROP", 3, drop,
                "Removes a tenant, its users and all its indexes. What it has used stays on "
                "record.",
                GROUP, access=Access.EXCLUSIVE, flags=_ADMIN, categories=_ADMIN_CATEGORIES,
                arguments=(_TENANT,), complexity="O(N)", returns="1 | 0 (no such tenant)",
            ),
            "LIST": Command(
                "VECTOR.TENANT|LIST", 2, list_, "Lists the tenants.",
                GROUP, flags=_ADMIN, categories=_ADMIN_CATEGORIES,
                complexity="O(number of tenants)", returns="array of names",
            ),
            "USAGE": Command(
                "VECTOR.TENANT|USAGE", -3, usage,
                "Tells what a tenant has used in a month, UTC; without PERIOD in the present one.",
                GROUP, flags=frozenset({"readonly"}), categories=frozenset({"slow"}),
                arguments=(_TENANT, Argument("yyyy-mm", "string", "PERIOD", optional=True)),
                returns="map: tenant period budget remaining requests hits misses answers used "
                "compute_units llm_tokens_in llm_tokens_out llm_cost embeddings refused_quota "
                "refused_budget vectors bytes cache_bytes …",
            ),
            "USER": Command(
                "VECTOR.TENANT|USER", -5, user,
                "ADD tenant user [KEY key] ROLE role: adds a user; DEL tenant user: removes one, "
                "and ends what it has open.",
                GROUP, access=Access.EXCLUSIVE, flags=_OWN | {"skip_slowlog"},
                categories=frozenset({"slow"}),
                arguments=(
                    Argument(
                        "action", "oneof",
                        arguments=(
                            Argument("add", "pure-token", "ADD"),
                            Argument("del", "pure-token", "DEL"),
                        ),
                    ),
                    _TENANT,
                    Argument("user"),
                    _OPTIONAL_KEY,
                    Argument("role", "string", "ROLE", optional=True),
                ),
                returns="OK | the key that was made",
            ),
            "ROTATE": Command(
                "VECTOR.TENANT|ROTATE", -3, rotate,
                "Replaces the key of a tenant, or of one of its users. The one before is good for "
                "OVERLAP seconds more.",
                GROUP, access=Access.EXCLUSIVE, flags=_OWN | {"skip_slowlog"},
                categories=frozenset({"slow"}),
                arguments=(
                    _TENANT,
                    Argument("user", "string", "USER", optional=True),
                    _OPTIONAL_KEY,
                    Argument("seconds", "double", "OVERLAP", optional=True),
                ),
                returns="the key that was made | OK",
            ),
        },
    ),
    Command(
        "VECTOR.USE", 2, use, "Binds the administrator's connection to a tenant.",
        GROUP, access=Access.EXCLUSIVE, flags=_ADMIN | {"fast"}, categories=_ADMIN_CATEGORIES,
        arguments=(_TENANT,), returns="OK",
    ),
)  # fmt: skip
