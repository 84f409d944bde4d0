"""Monthly budgets of tokens and of cost, for all tenants together and for each.

A call is looked at before it begins, with the tokens that it may use at the most, and so much is
*held* until it has ended; then it is charged with the provider's own figures. Calls that go on at
the same time can therefore not exceed a budget together. What a provider counts beyond what was
held is charged all the same.

Cost is counted in whole micro-units, each charge rounded once, as in `pyrope.tenants.usage`, so
that sums are exact. What is durable is kept elsewhere and given to `load`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

MICRO = 1_000_000
"""Micro-units in a cost unit."""

# Months whose totals are remembered: a clock that is set over the end of one and back renews no
# budget.
_MONTHS = 3


class Refusal(StrEnum):
    """Why no call is made for a job."""

    TOKENS = "monthly_tokens"
    """All tenants together would use more tokens than they may."""
    COST = "monthly_cost"
    """All tenants together would cost more than they may."""
    TENANT_TOKENS = "tenant_monthly_tokens"
    """The tenant would use more tokens than it may."""
    TENANT_COST = "tenant_monthly_cost"
    """The tenant would cost more than it may."""
    TENANT = "tenant_budget"
    """The tenant's budget for everything it does has nothing left."""


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """What may be spent in a month.

    Attributes:
        tokens: read and written; 0: no limit.
        cost: in cost units; 0: no limit.
    """

    tokens: int = 0
    cost: float = 0.0


class Spent(NamedTuple):
    """What has been charged in a month."""

    tokens: int = 0
    micro: int = 0


class Hold(NamedTuple):
    """What a call under way may use at the most."""

    tenant: str
    tokens: int
    micro: int


class _Totals:
    """What has been charged, or is held."""

    __slots__ = ("micro", "tokens")

    def __init__(self) -> None:
        self.tokens = self.micro = 0

    def add(self, tokens: int, micro: int) -> None:
        self.tokens += tokens
        self.micro += micro


class _Book:
    """Totals of all tenants together, and of each that has any."""

    __slots__ = ("everybody", "tenants")

    def __init__(self) -> None:
        self.everybody = _Totals()
        self.tenants: dict[str, _Totals] = {}

    def of(self, tenant: str | None) -> _Totals:
        """To be read only."""
        return self.everybody if tenant is None else self.tenants.get(tenant, _NOTHING)

    def add(self, tenant: str, tokens: int, micro: int) -> None:
        self.everybody.add(tokens, micro)
        totals = self.tenants.get(tenant)
        if totals is None:
            totals = self.tenants[tenant] = _Totals()
        totals.add(tokens, micro)
        if not (totals.tokens or totals.micro):
            del self.tenants[tenant]


_NOTHING = _Totals()


class MonthlyBudgets:
    """For the event loop; O(1).

    Args:
        period: the month that is charged now.
        limits: of all tenants together.
        limits_of: of one tenant.
        cost_of: cost units of a call, from its tokens in and out; at least 0 and finite.
    """

    def __init__(
        self,
        period: Callable[[], Hashable],
        limits: BudgetLimits,
        limits_of: Callable[[str], BudgetLimits],
        cost_of: Callable[[int, int], float],
    ) -> None:
        self._period = period
        self._limits = limits
        self._limits_of = limits_of
        self._cost_of = cost_of
        self._months: OrderedDict[Hashable, _Book] = OrderedDict()
        self._held = _Book()

    def load(
        self, period: Hashable, tenants: Mapping[str, Spent], everybody: Spent | None = None
    ) -> None:
        """Take over what was charged in a month before, instead of what is known of it.

        Args:
            everybody: all tenants together; None: the sum of `tenants`.
        """
        book = _Book()
        for tenant, spent in tenants.items():
            book.add(tenant, spent.tokens, spent.micro)
        if everybody is not None:
            book.everybody.tokens, book.everybody.micro = everybody
        self._months.pop(period, None)
        self._remember(period, book)

    def spent(self, tenant: str | None = None) -> Spent:
        """What has been charged this month to a tenant, or to all together."""
        totals = self._month().of(tenant)
        return Spent(totals.tokens, totals.micro)

    def held(self, tenant: str) -> float:
        """Cost units that calls of a tenant under way may take."""
        return self._held.of(tenant).micro / MICRO

    def refusal(self, tenant: str, tokens_in: int, tokens_out: int) -> Refusal | None:
        """Why a call that may use so many tokens must not be made; None: it may."""
        tokens, micro = tokens_in + tokens_out, self._micro(tokens_in, tokens_out)
        if self._exceeds_tokens(None, self._limits.tokens, tokens):
            return Refusal.TOKENS
        if self._exceeds_cost(None, self._limits.cost, micro):
            return Refusal.COST
        limits = self._limits_of(tenant)
        if self._exceeds_tokens(tenant, limits.tokens, tokens):
            return Refusal.TENANT_TOKENS
        if self._exceeds_cost(tenant, limits.cost, micro):
            return Refusal.TENANT_COST
        return None

    def hold(self, tenant: str, tokens_in: int, tokens_out: int) -> Hold | Refusal:
        """Set aside what a call may use; to be given to `settle` once. Or why it must not begin."""
        refusal = self.refusal(tenant, tokens_in, tokens_out)
        if refusal is not None:
            return refusal
        hold = Hold(tenant, tokens_in + tokens_out, self._micro(tokens_in, tokens_out))
        self._held.add(*hold)
        return hold

    def settle(self, hold: Hold, tokens_in: int, tokens_out: int) -> int:
        """A call has ended: charge what the provider has counted, and give back what was held.

        Returns:
            What it has cost, in micro-units.
        """
        self._held.add(hold.tenant, -hold.tokens, -hold.micro)
        tokens, micro = tokens_in + tokens_out, self._micro(tokens_in, tokens_out)
        if tokens:
            self._month().add(hold.tenant, tokens, micro)
        return micro

    def _exceeds_tokens(self, tenant: str | None, limit: int, tokens: int) -> bool:
        charged, held = self._month().of(tenant), self._held.of(tenant)
        return 0 < limit < charged.tokens + held.tokens + tokens

    def _exceeds_cost(self, tenant: str | None, limit: float, micro: int) -> bool:
        charged, held = self._month().of(tenant), self._held.of(tenant)
        return 0 < limit * MICRO < charged.micro + held.micro + micro

    def _micro(self, tokens_in: int, tokens_out: int) -> int:
        return int(self._cost_of(tokens_in, tokens_out) * MICRO + 0.5)

    def _month(self) -> _Book:
        period = self._period()
        book = self._months.get(period)
        if book is None:
            book = self._remember(period, _Book())
        return book

    def _remember(self, period: Hashable, book: _Book) -> _Book:
        self._months[period] = book
        if len(self._months) > _MONTHS:
            self._months.popitem(last=False)
        return book
