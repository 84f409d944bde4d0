"""How long to wait before the next attempt."""

from __future__ import annotations

from random import Random

# 2**32 times any base is above any maximum.
_MAX_EXPONENT = 32


class Backoff:
    """Exponential backoff with full jitter.

    A delay is uniform between 0 and ``min(maximum, base · 2^n)`` after n + 1 attempts. Of the ways
    compared by Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015, it is the
    one that costs the fewest calls.

    Args:
        base_s, max_s: both above 0.
        random: seeded by whoever makes it.

    Raises:
        ValueError: one of them is not above 0.
    """

    def __init__(self, base_s: float, max_s: float, random: Random) -> None:
        if not (base_s > 0.0 and max_s > 0.0):
            raise ValueError(f"no backoff begins at {base_s} s and ends at {max_s} s")
        self._base_s = base_s
        self._max_s = max_s
        self._random = random

    def delay_s(self, attempts: int, retry_after_s: float | None = None) -> float:
        """Seconds to wait.

        Args:
            attempts: that have failed, at least 1.
            retry_after_s: what the provider has asked for, finite. It is added, so that those who
                were told the same do not come back at the same moment.
        """
        most = min(self._max_s, self._base_s * 2.0 ** min(attempts - 1, _MAX_EXPONENT))
        delay = self._random.uniform(0.0, most)
        if retry_after_s is not None and retry_after_s > 0.0:
            delay += retry_after_s
        return delay
