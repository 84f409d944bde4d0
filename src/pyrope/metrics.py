"""Counters and histograms: plain attributes on the hot path, read by INFO, LATENCY and /metrics.

A histogram is log-linear, as in HdrHistogram (Tene, "HdrHistogram: a high dynamic range histogram",
2012), with eight linear steps in each power of two: a percentile is off by at most 12.5 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pyrope.types import CacheLevel

_STEPS_LOG2 = 3
_STEPS = 1 << _STEPS_LOG2
# 2**36 ns is 69 s: what takes longer counts as that long.
_TOP_BIT = 36
_BUCKETS = (_TOP_BIT - _STEPS_LOG2 + 2) * _STEPS


class Histogram:
    """Durations in nanoseconds.

    Attributes:
        count: values held.
        recorded_total: values recorded since it was made, also those cleared away.

    Buckets 0-15 hold the values 0-15 exactly; bucket ``8·(h + 1) + s``, with s in 0-7, holds the
    values from ``(8 + s)·2^h`` to just below ``(9 + s)·2^h``.
    """

    __slots__ = ("_cleared", "_counts", "count", "recorded_total")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        # What was cleared away.
        self._cleared: list[int] | None = None
        self.count = 0
        self.recorded_total = 0

    def clear(self) -> None:
        """Empty it; `recorded_total` and `folded` go on counting."""
        self._cleared = self._recorded()
        self._counts = [0] * _BUCKETS
        self.count = 0

    def record(self, nanoseconds: int, times: int = 1) -> None:
        self.count += times
        self.recorded_total += times
        nanoseconds = max(nanoseconds, 0)
        shift = nanoseconds.bit_length() - _STEPS_LOG2 - 1
        if shift <= 0:
            self._counts[nanoseconds] += times
        elif shift > _TOP_BIT - _STEPS_LOG2:
            self._counts[-1] += times
        else:
            self._counts[(shift << _STEPS_LOG2) + (nanoseconds >> shift)] += times

    def record_all(self, seconds: NDArray[np.float64]) -> None:
        """Record durations in seconds, shape (n,), as `record` does with each."""
        nanoseconds = np.clip(seconds * 1e9, 0.0, 2.0 ** (_TOP_BIT + 1)).astype(np.int64)
        _, bits = np.frexp(nanoseconds.astype(np.float64))
        shifts = np.maximum(bits - _STEPS_LOG2 - 1, 0)
        buckets = (shifts << _STEPS_LOG2) + (nanoseconds >> shifts)
        new = np.bincount(np.minimum(buckets, _BUCKETS - 1), minlength=_BUCKETS)
        self._counts = [a + b for a, b in zip(self._counts, new.tolist(), strict=True)]
        self.count += len(seconds)
        self.recorded_total += len(seconds)

    def folded(self, bounds: Sequence[int]) -> list[int]:
        """Of all values recorded, how many are up to each bound.

        A bucket that a bound lies in counts as above it, so that a value may be up to 12.5 % below
        the bound and not be counted; nothing above it is.

        Args:
            bounds: nanoseconds, ascending.
        """
        counts = self._recorded()
        ends = [0, *map(_up_to, bounds)]
        found, total = [], 0
        for start, end in pairwise(ends):
            total += sum(counts[start:end])
            found.append(total)
        return found

    def counts(self) -> list[int]:
        """Of all values recorded, how many are in each bucket: see `percentile_of`. A copy."""
        return list(self._recorded())

    def _recorded(self) -> list[int]:
        """The counts, with those that were cleared away."""
        if self._cleared is None:
            return self._counts
        return [one + other for one, other in zip(self._counts, self._cleared, strict=True)]

    def percentile(self, share: float) -> int:
        """The duration in nanoseconds that `share` (0-1) of all values do not exceed, or 0."""
        return percentile_of(self._counts, share) if self.count else 0

    def powers_of_two(self) -> Iterator[tuple[int, int]]:
        """Pairs (upper bound in microseconds, values up to it), as LATENCY HISTOGRAM prints them.

        Only bounds that some value newly falls under are listed.
        """
        seen = listed = 0
        bound = 1
        for bucket, count in enumerate(self._counts):
            while _upper(bucket) >= bound * 1000:
                if seen > listed:
                    yield bound, seen
                    listed = seen
                bound *= 2
            seen += count
        if seen > listed:
            yield bound, seen


def percentile_of(counts: Sequence[int], share: float) -> int:
    """The duration in nanoseconds that `share` (0-1) of some values do not exceed, or 0.

    Args:
        counts: by bucket, as `Histogram.counts` has them: sums and differences of such, too.
    """
    wanted = share * sum(counts)
    seen = 0
    for bucket, count in enumerate(counts):
        seen += count
        if count and seen >= wanted:
            return _upper(bucket)
    return 0


def _upper(bucket: int) -> int:
    """The largest value, in nanoseconds, that a bucket holds."""
    if bucket < 2 * _STEPS:
        return bucket
    shift = (bucket >> _STEPS_LOG2) - 1
    return ((_STEPS + (bucket & (_STEPS - 1)) + 1) << shift) - 1


@cache
def _up_to(bound: int) -> int:
    """How many buckets hold nothing above a bound. The same few bounds are asked for."""
    end = 0
    while end < _BUCKETS and _upper(end) <= bound:
        end += 1
    return end


# Folding so many samples takes about 0.15 ms.
_SAMPLES_MAX = 2048
# From here on arrays are quicker than a loop.
_FOLDED_AS_ARRAY = 64


class Durations:
    """How long something took, each time.

    Durations are kept as they come and folded into the histogram by the thousand, or when somebody
    looks: that takes 0.05 us at the time, and as much again later, instead of 0.6.
    """

    __slots__ = ("_histogram", "_samples", "_seconds")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._samples: list[float] = []
        self._seconds = 0.0
        self._histogram = Histogram()

    def record(self, seconds: float) -> None:
        samples = self._samples
        samples.append(seconds)
        if len(samples) >= _SAMPLES_MAX:
            self._fold()

    def record_alike(self, seconds: float, times: int) -> None:
        """Record as many, of which each is taken to have lasted as long."""
        self._seconds += seconds * times
        self._histogram.record(int(seconds * 1e9), times)

    @property
    def seconds(self) -> float:
        """All together, with those that were cleared away."""
        self._fold()
        return self._seconds

    @property
    def histogram(self) -> Histogram:
        self._fold()
        return self._histogram

    def _fold(self) -> None:
        samples = self._samples
        if not samples:
            return
        self._seconds += sum(samples)
        if len(samples) >= _FOLDED_AS_ARRAY:
            self._histogram.record_all(np.array(samples))
        else:
            record = self._histogram.record
            for seconds in samples:
                record(int(seconds * 1e9))
        samples.clear()


class CommandStats(Durations):
    """What one command (or subcommand) has done.

    Attributes:
        alike: those of its calls that `record_alike` was told of.
        rejected: calls refused before they ran (arity, authentication, loading).
        failed: calls that ran and answered an error.
    """

    __slots__ = ("alike", "failed", "rejected")

    def reset(self) -> None:
        super().reset()
        self.alike = Durations()
        self.rejected = 0
        self.failed = 0

    def reset_latency(self) -> None:
        """Empty the histogram alone."""
        self.histogram.clear()

    def record_alike(self, seconds: float, times: int) -> None:
        """Record that many calls, of which each is taken to have lasted as long."""
        super().record_alike(seconds, times)
        self.alike.record_alike(seconds, times)

    @property
    def calls(self) -> int:
        return self.histogram.recorded_total

    @property
    def microseconds(self) -> float:
        """Duration of all calls together."""
        return self.seconds * 1e6

    @property
    def latency(self) -> Histogram:
        return self.histogram


# Sizes above 2**19 are all the same to whoever looks.
_SIZES = 21


class Sizes:
    """How large something was, each time, by powers of two.

    Attributes:
        total: of all sizes.
    """

    __slots__ = ("_counts", "total")

    def __init__(self) -> None:
        self._counts = [0] * _SIZES
        self.total = 0

    def record(self, size: int) -> None:
        """Args: size: at least 0."""
        self.total += size
        if size <= 2:
            self._counts[size > 1] += 1
        else:
            power = (size - 1).bit_length()
            self._counts[power if power < _SIZES else -1] += 1

    @property
    def count(self) -> int:
        return sum(self._counts)

    def folded(self, powers: int) -> list[int]:
        """How many were up to 1, 2, 4, … and up to two to this power less one."""
        found, total = [], 0
        for count in self._counts[:powers]:
            total += count
            found.append(total)
        return found


ANSWERS = ("miss", "off", *(level.lower() for level in CacheLevel))
"""Where an answer may come from, as WITHINFO tells it. `off`: the caches were not asked."""


def _by_answer() -> dict[str, Durations]:
    return {answer: Durations() for answer in ANSWERS}


@dataclass(slots=True)
class ServerCounters:
    """Totals of one server since it started or since CONFIG RESETSTAT.

    Attributes:
        adjustments: searches whose effort was changed, by why.
        answered: from when a command came in until a query of it was answered, by where the answer
            came from. Replies that are sent again for the very same bytes are not among them: see
            `CommandStats.alike`.
        queued: from when a query was queued until its batch began.
        searched: native calls of an engine.
        batch_sizes: queries in a batch.
    """

    connections_received_total: int = 0
    connections_rejected_total: int = 0
    net_input_bytes_total: int = 0
    net_output_bytes_total: int = 0
    output_limit_disconnections_total: int = 0
    idle_disconnections_total: int = 0
    protocol_errors_total: int = 0
    errors_total: int = 0
    errors_by_prefix: dict[str, int] = field(default_factory=dict)
    searches_total: int = 0
    shortcuts_total: int = 0
    vectors_written_total: int = 0
    vectors_deleted_total: int = 0
    vectors_expired_total: int = 0
    adjustments: dict[str, int] = field(default_factory=dict)
    answered: dict[str, Durations] = field(default_factory=_by_answer)
    queued: Durations = field(default_factory=Durations)
    searched: Durations = field(default_factory=Durations)
    batch_sizes: Sizes = field(default_factory=Sizes)

    def count_adjustment(self, reason: str) -> None:
        self.adjustments[reason] = self.adjustments.get(reason, 0) + 1

    def count_error(self, prefix: str) -> None:
        self.errors_total += 1
        self.errors_by_prefix[prefix] = self.errors_by_prefix.get(prefix, 0) + 1
