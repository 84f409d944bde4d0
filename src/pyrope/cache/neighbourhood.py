"""A cached neighbourhood: what a search found around a query, kept true while the index changes."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from pyrope.cache.write_log import WriteLog
from pyrope.types import Slots

Score = Callable[[Slots], NDArray[np.float32]]
"""Scores of live slots for the query of a neighbourhood; of the nearest as a search gives them."""

Live = Callable[[Slots], Slots]
"""Those of some slots that hold a vector; it may have expired."""

TakesPart = Callable[[Slots], Slots | None]
"""Those of some slots that hold a vector now and match the filter of a neighbourhood; None where
that takes longer than it is worth."""


class Repair(Enum):
    """What it took to bring a neighbourhood up to date."""

    NOTHING = "nothing"
    DONE = "done"
    IMPOSSIBLE = "impossible"


class Neighbourhood:
    """Slots around a query, nearest first, equal scores by ascending slot.

    Of the vectors that take part, those it holds are the nearest that its search could find: all
    of them if it is *exhaustive*, else as many as come before the last of them. Repairs keep it so:
    a vector written since is scored like in a search, and joins if it is nearer than the last.

    Attributes:
        query: the raw vector, little-endian float32.
        slots: int64, shape (n,).
        scores: float32, shape (n,), in the metric's own unit.
        width: most slots that it holds.
        exhaustive: whether it holds everything that takes part.
        exact: whether the search behind it was a full scan.
        filtered: whether attributes decide what takes part.
        position: in the log, up to which writes are in it.
    """

    __slots__ = (
        "exact",
        "exhaustive",
        "filtered",
        "position",
        "query",
        "scores",
        "slots",
        "width",
    )

    def __init__(
        self,
        query: bytes,
        slots: Slots,
        scores: NDArray[np.float32],
        width: int,
        *,
        position: int,
        exact: bool,
        exhaustive: bool,
        filtered: bool,
    ) -> None:
        self.query = query
        self.slots = slots
        self.scores = scores
        self.width = width
        self.exhaustive = exhaustive
        self.exact = exact
        self.filtered = filtered
        self.position = position

    def serves(self, count: int) -> bool:
        """Whether its first `count` are what a search for so many gives."""
        return self.exhaustive or count <= len(self.slots)

    def catch_up(
        self,
        log: WriteLog,
        score: Score,
        live: Live,
        takes_part: TakesPart,
        *,
        higher_is_nearer: bool,
        most: int,
    ) -> Repair:
        """Bring it up to date with what has been written.

        Args:
            log: of the index.
            most: writes that are worth scoring; a search costs less than more of them.

        Returns:
            IMPOSSIBLE where it must be searched for again; it is not to be used any more then.
        """
        if self.position == log.position:
            return Repair.NOTHING
        writes = log.since(self.position)
        if writes is None:
            return Repair.IMPOSSIBLE
        gone, new = writes.gone, writes.added
        if self.filtered:
            # What has changed is judged anew, whether it was here or not.
            gone = np.concatenate([gone, writes.changed])
            new = np.concatenate([new, writes.changed])
        if len(new) > most or not self._lose(np.concatenate([gone, new])):
            return Repair.IMPOSSIBLE
        # Of the nearest, which are scored with care, none must be shut out by the filter. Without
        # one, most need not be looked at: they are too far away.
        new = _distinct(new)
        candidates = takes_part(new) if self.filtered else live(new)
        if candidates is None or not self._gain(
            candidates, score, takes_part, higher_is_nearer=higher_is_nearer
        ):
            return Repair.IMPOSSIBLE
        self.position = log.position
        return Repair.DONE

    def _lose(self, slots: Slots) -> bool:
        """Let go of slots. False where nothing is left to compare others with.

        Slots that were written are among them: what the search saw of one that is here already may
        be the vector before.
        """
        if len(slots) and len(self.slots):
            written = np.sort(slots)
            nearest = np.minimum(np.searchsorted(written, self.slots), len(written) - 1)
            kept = written[nearest] != self.slots
            if not kept.all():
                self.slots, self.scores = self.slots[kept], self.scores[kept]
        return self.exhaustive or len(self.slots) > 0

    def _gain(
        self, slots: Slots, score: Score, takes_part: TakesPart, *, higher_is_nearer: bool
    ) -> bool:
        """Take in those of the slots, which are not here, that belong here.

        Args:
            slots: ascending, each once; they hold vectors, and match the filter if there is one.
            takes_part: without a filter, asked about the few that are near enough.

        Returns:
            False where it takes too long to tell.
        """
        if not len(slots):
            return True
        scores = score(slots)
        if not self.exhaustive:
            last = self.scores[-1]
            near = scores >= last if higher_is_nearer else scores <= last
            slots, scores = slots[near], scores[near]
            if not len(slots):
                return True
        named = slots if self.filtered else takes_part(slots)
        if named is None:
            return False
        if len(named) < len(slots):
            slots, scores = named, score(named)
        slots = np.concatenate([self.slots, slots])
        scores = np.concatenate([self.scores, scores])
        order = np.lexsort((slots, -scores if higher_is_nearer else scores))
        if not self.exhaustive:
            # Of those as near as the last, which are not all known, only the ones before it.
            last_slot = self.slots[-1]
            order = order[: int(np.flatnonzero(slots[order] == last_slot)[0]) + 1]
        if len(order) > self.width:
            order = order[: self.width]
        self.exhaustive = self.exhaustive and len(slots) <= self.width
        self.slots, self.scores = slots[order], scores[order]
        return True


def _distinct(slots: Slots) -> Slots:
    """In ascending order, each once: `np.unique` takes ten times as long for a thousand."""
    if len(slots) < 2:
        return slots
    ordered = np.sort(slots)
    first = np.empty(len(ordered), dtype=np.bool_)
    first[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]
