"""What all tenants together were charged is what each of them was."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from pyrope.errors import BudgetError, QuotaError
from pyrope.tenants.budget import Ledger
from pyrope.tenants.enforcer import TenantQuotaEnforcer
from pyrope.tenants.limits import OnBudget, TenantLimits
from pyrope.tenants.usage import MICRO, Usage, used_part
from pyrope.testing.clock import ManualClock

TENANTS = ("free", "poor", "slow")
LIMITS = {
    "free": TenantLimits(),
    "poor": TenantLimits(budget=5, on_budget=OnBudget.REJECT),
    "slow": TenantLimits(concurrency=1, max_vectors=3),
}
Step = tuple[str, str, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(TENANTS),
        st.sampled_from(("charge", "hit", "hits", "embed", "llm", "two at once", "vectors")),
        st.integers(0, 9),
    ),
    max_size=40,
)


def do(enforcer: TenantQuotaEnforcer, tenant: str, what: str, number: int) -> None:
    account = enforcer.enter(tenant)
    account.admit()
    try:
        if what == "charge":
            account.charge(number, "miss")
        elif what == "hit":
            account.charge_hit(number * MICRO, "exact")
        elif what == "hits":
            account.charge_hits(number, MICRO, "exact")
        elif what == "embed":
            account.charge_embeddings(number, number)
        elif what == "llm":
            account.charge_llm(number, number, number)
        elif what == "vectors":
            account.check_vectors(0, number)
        else:
            do(enforcer, tenant, "charge", number)
    finally:
        account.leave()


@given(steps)
def test_totals_of_the_server_are_those_of_its_tenants(steps: list[Step]) -> None:
    clock = ManualClock()
    ledger = Ledger(clock)
    ledger.open(())
    enforcer = TenantQuotaEnforcer(clock, ledger, LIMITS.__getitem__)
    for number, (tenant, what, amount) in enumerate(steps):
        with contextlib.suppress(BudgetError, QuotaError):
            do(enforcer, tenant, what, amount)
        if number % 7 == 6:
            for flush in ledger.flushes():
                with flush:
                    pass
            enforcer.sweep()
    total = Usage()
    for record in ledger.records():
        one = Usage.decode(record)
        assert used_part(record) == one.used_micro
        total.add(one)
    for tenant in TENANTS:
        found = ledger.look_up(tenant, ledger.period)
        assert found is not None
        assert ledger.used_micro(tenant) == found.used_micro
    charged = ledger.charged
    for name in ("compute_micro", "llm_micro", "embeddings", "refused_quota", "refused_budget"):
        assert getattr(charged, name) == getattr(total, name), name
