"""Replies of searches: hits in Redis' shapes, what they cost, and what WITHINFO tells."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from pyrope.commands.context import Context
from pyrope.commands.search_effort import COUNT
from pyrope.engine.base import SearchOptions
from pyrope.resp.values import Raw
from pyrope.resp.writer import encode, encode_bulk, encode_scores
from pyrope.service.answers import MISS, OFF, Answer
from pyrope.service.index import OpenIndex
from pyrope.service.search import Hits
from pyrope.tenants.enforcer import Account
from pyrope.tenants.pressure import Adjustment

_SEARCHED = frozenset({MISS.level, OFF.level})
_NULL = {2: b"$-1\r\n", 3: b"_\r\n"}

PLAIN = 0
"""In place of a version of RESP: the reply is `Found`. For who speaks another protocol, and asks
WITHINFO."""


@dataclass(frozen=True, slots=True)
class Found:
    """An answer that is not encoded.

    Attributes:
        info: what WITHINFO tells.
    """

    hits: Hits
    info: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Renderer:
    """Makes replies out of hits, in the form that the options ask for.

    Attributes:
        received_at: monotonic time in seconds at which the command began.
        looked_up_at: when it went to the caches.
        words: of the command, if they are all that its reply depends on.
        adjustment: what was changed of the effort that was asked for; None: nothing.
        account: that pays; None: nobody's.
        args: of the command.
    """

    context: Context
    index: OpenIndex
    options: Mapping[str, Any]
    search_options: SearchOptions
    received_at: float
    looked_up_at: float
    words: tuple[Hashable, ...] | None = None
    adjustment: Adjustment | None = None
    account: Account | None = None
    args: list[bytes] | None = None

    def one(self, answers: list[Answer], protocol: int) -> Raw | Found:
        if protocol == PLAIN:
            return self._plain(answers[0])
        return Raw(self._encode(answers[0], protocol))

    def one_found(self, found: list[Hits], protocol: int) -> Raw | Found:
        return self.one([Answer(found[0], OFF)], protocol)

    def many_found(self, found: list[Hits], protocol: int) -> Raw:
        return self.many([Answer(hits, OFF) for hits in found], protocol)

    def many(self, answers: list[Answer], protocol: int) -> Raw:
        parts = [self._encode(answer, protocol, len(answers)) for answer in answers]
        return Raw(b"*%d\r\n" % len(parts) + b"".join(parts))

    def form(self, protocol: int) -> Hashable:
        """What a reply is made of, beside the hits; None where it must be made anew each time."""
        options = self.options
        if "with_info" in options or "with_attributes" in options:
            return None
        get = options.get
        return protocol, "with_scores" in options, get("count", COUNT), get("epsilon")

    def _charge(self, answer: Answer, queries: int) -> tuple[float, float]:
        """Units that an answer costs, and those that the caches have saved; they are charged.

        The latency is noted, and how it was answered.
        """
        costs, options, effort = self.index.costs, self.options, self.search_options
        level = answer.source.level
        count, exact = options.get("count", COUNT), "exact" in options
        saved = 0.0
        if level in _SEARCHED:
            matching = answer.hits.matching
            cost = costs.search(count, effort, exact=exact, matching=matching, queries=queries)
            cost /= queries
        else:
            cost = costs.cached(answer.rescored, queries)
            if "with_info" in options:
                saved = max(0.0, costs.saved(count, effort, exact=exact))
        if self.account is not None:
            self.account.charge(cost, level)
        server = self.context.server
        now = server.clock.monotonic()
        server.counters.answered[level].record(now - self.received_at)
        if server.watched and (watched := server.watched.get(self.index.spec.tenant)) is not None:
            watched.record(now - self.received_at)
        hits = answer.hits
        server.answered = (
            self.args,
            self.index.spec.name,
            level,
            hits.queue_seconds,
            hits.search_seconds,
            self.received_at,
            now,
        )
        guard = server.service.guard
        if guard.is_on:
            guard.answered(self.received_at)
        return cost, saved

    def _plain(self, answer: Answer) -> Found:
        charged = self._charge(answer, 1)
        now = self.context.server.clock.monotonic()
        return Found(answer.hits, self._info(answer, now, now, *charged))

    def _encode(self, answer: Answer, protocol: int, queries: int = 1) -> bytes:
        options = self.options
        cost, saved = self._charge(answer, queries)
        if answer.reply is not None:
            return answer.reply
        if not options.get("with_info"):
            encoded = _encode_hits(answer.hits, options, protocol)
            if answer.key is not None and (form := self.form(protocol)) is not None:
                self.index.cache.replies.keep(answer.key, form, encoded, self.words)
            return encoded
        clock = self.context.server.clock
        began = clock.monotonic()
        encoded = _encode_hits(answer.hits, options, protocol)
        ended = clock.monotonic()
        return b"*2\r\n" + encoded + encode(self._info(answer, began, ended, cost, saved), protocol)

    def _info(
        self, answer: Answer, began: float, ended: float, cost: float, saved: float
    ) -> dict[str, Any]:
        spec, hits = self.index.spec, answer.hits
        told = {
            "cache": answer.source.level,
            "repaired": int(answer.source.repaired),
            # Only a full scan proves its answer; a graph's is as good as its recall, which
            # nothing has audited.
            "certified_recall": _or(answer.certified, 1.0 if hits.exact else 0.0),
            "estimated_recall": _or(answer.estimated, 1.0 if hits.exact else None),
            "cost": cost,
            "cost_saved": saved,
            "metric": spec.metric.value,
            "direction": "higher" if spec.metric.higher_is_nearer else "lower",
            "ef": self.search_options.ef,
            "nprobe": self._nprobe(),
            "max_scans": self.search_options.max_scans,
            "request_id": self._request_id(),
            "latency_us": {
                "total": _microseconds(ended - self.received_at),
                "cache": _microseconds(self.looked_up_at - self.received_at),
                "queue": _microseconds(hits.queue_seconds),
                "search": _microseconds(hits.search_seconds),
                "attributes": _microseconds(ended - began),
            },
        }
        adjustment = self.adjustment
        if adjustment is not None:
            told["budget_adjustment"] = {
                "reason": adjustment.reason,
                "from": adjustment.from_,
                "to": adjustment.to,
            }
        return told

    def _request_id(self) -> str:
        server = self.context.server
        request_id = server.request_id(self.context.client)
        server.told_id = self.args, request_id
        return request_id

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
