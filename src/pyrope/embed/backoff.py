"""How long to wait before a provider is asked again."""

from __future__ import annotations

from random import Random

_FIRST_S = 0.1
_LONGEST_S = 10.0


def pause_s(attempt: int, retry_after_s: float | None, random: Random) -> float:
    """Seconds to wait after a failed attempt.

    Exponential with full jitter ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015):
    uniform in 0 to 0.1 · 2^(attempt - 1) s, at most 10 s, on top of what the provider has asked
    for.

    Args:
        attempt: number of the attempt that failed, from 1.
        retry_after_s: what the provider has asked for; None: nothing.
    """
    jitter = random.uniform(0, min(_LONGEST_S, _FIRST_S * 2 ** (attempt - 1)))
    return jitter + max(0.0, retry_after_s or 0.0)
