"""VECTOR.SEARCH and VECTOR.MSEARCH."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, TypedDict, Unpack

from numpy.typing import ArrayLike

from pyrope.client import replies
from pyrope.client.request import Request
from pyrope.client.results import Adjustment, Hit, IdT, SearchInfo, SearchResult
from pyrope.client.vectors import ReadId
from pyrope.client.words import Id, Word, check_names, flag, option, query_words, rows_word
from pyrope.types import Metric


class ManyOptions(TypedDict, total=False):
    """Options of searches; see docs/wire.md, *Search*. Without them, it is as the index has it.

    Attributes:
        count: results wanted; 10.
        attributes: whether they come with their attributes.
        info: whether to tell how the answer came about.
        filter: an expression over attributes, such as ``.year >= 1980``; None: all match.
        epsilon: the greatest distance.
        ef, nprobe, max_scans: the effort.
        exact: scan everything.
        cache: what is asked of the caches; ``ONLY`` never searches, and a miss is a BusyError.
        min_recall, basis: accept a near hit of so much recall, and what counts as recall.
        timeout_s: give up with a BusyError rather than answer later.
    """

    count: int
    attributes: bool
    info: bool
    filter: str | None
    epsilon: float
    ef: int
    nprobe: int
    max_scans: int
    exact: bool
    cache: Literal["AUTO", "OFF", "ONLY", "REFRESH"]
    min_recall: float
    basis: Literal["CERTIFIED", "ESTIMATED"]
    timeout_s: float


class SearchOptions(ManyOptions, total=False):
    """Options of one search.

    Attributes:
        query: the text behind the vector: what aliases go by.
        session: the conversation it belongs to.
    """

    query: str | None
    session: str | None


_MANY_NAMES = frozenset(ManyOptions.__annotations__)
_NAMES = _MANY_NAMES | {"query", "session"}
_FLAGS = {"attributes": "WITHATTRIBS", "exact": "TRUTH", "info": "WITHINFO"}
_VALUES = {
    "count": "COUNT",
    "filter": "FILTER",
    "epsilon": "EPSILON",
    "ef": "EF",
    "nprobe": "NPROBE",
    "max_scans": "MAXSCANS",
    "cache": "CACHE",
    "min_recall": "MINRECALL",
    "query": "QUERY",
    "session": "SESSION",
}
"""Options by the words that they are on the wire; `basis` and `timeout_s` are made ones."""


def search(
    read_id: ReadId[IdT],
    index: str,
    vector: ArrayLike | None = None,
    *,
    text: str | None = None,
    element: Id | None = None,
    **options: Unpack[SearchOptions],
) -> Request[SearchResult[IdT]]:
    check_names(options, _NAMES)
    words = ("VECTOR.SEARCH", index, *query_words(vector, text, element), *_words(options))
    return Request(
        words,
        _parser(read_id, options),
        retries_busy=options.get("cache") != "ONLY",
        deadline_s=options.get("timeout_s"),
    )


def search_many(
    read_id: ReadId[IdT], index: str, vectors: ArrayLike, **options: Unpack[ManyOptions]
) -> Request[list[SearchResult[IdT]]]:
    check_names(options, _MANY_NAMES)
    one = _parser(read_id, options)
    return Request(
        ("VECTOR.MSEARCH", index, "FP32", rows_word(vectors), *_words(options)),
        lambda reply: [one(each) for each in reply],
        retries_busy=options.get("cache") != "ONLY",
        deadline_s=options.get("timeout_s"),
    )


def _words(options: ManyOptions) -> list[Word]:
    words: list[Word] = ["WITHSCORES"]
    given: Mapping[str, Any] = dict(options)
    for name, value in given.items():
        if name in _VALUES:
            words += option(_VALUES[name], value)
        elif name in _FLAGS:
            words += flag(_FLAGS[name], value)
        elif name == "basis":
            words += flag(value, value)
        elif name == "timeout_s" and value is not None:
            words += ("TIMEOUT", max(1, math.ceil(value * 1000)))
    return words


def _parser(read_id: ReadId[IdT], options: ManyOptions) -> Any:
    hits = _with_attributes if options.get("attributes") else _with_scores
    return partial(_informed if options.get("info") else _bare, partial(hits, read_id))


def _bare(hits: Any, reply: Any) -> SearchResult[Any]:
    return SearchResult(hits(reply))


def _informed(hits: Any, reply: Any) -> SearchResult[Any]:
    return SearchResult(hits(reply[0]), _info(reply[1]))


def _with_scores(read_id: ReadId[IdT], reply: Mapping[bytes, float]) -> tuple[Hit[IdT], ...]:
    return tuple(Hit(read_id(raw), score) for raw, score in reply.items())


def _with_attributes(read_id: ReadId[IdT], reply: Mapping[bytes, Any]) -> tuple[Hit[IdT], ...]:
    return tuple(
        Hit(read_id(raw), score, replies.attributes(attributes))
        for raw, (score, attributes) in reply.items()
    )


def _info(reply: Mapping[bytes, Any]) -> SearchInfo:
    told = replies.fields(reply)
    take = told.pop
    changed = replies.plain(take("budget_adjustment", None))
    return SearchInfo(
        cache=replies.text(take("cache")),
        repaired=bool(take("repaired")),
        metric=Metric(replies.text(take("metric"))),
        direction=replies.text(take("direction")),
        adjustment=changed and Adjustment(changed["reason"], changed["from"], changed["to"]),
        request_id=replies.text(take("request_id")),
        latency_us=replies.plain(take("latency_us")),
        **{name: take(name) for name in _NUMBERS},
        more=replies.rest(told),
    )


_NUMBERS = (
    "certified_recall", "estimated_recall", "cost", "cost_saved", "ef", "nprobe", "max_scans",
)  # fmt: skip
