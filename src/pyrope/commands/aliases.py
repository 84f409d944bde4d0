"""VECTOR.ALIAS: other names of queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyrope.cache.alias import Alias, AliasSource
from pyrope.cache.query_key import KeyKind, QueryKey, text_key, vector_key
from pyrope.commands.context import Context, Pending
from pyrope.commands.options import (
    Option,
    OptionTable,
    integer,
    parse_float,
    parse_integer,
    quoted,
)
from pyrope.commands.spec import Access, Argument, Command
from pyrope.commands.vector_argument import VectorArgument, parse_vector
from pyrope.commands.vectors import EXPIRY_MAX_S
from pyrope.config import LimitSettings, Settings
from pyrope.errors import CommandError
from pyrope.resp.values import OK
from pyrope.service.index import OpenIndex

GROUP = "vector"


@dataclass(frozen=True, slots=True)
class _KeyArgument:
    """A key as arguments gave it: a text's key, or a vector that has yet to fit the index."""

    text: QueryKey | None
    vector: VectorArgument | None

    def resolve(self, index: OpenIndex) -> QueryKey:
        """The key. Raises DimensionError."""
        if self.text is not None:
            return self.text
        assert self.vector is not None  # noqa: S101 - it is one or the other
        return vector_key(self.vector.resolve(index))


def _parse_key(
    args: list[bytes], position: int, name: str, settings: Settings
) -> tuple[_KeyArgument, int]:
    """Read the key at `position`: a text, or FP32 and a blob.

    Args:
        name: of the argument, for errors.

    Returns:
        The key, and the position after it.
    """
    if position >= len(args):
        raise CommandError(f"the {name} is missing: a text, or FP32 and a blob, is expected")
    if args[position].upper() == b"FP32":
        if position + 1 == len(args):
            raise CommandError(f"the {name} is missing: a blob is expected after FP32")
        vector, after = parse_vector(args, position, settings.limits, element=False)
        return _KeyArgument(None, vector), after
    text = args[position]
    limit = settings.aliases.text_bytes
    if len(text) > limit:
        raise CommandError(f"the {name} has {len(text)} bytes, at most {limit} are allowed")
    return _KeyArgument(text_key(text), None), position + 1


def _only_key(context: Context, args: list[bytes]) -> tuple[OpenIndex, QueryKey]:
    """Index and key of a command that takes nothing else."""
    server = context.server
    key, after = _parse_key(args, 3, "alias", server.settings)
    if after != len(args):
        raise CommandError(f"syntax error in VECTOR.ALIAS {quoted(args[1]).upper()} command")
    index = server.service.index(context.client.tenant, args[2])
    return index, key.resolve(index)


def _confidence(raw: bytes, _limits: LimitSettings) -> float:
    value = parse_float(raw)
    if value is None or not 0 <= value <= 1:
        raise CommandError("invalid CONFIDENCE: a number from 0 to 1 is expected")
    return value


_SET_OPTIONS = OptionTable(
    "VECTOR.ALIAS SET",
    (
        Option("CONFIDENCE", "confidence", _confidence, type="double", argument="confidence"),
        Option("EX", "lifetime_s", integer("EX", 1, EXPIRY_MAX_S), type="integer", argument="s"),
    ),
)


def set_(context: Context, args: list[bytes]) -> Pending:
    server = context.server
    settings = server.settings
    key, position = _parse_key(args, 3, "alias", settings)
    canonical, position = _parse_key(args, position, "canonical", settings)
    options = _SET_OPTIONS.parse(args, position, settings.limits)
    index = server.service.index(context.client.tenant, args[2])
    keys = key.resolve(index), canonical.resolve(index)
    server.service.admit_bytes(context.account, index, sum(len(each.content) for each in keys))
    index.check_queue()
    confidence = options.pop("confidence", 1.0)
    future = index.aliases.set(*keys, confidence=confidence, source=AliasSource.MANUAL, **options)
    return Pending(future, lambda _outcome, _protocol: OK)


def get(context: Context, args: list[bytes]) -> dict[str, Any] | None:
    index, key = _only_key(context, args)
    alias = index.aliases.get(key)
    return None if alias is None else _shown(context, alias)


def delete(context: Context, args: list[bytes]) -> Pending:
    index, key = _only_key(context, args)
    index.check_queue()
    return Pending(index.aliases.remove(key), lambda outcome, _protocol: outcome)


def list_(context: Context, args: list[bytes]) -> list[Any]:
    cursor = parse_integer(args[3]) if len(args) > 3 else 0
    if cursor is None or cursor < 0:
        raise CommandError("invalid cursor")
    if len(args) > 4:
        raise CommandError("syntax error in VECTOR.ALIAS LIST command")
    index = context.server.service.index(context.client.tenant, args[2])
    following, found = index.aliases.scan(cursor)
    return [str(following), [_shown(context, alias) for alias in found]]


def _shown(context: Context, alias: Alias) -> dict[str, Any]:
    canonical = alias.canonical
    ttl = None
    if alias.expires_at_ms:
        ttl = max(0, round(alias.expires_at_ms / 1000 - context.server.clock.wall()))
    return {
        "alias": _shown_key(alias.key),
        "canonical": _shown_key(canonical.key),
        "confidence": canonical.confidence,
        "source": canonical.source.value,
        "hits": alias.hits,
        "suspended": alias.is_suspended,
        "ttl": ttl,
    }


def _shown_key(key: QueryKey) -> Any:
    """As it would be given: a text, or FP32 and the vector."""
    return key.content if key.kind is KeyKind.TEXT else [b"FP32", key.content]


def _key_arguments(name: str) -> Argument:
    text = Argument(name)
    return Argument(name, "oneof", arguments=(text, Argument("blob", "string", "FP32")))


_INDEX = Argument("index", "key")
_ALIAS, _CANONICAL = _key_arguments("alias"), _key_arguments("canonical")
_READ = frozenset({"readonly", "fast"})
_READ_CATEGORIES = frozenset({"read", "vector", "fast"})
_WRITE_CATEGORIES = frozenset({"write", "vector", "slow"})

COMMANDS = (
    Command(
        "VECTOR.ALIAS", -2, None, "A container for commands about aliases of queries.", GROUP,
        categories=frozenset({"slow"}),
        subcommands={
            "SET": Command(
                "VECTOR.ALIAS|SET", -5, set_,
                "Lets a query stand for another one: a search for the alias is answered as one for "
                "the canonical, if the confidence is high enough. Each is a text, compared without "
                "regard to case and white space, or a vector.",
                GROUP, access=Access.WRITE, flags=frozenset({"write", "denyoom"}),
                categories=_WRITE_CATEGORIES, has_index=True,
                arguments=(_INDEX, _ALIAS, _CANONICAL, *_SET_OPTIONS.describe()), returns="OK",
            ),
            "GET": Command(
                "VECTOR.ALIAS|GET", -4, get, "Shows an alias, also one that is not sure enough.",
                GROUP, access=Access.READ, flags=_READ, categories=_READ_CATEGORIES,
                has_index=True, arguments=(_INDEX, _ALIAS),
                returns="map: alias, canonical, confidence, source (manual, rule or llm), hits, "
                "suspended (1: audits found nothing alike, and it is not followed until it is set "
                "again), ttl in seconds (null: it does not expire); a vector is the array "
                "[FP32, blob] | null",
            ),
            "DEL": Command(
                "VECTOR.ALIAS|DEL", -4, delete, "Removes an alias.",
                GROUP, access=Access.WRITE, flags=frozenset({"write"}),
                categories=_WRITE_CATEGORIES, has_index=True, arguments=(_INDEX, _ALIAS),
                returns="1 | 0 (no such alias)",
            ),
            "LIST": Command(
                "VECTOR.ALIAS|LIST", -3, list_,
                "Walks over the aliases, at most 100 at a time. Every alias that is there from the "
                "first call to the last is returned exactly once.",
                GROUP, access=Access.READ, flags=_READ, categories=_READ_CATEGORIES,
                has_index=True,
                arguments=(_INDEX, Argument("cursor", "integer", optional=True)),
                returns="[next cursor (0: done), [map as of VECTOR.ALIAS GET …]]",
            ),
        },
    ),
)  # fmt: skip
