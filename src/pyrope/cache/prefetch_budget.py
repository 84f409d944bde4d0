"""Whether a search that nobody has asked for yet may be made now, and what came of those made.

A prefetch must be likely enough to be asked for, and the server idle; and it must keep within

- a rate: a token bucket on the clock;
- a share of the useful work, which is what searches cost that clients asked for. Work earns credit,
  prefetches spend it, and credit that is not spent leaks away with a half-life, so that an hour of
  work does not pay for a storm of prefetches later. As credit only ever leaks, prefetches never
  cost more than their share of all the useful work there was;
- the number of prefetches that nobody knows the outcome of yet.

The outcome of a prefetch is *used* at the first hit, *wasted* if there is none in good time, or as
soon as there cannot be any more because the entry has gone. `PrefetchJudge` turns prefetching off
where too little is used.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

from pyrope.cache.prefetch_judge import PrefetchJudge, PrefetchState
from pyrope.cache.token_bucket import TokenBucket
from pyrope.clock import Clock

K = TypeVar("K", bound=Hashable)

# Prefetches looked at for being late whenever one may be issued: two for each that may come, so
# that they go faster than they come, without a sweep.
_LATE_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class PrefetchLimits:
    """What prefetching must keep within. The defaults are guesses; no trace has tuned them yet.

    Attributes:
        least_probability: of being asked for next, 0 to 1.
        rate: prefetches a second, above 0.
        burst: prefetches at once, at least 1.
        work_share: of the cost of useful work, what prefetches may cost, at least 0.
        work_half_life_s: seconds in which credit that was not spent becomes half, above 0.
        patience_s: seconds after which a prefetch that was not hit is wasted, above 0.
        max_outstanding: prefetches whose outcome is not known, at least 1.
        judged: outcomes by which prefetching is judged, at least 1.
        least_used: share of them that must have been used, 0 to 1; with 0 it is never turned off.
        pause_s: seconds for which it is turned off first, above 0.
        probation_rate: part of the rate that it comes back with, above 0, at most 1.

    Raises:
        ValueError: one of them is not as it says here, or not finite.
    """

    least_probability: float = 0.4
    rate: float = 20.0
    burst: float = 10.0
    work_share: float = 0.1
    work_half_life_s: float = 30.0
    patience_s: float = 300.0
    max_outstanding: int = 1024
    judged: int = 128
    least_used: float = 0.2
    pause_s: float = 60.0
    probation_rate: float = 0.1

    def __post_init__(self) -> None:
        good = {
            "least_probability": 0.0 <= self.least_probability <= 1.0,
            "rate": 0.0 < self.rate < math.inf,
            "burst": 1.0 <= self.burst < math.inf,
            "work_share": 0.0 <= self.work_share < math.inf,
            "work_half_life_s": 0.0 < self.work_half_life_s < math.inf,
            "patience_s": 0.0 < self.patience_s < math.inf,
            "max_outstanding": self.max_outstanding >= 1,
            "judged": self.judged >= 1,
            "least_used": 0.0 <= self.least_used <= 1.0,
            "pause_s": 0.0 < self.pause_s < math.inf,
            "probation_rate": 0.0 < self.probation_rate <= 1.0,
        }
        for name, is_good in good.items():
            if not is_good:
                raise ValueError(f"{name} of prefetching cannot be {getattr(self, name)}")


class Declined(StrEnum):
    """Why a prefetch was not issued: the first of these that applies.

    UNLIKELY: not probable enough. PAUSED: prefetching is off for being wasteful. BUSY: the server
    has other things to do. ISSUED: it has been already, and its outcome is not known yet.
    OUTSTANDING: too many are of whom that is true. WORK: it would exceed its share of the useful
    work. RATE: too many of late.
    """

    UNLIKELY = "unlikely"
    PAUSED = "paused"
    BUSY = "busy"
    ISSUED = "issued"
    OUTSTANDING = "outstanding"
    WORK = "work"
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class PrefetchStatistics:
    """What came of prefetching.

    Each one issued is outstanding, or is counted once among used, wasted and withdrawn.

    Attributes:
        state: whether it is on, off for a while, or on probation.
        issued_total: prefetches that were allowed.
        used_total: that were hit in time.
        wasted_total: that were not.
        withdrawn_total: that were not carried out.
        outstanding_current: whose outcome is not known.
        declined: prefetches that were not allowed, by reason.
        judged_current: outcomes that the present state rests on.
        used_share_current: the used ones among them, 0 to 1; None where there are none.
        rate_current: prefetches a second that may be issued; 0 in a pause.
        credit_current: cost units that prefetches may spend now.
        pauses_total: how often prefetching was turned off.
        resumes_in_s: seconds of a pause that are left.
    """

    state: PrefetchState
    issued_total: int
    used_total: int
    wasted_total: int
    withdrawn_total: int
    outstanding_current: int
    declined: Mapping[Declined, int]
    judged_current: int
    used_share_current: float | None
    rate_current: float
    credit_current: float
    pauses_total: int
    resumes_in_s: float


class _Issued(NamedTuple):
    late_at: float
    term: int
    cost: float


class PrefetchBudget(Generic[K]):
    """Prefetches of an index, by the key of their query. For the event loop; each call is O(1).

    Keys are kept while their outcome is not known, `max_outstanding` at the most; they are meant to
    be those of the cached entries, and take no memory of their own then.

    Args:
        clock: its monotonic side is what all of it goes by.
    """

    def __init__(self, clock: Clock, limits: PrefetchLimits) -> None:
        self._limits = limits
        self._monotonic = clock.monotonic
        self._judge = PrefetchJudge(
            clock, judged=limits.judged, least_used=limits.least_used, pause_s=limits.pause_s
        )
        self._bucket = TokenBucket(clock, limits.rate, limits.burst)
        self._credit = 0.0
        self._credit_at = clock.monotonic()
        # In the order they were issued, which is that in which they are late.
        self._outstanding: OrderedDict[K, _Issued] = OrderedDict()
        self._issued_total = 0
        self._used_total = 0
        self._wasted_total = 0
        self._withdrawn_total = 0
        self._declined = dict.fromkeys(Declined, 0)

    def worked(self, cost: float) -> None:
        """Say that a search which a client asked for was made.

        Args:
            cost: in the units of `try_issue`; at least 0 and finite, else a ValueError.
        """
        _check_cost(cost)
        self._leak()
        self._credit += self._limits.work_share * cost

    def try_issue(self, key: K, probability: float, cost: float, *, idle: bool) -> bool:
        """Whether a prefetch may be issued now. If so it counts as issued, and is to be made.

        Args:
            key: what will be hit; the caller has seen that it is not cached.
            probability: that it is asked for next, 0 to 1.
            cost: of the search, in any unit; at least 0 and finite.
            idle: nobody else waits for the server.

        Raises:
            ValueError: a probability or cost is not as it says here.
        """
        _check_cost(cost)
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"a probability lies between 0 and 1, not at {probability}")
        self.sweep(_LATE_AT_ONCE)
        declined = self._reason_against(key, probability, cost, idle=idle)
        if declined is not None:
            self._declined[declined] += 1
            return False
        self._credit -= cost
        late_at = self._monotonic() + self._limits.patience_s
        self._outstanding[key] = _Issued(late_at, self._judge.term, cost)
        self._issued_total += 1
        return True

    def use(self, key: K) -> bool:
        """Say that a cached entry was hit; for every hit, whether it was prefetched or not.

        Returns:
            Whether it was prefetched, and this is the first hit in time.
        """
        issued = self._outstanding.pop(key, None)
        if issued is None:
            return False
        used = self._monotonic() < issued.late_at
        self._decide(issued, used=used)
        return used

    def waste(self, key: K) -> None:
        """Say that an entry has left the cache; for every one, whether it was prefetched or not."""
        issued = self._outstanding.pop(key, None)
        if issued is not None:
            self._decide(issued, used=False)

    def withdraw(self, key: K) -> None:
        """Say that a prefetch was not carried out. It is not judged, and gets its credit back.

        Its token of the rate stays taken: what fails must not be tried again at once.
        """
        issued = self._outstanding.pop(key, None)
        if issued is not None:
            self._leak()
            self._credit += issued.cost
            self._withdrawn_total += 1

    def sweep(self, limit: int) -> int:
        """Count those as wasted that have not been hit in time.

        Args:
            limit: taken out at the most.

        Returns:
            How many there were.
        """
        now = self._monotonic()
        gone = 0
        while (
            gone < limit
            and self._outstanding
            and next(iter(self._outstanding.values())).late_at <= now
        ):
            _, issued = self._outstanding.popitem(last=False)
            self._decide(issued, used=False)
            gone += 1
        return gone

    def statistics(self) -> PrefetchStatistics:
        self._leak()
        judged, used = self._judge.outcomes
        return PrefetchStatistics(
            state=self._judge.state,
            issued_total=self._issued_total,
            used_total=self._used_total,
            wasted_total=self._wasted_total,
            withdrawn_total=self._withdrawn_total,
            outstanding_current=len(self._outstanding),
            declined=dict(self._declined),
            judged_current=judged,
            used_share_current=used / judged if judged else None,
            rate_current=self._rate(self._judge.state),
            credit_current=self._credit,
            pauses_total=self._judge.pauses_total,
            resumes_in_s=self._judge.resumes_in_s,
        )

    # -- within -----------------------------------------------------------------------------------

    def _reason_against(
        self, key: K, probability: float, cost: float, *, idle: bool
    ) -> Declined | None:
        """None where there is no reason; a token of the rate is taken then."""
        if probability < self._limits.least_probability:
            return Declined.UNLIKELY
        if self._judge.state is PrefetchState.PAUSED:
            return Declined.PAUSED
        if not idle:
            return Declined.BUSY
        if key in self._outstanding:
            return Declined.ISSUED
        if len(self._outstanding) >= self._limits.max_outstanding:
            return Declined.OUTSTANDING
        return self._beyond_budget(cost)

    def _beyond_budget(self, cost: float) -> Declined | None:
        self._leak()
        if cost > self._credit:
            return Declined.WORK
        self._bucket.rate = self._rate(self._judge.state)
        return None if self._bucket.try_take() else Declined.RATE

    def _rate(self, state: PrefetchState) -> float:
        if state is PrefetchState.PAUSED:
            return 0.0
        if state is PrefetchState.PROBATION:
            return self._limits.probation_rate * self._limits.rate
        return self._limits.rate

    def _decide(self, issued: _Issued, *, used: bool) -> None:
        if used:
            self._used_total += 1
        else:
            self._wasted_total += 1
        self._judge.record(issued.term, used=used)

    def _leak(self) -> None:
        now = self._monotonic()
        if now > self._credit_at:
            self._credit *= math.exp2((self._credit_at - now) / self._limits.work_half_life_s)
            self._credit_at = now


def _check_cost(cost: float) -> None:
    if not 0.0 <= cost < math.inf:
        raise ValueError(f"no search costs {cost}")
