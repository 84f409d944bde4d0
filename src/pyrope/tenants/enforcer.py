"""What stands between a tenant's request and the server: budget, concurrency and rate, in one call.

    account = enforcer.enter(tenant)          # for each request: a look into a table
    strain = account.admit()                  # raises QuotaError, BudgetError
    try:
        effort, adjustment = adjust(asked, account.limits, strain)
        ...
        account.charge(units, source.level)   # for each query answered
    finally:
        account.leave()

A request that is refused has taken no token and no place, and costs nothing; it is counted as
refused. Budgets are looked at before the work and charged after it, so that a tenant may exceed its
budget by what its requests under way cost, and no more.

A tenant that has done nothing of late has no account: one is made when it comes, with a full bucket
and the totals of the ledger. `sweep` takes out those who could not tell the difference. To read
what a tenant has used, ask `Ledger.look_up`, which makes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from pyrope.clock import Clock
from pyrope.errors import BudgetError, QuotaError
from pyrope.tenants.budget import Ledger
from pyrope.tenants.limits import OnBudget, TenantLimits
from pyrope.tenants.pressure import SPENT, pressure, strain
from pyrope.tenants.quota import (
    RateLimit,
    check_bytes,
    check_vectors,
    refuse_concurrency,
    refuse_rate,
)
from pyrope.tenants.usage import MICRO, micro_of


class Account:
    """A tenant that is busy: its limits, and how far they are used. For the event loop.

    It is good for one request, from `TenantQuotaEnforcer.enter` on; whoever keeps it for longer
    may miss that limits have changed, but nothing that it charges is lost.

    Attributes:
        tenant: its name.
        limits: in force.
        under_way: requests let in that have not left.
        has_ceilings: whether effort is bounded however little is spent.
        is_bounded: whether a request may be refused, or given less effort because of others.
    """

    __slots__ = (
        "_budget_micro",
        "_charged",
        "_entry",
        "_ledger",
        "_monotonic",
        "_rate",
        "_rejects",
        "_wall",
        "has_ceilings",
        "is_bounded",
        "limits",
        "tenant",
        "under_way",
    )

    def __init__(self, tenant: str, limits: TenantLimits, ledger: Ledger, clock: Clock) -> None:
        self.tenant = tenant
        self.under_way = 0
        self._wall = clock.wall
        self._monotonic = clock.monotonic
        self._ledger = ledger
        self._charged = ledger.charged
        self._entry = ledger.entry(tenant)
        self._rate: RateLimit | None = None
        self.set_limits(limits)

    def set_limits(self, limits: TenantLimits) -> None:
        """From now on; what is used of them already stays used."""
        former = self._rate
        self.limits = limits
        self._rate = None if limits.qps is None else RateLimit(limits.qps, limits.burst)
        if self._rate is not None and former is not None:
            self._rate.take_over(former, self._monotonic())
        # Not by `micro_of`: a budget may exceed what one charge may be.
        self._budget_micro = None if limits.budget is None else round(limits.budget * MICRO)
        self._rejects = limits.on_budget is OnBudget.REJECT
        bounds = (limits.qps, limits.budget, limits.concurrency)
        ceilings = (limits.ef_ceiling, limits.nprobe_ceiling, limits.max_scans_ceiling)
        self.has_ceilings = any(ceiling is not None for ceiling in ceilings)
        self.is_bounded = any(bound is not None for bound in bounds)

    # -- requests ---------------------------------------------------------------------------------

    def admit(self) -> float:
        """Let a request in; `leave` follows once it has been answered.

        Returns:
            The strain on its effort, 0 to 1, for `pyrope.tenants.pressure.adjust`; `SPENT` where
            the budget is spent and the tenant goes on all the same: cached answers are to be
            preferred then.

        Raises:
            BudgetError: the budget of the month is spent, and the tenant's policy is REJECT.
            QuotaError: too many at a time, or too many of late. Nothing has changed then.
        """
        now = self._wall()
        ledger = self._ledger
        if not ledger.steady_from <= now < ledger.steady_until:
            ledger.turn(now)
        entry = self._entry
        if entry.closed:
            entry = self._entry = ledger.entry(self.tenant)
        result = self._check(now) if self.is_bounded else 0.0
        self.under_way += 1
        entry.requests += 1
        entry.changed = True
        return result

    def _check(self, now: float) -> float:
        """What `admit` answers, and raises; takes a token if nothing is in the way."""
        entry = self._entry
        limits = self.limits
        result = 0.0
        budget = self._budget_micro
        if budget is not None:
            used = entry.compute_micro + entry.llm_micro
            if used >= budget:
                result = SPENT
                if self._rejects:
                    entry.refused_budget += 1
                    entry.changed = True
                    self._charged.refused_budget += 1
                    raise self._refuse_budget()
            elif used:
                result = strain(used, budget, self._ledger.share_gone(now), limits.soft_limit)
        if limits.concurrency is not None and self.under_way >= limits.concurrency:
            entry.refused_quota += 1
            entry.changed = True
            self._charged.refused_quota += 1
            raise refuse_concurrency(self.tenant, limits.concurrency)
        rate = self._rate
        if rate is not None:
            wait_s = rate.take(self._monotonic())
            if wait_s:
                entry.refused_quota += 1
                entry.changed = True
                self._charged.refused_quota += 1
                raise refuse_rate(self.tenant, rate, wait_s)
        return result

    def _refuse_budget(self) -> BudgetError:
        end = self._ledger.period.next
        return BudgetError(
            f"tenant '{self.tenant}' has used {self._entry.used:.10g} of its budget of "
            f"{self.limits.budget:.10g} units; the next one begins on {end}-01 (UTC)"
        )

    def leave(self) -> None:
        """A request that was let in is over, however it went."""
        if not self.under_way:
            raise RuntimeError(f"tenant '{self.tenant}' has no request under way")
        self.under_way -= 1

    # -- charges ----------------------------------------------------------------------------------

    def charge(self, units: float, level: str | None = None) -> None:
        """Count what was done, in the month that it is now.

        Args:
            units: cost units, 0 to `usage.MAX_UNITS`.
            level: of a query, where its answer came from: one of `usage.ANSWERS`. None: it was
                something else.

        Raises:
            ValueError: such units there cannot be.
            KeyError: or such a level. Nothing is counted in either case.
        """
        micro = micro_of(units)
        self._current()
        entry = self._entry
        if level is not None:
            entry.answers[level] += 1
        entry.compute_micro += micro
        entry.changed = True
        self._charged.compute_micro += micro

    def charge_hit(self, micro: int, level: str) -> None:
        """Count an answer from the caches, given in the very turn of the loop that let it in.

        As `charge` would, without a second look at the clock.

        Args:
            micro: whole micro-units, at least 0.
            level: as of `charge`.
        """
        entry = self._entry
        entry.answers[level] += 1
        entry.compute_micro += micro
        entry.changed = True
        self._charged.compute_micro += micro

    def admit_many(self, times: int) -> None:
        """Let requests in that are over already; of a tenant that is not bounded."""
        self._current()
        self._entry.requests += times
        self._entry.changed = True

    def charge_hits(self, times: int, micro: int, level: str) -> None:
        """Count answers from the caches, in the month that it is now.

        Args:
            times: how many.
            micro, level: of each, as of `charge_hit`.
        """
        self._current()
        entry = self._entry
        entry.answers[level] += times
        entry.compute_micro += times * micro
        entry.changed = True
        self._charged.compute_micro += times * micro

    def charge_embeddings(self, texts: int, units: float) -> None:
        """Count texts that were embedded, and what that cost. Raises ValueError as `charge`."""
        micro = micro_of(units)
        self._current()
        self._entry.embeddings += texts
        self._entry.compute_micro += micro
        self._entry.changed = True
        self._charged.embeddings += texts
        self._charged.compute_micro += micro

    def charge_llm(self, tokens_in: int, tokens_out: int, units: float) -> None:
        """Count tokens, as the provider does, and what they cost. Raises ValueError as `charge`."""
        micro = micro_of(units)
        self._current()
        self._entry.llm_tokens_in += tokens_in
        self._entry.llm_tokens_out += tokens_out
        self._entry.llm_micro += micro
        self._entry.changed = True
        self._charged.llm_micro += micro

    def charge_recall(self, units: float, saved_tokens: int, saved: float, *, hit: bool) -> None:
        """Count a prompt that was looked up among remembered responses.

        Args:
            units: that it costs.
            saved_tokens, saved: tokens, and cost units, that the response has saved, about.
            hit: whether there was one.

        Raises:
            ValueError: as `charge`.
        """
        micro, saved_micro = micro_of(units), micro_of(saved)
        self._current()
        entry = self._entry
        entry.recalls += 1
        entry.recalled += hit
        entry.saved_tokens += saved_tokens
        entry.saved_micro += saved_micro
        entry.compute_micro += micro
        entry.changed = True
        self._charged.compute_micro += micro

    def observe(self, vectors: int, nbytes: int, cache_bytes: int) -> None:
        """Say what the tenant keeps now: the highest of the month is remembered."""
        self._current()
        entry = self._entry
        highest = (
            max(entry.most_vectors, vectors),
            max(entry.most_bytes, nbytes),
            max(entry.most_cache_bytes, cache_bytes),
        )
        if highest != (entry.most_vectors, entry.most_bytes, entry.most_cache_bytes):
            entry.most_vectors, entry.most_bytes, entry.most_cache_bytes = highest
            entry.changed = True

    def _current(self) -> None:
        """See to it that the entry is the one to charge."""
        now = self._wall()
        ledger = self._ledger
        if not ledger.steady_from <= now < ledger.steady_until:
            ledger.turn(now)
        if self._entry.closed:
            self._entry = ledger.entry(self.tenant)

    # -- what is kept -----------------------------------------------------------------------------

    def check_vectors(self, there: int, added: int) -> None:
        """Raises QuotaError if the tenant, who keeps `there` vectors, may not add `added` more."""
        try:
            check_vectors(self.tenant, self.limits.max_vectors, there, added)
        except QuotaError:
            self._count_refusal()
            raise

    def check_bytes(self, there: int, added: int) -> None:
        """Raises QuotaError if the tenant, who takes `there` bytes, may not take `added` more."""
        try:
            check_bytes(self.tenant, self.limits.max_bytes, there, added)
        except QuotaError:
            self._count_refusal()
            raise

    def _count_refusal(self) -> None:
        self._current()
        entry = self._entry
        entry.refused_quota += 1
        self._charged.refused_quota += 1
        # It had been let in, as one that is counted once; 0 where that was in another month.
        entry.requests = max(0, entry.requests - 1)
        entry.changed = True

    # -- to read ----------------------------------------------------------------------------------

    @property
    def remaining(self) -> float | None:
        """Units of the budget that are left, at least 0; None: there is no budget."""
        self._current()
        if self._budget_micro is None:
            return None
        return max(self._budget_micro - self._entry.used_micro, 0) / MICRO

    @property
    def pressure(self) -> float | None:
        """See `pyrope.tenants.pressure`; None: there is no budget."""
        self._current()
        if self._budget_micro is None:
            return None
        share_gone = self._ledger.share_gone(self._wall())
        return pressure(self._entry.used_micro, self._budget_micro, share_gone)

    def is_idle(self, now: float) -> bool:
        """Whether nothing has been done since the last flush, and a new account would be the same.

        Args:
            now: monotonic time in seconds.
        """
        if self.under_way or self._entry.changed:
            return False
        return self._rate is None or self._rate.is_full(now)


class TenantQuotaEnforcer:
    """The accounts of the tenants that are busy. One of a server; for the event loop.

    Args:
        limits_of: what a tenant may use, by its name; what it raises, `enter` raises.
    """

    def __init__(
        self, clock: Clock, ledger: Ledger, limits_of: Callable[[str], TenantLimits]
    ) -> None:
        self._clock = clock
        self._ledger = ledger
        self._limits_of = limits_of
        self._accounts: dict[str, Account] = {}

    def __len__(self) -> int:
        """How many accounts there are at the moment."""
        return len(self._accounts)

    def enter(self, tenant: str) -> Account:
        """The account of a tenant, for one request."""
        account = self._accounts.get(tenant)
        if account is None:
            account = self._accounts[tenant] = Account(
                tenant, self._limits_of(tenant), self._ledger, self._clock
            )
        return account

    def busy(self) -> list[Account]:
        """The accounts there are now."""
        return list(self._accounts.values())

    def limits_changed(self, tenant: str) -> None:
        """Ask for a tenant's limits again: they are in force from the next request on."""
        account = self._accounts.get(tenant)
        if account is not None:
            account.set_limits(self._limits_of(tenant))

    def drop(self, tenant: str) -> None:
        """Forget the rate and the requests of a tenant that is no more; not what it has used."""
        self._accounts.pop(tenant, None)

    def sweep(self) -> None:
        """Take out who has done nothing since the last flush; best called after each flush."""
        now = self._clock.monotonic()
        for tenant in [one.tenant for one in self._accounts.values() if one.is_idle(now)]:
            del self._accounts[tenant]
        self._ledger.rest(busy=self._accounts)
