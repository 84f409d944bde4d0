"""VECTOR.SEARCH and VECTOR.MSEARCH."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from pyrope.cache.query_key import QueryKey, text_key
from pyrope.commands import cache_policy
from pyrope.commands.context import Context, Pending
from pyrope.commands.options import Convert, Option, OptionTable, choice, integer, number
from pyrope.commands.spec import Access, Argument, Command
from pyrope.commands.vector_argument import QUERY_ARGUMENT, check_blob, check_rows, parse_vector
from pyrope.config import LimitSettings
from pyrope.engine.base import SearchOptions
from pyrope.engine.filter import Filter, compile_filter
from pyrope.errors import CommandError
from pyrope.resp.values import Raw
from pyrope.resp.writer import encode, encode_bulk, encode_scores
from pyrope.service.answers import OFF, Answer, CachedSearch, CacheMode, CacheWish, Near
from pyrope.service.definition import NO_NEAR_HITS
from pyrope.service.index import OpenIndex
from pyrope.service.search import Hits, Search, SearchRequest
from pyrope.types import IndexType, Metric

GROUP = "vector"
_COUNT = 10
_TIMEOUT_MAX_MS = 3_600_000
_TEXT_MAX_BYTES = 64 * 1024
_SESSION_MAX_BYTES = 256
# Vectors of one MSEARCH that are looked up: catching up with writes may take 1 ms each.
_CACHED_ROWS = 32
# What a native library's 32-bit integer holds.
_MAX_SCANS = 2**31 - 1
_NULL = {2: b"$-1\r\n", 3: b"_\r\n"}

_request_numbers = itertools.count(1)


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


@dataclass(frozen=True, slots=True)
class _Renderer:
    """Makes replies out of hits, in the form that the options ask for.

    Attributes:
        received_at: monotonic time in seconds at which the command began.
        looked_up_at: when it went to the caches.
        words: of the command, if they are all that its reply depends on.
    """

    context: Context
    index: OpenIndex
    options: Mapping[str, Any]
    search_options: SearchOptions
    received_at: float
    looked_up_at: float
    words: tuple[Hashable, ...] | None = None

    def one(self, answers: list[Answer], protocol: int) -> Raw:
        return Raw(self._encode(answers[0], protocol))

    def one_found(self, found: list[Hits], protocol: int) -> Raw:
        return Raw(self._encode(Answer(found[0], OFF), protocol))

    def many_found(self, found: list[Hits], protocol: int) -> Raw:
        return self.many([Answer(hits, OFF) for hits in found], protocol)

    def many(self, answers: list[Answer], protocol: int) -> Raw:
        parts = [self._encode(answer, protocol) for answer in answers]
        return Raw(b"*%d\r\n" % len(parts) + b"".join(parts))

    def form(self, protocol: int) -> Hashable:
        """What a reply is made of, beside the hits; None where it must be made anew each time."""
        options = self.options
        if "with_info" in options or "with_attributes" in options:
            return None
        get = options.get
        return protocol, "with_scores" in options, get("count", _COUNT), get("epsilon")

    def _encode(self, answer: Answer, protocol: int) -> bytes:
        options = self.options
        if answer.reply is not None:
            return answer.reply
        if not options.get("with_info"):
            encoded = _encode_hits(answer.hits, options, protocol)
            if answer.key is not None and (form := self.form(protocol)) is not None:
                self.index.cache.keep_reply(answer.key, form, encoded, self.words)
            return encoded
        clock = self.context.server.clock
        began = clock.monotonic()
        encoded = _encode_hits(answer.hits, options, protocol)
        ended = clock.monotonic()
        return b"*2\r\n" + encoded + encode(self._info(answer, began, ended), protocol)

    def _info(self, answer: Answer, began: float, ended: float) -> dict[str, Any]:
        spec, hits = self.index.spec, answer.hits
        return {
            "cache": answer.source.level,
            "repaired": int(answer.source.repaired),
            # Only a full scan proves its answer; a graph's is as good as its recall, which
            # nothing has audited.
            "certified_recall": _or(answer.certified, 1.0 if hits.exact else 0.0),
            "estimated_recall": _or(answer.estimated, 1.0 if hits.exact else None),
            "cost": None,
            "cost_saved": None,
            "metric": spec.metric.value,
            "direction": "higher" if spec.metric.higher_is_nearer else "lower",
            "ef": self.search_options.ef,
            "nprobe": self._nprobe(),
            "max_scans": self.search_options.max_scans,
            "request_id": f"{self.context.server.run_id[:8]}-{next(_request_numbers):x}",
            "latency_us": {
                "total": _microseconds(ended - self.received_at),
                "cache": _microseconds(self.looked_up_at - self.received_at),
                "queue": _microseconds(hits.queue_seconds),
                "search": _microseconds(hits.search_seconds),
                "attributes": _microseconds(ended - began),
            },
        }

    def _nprobe(self) -> int | None:
        """Lists visited; None where there are none, or none yet."""
        if not self.index.spec.type.has_lists or "exact" in self.options:
            return None
        chosen = self.index.engine.parameters
        asked = self.search_options.nprobe or chosen.get("nprobe", 0)
        return min(asked, chosen.get("nlist", 0)) or None


def _or(value: float | None, otherwise: float | None) -> float | None:
    return otherwise if value is None else value


def _microseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e6))


def _encode_hits(hits: Hits, options: Mapping[str, Any], protocol: int) -> bytes:
    """Hits in Redis' shapes.

    An array of ids; with scores or attributes a flat array (RESP2: id, score, attributes, ...) or
    a map from id to score, attributes, or [score, attributes] (RESP3).
    """
    ids = hits.ids
    with_attributes = options.get("with_attributes", False)
    if not options.get("with_scores"):
        if not with_attributes:
            return b"*%d\r\n%b" % (len(ids), b"".join(ids))
        columns = [ids, _encode_attributes(hits, protocol)]
    elif with_attributes:
        scores = encode_scores(hits.scores, protocol)
        if protocol == 3:
            scores = [b"*2\r\n" + score for score in scores]
        columns = [ids, scores, _encode_attributes(hits, protocol)]
    else:
        columns = [ids, encode_scores(hits.scores, protocol)]
    header = b"%%%d\r\n" % len(ids) if protocol == 3 else b"*%d\r\n" % (len(ids) * len(columns))
    return header + b"".join(itertools.chain.from_iterable(zip(*columns, strict=True)))


def _encode_attributes(hits: Hits, protocol: int) -> list[bytes]:
    null = _NULL[protocol]
    return [null if raw is None else encode_bulk(raw) for raw in hits.attributes]


def _asked(options: Mapping[str, Any], effort: SearchOptions) -> Search:
    get = options.get
    return Search(
        get("count", _COUNT),
        effort,
        get("exact", False),
        get("filter"),
        get("epsilon"),
        get("with_attributes", False),
    )


def _wish(index: OpenIndex, options: Mapping[str, Any]) -> CacheWish:
    """What is asked of the caches.

    Raises:
        CommandError: near hits are asked for, and there are none with this metric.
    """
    policy = index.spec.cache
    min_recall = options.get("min_recall", policy.min_recall)
    near = None
    if min_recall:
        if index.spec.metric is Metric.IP:
            raise CommandError(NO_NEAR_HITS)
        certified = options.get("basis") == "CERTIFIED"
        if "min_recall" not in options:
            certified = policy.certified
        near = Near(min_recall, certified)
    mode = options.get("cache", CacheMode.AUTO)
    return CacheWish(mode, near, options.get("query"), options.get("session"))


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


def _effort(index: OpenIndex, options: Mapping[str, Any]) -> SearchOptions:
    """What reaches the engine; None where the type in force has no such thing.

    A wish for the effort of another type is no error, since the type in force may change beneath
    a client (AUTO, lists that are not trained yet); WITHINFO says what was in force.
    """
    spec = index.spec
    if "exact" in options:
        return SearchOptions()
    kind = index.active_type if spec.type is IndexType.AUTO else spec.type
    max_scans = options.get("max_scans")
    if kind is IndexType.FLAT:
        return SearchOptions(max_scans=max_scans)
    if kind.has_lists:
        # Of AUTO the engine knows what it is.
        return SearchOptions(nprobe=options.get("nprobe", spec.nprobe) or None, max_scans=max_scans)
    return SearchOptions(ef=options.get("ef", spec.ef), max_scans=max_scans)


def _search_uncached(
    context: Context,
    index: OpenIndex,
    queries: bytes,
    options: Mapping[str, Any],
    effort: SearchOptions,
) -> SearchRequest:
    request = index.search(
        context.client.id, queries, _asked(options, effort), timeout=_seconds(options)
    )
    index.cache.statistics.uncached += request.weight
    return request


def search(context: Context, args: list[bytes]) -> Pending | Raw:
    server, client = context.server, context.client
    words = (client.protocol, *args[2:])
    known = server.service.find_index(client.tenant, args[1])
    if known is not None:
        known.remove_expired()
        reply = known.cache.reply_to(words)
        if reply is not None:
            return Raw(reply)
    received_at = server.clock.monotonic()
    limits = server.settings.limits
    vector, position = parse_vector(args, 2, limits, element=True)
    options = _parse(SEARCH_TABLE, args, limits, position)
    index = server.service.index(client.tenant, args[1]) if known is None else known
    query = vector.resolve(index)
    effort = _effort(index, options)
    wish = _wish(index, options)
    if wish.mode is CacheMode.OFF or not index.spec.cache.levels:
        renderer = _Renderer(context, index, options, effort, received_at, received_at)
        return Pending(_search_uncached(context, index, query, options, effort), renderer.one_found)
    looked_up_at = server.clock.monotonic() if "with_info" in options else received_at
    # What an id stands for may change, and so may what a text does; a session is to be followed.
    repeatable = wish.mode is CacheMode.AUTO and wish.text is None and wish.session is None
    repeatable = repeatable and args[2].upper() == b"FP32"
    renderer = _Renderer(
        context, index, options, effort, received_at, looked_up_at, words if repeatable else None
    )
    answers = index.cache.search(
        client.id,
        query,
        _asked(options, effort),
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
    hits = len(blob) // size * min(options.get("count", _COUNT), max(len(index), 1))
    if hits > limits.count:
        raise CommandError(
            f"{len(blob) // size} searches for so many results each could give {hits}, which is "
            f"over the limit of {limits.count} in one command"
        )
    check_rows(blob, index.spec.dim)
    index.remove_expired()
    effort = _effort(index, options)
    for word in ("query", "session"):
        if word in options:
            raise CommandError(f"{word.upper()} is of one query: VECTOR.SEARCH takes it")
    client, wish = context.client, _wish(index, options)
    renderer = _Renderer(context, index, options, effort, received_at, received_at)
    many = len(blob) // size > _CACHED_ROWS
    if many and wish.mode is CacheMode.ONLY:
        raise CommandError(f"CACHE ONLY takes at most {_CACHED_ROWS} vectors at once")
    if many or wish.mode is CacheMode.OFF or not index.spec.cache.levels:
        return Pending(_search_uncached(context, index, blob, options, effort), renderer.many_found)
    answers = index.cache.search(
        client.id,
        blob,
        _asked(options, effort),
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
