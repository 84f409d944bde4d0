"""How fast counters have grown between one look and the next."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

from pyrope.metrics import Durations, percentile_of


class Recent:
    """Numbers of the look before, for the differences to it.

    Args:
        monotonic: tells the time in seconds.

    Attributes:
        seconds: between the two looks; None: there has been one only.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.seconds: float | None = None
        self._monotonic = monotonic
        self._at: float | None = None
        self._before: dict[Hashable, float] = {}
        self._now: dict[Hashable, float] = {}
        self._counts: list[int] | None = None

    def turn(self) -> None:
        """Begin the next look."""
        now = self._monotonic()
        self.seconds = None if self._at is None else now - self._at
        self._at = now
        self._before, self._now = self._now, {}

    def grown(self, name: Hashable, value: float) -> float | None:
        """By how much it has grown; None: not known, as it was not there, or begins anew."""
        self._now[name] = value
        before = self._before.get(name)
        return None if before is None or value < before else value - before

    def per_second(self, name: Hashable, value: float) -> float | None:
        """How fast it has grown; None: not known."""
        grown = self.grown(name, value)
        return grown / self.seconds if grown is not None and self.seconds else None

    def percentiles(self, counts: list[int], shares: Sequence[float]) -> list[int | None]:
        """Of the durations between the two looks, in nanoseconds; None: there were none.

        Args:
            counts: by bucket, all there have been: see `Histogram.counts`.
            shares: 0 to 1.
        """
        before, self._counts = self._counts, counts
        if before is None:
            return [None] * len(shares)
        since = [now - then for now, then in zip(counts, before, strict=True)]
        if min(since) < 0 or not any(since):
            return [None] * len(shares)
        return [percentile_of(since, share) for share in shares]


def sum_of(durations: Iterable[Durations]) -> list[int]:
    """By bucket, how many durations there have been in all of these."""
    counts = [one.histogram.counts() for one in durations]
    return [sum(bucket) for bucket in zip(*counts, strict=True)]
