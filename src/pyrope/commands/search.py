"""VECTOR.SEARCH and VECTOR.MSEARCH."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from pyrope.cache.query_key import QueryKey, text_key
from pyrope.commands import cache_policy
from pyrope.commands.context import Context, Pending
from pyrope.commands.options import Convert, Option, OptionTable, choice, integer, number
from pyrope.commands.search_effort import COUNT, asked_of, effort_of, in_force
from pyrope.commands.search_reply import Found, Renderer
from pyrope.commands.spec import Access, Argument, Command
from pyrope.commands.text_vector import with_text
from pyrope.commands.vector_argument import QUERY_ARGUMENT, check_blob, check_rows, parse_vector
from pyrope.config import LimitSettings
from pyrope.engine.base import SearchOptions
from pyrope.engine.filter import Filter, compile_filter
from pyrope.errors import BusyError, CommandError
from pyrope.resp.values import Raw
from pyrope.service.answers import EXACT, CachedSearch, CacheMode, CacheWish
from pyrope.service.index import OpenIndex
from pyrope.service.search import SearchRequest
from pyrope.tenants.cost import REQUEST
from pyrope.tenants.pressure import SPENT, Adjustment
from pyrope.tenants.usage import micro_of

GROUP = "vector"
_TIMEOUT_MAX_MS = 3_600_000
_TEXT_MAX_BYTES = 64 * 1024
_SESSION_MAX_BYTES = 256
# Vectors of one MSEARCH that are looked up: catching up with writes may take 1 ms each.
_CACHED_ROWS = 32
# What a native library's 32-bit integer holds.
_MAX_SCANS = 2**31 - 1
_HIT_MICRO = micro_of(REQUEST)


def _to_filter(raw: bytes, limits: LimitSettings) -> Filter:
    return compile_filter(raw, max_bytes=limits.filter_bytes)


def _to_text(raw: bytes, _limits: LimitSettings) -> QueryKey:
    if len(raw) > _TEXT_MAX_BYTES:
        raise CommandError(f"QUERY has {len(raw)} bytes, the limit is {_TEXT_MAX_BYTES}")
    return text_key(raw)


def _to_session(raw: bytes, _limits: LimitSettings) -> bytes:
    if not 0 < len(raw) <= _SESSION_MAX_BYTES:
        raise CommandError(f"invalid SESSION: an id of 1 to {_SESSION_MAX_BYTES} bytes is expected")
    return raw


_MODES = {mode.value.encode(): mode for mode in CacheMode}
_count: Convert = integer("COUNT", 1, "count")

SEARCH_OPTIONS = (
    Option("COUNT", "count", _count, type="integer", argument="k"),
    Option("TOPK", "count", _count, type="integer", argument="k"),
    Option("WITHSCORES", "with_scores"),
    Option("WITHATTRIBS", "with_attributes"),
    Option("FILTER", "filter", _to_filter, argument="expression"),
    Option("EPSILON", "epsilon", number("EPSILON", 0.0), type="double", argument="distance"),
    Option("EF", "ef", integer("EF", 1, "ef"), type="integer"),
    Option("NPROBE", "nprobe", integer("NPROBE", 1, "nprobe"), type="integer"),
    Option(
        "MAXSCANS",
        "max_scans",
        integer("MAXSCANS", 1, _MAX_SCANS),
        type="integer",
        argument="distances",
    ),
    Option("TRUTH", "exact"),
    Option("CACHE", "cache", choice("CACHE", _MODES), argument="|".join(CacheMode.__members__)),
    Option("MINRECALL", "min_recall", cache_policy.min_recall, type="double", argument="recall"),
    Option("CERTIFIED", "basis", constant="CERTIFIED"),
    Option("ESTIMATED", "basis", constant="ESTIMATED"),
    Option("QUERY", "query", _to_text, argument="text"),
    Option("SESSION", "session", _to_session, argument="id"),
    Option(
        "TIMEOUT",
        "timeout",
        integer("TIMEOUT", 1, _TIMEOUT_MAX_MS),
        type="integer",
        argument="milliseconds",
    ),
    Option("WITHINFO", "with_info"),
)
SEARCH_TABLE = OptionTable("VECTOR.SEARCH", SEARCH_OPTIONS)
MSEARCH_TABLE = OptionTable("VECTOR.MSEARCH", SEARCH_OPTIONS)
_NO_OPTIONS: Mapping[str, Any] = {}


def _seconds(options: Mapping[str, Any]) -> float | None:
    timeout = options.get("timeout")
    return None if timeout is None else timeout / 1000


def _parse(table: OptionTable, args: list[bytes], limits: LimitSettings, position: int) -> Any:
    options = table.parse(args, position, limits) if position < len(args) else _NO_OPTIONS
    if "exact" in options and "max_scans" in options:
        raise CommandError(
            "TRUTH and MAXSCANS contradict one another: TRUTH computes every distance"
        )
    if "basis" in options and "min_recall" not in options:
        raise CommandError(f"{options['basis']} says how MINRECALL is meant, which is missing")
    return options


def _search_uncached(
    context: Context,
    index: OpenIndex,
    queries: bytes,
    options: Mapping[str, Any],
    effort: SearchOptions,
) -> SearchRequest:
    request = index.search(
        context.client.id, queries, asked_of(options, effort), timeout=_seconds(options)
    )
    index.cache.statistics.uncached += request.weight
    return request


def _kept_before(
    context: Context,
    args: list[bytes],
    index: OpenIndex,
    query: bytes,
    options: Mapping[str, Any],
    wish: CacheWish,
    adjustment: Adjustment,
    received_at: float,
) -> Raw | Found | None:
    """What the caches have for the effort that was asked for, before less is made."""
    client, effort = context.client, effort_of(index, options)
    # Of what was changed, only the recall that will do is in force.
    name = "min_recall"
    loosened = None
    if name in adjustment.to:
        loosened = Adjustment(
            adjustment.reason,
            {name: adjustment.from_[name]},
            {name: adjustment.to[name]},
        )
    renderer = Renderer(
        context,
        index,
        options,
        effort,
        received_at,
        received_at,
        adjustment=loosened,
        account=context.account,
        args=args,
    )
    only = wish._replace(mode=CacheMode.ONLY)
    try:
        answers = index.cache.search(client.id, query, asked_of(options, effort), only)
    except BusyError:
        return None
    # Of CACHE ONLY every answer is there at once.
    return None if isinstance(answers, CachedSearch) else renderer.one(answers, client.protocol)


def search(context: Context, args: list[bytes]) -> Any:
    server, client = context.server, context.client
    received_at = server.clock.monotonic()
    words = (client.protocol, *args[2:])
    account = context.account
    if account is not None and server.service.guard.is_on:
        server.service.guard.decide(account.limits.priority)
    known = server.service.find_index(client.tenant, args[1])
    if known is not None:
        known.remove_expired()
        kept = known.cache.replies.reply_to(words)
        if kept is not None:
            reply, source = kept
            if account is not None:
                account.charge_hit(_HIT_MICRO, source.level)
            if source is EXACT:
                context.repeatable = known.cache.replies, words
            took = server.clock.monotonic() - received_at
            server.counters.answered[source.level].record(took)
            return Raw(reply)
    limits = server.settings.limits
    vector, position = parse_vector(args, 2, limits, element=True)
    options = _parse(SEARCH_TABLE, args, limits, position)
    index = server.service.index(client.tenant, args[1]) if known is None else known
    if vector.text is not None:
        return _search_by_text(context, args, index, vector.text, options, received_at)
    query = vector.resolve(index)
    # What an id stands for may change.
    fixed = words if args[2].upper() == b"FP32" else None
    return _answer(context, args, index, query, options, fixed, received_at)


def _search_by_text(
    context: Context,
    args: list[bytes],
    index: OpenIndex,
    text: bytes,
    options: Mapping[str, Any],
    received_at: float,
) -> Any:
    """As with the text's vector; the text is that of the query, too, unless QUERY names another."""
    server = context.server

    def go_on(context: Context, index: OpenIndex, query: bytes) -> Pending | Raw | Found:
        asked = dict(options)
        if "query" not in asked:
            asked["query"] = _to_text(text, server.settings.limits)
        if "timeout" in asked:
            asked["timeout"] -= 1000 * (server.clock.monotonic() - received_at)
            if asked["timeout"] <= 0:
                raise BusyError("timeout")
        return _answer(context, args, index, query, asked, None, received_at)

    return with_text(context, index, text, go_on, timeout_s=_seconds(options))


def _answer(
    context: Context,
    args: list[bytes],
    index: OpenIndex,
    query: bytes,
    options: Mapping[str, Any],
    words: tuple[Hashable, ...] | None,
    received_at: float,
) -> Pending | Raw | Found:
    """Search, or find the answer in the caches.

    Args:
        words: of the command, if they always mean the same; None: they do not.
    """
    server, client, account = context.server, context.client, context.account
    effort, wish, adjustment = in_force(context, index, options)
    if wish.mode is CacheMode.OFF or not index.spec.cache.levels:
        renderer = Renderer(
            context,
            index,
            options,
            effort,
            received_at,
            received_at,
            adjustment=adjustment,
            account=account,
            args=args,
        )
        return Pending(_search_uncached(context, index, query, options, effort), renderer.one_found)
    looked_up_at = server.clock.monotonic() if "with_info" in options else received_at
    # What a text stands for may change; a session is to be followed.
    repeatable = wish.mode is CacheMode.AUTO and wish.text is None and wish.session is None
    # What another month, or another limit, would answer differently is not kept word for word.
    repeatable = repeatable and adjustment is None and words is not None
    renderer = Renderer(
        context,
        index,
        options,
        effort,
        received_at,
        looked_up_at,
        words if repeatable else None,
        adjustment,
        account,
        args,
    )
    if adjustment is not None and context.strain >= SPENT and wish.mode is CacheMode.AUTO:
        preferred = _kept_before(
            context, args, index, query, options, wish, adjustment, received_at
        )
        if preferred is not None:
            return preferred
    answers = index.cache.search(
        client.id,
        query,
        asked_of(options, effort),
        wish,
        _seconds(options),
        renderer.form(client.protocol),
    )
    if isinstance(answers, CachedSearch):
        return Pending(answers, renderer.one)
    return renderer.one(answers, client.protocol)


def msearch(context: Context, args: list[bytes]) -> Pending | Raw:
    server = context.server
    received_at = server.clock.monotonic()
    limits = server.settings.limits
    if args[2].upper() != b"FP32":
        raise CommandError("invalid vector specification: FP32 is expected")
    blob = args[3]
    if not blob or len(blob) % 4:
        check_blob(blob)
    options = _parse(MSEARCH_TABLE, args, limits, 4)
    index = server.service.index(context.client.tenant, args[1])
    size = 4 * index.spec.dim
    hits = len(blob) // size * min(options.get("count", COUNT), max(len(index), 1))
    if hits > limits.count:
        raise CommandError(
            f"{len(blob) // size} searches for so many results each could give {hits}, which is "
            f"over the limit of {limits.count} in one command"
        )
    check_rows(blob, index.spec.dim)
    index.remove_expired()
    for word in ("query", "session"):
        if word in options:
            raise CommandError(f"{word.upper()} is of one query: VECTOR.SEARCH takes it")
    client = context.client
    effort, wish, adjustment = in_force(context, index, options)
    renderer = Renderer(
        context,
        index,
        options,
        effort,
        received_at,
        received_at,
        adjustment=adjustment,
        account=context.account,
        args=args,
    )
    many = len(blob) // size > _CACHED_ROWS
    if many and wish.mode is CacheMode.ONLY:
        raise CommandError(f"CACHE ONLY takes at most {_CACHED_ROWS} vectors at once")
    if many or wish.mode is CacheMode.OFF or not index.spec.cache.levels:
        return Pending(_search_uncached(context, index, blob, options, effort), renderer.many_found)
    answers = index.cache.search(
        client.id,
        blob,
        asked_of(options, effort),
        wish,
        _seconds(options),
    )
    if isinstance(answers, CachedSearch):
        return Pending(answers, renderer.many)
    return renderer.many(answers, client.protocol)


_FLAGS = frozenset({"readonly"})
_CATEGORIES = frozenset({"read", "vector", "slow"})
_INDEX = Argument("index", "key")
_RETURNS = (
    "array of ids; WITHSCORES, WITHATTRIBS: flat array id, score, attributes, … (RESP2), or map "
    "id -> score | attributes | [score, attributes] (RESP3); WITHINFO: [hits, info]"
)

COMMANDS = (
    Command(
        "VECTOR.SEARCH", -4, search, "Finds the vectors nearest to a vector.",
        GROUP, access=Access.READ, flags=_FLAGS, categories=_CATEGORIES, has_index=True,
        arguments=(_INDEX, QUERY_ARGUMENT, *SEARCH_TABLE.describe()),
        complexity="O(log N) for HNSW, O(N) for FLAT and TRUTH", returns=_RETURNS,
    ),
    Command(
        "VECTOR.MSEARCH", -4, msearch, "Finds the vectors nearest to each of several vectors.",
        GROUP, access=Access.READ, flags=_FLAGS, categories=_CATEGORIES, has_index=True,
        arguments=(_INDEX, Argument("blob", "string", "FP32"), *MSEARCH_TABLE.describe()),
        complexity="O(n log N) for HNSW, O(n·N) for FLAT and TRUTH",
        returns="array of n answers, each as VECTOR.SEARCH gives it",
    ),
)  # fmt: skip
