"""A dictionary of vectors and attributes that answers searches by computing every distance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TIE = 2e-5
"""Scores this close, in parts of the score where it is above 1, are one."""

Attributes = Mapping[str, Any]

FILTERS: Mapping[str, Callable[[Attributes], bool]] = {
    ".n >= 5": lambda one: one.get("n", -1) >= 5,
    '.tag == "a"': lambda one: one.get("tag") == "a",
    '.tag in ["a", "b"] and .n < 7': lambda one: (
        one.get("tag") in ("a", "b") and one.get("n", 9) < 7
    ),
    "not (.n > 3)": lambda one: "n" in one and not one["n"] > 3,
}
"""Expressions, and what they mean. What lacks one of the fields named does not match."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A search.

    Attributes:
        count: most hits.
        filter: one of `FILTERS`, or None.
        epsilon: most distance of a hit; None: any.
    """

    count: int
    filter: str | None
    epsilon: float | None


class PlainModel:
    """What an index should hold.

    Attributes:
        metric: COSINE, IP or L2.
        ids: in no order; those that are stored.
    """

    def __init__(self, metric: str, dim: int, capacity: int) -> None:
        self.metric = metric
        self.ids: list[int] = []
        self._place: dict[int, int] = {}
        self._vectors = np.zeros((capacity, dim))
        self._attributes: list[Attributes] = [{}] * capacity
        self._masks = {text: np.zeros(capacity, np.bool_) for text in FILTERS}

    def put(self, id_: int, vector: NDArray[np.float32], attributes: Attributes | None) -> None:
        """Add or replace; attributes of None leave those that are there."""
        place = self._place.get(id_)
        if place is None:
            place = self._place[id_] = len(self.ids)
            self.ids.append(id_)
            self._describe(place, {})
        row = vector.astype(np.float64)
        self._vectors[place] = row / np.linalg.norm(row) if self.metric == "COSINE" else row
        if attributes is not None:
            self._describe(place, attributes)

    def describe(self, id_: int, attributes: Attributes) -> None:
        """Replace the attributes of an id that is stored."""
        self._describe(self._place[id_], attributes)

    def remove(self, id_: int) -> None:
        """Remove an id that is stored; the last takes its place."""
        place, last = self._place.pop(id_), self.ids.pop()
        if last == id_:
            return
        end = len(self.ids)
        self.ids[place], self._place[last] = last, place
        self._vectors[place] = self._vectors[end]
        self._describe(place, self._attributes[end])

    def attributes_of(self, id_: int) -> Attributes:
        return self._attributes[self._place[id_]]

    def scores(self, query: NDArray[np.float32]) -> NDArray[np.float64]:
        """Of everything that is stored, in the order of `ids`."""
        rows = self._vectors[: len(self.ids)]
        point = query.astype(np.float64)
        if self.metric == "L2":
            distances: NDArray[np.float64] = np.linalg.norm(rows - point, axis=1)
            return distances
        if self.metric == "COSINE":
            point = point / np.linalg.norm(point)
        products: NDArray[np.float64] = rows @ point
        return products

    def is_answer(
        self, asked: Asked, query: NDArray[np.float32], ids: Sequence[int], said: Sequence[float]
    ) -> bool:
        """Whether this is the exact answer, up to ties and to what is just at epsilon."""
        places = [self._place.get(one) for one in ids]
        stored = [place for place in places if place is not None]
        if len(stored) < len(ids) or len(set(ids)) < len(ids):
            return False
        scores = self.scores(query)
        held = np.ones(len(scores), np.bool_)
        if asked.filter is not None:
            held = self._masks[asked.filter][: len(scores)]
        if not held[stored].all() or not _alike(scores[stored], said):
            return False
        near = np.sort(scores[held])
        best = (near if self.metric == "L2" else near[::-1])[: asked.count]
        if len(ids) > len(best) or not _alike(best[: len(ids)], said):
            return False
        if asked.epsilon is None:
            return len(ids) == len(best)
        rounding = TIE * max(1, asked.epsilon)
        surely = self._within(best, asked.epsilon - rounding)
        perhaps = self._within(best, asked.epsilon + rounding)
        return surely <= len(ids) <= perhaps

    def _within(self, scores: NDArray[np.float64], epsilon: float) -> int:
        distances = scores if self.metric == "L2" else 1 - scores
        return int((distances <= epsilon).sum())

    def _describe(self, place: int, attributes: Attributes) -> None:
        self._attributes[place] = attributes
        for text, holds in FILTERS.items():
            self._masks[text][place] = holds(attributes)


def _alike(scores: NDArray[np.float64], said: Sequence[float]) -> bool:
    off = np.abs(scores - np.asarray(said))
    return bool((off <= TIE * np.maximum(1, np.abs(scores))).all())
