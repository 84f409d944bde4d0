"""Quotas: how often, and how much of it, whatever it costs. What is refused is said with a limit.

The rate is kept by the generic cell rate algorithm in its virtual scheduling form (ITU-T I.371,
Annex A; ATM Forum, Traffic Management 4.0, section 4.4.2), which lets through what a token bucket
lets through and needs one number for it: when the bucket will be full. A request takes half as
long as with `pyrope.cache.token_bucket`, which keeps two and reads the clock itself
(benchmarks/micro_tenants.py).
"""

from __future__ import annotations

import math

from pyrope.errors import QuotaError

# A monotonic clock of 100 days counts in steps of 2 ns: who waits as long as told is let in.
_SLACK_S = 1e-7


class RateLimit:
    """Lets at most ``burst + qps · T`` requests through in any T seconds.

    For the event loop; O(1).

    Args:
        qps: requests a second in the long run, finite; 0: none.
        burst: requests at once, at least 1; None: as many as in a second, 1 at least.

    Raises:
        ValueError: an argument is not as it says here.
    """

    __slots__ = ("_burst", "_full_at", "_interval", "_tolerance", "qps")

    def __init__(self, qps: float, burst: float | None = None) -> None:
        burst = max(1.0, qps) if burst is None else burst
        if not (0.0 <= qps < math.inf and 1.0 <= burst < math.inf):
            raise ValueError(f"no rate can be {qps} requests a second and {burst} at once")
        self.qps = qps
        self._burst = burst
        self._interval = 1.0 / qps if qps else math.inf
        self._tolerance = (burst - 1.0) / qps + _SLACK_S if qps else -math.inf
        # When all tokens will be there again, in monotonic seconds; in the past: they are.
        self._full_at = -math.inf

    def take(self, now: float) -> float:
        """Let a request through, if it may.

        Args:
            now: monotonic time in seconds.

        Returns:
            0 if it may; else the seconds after which one may, and nothing has changed.
        """
        ahead = self._full_at - now
        if ahead < 0.0:  # noqa: PLR1730 - max() takes as long as all the rest
            ahead = 0.0
        if ahead > self._tolerance:
            return ahead - self._tolerance + _SLACK_S
        self._full_at = now + ahead + self._interval
        return 0.0

    def is_full(self, now: float) -> bool:
        """Whether it is as if no request had ever come."""
        return self._full_at <= now

    def take_over(self, former: RateLimit, now: float) -> None:
        """Count what has been taken from another one as taken from this one."""
        ahead = former._full_at - now
        if ahead > 0.0 and self.qps and former.qps:
            self._full_at = now + min(ahead * former.qps, self._burst) / self.qps


def refuse_rate(tenant: str, limit: RateLimit, wait_s: float) -> QuotaError:
    """What to say when `RateLimit.take` answered `wait_s`."""
    if not limit.qps:
        return QuotaError(f"no requests are allowed to tenant '{tenant}' until its QPS is raised")
    return QuotaError(
        f"{_allowed(limit.qps, 'request', ' a second')} allowed to tenant '{tenant}'; "
        f"retry in {math.ceil(wait_s * 1000)} ms",
        retry_after_s=wait_s,
    )


def refuse_concurrency(tenant: str, limit: int) -> QuotaError:
    """What to say when as many requests are under way as may be."""
    if not limit:
        return QuotaError(
            f"no requests are allowed to tenant '{tenant}' until its CONCURRENCY is raised"
        )
    return QuotaError(
        f"{_allowed(limit, 'request', ' at a time')} allowed to tenant '{tenant}'; "
        "retry when one has been answered",
        retry_after_s=0.0,
    )


def check_vectors(tenant: str, limit: int | None, there: int, added: int) -> None:
    """Raises QuotaError if a tenant that keeps `there` vectors may not add `added` more."""
    _check_stored(tenant, limit, there, added, "vector")


def check_bytes(tenant: str, limit: int | None, there: int, added: int) -> None:
    """Raises QuotaError if a tenant that takes `there` bytes may not take `added` more."""
    _check_stored(tenant, limit, there, added, "byte")


def _check_stored(tenant: str, limit: int | None, there: int, added: int, noun: str) -> None:
    # What adds nothing is let through even above a limit that has been lowered since.
    if limit is None or added <= 0 or there + added <= limit:
        return
    raise QuotaError(
        f"{_allowed(limit, noun)} allowed to tenant '{tenant}', which has {_number(there)}, and "
        f"{_number(added)} more would be too many; retry when some have been deleted"
    )


def _allowed(limit: float, noun: str, per: str = "") -> str:
    return f"1 {noun}{per} is" if limit == 1 else f"{_number(limit)} {noun}s{per} are"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
