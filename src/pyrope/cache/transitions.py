"""Which query comes after which: a Markov chain of the first order, bounded, that forgets.

For each query that was followed by others there is a row: its successors, and how often each of
them came. Three things make that fit for a server that runs for months.

Decay. A transition counts 2^(-age / half-life). Nothing is multiplied as time goes by: a transition
at time t adds 2^((t - landmark) / half-life) to a count, where the landmark is the row's own, and
readers divide by what a transition would add now (forward decay: Cormode, Shkapenyuk, Srivastava
and Xu, "Forward Decay: A Practical Time Decay Model for Streaming Systems", ICDE 2009). So counts
of a row keep their order while time passes, which the replacement below needs. Before the numbers
get too large the row takes a new landmark, once in 64 half-lives.

A bounded row. When all places are taken, a new successor gets that of the one with the smallest
count, and takes over this count besides its own: SpaceSaving of Metwally, Agrawal and El Abbadi
("Efficient Computation of Frequent and Top-k Elements in Data Streams", ICDT 2005), with the
weights above, as Cormode et al. use it for the heavy hitters of a stream. The counts of a row then
always add up to all of its transitions, whichever successors they were to, and any successor with
more than a share of 1/places of them has a place. What a successor has for certain, without what it
took over, is kept apart.

Probabilities are smoothed, as one transition out of one is no certainty:

    p(next | previous) = (sure(next) + m / V) / (total + m)

where V is the number of keys that the table knows, and m the *prior mass*: each row starts out as
if m transitions had been seen, spread evenly over all keys. That is additive smoothing with m/V for
each key (Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling",
Computer Speech and Language 13, 1999, section 2.1; the mass is fixed rather than what is added to a
key, or a row would have to be seen as many times as there are keys before it said anything). With m
= 2, one of one makes 1/3, two of two 1/2, ten of ten 5/6; as counts decay it goes down to 1/V. The
certain part of a count is used, so that an estimate errs downwards.

A query that is asked again at once says nothing about what comes after it, and is not counted.
"""

from __future__ import annotations

import math
from array import array
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pyrope.clock import Clock

K = TypeVar("K", bound=Hashable)

# What CPython takes for them besides keys. Measured: tests/cache/test_transitions.
_ROW_BYTES = 500
_SUCCESSOR_BYTES = 24
_KEY_BYTES = 110
# Half-lives after which a row takes a new landmark. Weights reach 2^64 then, far from overflow.
_LONGEST_AGE = 64.0


@dataclass(frozen=True, slots=True)
class TransitionStatistics:
    """What a `TransitionTable` holds and has done.

    Attributes:
        rows_current: keys that have successors.
        keys_current: all keys, successors included.
        bytes_current: memory taken.
        seen_total: transitions counted.
        replaced_total: successors that had to give their place to another one.
        evicted_total: rows that had to go for others.
        oversized_total: transitions not counted, because of a key that is too large.
    """

    rows_current: int
    keys_current: int
    bytes_current: int
    seen_total: int
    replaced_total: int
    evicted_total: int
    oversized_total: int


class _Known(Generic[K]):
    """A key, kept once, however many rows it is in.

    Attributes:
        uses: rows that it has or is a successor in.
    """

    __slots__ = ("key", "nbytes", "uses")

    def __init__(self, key: K, nbytes: int) -> None:
        self.key = key
        self.nbytes = nbytes
        self.uses = 0


class _Row(Generic[K]):
    """Successors of a key.

    Attributes:
        landmark: monotonic time at which a transition weighs 1.
        successors: in no order.
        counts: what each has, with what it took over; as of the landmark.
        sure: what each has for certain; as of the landmark.
    """

    __slots__ = ("counts", "landmark", "previous", "successors", "sure")

    def __init__(self, previous: _Known[K], landmark: float) -> None:
        self.previous = previous
        self.landmark = landmark
        self.successors: list[_Known[K]] = []
        self.counts = array("d")
        self.sure = array("d")

    def move_landmark(self, landmark: float, half_life_s: float) -> None:
        scale = math.exp2((self.landmark - landmark) / half_life_s)
        self.counts = array("d", [scale * count for count in self.counts])
        self.sure = array("d", [scale * count for count in self.sure])
        self.landmark = landmark


class TransitionTable(Generic[K]):
    """Transitions between the queries of an index, for the event loop.

    A call takes time by the number of successors in a row, which is a small constant; making room
    takes amortized constant time.

    Attributes:
        max_key_bytes: the largest key that is taken in. A full row of such keys fits into the
            bytes.

    Args:
        clock: its monotonic side is what counts decay by.
        size_of: memory in bytes that a key takes, the same at each call for the same key.
        max_rows: keys with successors, at least 1. Past it the one goes that was neither followed
            nor asked about for the longest time.
        max_successors: of a key, at least 1. Each call goes through all of a row: 16 is plenty.
        max_bytes: that all takes together; past it rows go likewise.
        half_life_s: seconds in which a transition comes to count half, above 0 and finite.
        prior_mass: m above, above 0 and finite.

    Raises:
        ValueError: a bound is not as it says here, or the bytes do not suffice for one full row.
    """

    def __init__(
        self,
        clock: Clock,
        size_of: Callable[[K], int],
        *,
        max_rows: int,
        max_successors: int,
        max_bytes: int,
        half_life_s: float,
        prior_mass: float = 2.0,
    ) -> None:
        if max_rows < 1 or max_successors < 1:
            raise ValueError(f"no table has {max_rows} rows of {max_successors} successors")
        if not 0.0 < half_life_s < math.inf or not 0.0 < prior_mass < math.inf:
            raise ValueError(f"a half-life of {half_life_s} s, a prior mass of {prior_mass}")
        row_bytes = _ROW_BYTES + max_successors * _SUCCESSOR_BYTES
        self.max_key_bytes = (max_bytes - row_bytes) // (max_successors + 1) - _KEY_BYTES
        if self.max_key_bytes < 1:
            raise ValueError(f"{max_bytes} bytes do not suffice for {max_successors} successors")
        self._monotonic = clock.monotonic
        self._size_of = size_of
        self._max_rows = max_rows
        self._max_successors = max_successors
        self._max_bytes = max_bytes
        self._half_life_s = half_life_s
        self._prior_mass = prior_mass
        # Least lately used first.
        self._rows: OrderedDict[K, _Row[K]] = OrderedDict()
        self._known: dict[K, _Known[K]] = {}
        self._bytes = 0
        self._seen_total = 0
        self._replaced_total = 0
        self._evicted_total = 0
        self._oversized_total = 0

    def __len__(self) -> int:
        """Keys that have successors."""
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Memory that rows and keys take, in bytes."""
        return self._bytes

    def seen(self, previous: K, following: K) -> None:
        """Count a transition, at the time it is now, unless it is one from a key to itself.

        A key larger than `max_key_bytes` is not taken in; that is counted too.
        """
        if previous == following:
            return
        for key in (previous, following):
            if key not in self._known and self._size_of(key) > self.max_key_bytes:
                self._oversized_total += 1
                return
        now = self._monotonic()
        row = self._rows.get(previous)
        if row is None:
            # By the object that is kept already: an equal one would be kept besides it.
            row = _Row(self._use(previous), now)
            self._rows[row.previous.key] = row
            self._bytes += _ROW_BYTES
        else:
            self._rows.move_to_end(previous)
        self._count(row, following, now)
        self._seen_total += 1
        # The last row fits, whatever is in it: this never takes the one at hand.
        while len(self._rows) > self._max_rows or self._bytes > self._max_bytes:
            self._evict_oldest()

    def likely(self, previous: K, limit: int) -> list[tuple[K, float]]:
        """What may come next, with its probability, the most probable first.

        A use of the row: it counts as asked about.

        Args:
            limit: keys returned at the most; 0 or more.

        Returns:
            Fewer where fewer are known; none after a key that was never followed. Probabilities lie
            between 0 and 1, both excluded, and add up to less than 1.
        """
        row = self._rows.get(previous)
        if row is None:
            return []
        self._rows.move_to_end(previous)
        scale = math.exp2((row.landmark - self._monotonic()) / self._half_life_s)
        each = self._prior_mass / len(self._known)
        total = scale * math.fsum(row.counts) + self._prior_mass
        ranked = sorted(range(len(row.sure)), key=row.sure.__getitem__, reverse=True)
        return [
            (row.successors[place].key, (scale * row.sure[place] + each) / total)
            for place in ranked[:limit]
        ]

    def statistics(self) -> TransitionStatistics:
        return TransitionStatistics(
            rows_current=len(self._rows),
            keys_current=len(self._known),
            bytes_current=self._bytes,
            seen_total=self._seen_total,
            replaced_total=self._replaced_total,
            evicted_total=self._evicted_total,
            oversized_total=self._oversized_total,
        )

    # -- within -----------------------------------------------------------------------------------

    def _count(self, row: _Row[K], following: K, now: float) -> None:
        age = (now - row.landmark) / self._half_life_s
        if age > _LONGEST_AGE:
            row.move_landmark(now, self._half_life_s)
            age = 0.0
        weight = math.exp2(age)
        known = self._known.get(following)
        # A key is known by one object: lists compare those by identity, which is fast.
        if known is not None and known in row.successors:
            place = row.successors.index(known)
            row.counts[place] += weight
            row.sure[place] += weight
        elif len(row.successors) < self._max_successors:
            row.successors.append(self._use(following))
            row.counts.append(weight)
            row.sure.append(weight)
            self._bytes += _SUCCESSOR_BYTES
        else:
            place = row.counts.index(min(row.counts))
            replaced = row.successors[place]
            row.successors[place] = self._use(following)
            row.counts[place] += weight
            row.sure[place] = weight
            self._release(replaced)
            self._replaced_total += 1

    def _use(self, key: K) -> _Known[K]:
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known(key, _KEY_BYTES + self._size_of(key))
            self._bytes += known.nbytes
        known.uses += 1
        return known

    def _release(self, known: _Known[K]) -> None:
        known.uses -= 1
        if not known.uses:
            del self._known[known.key]
            self._bytes -= known.nbytes

    def _evict_oldest(self) -> None:
        _, row = self._rows.popitem(last=False)
        self._release(row.previous)
        for known in row.successors:
            self._release(known)
        self._bytes -= _ROW_BYTES + len(row.successors) * _SUCCESSOR_BYTES
        self._evicted_total += 1
