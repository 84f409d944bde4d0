from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pyrope.errors import BudgetError, QuotaError
from pyrope.tenants.budget import Ledger
from pyrope.tenants.enforcer import Account, TenantQuotaEnforcer
from pyrope.tenants.limits import OnBudget, TenantLimits
from pyrope.tenants.period import Period
from pyrope.tenants.pressure import SPENT
from pyrope.tenants.usage import Usage
from pyrope.testing.clock import ManualClock

UNLIMITED = TenantLimits()
MARCH, APRIL = Period(2026, 3), Period(2026, 4)


def at(text: str) -> float:
    """Unix time of an ISO time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


class Server:
    """Tenants, the ledger and the enforcer of a server without a disk."""

    def __init__(self, **limits: TenantLimits) -> None:
        self.clock = ManualClock(at("2026-03-16T12:00"))
        self.ledger = Ledger(self.clock)
        self.ledger.open(())
        self.limits = limits
        self.enforcer = TenantQuotaEnforcer(
            self.clock, self.ledger, lambda tenant: self.limits[tenant]
        )

    def set(self, tenant: str, limits: TenantLimits) -> None:
        self.limits[tenant] = limits
        self.enforcer.limits_changed(tenant)

    def request(self, tenant: str, units: float = 0.0, level: str | None = None) -> float:
        """One from admission to the end; the strain on it."""
        account = self.enforcer.enter(tenant)
        strain = account.admit()
        account.charge(units, level)
        account.leave()
        return strain

    def usage(self, tenant: str) -> Usage:
        found = self.ledger.look_up(tenant, self.ledger.period)
        assert found is not None
        return found

    def flush(self) -> None:
        for flush in self.ledger.flushes():
            with flush:
                pass
        self.enforcer.sweep()


def state(account: Account) -> tuple[object, ...]:
    """All that a request could change, but for what is counted as refused."""
    rate, entry = account._rate, account._entry
    full_at = None if rate is None else rate._full_at
    return full_at, account.under_way, entry.requests, entry.used_micro, dict(entry.answers)


# -- requests -------------------------------------------------------------------------------------


def test_a_tenant_without_limits_is_metered_and_never_refused() -> None:
    server = Server(a=UNLIMITED)
    for _ in range(1000):
        assert server.request("a", 2.5, "miss") == 0.0
    server.request("a", 0.25, "exact")
    usage = server.usage("a")
    assert (usage.requests, usage.misses, usage.hits) == (1001, 1000, 1)
    assert usage.compute_units == 2500.25
    account = server.enforcer.enter("a")
    assert (account.remaining, account.pressure) == (None, None)


def test_more_requests_a_second_than_allowed_are_told_when_to_come_back() -> None:
    server = Server(a=TenantLimits(qps=100, burst=2), b=TenantLimits(qps=1))
    server.request("a")
    server.request("a")
    with pytest.raises(QuotaError) as refused:
        server.request("a")
    assert refused.value.message == (
        "100 requests a second are allowed to tenant 'a'; retry in 10 ms"
    )
    server.request("b")
    server.clock.advance(0.010)
    server.request("a")
    assert (server.usage("a").requests, server.usage("a").refused_quota) == (3, 1)


def test_more_requests_at_a_time_than_allowed_wait_for_one_to_leave() -> None:
    server = Server(a=TenantLimits(concurrency=2))
    account = server.enforcer.enter("a")
    account.admit()
    account.admit()
    with pytest.raises(QuotaError, match="2 requests at a time"):
        account.admit()
    account.leave()
    account.admit()
    assert account.under_way == 2


def test_who_leaves_without_having_been_let_in_is_an_error() -> None:
    account = Server(a=UNLIMITED).enforcer.enter("a")
    with pytest.raises(RuntimeError, match="no request under way"):
        account.leave()


@pytest.mark.parametrize(
    "limits",
    [
        TenantLimits(qps=1, burst=5, concurrency=1, budget=1),
        TenantLimits(qps=0, concurrency=5),
        TenantLimits(qps=1, burst=1),
        TenantLimits(qps=100, budget=0.0),
    ],
)
def test_a_refused_request_changes_nothing_and_is_counted(limits: TenantLimits) -> None:
    server = Server(a=limits)
    account = server.enforcer.enter("a")
    with suppress(QuotaError, BudgetError):
        account.admit()
    before = state(account)
    for _ in range(3):
        refused = account._entry.refused_quota + account._entry.refused_budget
        with pytest.raises((QuotaError, BudgetError)):
            account.admit()
        assert state(account) == before
        assert account._entry.refused_quota + account._entry.refused_budget == refused + 1


# -- budgets --------------------------------------------------------------------------------------


def test_a_spent_budget_rejects_and_says_when_the_next_one_begins() -> None:
    server = Server(a=TenantLimits(budget=1000, on_budget=OnBudget.REJECT))
    server.request("a", 999.5)
    server.request("a", 1.0)
    with pytest.raises(BudgetError) as refused:
        server.request("a")
    assert refused.value.message == (
        "tenant 'a' has used 1000.5 of its budget of 1000 units; "
        "the next one begins on 2026-04-01 (UTC)"
    )
    assert server.usage("a").refused_budget == 1
    assert server.enforcer.enter("a").remaining == 0


def test_a_spent_budget_degrades_who_may_go_on() -> None:
    server = Server(a=TenantLimits(budget=10, on_budget=OnBudget.DEGRADE))
    assert server.request("a", 10) == 0.0
    assert server.request("a", 10) == SPENT
    assert server.usage("a").used == 20


def test_strain_begins_where_spending_is_ahead_of_the_month() -> None:
    server = Server(a=TenantLimits(budget=1000))
    server.request("a", 499)  # half of March is over
    assert server.request("a", 101) == 0.0
    assert 0 < server.request("a") < SPENT
    assert server.enforcer.enter("a").pressure == pytest.approx(1.2, rel=1e-3)
    server.clock.set_wall(at("2026-03-21"))
    assert server.request("a") == 0.0


@pytest.mark.parametrize(
    ("last", "first", "next_one"),
    [
        ("2026-03-31T23:59:59", "2026-04-01", "2026-04-01"),
        ("2025-12-31T23:59:59", "2026-01-01", "2026-01-01"),
        ("2024-02-29T23:59:59", "2024-03-01", "2024-03-01"),
    ],
)
def test_a_budget_is_renewed_at_the_end_of_the_month(last: str, first: str, next_one: str) -> None:
    server = Server(a=TenantLimits(budget=10))
    server.clock.set_wall(at(last))
    server.ledger.turn(at(last))
    server.request("a", 10)
    with pytest.raises(BudgetError, match=next_one):
        server.request("a")
    server.clock.set_wall(at(first))
    server.request("a", 1)
    assert server.enforcer.enter("a").remaining == 9


def test_a_clock_set_back_over_the_end_of_a_month_renews_no_budget() -> None:
    server = Server(a=TenantLimits(budget=10))
    server.request("a", 10)
    server.clock.set_wall(at("2026-04-01T00:00:01"))
    server.request("a", 10)
    server.clock.set_wall(at("2026-03-31T23:59:59"))
    for moment in ("2026-03-31T23:59:59", "2026-04-01T00:00:02"):
        server.clock.set_wall(at(moment))
        with pytest.raises(BudgetError, match="2026-05-01"):
            server.request("a")


def test_what_began_before_the_month_ended_and_is_charged_after_counts_in_the_new_one() -> None:
    server = Server(a=UNLIMITED)
    server.clock.set_wall(at("2026-03-31T23:59:59.9"))
    account = server.enforcer.enter("a")
    account.admit()
    server.clock.advance(0.2)
    account.charge(3)
    account.leave()
    march = server.ledger.look_up("a", MARCH)
    assert march is not None
    assert (march.requests, march.used) == (1, 0)
    assert server.usage("a").used == 3


def test_models_and_embeddings_are_charged_too() -> None:
    server = Server(a=TenantLimits(budget=10))
    account = server.enforcer.enter("a")
    account.charge_llm(1200, 80, 1.25)
    account.charge_embeddings(3, 0.5)
    usage = server.usage("a")
    assert (usage.llm_tokens_in, usage.llm_tokens_out, usage.embeddings) == (1200, 80, 3)
    assert (usage.llm_cost, usage.compute_units, usage.used) == (1.25, 0.5, 1.75)
    assert account.remaining == 8.25


def test_a_charge_that_cannot_be_counts_nothing() -> None:
    server = Server(a=UNLIMITED)
    account = server.enforcer.enter("a")
    for units in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="nothing costs"):
            account.charge(units, "miss")
        with pytest.raises(ValueError, match="nothing costs"):
            account.charge_llm(1, 1, units)
        with pytest.raises(ValueError, match="nothing costs"):
            account.charge_embeddings(1, units)
    with pytest.raises(KeyError):
        account.charge(1.0, "elsewhere")
    assert server.usage("a").encode() == Usage().encode()


# -- limits that change ---------------------------------------------------------------------------


def test_another_budget_is_in_force_at_once() -> None:
    server = Server(a=TenantLimits(budget=10))
    server.request("a", 10)
    with pytest.raises(BudgetError):
        server.request("a")
    server.set("a", TenantLimits(budget=11))
    server.request("a", 1)
    with pytest.raises(BudgetError, match="11 of its budget of 11"):
        server.request("a")
    server.set("a", UNLIMITED)
    server.request("a")
    server.set("a", TenantLimits(budget=5, on_budget=OnBudget.DEGRADE))
    assert server.request("a") == SPENT


def test_another_rate_and_concurrency_are_in_force_at_once() -> None:
    server = Server(a=UNLIMITED)
    account = server.enforcer.enter("a")
    for _ in range(3):
        account.admit()
    server.set("a", TenantLimits(concurrency=3))
    with pytest.raises(QuotaError, match="3 requests at a time"):
        account.admit()
    server.set("a", TenantLimits(qps=1, burst=2))
    account.admit()
    account.admit()
    with pytest.raises(QuotaError, match="1 request a second"):
        account.admit()
    server.set("a", TenantLimits(qps=1, burst=3))
    account.admit()
    assert account.under_way == 6


def test_setting_a_limit_again_fills_no_bucket() -> None:
    server = Server(a=TenantLimits(qps=1, burst=2))
    server.request("a")
    server.request("a")
    server.set("a", TenantLimits(qps=2, burst=2))
    with pytest.raises(QuotaError, match="retry in 500 ms"):
        server.request("a")
    server.clock.advance(0.5)
    server.request("a")


# -- what is kept ---------------------------------------------------------------------------------


def test_storage_quotas_are_refused_and_counted() -> None:
    server = Server(a=TenantLimits(max_vectors=10, max_bytes=1000))
    account = server.enforcer.enter("a")
    account.check_vectors(9, 1)
    account.check_bytes(0, 1000)
    with pytest.raises(QuotaError, match="10 vectors are allowed to tenant 'a'"):
        account.check_vectors(9, 2)
    with pytest.raises(QuotaError, match="1000 bytes are allowed to tenant 'a'"):
        account.check_bytes(1000, 1)
    assert server.usage("a").refused_quota == 2


def test_the_highest_of_what_is_kept_is_remembered_for_the_month() -> None:
    server = Server(a=UNLIMITED)
    account = server.enforcer.enter("a")
    account.observe(10, 4000, 7)
    account.observe(5, 5000, 0)
    usage = server.usage("a")
    assert (usage.most_vectors, usage.most_bytes, usage.most_cache_bytes) == (10, 5000, 7)
    server.flush()
    account = server.enforcer.enter("a")
    account.observe(10, 5000, 7)
    assert list(server.ledger.flushes()) == [], "nothing has changed"
    server.clock.set_wall(at("2026-04-02"))
    account.observe(2, 3, 4)
    assert server.usage("a").most_vectors == 2


# -- idle tenants ---------------------------------------------------------------------------------


def test_a_tenant_that_does_nothing_has_no_account() -> None:
    server = Server(a=UNLIMITED, b=TenantLimits(qps=10, budget=5))
    assert len(server.enforcer) == 0
    server.request("a", 1)
    server.request("b", 1)
    server.enforcer.sweep()
    assert len(server.enforcer) == 2, "what they used is not written down yet"
    server.flush()
    assert len(server.enforcer) == 1, "the bucket of b is not full yet"
    server.clock.advance(0.1)
    server.flush()
    assert len(server.enforcer) == 0
    assert not server.ledger._live
    assert server.request("b", 1) == 0.0
    assert (server.usage("a").used, server.usage("b").used) == (1, 2)


def test_a_tenant_with_a_request_under_way_keeps_its_account() -> None:
    server = Server(a=TenantLimits(concurrency=1))
    account = server.enforcer.enter("a")
    account.admit()
    server.flush()
    with pytest.raises(QuotaError):
        server.enforcer.enter("a").admit()
    account.leave()
    server.flush()
    server.flush()
    assert len(server.enforcer) == 0


def test_an_account_that_is_kept_for_too_long_charges_the_right_tenant_all_the_same() -> None:
    server = Server(a=UNLIMITED)
    kept = server.enforcer.enter("a")
    kept.charge(1)
    server.flush()
    server.request("a", 2)
    kept.charge_llm(1, 1, 4)
    kept.charge(8)
    assert server.usage("a").used == 15


def test_a_tenant_that_is_dropped_and_comes_again_has_used_what_it_has() -> None:
    server = Server(a=TenantLimits(budget=10, concurrency=1))
    account = server.enforcer.enter("a")
    account.admit()
    account.charge(4)
    server.enforcer.drop("a")
    server.request("a", 1)
    account.leave()
    assert server.enforcer.enter("a").remaining == 5


def test_what_the_registry_says_of_an_unknown_tenant_is_passed_on() -> None:
    server = Server()
    with pytest.raises(KeyError):
        server.enforcer.enter("nobody")
    server.enforcer.limits_changed("nobody")
    assert len(server.enforcer) == 0


def test_limits_that_no_bucket_can_have_are_an_error() -> None:
    server = Server(a=replace(UNLIMITED, qps=-1.0))
    with pytest.raises(ValueError, match="no rate can be"):
        server.enforcer.enter("a")


def test_a_hit_is_charged_like_any_other_answer() -> None:
    clock = ManualClock()
    charged = []
    for in_the_same_turn in (False, True):
        ledger = Ledger(clock)
        ledger.open([])
        account = TenantQuotaEnforcer(clock, ledger, lambda _: TenantLimits()).enter("a")
        account.admit()
        if in_the_same_turn:
            account.charge_hit(50_000_000, "exact")
        else:
            account.charge(50.0, "exact")
        account.leave()
        usage = ledger.look_up("a", ledger.period)
        assert usage is not None
        charged.append((usage.requests, usage.hits, usage.compute_units))
    assert charged[0] == charged[1] == (1, 1, 50.0)
