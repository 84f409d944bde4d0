"""An index as a dictionary: it computes every distance in float64, and keeps no answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyrope.types import Metric

FILTERS: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    '.c == "red"': lambda one: one.get("c") == "red",
    ".n > 2": lambda one: one.get("n", 0) > 2,
}
"""Expressions, and what they mean."""

TIE = 2e-6
"""Scores this close, in parts of the score where it is above 1, are one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A search.

    Attributes:
        query: little-endian float32.
        filter: one of `FILTERS`, or None.
        truth: scan everything.
        ef, max_scans: effort; None: as the index has it, and as much as it takes.
    """

    query: bytes
    count: int
    filter: str | None = None
    epsilon: float | None = None
    truth: bool = False
    ef: int | None = None
    max_scans: int | None = None

    @property
    def words(self) -> tuple[bytes, ...]:
        """As a command has it, from the vector on."""
        words = [b"FP32", self.query, b"COUNT", b"%d" % self.count, *self.options]
        return tuple(words)

    @property
    def options(self) -> tuple[bytes, ...]:
        """Everything but vector and count."""
        words: list[bytes] = [b"TRUTH"] if self.truth else []
        for name in ("filter", "epsilon", "ef", "max_scans"):
            value = getattr(self, name)
            if value is not None:
                words += [name.replace("_", "").upper().encode(), str(value).encode()]
        return tuple(words)


class Hit(NamedTuple):
    """Of a reply; what was not asked for is None."""

    id: bytes
    score: float | None
    attributes: bytes | None


@dataclass(slots=True)
class Stored:
    """What is under an id.

    Attributes:
        expires_at_ms: Unix time; infinite for never.
        written: number of the write that brought the vector.
        described: number of the last write that changed vector or attributes.
    """

    vector: NDArray[np.float64]
    attributes: bytes
    expires_at_ms: float
    written: int
    described: int


@dataclass(slots=True)
class PlainIndex:
    """What an index should hold.

    Attributes:
        writes: number of the last write.
    """

    metric: Metric
    stored: dict[bytes, Stored] = field(default_factory=dict)
    writes: int = 0

    def copy(self) -> PlainIndex:
        stored = {id_: copy(one) for id_, one in self.stored.items()}
        return PlainIndex(self.metric, stored, self.writes)

    # -- writing ----------------------------------------------------------------------------------

    def put(
        self, id_: bytes, vector: bytes, attributes: bytes | None, expires_at_ms: float
    ) -> None:
        """Add or replace; attributes of None leave those that are there."""
        self.writes += 1
        if attributes is None:
            attributes = self.stored[id_].attributes if id_ in self.stored else b""
        row = np.frombuffer(vector, "<f4").astype(np.float64)
        self.stored[id_] = Stored(row, attributes, expires_at_ms, self.writes, self.writes)

    def remove(self, id_: bytes) -> bool:
        self.writes += 1
        return self.stored.pop(id_, None) is not None

    def describe(self, id_: bytes, attributes: bytes) -> bool:
        self.writes += 1
        if id_ not in self.stored:
            return False
        self.stored[id_].attributes = attributes
        self.stored[id_].described = self.writes
        return True

    def expire(self, now_ms: int) -> None:
        gone = [id_ for id_, one in self.stored.items() if one.expires_at_ms <= now_ms]
        for id_ in gone:
            del self.stored[id_]

    # -- searching --------------------------------------------------------------------------------

    def score(self, query: bytes, id_: bytes) -> float:
        one, other = np.frombuffer(query, "<f4").astype(np.float64), self.stored[id_].vector
        if self.metric is Metric.L2:
            return float(np.sqrt(((one - other) ** 2).sum()))
        product = float(one @ other)
        if self.metric is Metric.IP:
            return product
        norms = float(np.linalg.norm(one) * np.linalg.norm(other))
        return product / norms if norms else 0.0

    def taking_part(self, filter_: str | None) -> list[bytes]:
        holds = FILTERS[filter_] if filter_ is not None else None
        return [
            id_
            for id_, one in self.stored.items()
            if holds is None or (one.attributes and holds(json.loads(one.attributes)))
        ]

    def is_nearer(self, one: float, other: float) -> bool:
        """Whether one score is surely nearer than another."""
        margin = _margin(one, other)
        return one > other + margin if self.metric.higher_is_nearer else one < other - margin

    def best(self, query: bytes, count: int, filter_: str | None) -> list[float]:
        """Scores of the nearest, nearest first."""
        scores = [self.score(query, id_) for id_ in self.taking_part(filter_)]
        return sorted(scores, reverse=self.metric.higher_is_nearer)[:count]

    def within(self, scores: list[float], epsilon: float | None, slack: float) -> int:
        """How many of the scores, nearest first, are within a distance, give or take."""
        if epsilon is None:
            return len(scores)
        distances = [1 - s for s in scores] if self.metric.higher_is_nearer else scores
        return sum(1 for distance in distances if distance <= epsilon + slack)

    # -- judging ----------------------------------------------------------------------------------

    def complaint(self, asked: Asked, hits: list[Hit], *, with_attributes: bool) -> str | None:
        """What is wrong with hits, whatever their source; None: nothing.

        Each is there once, takes part, has its own score for this query, and comes in order.
        """
        part = set(self.taking_part(asked.filter))
        ids = [hit.id for hit in hits]
        if len(ids) > asked.count or len(set(ids)) < len(ids):
            return "too many, or one twice"
        if strangers := [id_ for id_ in ids if id_ not in part]:
            return f"{strangers} do not take part"
        for hit in hits:
            own = self.score(asked.query, hit.id)
            if hit.score is not None and abs(own - hit.score) > _margin(own, hit.score):
                return f"{hit.id!r} has the score {hit.score}, not {own}"
            if with_attributes and (hit.attributes or b"") != self.stored[hit.id].attributes:
                return f"{hit.id!r} has the attributes {hit.attributes!r}"
        own_scores = [self.score(asked.query, id_) for id_ in ids]
        said = [hit.score for hit in hits if hit.score is not None]
        if said != sorted(said, reverse=self.metric.higher_is_nearer):
            return "they are not in order"
        too_far = self.within(own_scores, asked.epsilon, TIE) < len(ids)
        return "one is further than EPSILON" if too_far else None

    def how_inexact(self, asked: Asked, hits: list[Hit]) -> str | None:
        """What tells hits, about which there is no complaint, from those of a full scan."""
        best = self.best(asked.query, asked.count, asked.filter)
        least = self.within(best, asked.epsilon, -TIE)
        most = self.within(best, asked.epsilon, TIE)
        if not least <= len(hits) <= most:
            return f"{len(hits)} hits, and not {least}"
        for position, hit in enumerate(hits):
            own = self.score(asked.query, hit.id)
            if abs(own - best[position]) > _margin(own, best[position]):
                return f"{hit.id!r} at {own} is in the place of one at {best[position]}"
        return None

    def recall(self, asked: Asked, hits: list[Hit]) -> float:
        """The share of the true answer that hits have, ties in their favour."""
        best = self.best(asked.query, asked.count, asked.filter)
        best = best[: self.within(best, asked.epsilon, -TIE)]
        if not best:
            return 1.0
        found = [self.score(asked.query, hit.id) for hit in hits]
        good = sum(1 for score in found if not self.is_nearer(best[-1], score))
        return min(1.0, good / len(best))

    def overlooked(self, asked: Asked, hits: list[Hit], since: int) -> list[bytes]:
        """What was written since some write, and is nearer than the last of the hits."""
        scores = [self.score(asked.query, hit.id) for hit in hits]
        listed = {hit.id for hit in hits}
        full = len(hits) == asked.count or asked.epsilon is not None
        missed = []
        for id_ in self.taking_part(asked.filter):
            one = self.stored[id_]
            if (one.described if asked.filter else one.written) <= since or id_ in listed:
                continue
            own = self.score(asked.query, id_)
            if not full or (scores and self.is_nearer(own, scores[-1])):
                missed.append(id_)
        return missed

    def could_be_around(self, other: bytes, asked: Asked, hits: list[Hit], width: int) -> bool:
        """Whether all hits are among so many nearest of another query."""
        best = self.best(other, width, asked.filter)
        return not hits or not any(
            self.is_nearer(best[-1], self.score(other, hit.id)) for hit in hits
        )


def _margin(one: float, other: float) -> float:
    return TIE * max(1.0, abs(one), abs(other))
