"""Tenants: what all have used and were refused; and, where settings say so, some by name."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from pyrope.http.metrics.metric import counter, gauge
from pyrope.http.metrics.snapshot import Snapshot
from pyrope.tenants.usage import MICRO

TENANTS = gauge("pyrope_tenants", "Tenants that are configured.", info="configured")
CHARGED = counter(
    "pyrope_charged_units_total",
    "Cost units charged: compute (searches, writes, embeddings) and llm (tokens).",
    "what",
)
REFUSED = counter(
    "pyrope_refused_requests_total", "Requests that a quota or a budget has refused.", "why",
    info="refused_{why}",
)  # fmt: skip
BUDGETS = gauge(
    "pyrope_budget_tenants",
    "Tenants that have a budget (all); among them those that have used more of it than is gone of "
    "the month (ahead), and all of it (spent).",
    "state",
)
PACE = gauge(
    "pyrope_budget_worst_pace_ratio",
    "Share of a budget used by the share of the month gone, of the tenant where it is highest: "
    "above 1 the budget will not last.",
)
MONTH = gauge("pyrope_budget_month_elapsed_ratio", "Share of the month (UTC) that is gone.")

_OPT_IN = " This month; only with metrics.tenant_labels."
ONE_REQUESTS = counter(
    "pyrope_tenant_requests_total", "Requests that were let in." + _OPT_IN, "tenant"
)
ONE_ANSWERS = counter(
    "pyrope_tenant_answers_total", "Queries by where the answer came from." + _OPT_IN,
    "tenant", "cache",
)  # fmt: skip
ONE_REFUSED = counter(
    "pyrope_tenant_refused_requests_total",
    "Requests that a quota or the budget has refused." + _OPT_IN,
    "tenant",
    "why",
)
ONE_UNITS = counter(
    "pyrope_tenant_charged_units_total", "Cost units charged." + _OPT_IN, "tenant", "what"
)
ONE_TOKENS = counter(
    "pyrope_tenant_llm_tokens_total", "Tokens of language models." + _OPT_IN, "tenant", "direction"
)
ONE_RECALLED = counter(
    "pyrope_tenant_remembered_hits_total",
    "Prompts that were answered by what is remembered." + _OPT_IN,
    "tenant",
)
ONE_SAVED_TOKENS = counter(
    "pyrope_tenant_saved_tokens_total", "Tokens that these have spared, about." + _OPT_IN, "tenant"
)
ONE_SAVED_UNITS = counter(
    "pyrope_tenant_saved_units_total", "Cost units that these have spared." + _OPT_IN, "tenant"
)
ONE_BUDGET = gauge(
    "pyrope_tenant_budget_used_ratio", "Share of its budget that a tenant has used." + _OPT_IN,
    "tenant",
)  # fmt: skip

METRICS = (
    TENANTS, CHARGED, REFUSED, BUDGETS, PACE, MONTH, ONE_REQUESTS, ONE_ANSWERS, ONE_REFUSED,
    ONE_UNITS, ONE_TOKENS, ONE_RECALLED, ONE_SAVED_TOKENS, ONE_SAVED_UNITS, ONE_BUDGET,
)  # fmt: skip


def collect(snapshot: Snapshot) -> Iterator[Metric]:
    tenancy, budgets = snapshot.service.tenancy, snapshot.budgets
    charged = tenancy.charged
    yield TENANTS.is_(len(tenancy.registry))
    yield CHARGED.are({"compute": charged.compute_micro / MICRO, "llm": charged.llm_micro / MICRO})
    yield REFUSED.are({"quota": charged.refused_quota, "budget": charged.refused_budget})
    yield BUDGETS.are({"all": budgets.tenants, "ahead": budgets.ahead, "spent": budgets.spent})
    yield PACE.is_(budgets.worst_pace)
    yield MONTH.is_(tenancy.share_of_month_gone())
    used = snapshot.tenants
    if used:
        yield ONE_REQUESTS.are({name: one.requests for name, one in used.items()})
        yield ONE_ANSWERS.are(
            {
                (name, level): count
                for name, one in used.items()
                for level, count in one.answers.items()
            }
        )
        yield ONE_REFUSED.are(
            {(name, "quota"): one.refused_quota for name, one in used.items()}
            | {(name, "budget"): one.refused_budget for name, one in used.items()}
        )
        yield ONE_UNITS.are(
            {(name, "compute"): one.compute_micro / MICRO for name, one in used.items()}
            | {(name, "llm"): one.llm_micro / MICRO for name, one in used.items()}
        )
        yield ONE_TOKENS.are(
            {(name, "in"): one.llm_tokens_in for name, one in used.items()}
            | {(name, "out"): one.llm_tokens_out for name, one in used.items()}
        )
        yield ONE_RECALLED.are({name: one.recalled for name, one in used.items()})
        yield ONE_SAVED_TOKENS.are({name: one.saved_tokens for name, one in used.items()})
        yield ONE_SAVED_UNITS.are({name: one.saved_micro / MICRO for name, one in used.items()})
        yield ONE_BUDGET.are(snapshot.budget_shares)
