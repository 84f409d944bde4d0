"""Tenants, and whether their budgets will last: those that spend most, compared with the month."""

from __future__ import annotations

import asyncio
from heapq import nlargest
from typing import Any, NamedTuple

from pyrope.http.dashboard.recent import Recent
from pyrope.service.tenancy import Tenancy
from pyrope.tenants.names import DEFAULT_TENANT
from pyrope.tenants.usage import MICRO

# Some 2 us each.
_AT_ONCE = 500
# Tenants that a dashboard shows.
_SHOWN = 50


class _Spending(NamedTuple):
    """How a tenant spends, for comparing: above all, whether its budget will last.

    Attributes:
        pace: the share of its budget that it has used, by the share of the month that is gone;
            below 0: it has no budget.
        micro: micro-units that it has used.
    """

    pace: float
    micro: int
    tenant: str


class TenantFigures:
    """Of the tenants of a server."""

    def __init__(self, tenancy: Tenancy, recent: Recent) -> None:
        self._tenancy = tenancy
        self._recent = recent

    async def look(self, tenant: str | None) -> dict[str, Any]:
        """What there is now.

        Args:
            tenant: the only one that is told of; None: those whose budget is in the greatest
                danger, and those who have used most.
        """
        tenancy = self._tenancy
        gone = tenancy.share_of_month_gone()
        if tenant is None:
            names = tenancy.registry.names()
            if DEFAULT_TENANT not in names and (
                not names or tenancy.used_now(DEFAULT_TENANT).requests
            ):
                names.append(DEFAULT_TENANT)
        else:
            names = [tenant]
        found = []
        for number, name in enumerate(names):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            found.append(self._spending(name, gone))
        return {
            "configured": len(tenancy.registry) if tenant is None else None,
            "count": len(names),
            "month_gone": gone,
            "items": [self._row(one) for one in nlargest(_SHOWN, found)],
        }

    def _spending(self, name: str, gone: float) -> _Spending:
        micro = self._tenancy.used_micro_now(name)
        budget = self._tenancy.registry.limits(name).budget
        if budget is None:
            return _Spending(-1.0, micro, name)
        # Who may spend nothing has spent it.
        share = micro / MICRO / budget if budget else 1.0
        return _Spending(share / gone, micro, name)

    def _row(self, spending: _Spending) -> dict[str, Any]:
        name = spending.tenant
        usage, limits = self._tenancy.used_now(name), self._tenancy.registry.limits(name)
        return {
            "tenant": name,
            "priority": limits.priority.value,
            "onbudget": limits.on_budget.value,
            "budget": limits.budget,
            "used": usage.used,
            "pace": None if limits.budget is None else spending.pace,
            "requests": usage.requests,
            "requests_per_s": self._recent.per_second(("requests", name), usage.requests),
            "hits": usage.hits,
            "misses": usage.misses,
            "refused_quota": usage.refused_quota,
            "refused_budget": usage.refused_budget,
            "llm_tokens_in": usage.llm_tokens_in,
            "llm_tokens_out": usage.llm_tokens_out,
            "llm_cost": usage.llm_cost,
        }
