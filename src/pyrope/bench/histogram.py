"""Latencies in a fixed space: buckets that grow with what is in them."""

from __future__ import annotations

_SUB_BITS = 7
"""128 buckets for each power of two: what is told is off by less than 0.8 %."""

_SUB = 1 << _SUB_BITS


class Histogram:
    """Counts of whole microseconds (log-linear buckets: HdrHistogram, G. Tene)."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.largest = 0

    def add(self, microseconds: int, times: int = 1) -> None:
        """Count a value, which is not negative."""
        shift = microseconds.bit_length() - _SUB_BITS - 1
        bucket = microseconds if shift <= 0 else (shift << 32) | (microseconds >> shift)
        self._counts[bucket] = self._counts.get(bucket, 0) + times
        self.count += times
        self.largest = max(self.largest, microseconds)

    def percentile(self, percent: float) -> int:
        """The least value that so many percent of all are not above, in microseconds; 0: none is.

        It is the upper end of a bucket, and never above the largest value.
        """
        wanted = percent / 100 * self.count
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= wanted:
                shift, value = bucket >> 32, bucket & 0xFFFFFFFF
                return min(((value + 1) << shift) - 1, self.largest)
        return 0
