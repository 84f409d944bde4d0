"""Audits of near hits, and of hits by aliases: full searches that say how right they were.

A sample of what was served is searched for in full afterwards, one at a time, and within a share of
one thread's time for all of them. What was found and not served is compared with the search that
follows anyway, at no cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pyrope.cache.alias_audits import AliasAudits
from pyrope.cache.audited_recall import AuditedRecall
from pyrope.cache.query_key import QueryKey
from pyrope.clock import Clock
from pyrope.errors import BusyError
from pyrope.log import get_logger
from pyrope.service.aliases import Aliases
from pyrope.service.search import Hits, Search, SearchRequest
from pyrope.types import Metric

_log = get_logger(__name__)

# Whose turn audits take among those that search.
_AUDITOR = "audit"
# True results that a hit by an alias is to have one of; fewer could be others by chance.
_ALIKE = 10


class Shadow(NamedTuple):
    """What was made of another query's neighbourhood, served or not, to be held against the truth.

    Attributes:
        scores: of its hits, nearest first, shape (k,).
        promised: the recall that was asked for, where its bound was good enough; else None.
    """

    level: str
    strain: float
    scores: NDArray[np.float32]
    promised: float | None = None


@dataclass(slots=True)
class NearStatistics:
    """Counters since the index was opened.

    Attributes:
        audits, audits_skipped: searches made to check hits, and those not made for want of time.
        alias_audits: those made to check hits by aliases.
        refused: queries with something near that was not good enough.
        judged: audits, by level, of what was served on the strength of its bound, or would have
            been if the level were trusted; and of hits by aliases.
        recall, promised: of those, what they had of the true results, and what was asked for,
            added up.
    """

    audits: int = 0
    audits_skipped: int = 0
    alias_audits: int = 0
    refused: int = 0
    judged: Counter[str] = field(default_factory=Counter)
    recall: dict[str, float] = field(default_factory=dict)
    promised: dict[str, float] = field(default_factory=dict)

    def judge(self, level: str, recall: float, promised: float) -> None:
        """Count an audit. Args: promised: 0 where nothing was."""
        self.judged[level] += 1
        self.recall[level] = self.recall.get(level, 0.0) + recall
        self.promised[level] = self.promised.get(level, 0.0) + promised


class _ByAlias(NamedTuple):
    """Which alias a hit came by, and what it stood for.

    Attributes:
        drawn: its audit is one of a fair sample, and not made for the sake of this alias only.
    """

    key: QueryKey
    canonical: QueryKey
    drawn: bool


class Auditable(Protocol):
    """The index."""

    @property
    def metric(self) -> Metric: ...

    @property
    def label(self) -> str:
        """What a log names it by."""
        ...

    @property
    def aliases(self) -> Aliases: ...

    def search(self, client: str, queries: bytes, asked: Search) -> SearchRequest: ...


class NearAudits:
    """All methods are for the event loop.

    Args:
        position: of the index's log of writes.
        share: of the time of one thread that audits may take.
        seed: of what is drawn.

    Attributes:
        recall: of near hits.
        aliases: recall of hits by aliases.
    """

    def __init__(
        self,
        index: Auditable,
        *,
        position: Callable[[], int],
        clock: Clock,
        share: float,
        seed: int,
    ) -> None:
        self.statistics = NearStatistics()
        self.recall = AuditedRecall(clock, Random(seed))  # noqa: S311 - no secret
        self.aliases = AliasAudits(clock, Random(seed))  # noqa: S311 - likewise
        self._index = index
        self._position = position
        self._clock = clock
        self._share = share
        self._running = False
        self._not_before = float("-inf")

    # -- near hits --------------------------------------------------------------------------------

    def consider(self, query: bytes, asked: Search, shadow: Shadow) -> None:
        """Audit a near hit, if that is wanted and there is time for it."""
        count = len(shadow.scores)
        if count and self.recall.should_audit(shadow.level, shadow.strain, count):
            self._search(query, asked, count, partial(self.compare, shadow))

    def compare(self, shadow: Shadow, hits: Hits) -> None:
        """Learn from a full search how good a near hit was."""
        found, count = self._found(shadow, hits)
        if not count:
            return
        level, promised = shadow.level, shadow.promised
        if promised is not None:
            self.statistics.judge(level, found / count, promised)
        changed = self.recall.record(level, shadow.strain, found, count, promised=promised)
        if changed and promised is not None:
            on = self.recall.level_is_trusted(level, promised)
            tell = _log.info if on else _log.warning
            tell(
                "a near level is on again" if on else "a near level is off: its recall falls short",
                index=self._index.label,
                level=level,
                min_recall=promised,
            )

    # -- aliases ----------------------------------------------------------------------------------

    def consider_alias(
        self, query: bytes, asked: Search, shadow: Shadow, alias: QueryKey, canonical: QueryKey
    ) -> None:
        """Audit a hit by an alias, if that is wanted and there is time for it.

        The first few of each alias are; beyond them a sample is drawn.
        """
        count = len(shadow.scores)
        if not count:
            return
        drawn = self.aliases.should_audit()
        if drawn or self._index.aliases.is_unaudited(alias):
            by_alias = _ByAlias(alias, canonical, drawn)
            told = partial(self._compare_alias, shadow, by_alias)
            self._search(query, asked, max(count, _ALIKE), told)

    def _compare_alias(self, shadow: Shadow, by_alias: _ByAlias, hits: Hits) -> None:
        self.statistics.alias_audits += 1
        found, count = self._found(shadow, hits)
        if not count:
            return
        if by_alias.drawn:
            self.aliases.record(found / count)
            self.statistics.judge(shadow.level, found / count, 0.0)
        alike = bool(self._are_among(shadow.scores, hits.scores[-1]).any())
        self._index.aliases.audited(by_alias.key, by_alias.canonical, alike=alike)

    # -- within -----------------------------------------------------------------------------------

    def _found(self, shadow: Shadow, hits: Hits) -> tuple[int, int]:
        """How many of the true results a hit had, and of how many."""
        count = min(len(shadow.scores), len(hits.scores))
        if not count:
            return 0, 0
        among = self._are_among(shadow.scores[:count], hits.scores[count - 1])
        return int(np.count_nonzero(among)), count

    def _are_among(self, scores: NDArray[np.float32], last: float) -> NDArray[np.bool_]:
        """Which scores are as good as the last of the true ones."""
        furthest = np.float32(last)
        return scores >= furthest if self._index.metric.higher_is_nearer else scores <= furthest

    def _search(
        self, query: bytes, asked: Search, count: int, told: Callable[[Hits], None]
    ) -> None:
        if self._running or self._clock.monotonic() < self._not_before:
            self.statistics.audits_skipped += 1
            return
        full = Search(count, exact=True, filter=asked.filter)
        position = self._position()
        try:
            request = self._index.search(_AUDITOR, query, full)
        except BusyError:
            self.statistics.audits_skipped += 1
            return
        self._running = True
        request.add_done_callback(partial(self._searched, told, position))

    def _searched(
        self, told: Callable[[Hits], None], position: int, request: SearchRequest
    ) -> None:
        self._running = False
        if request.exception() is not None:
            return
        (hits,) = request.result()
        now = self._clock.monotonic()
        self._not_before = max(now, self._not_before) + hits.search_seconds / self._share
        self.statistics.audits += 1
        # What has been written meanwhile is in one of the two.
        if position == self._position():
            told(hits)
