"""The enforcer against a plain model that counts tokens, places and units in exact fractions."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from pyrope.errors import BudgetError, QuotaError
from pyrope.tenants.budget import Ledger
from pyrope.tenants.enforcer import TenantQuotaEnforcer
from pyrope.tenants.limits import OnBudget, TenantLimits
from pyrope.tenants.period import Period
from pyrope.tenants.pressure import SPENT, strain
from pyrope.testing.clock import ManualClock

TENANTS = ("a", "b")
NEW_YEAR = Period(2026, 1)

tenants = st.sampled_from(TENANTS)
# Powers of two, and times that are multiples of them, so that floats are exact here too.
limits = st.builds(
    TenantLimits,
    qps=st.sampled_from([4.0, 1.0, 0.25, None, 0.0]),
    burst=st.sampled_from([None, 1, 3]),
    concurrency=st.sampled_from([None, 8, 3, 1, 0]),
    budget=st.sampled_from([None, 20.0, 2.5, 0.0]),
    on_budget=st.sampled_from(OnBudget),
)


class Model:
    """One tenant."""

    def __init__(self) -> None:
        self.limits = TenantLimits()
        self.tokens: Fraction | None = None
        self.under_way = 0
        self.used: Counter[Period] = Counter()
        self.counts: Counter[tuple[Period, str]] = Counter()

    @property
    def burst(self) -> Fraction:
        assert self.limits.qps is not None
        return Fraction(self.limits.burst or max(1.0, self.limits.qps))

    def set(self, limits: TenantLimits) -> None:
        taken = Fraction(0)
        if self.tokens is not None and self.limits.qps:
            taken = self.burst - self.tokens
        self.limits = limits
        self.tokens = None
        if limits.qps is not None:
            self.tokens = self.burst - min(taken, self.burst) if limits.qps else self.burst

    def wait(self, seconds: float) -> None:
        if self.tokens is not None and self.limits.qps:
            came = Fraction(seconds) * Fraction(self.limits.qps)
            self.tokens = min(self.burst, self.tokens + came)

    def is_spent(self, period: Period) -> bool:
        budget = self.limits.budget
        return budget is not None and self.used[period] >= budget * 1_000_000

    def refusal(self, period: Period) -> str | None:
        """The prefix of it."""
        limits = self.limits
        if self.is_spent(period) and limits.on_budget is OnBudget.REJECT:
            return "BUDGET"
        if limits.concurrency is not None and self.under_way >= limits.concurrency:
            return "QUOTA"
        if self.tokens is not None and (not limits.qps or self.tokens < 1):
            return "QUOTA"
        return None


class AgainstAModel(RuleBasedStateMachine):
    @initialize(first=limits, second=limits)
    def make(self, first: TenantLimits, second: TenantLimits) -> None:
        self.clock = ManualClock(NEW_YEAR.begins_at - 16.0)
        self.ledger = Ledger(self.clock)
        self.ledger.open(())
        self.models = {tenant: Model() for tenant in TENANTS}
        self.models["a"].set(first)
        self.models["b"].set(second)
        self.enforcer = TenantQuotaEnforcer(
            self.clock, self.ledger, lambda tenant: self.models[tenant].limits
        )

    @property
    def period(self) -> Period:
        return Period.at(self.clock.wall())

    @rule(tenant=tenants, times=st.integers(1, 5))
    def admit(self, tenant: str, times: int) -> None:
        model, period = self.models[tenant], self.period
        account = self.enforcer.enter(tenant)
        for _ in range(times):
            refusal = model.refusal(period)
            told: str | None = None
            try:
                result = account.admit()
            except (QuotaError, BudgetError) as error:
                told = error.prefix
            else:
                model.under_way += 1
                if model.tokens is not None:
                    model.tokens -= 1
                self.check_strain(model, result)
            assert told == refusal
            model.counts[period, "requests" if told is None else told] += 1

    def check_strain(self, model: Model, result: float) -> None:
        budget = model.limits.budget
        if budget is None:
            assert result == 0.0
        else:
            assert (result == SPENT) == model.is_spent(self.period)
            gone = self.period.share_gone(self.clock.wall())
            used = model.used[self.period] / 1e6
            assert abs(result - strain(used, budget, gone, model.limits.soft_limit)) < 1e-9

    @rule(tenant=tenants)
    def leave(self, tenant: str) -> None:
        if self.models[tenant].under_way:
            self.models[tenant].under_way -= 1
            self.enforcer.enter(tenant).leave()

    @rule(tenant=tenants, micro=st.integers(0, 5_000_000), level=st.sampled_from(["miss", "exact"]))
    def charge(self, tenant: str, micro: int, level: str) -> None:
        self.enforcer.enter(tenant).charge(micro / 1e6, level)
        model = self.models[tenant]
        model.used[self.period] += micro
        model.counts[self.period, level] += 1

    @rule(tenant=tenants, to=limits)
    def set_limits(self, tenant: str, to: TenantLimits) -> None:
        self.models[tenant].set(to)
        self.enforcer.limits_changed(tenant)

    @rule(quarters=st.integers(0, 40) | st.sampled_from([4 * 86_400, 4 * 2_678_400]))
    def wait(self, quarters: int) -> None:
        self.clock.advance(quarters / 4)
        for model in self.models.values():
            model.wait(quarters / 4)

    @rule()
    def flush_and_sweep(self) -> None:
        for flush in self.ledger.flushes():
            with flush:
                pass
        self.enforcer.sweep()

    @rule(tenant=tenants)
    def look(self, tenant: str) -> None:
        assert self.ledger.wanted() is None
        usage, model = self.ledger.look_up(tenant, self.period), self.models[tenant]
        assert usage is not None
        assert usage.used_micro == model.used[self.period]
        told = {
            "requests": usage.requests,
            "miss": usage.misses,
            "exact": usage.hits,
            "QUOTA": usage.refused_quota,
            "BUDGET": usage.refused_budget,
        }
        assert told == {name: model.counts[self.period, name] for name in told}


AgainstAModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_the_enforcer_does_what_a_plain_model_does = AgainstAModel.TestCase
