"""What a search may ask of the caches, and what it is answered."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from typing import NamedTuple

from pyrope.cache.query_key import QueryKey
from pyrope.engine.base import SearchOptions
from pyrope.engine.filter import compile_filter
from pyrope.service.promise import Promise
from pyrope.service.search import Hits, Search

Key = tuple[Hashable, ...]
"""What distinguishes a query from others of the same index, with all that changes its answer."""


def effort_of(asked: Search) -> Key:
    """Everything but the query that changes an answer."""
    options = asked.options
    return (
        options.ef,
        options.nprobe,
        options.max_scans,
        asked.exact,
        None if asked.filter is None else asked.filter.text,
    )


def asked_by(key: Key, count: int) -> Search:
    """The search that a key stands for."""
    _, ef, nprobe, max_scans, exact, text = key
    filter_ = None if text is None else compile_filter(text)  # type: ignore[arg-type]  # see `effort_of`
    return Search(count, SearchOptions(ef, nprobe, max_scans), bool(exact), filter_)  # type: ignore[arg-type]  # likewise


class CacheMode(Enum):
    """What a search asks of the caches.

    AUTO: read and fill. OFF: neither. ONLY: read, and never search. REFRESH: fill.
    """

    AUTO = "AUTO"
    OFF = "OFF"
    ONLY = "ONLY"
    REFRESH = "REFRESH"


class Source(NamedTuple):
    """Where an answer comes from, as WITHINFO tells it.

    Attributes:
        level: `miss`, `off`, or the level in lower case.
        repaired: whether it had to catch up with writes.
    """

    level: str
    repaired: bool = False


OFF, MISS = Source("off"), Source("miss")
EXACT, EXACT_REPAIRED = Source("exact"), Source("exact", repaired=True)
PREFETCHED = Source("prefetch")
NO_HITS = Hits(
    [], [], [], exact=False, queue_seconds=0.0, search_seconds=0.0, slots=[], whole=False
)


class Near(NamedTuple):
    """Which near hits a search accepts.

    Attributes:
        min_recall: the least recall, above 0.
        certified: whether only what is proven counts.
    """

    min_recall: float
    certified: bool


class CacheWish(NamedTuple):
    """What a search asks of the caches.

    Attributes:
        near: near hits that will do; None: none.
        text: behind the query, if it is known.
        session: that the query belongs to.
    """

    mode: CacheMode = CacheMode.AUTO
    near: Near | None = None
    text: QueryKey | None = None
    session: bytes | None = None


class Answer(NamedTuple):
    """The hits of one query, and where they come from.

    Attributes:
        key: of the entry that holds them; None where they are in none.
        reply: what was kept for this form of reply, instead of hits.
        certified: of a near hit, the recall that is proven; None: see `Hits.exact`.
        estimated: of a near hit, a lower bound on its recall.
        rescored: candidates that were scored for it.
    """

    hits: Hits
    source: Source
    key: Key | None = None
    reply: bytes | None = None
    certified: float | None = None
    estimated: float | None = None
    rescored: int = 0


class CachedSearch(Promise[list[Answer]]):
    """Searches that are not all answered yet. The outcome is one `Answer` for each.

    Attributes:
        width: neighbours to search for, so that what is kept serves near queries too.
    """

    __slots__ = ("_answers", "_missing", "asked", "client", "width")

    def __init__(
        self, client: Hashable, asked: Search, answers: list[Answer | None], width: int
    ) -> None:
        super().__init__()
        self.client = client
        self.asked = asked
        self.width = width
        self._answers = answers
        self._missing = answers.count(None)

    def answer(self, position: int, answer: Answer) -> None:
        """The answer to one of the queries; the last of them settles the outcome."""
        if self.done():
            return
        self._answers[position] = answer
        self._missing -= 1
        if not self._missing:
            self.set_result(self._answers)  # type: ignore[arg-type]  # none is missing
