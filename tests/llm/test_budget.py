from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.llm.budget import BudgetLimits, Hold, MonthlyBudgets, Refusal, Spent

NO_LIMITS = BudgetLimits()

calls = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 200), st.integers(0, 200), st.floats(0, 1)),
    max_size=60,
)


class Budgets(MonthlyBudgets):
    """Of a month that the test sets."""

    def __init__(
        self,
        everybody: BudgetLimits = NO_LIMITS,
        each: BudgetLimits = NO_LIMITS,
    ) -> None:
        self.month = 1
        super().__init__(lambda: self.month, everybody, lambda _: each, lambda i, o: i + 3 * o)

    def call(self, tenant: str, tokens_in: int, tokens_out: int) -> Refusal | None:
        """One that uses all that was held for it."""
        hold = self.hold(tenant, tokens_in, tokens_out)
        if isinstance(hold, Refusal):
            return hold
        self.settle(hold, tokens_in, tokens_out)
        return None


@given(calls, st.integers(0, 2000), st.integers(0, 800), st.integers(0, 4000))
def test_calls_under_way_together_never_exceed_a_budget(
    calls: list[tuple[str, int, int, float]], tokens: int, tenant_tokens: int, cost: int
) -> None:
    budgets = Budgets(BudgetLimits(tokens, cost), BudgetLimits(tenant_tokens))
    under_way: list[tuple[Hold, int, int]] = []
    used: Counter[str] = Counter()
    units = 0
    for tenant, tokens_in, tokens_out, share in calls:
        hold = budgets.hold(tenant, tokens_in, tokens_out)
        if isinstance(hold, Hold):
            under_way.append((hold, int(tokens_in * share), int(tokens_out * share)))
        if len(under_way) > 3:
            ended, used_in, used_out = under_way.pop(0)
            assert budgets.settle(ended, used_in, used_out) == (used_in + 3 * used_out) * 1_000_000
            used[ended.tenant] += used_in + used_out
            units += used_in + 3 * used_out
        assert not tokens or used.total() <= tokens
        assert not cost or units <= cost
        assert not tenant_tokens or max(used.values(), default=0) <= tenant_tokens
        assert budgets.spent() == Spent(used.total(), units * 1_000_000)
        assert all(budgets.spent(one).tokens == used[one] for one in "abc")


@pytest.mark.parametrize(
    ("everybody", "each", "refusal"),
    [
        (BudgetLimits(tokens=149), BudgetLimits(), Refusal.TOKENS),
        (BudgetLimits(cost=249.9), BudgetLimits(), Refusal.COST),
        (BudgetLimits(), BudgetLimits(tokens=149), Refusal.TENANT_TOKENS),
        (BudgetLimits(), BudgetLimits(cost=249.9), Refusal.TENANT_COST),
        (BudgetLimits(150, 250.0), BudgetLimits(150, 250.0), None),
        (BudgetLimits(), BudgetLimits(), None),
    ],
)
def test_a_refusal_names_the_budget(
    everybody: BudgetLimits, each: BudgetLimits, refusal: Refusal | None
) -> None:
    budgets = Budgets(everybody, each)
    assert budgets.refusal("a", 100, 50) == refusal
    assert budgets.call("a", 100, 50) == refusal


def test_one_tenant_s_spending_is_not_another_s() -> None:
    budgets = Budgets(each=BudgetLimits(tokens=100))
    assert budgets.call("a", 100, 0) is None
    assert budgets.call("a", 1, 0) is Refusal.TENANT_TOKENS
    assert budgets.call("b", 100, 0) is None


def test_what_is_used_beyond_the_hold_is_charged() -> None:
    budgets = Budgets(BudgetLimits(tokens=100))
    hold = budgets.hold("a", 50, 0)
    assert isinstance(hold, Hold)
    budgets.settle(hold, 500, 0)
    assert budgets.spent("a").tokens == 500
    assert budgets.call("a", 1, 0) is Refusal.TOKENS


def test_a_new_month_begins_with_nothing_and_coming_back_renews_nothing() -> None:
    budgets = Budgets(BudgetLimits(tokens=100))
    hold = budgets.hold("a", 60, 0)
    assert isinstance(hold, Hold)
    budgets.month = 2
    # What began in one month and ends in the next is charged to the next.
    assert budgets.call("a", 60, 0) is Refusal.TOKENS
    budgets.settle(hold, 60, 0)
    assert budgets.spent().tokens == 60
    budgets.month = 1
    assert budgets.call("a", 90, 0) is None
    budgets.month = 2
    budgets.month = 1
    assert budgets.call("a", 90, 0) is Refusal.TOKENS


def test_months_long_gone_are_forgotten() -> None:
    budgets = Budgets()
    for month in range(50):
        budgets.month = month
        budgets.call("a", 1, 1)
    assert len(budgets._months) == 3


def test_it_goes_on_with_what_was_charged_before() -> None:
    budgets = Budgets(BudgetLimits(tokens=100), BudgetLimits(tokens=80))
    budgets.load(1, {"a": Spent(70, 5), "b": Spent(20, 6)})
    assert budgets.spent() == Spent(90, 11)
    assert budgets.call("a", 11, 0) is Refusal.TOKENS
    budgets.load(1, {"a": Spent(75, 0)}, everybody=Spent(95, 0))
    assert budgets.spent() == Spent(95, 0)
    assert budgets.spent("b") == Spent()
    assert budgets.call("a", 5, 0) is None
    budgets.load(2, {"a": Spent(100, 0)})
    assert budgets.spent("a").tokens == 80


def test_who_has_used_nothing_takes_no_memory() -> None:
    budgets = Budgets()
    for number in range(100):
        hold = budgets.hold(f"t{number}", 10, 10)
        assert isinstance(hold, Hold)
        budgets.settle(hold, 0, 0)
    assert not budgets._held.tenants
    assert not budgets._month().tenants
