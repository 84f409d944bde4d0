"""How long requests took of late: percentiles over a window that slides.

The window is a ring of histograms, one for each part of it, whose sum is kept; when a part is over
the oldest is subtracted and emptied. Buckets are log-linear, as in HdrHistogram (Tene,
"HdrHistogram: a high dynamic range histogram", 2012): `_STEPS` of equal width in each power of two.

*Error.* A percentile is that of the values held (nearest rank), rounded up to the end of its
bucket: never too low, and too high by at most 1/32 = 3.1 % of it, or by a microsecond where that is
more. What takes more than 67 s counts as 67 s.

*What the window holds.* Values of the last `seconds`, and up to one part less: between 9/10 and all
of it, with ten parts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyrope.clock import Clock

_STEPS_LOG2 = 5
_STEPS = 1 << _STEPS_LOG2
_RESOLUTION_S = 1e-6
# 2**26 times the resolution is 67 s.
_POWERS = 26
_BUCKETS = (_POWERS + 1) * _STEPS
_PARTS = 10
# Sorting so many values into their buckets takes about 0.1 ms, once for all of them.
_UNSORTED_MAX = 2048


class LatencyWindow:
    """Durations in seconds, of the last while. For one thread, or the event loop.

    Args:
        seconds: length of the window, above 0.
    """

    __slots__ = (
        "_counts",
        "_ends_at",
        "_held",
        "_monotonic",
        "_part",
        "_part_seconds",
        "_parts",
        "_unsorted",
        "seconds",
    )

    def __init__(self, clock: Clock, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"a window is longer than nothing: {seconds} s")
        self.seconds = seconds
        self._monotonic = clock.monotonic
        self._part_seconds = seconds / _PARTS
        # One row for each part of the window, and their sum.
        self._parts = np.zeros((_PARTS, _BUCKETS), np.int32)
        self._counts = np.zeros(_BUCKETS, np.int64)
        self._held = 0
        self._part = 0
        self._ends_at = clock.monotonic() + self._part_seconds
        # Of the part that is under way.
        self._unsorted: list[float] = []

    def record(self, seconds: float) -> None:
        """Something that has ended now took so long."""
        unsorted = self._unsorted
        if self._monotonic() >= self._ends_at or len(unsorted) >= _UNSORTED_MAX:
            self._catch_up()
        unsorted.append(seconds)

    @property
    def count(self) -> int:
        """Values in the window."""
        self._catch_up()
        return self._held

    def percentile(self, share: float) -> float:
        """Seconds that `share` (above 0, at most 1) of the values do not exceed; 0 without any."""
        self._catch_up()
        if not self._held:
            return 0.0
        # The rank is a whole number, so that what rounding adds to it must not make it the next.
        rank = max(1, int(np.ceil(share * self._held - 1e-9)))
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
        return _upper(bucket) * _RESOLUTION_S

    def clear(self) -> None:
        """Forget everything."""
        self._parts[:] = 0
        self._counts[:] = 0
        self._held = 0
        self._unsorted.clear()

    def _catch_up(self) -> None:
        """Sort what has come in into its part, and move the window to where it is now."""
        if self._unsorted:
            # No value is recorded in a part that is over: `record` looks at the clock first.
            found = np.bincount(_buckets(np.array(self._unsorted)), minlength=_BUCKETS)
            self._parts[self._part] += found.astype(np.int32)
            self._counts += found
            self._held += len(self._unsorted)
            self._unsorted.clear()
        now = self._monotonic()
        if now < self._ends_at:
            return
        over = int((now - self._ends_at) / self._part_seconds) + 1
        for _ in range(min(over, _PARTS)):
            self._part = (self._part + 1) % _PARTS
            gone = self._parts[self._part]
            self._counts -= gone
            self._held -= int(gone.sum())
            gone[:] = 0
        self._ends_at += over * self._part_seconds


def _buckets(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bucket of each duration.

    Bucket b < `_STEPS` holds what is up to b + 1 microseconds, and above b; from there on, bucket
    ``_STEPS (h + 1) + s`` holds what is above ``(_STEPS + s) 2^h`` and up to
    ``(_STEPS + s + 1) 2^h``.
    """
    whole = np.ceil(np.clip(seconds / _RESOLUTION_S, 1.0, 1 << _POWERS)).astype(np.int64) - 1
    # Exact: a float64 holds every whole number of this size.
    power = np.maximum(np.frexp(whole.astype(np.float64))[1] - 1 - _STEPS_LOG2, 0)
    return np.where(whole < _STEPS, whole, (power << _STEPS_LOG2) + (whole >> power))


def _upper(bucket: int) -> int:
    """The longest duration, in microseconds, that a bucket holds."""
    if bucket < 2 * _STEPS:
        return bucket + 1
    power = (bucket >> _STEPS_LOG2) - 1
    return (_STEPS + (bucket & (_STEPS - 1)) + 1) << power
