"""/v1/billing: what everybody has used, by month."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from pyrope.commands.ranks import ADMINISTRATOR
from pyrope.http.calls import CommandRoute, CurrentCall, takes
from pyrope.http.fields import Cursor, Told
from pyrope.http.pages import AskedPage, answer_page

router = APIRouter(prefix="/v1/billing", tags=["billing"], route_class=CommandRoute)


class UsageRow(Told):
    """Totals of a tenant and a month; money in cost units."""

    tenant: str
    period: str
    budget: float | None
    requests: int
    hits: int
    misses: int
    answers: dict[str, int]
    used: float
    compute_units: float
    llm_tokens_in: int
    llm_tokens_out: int
    llm_cost: float
    embeddings: int
    refused_quota: int
    refused_budget: int
    most_vectors: int
    most_bytes: int
    most_cache_bytes: int


class UsagePage(Told):
    items: list[UsageRow]
    cursor: Cursor


def _name(row: dict[str, Any]) -> str:
    name: str = row["tenant"]
    return name


@router.get(
    "/usage",
    response_model=UsagePage,
    openapi_extra=takes(ADMINISTRATOR),
    summary="List what everybody has used in a month",
    description="Tenants that are dropped since are there, too. Who has begun within the last "
    "second (tenants.usage_flush_s) may be missing.",
)
async def usage(
    call: CurrentCall,
    page: AskedPage,
    period: Annotated[
        str | None, Query(max_length=16, description="yyyy-mm, UTC; the present one by default.")
    ] = None,
) -> Response:
    async with call.admitted():
        rows = await call.service.tenancy.usages(period, page.cursor, page.limit + 1)
        return await answer_page(page, rows, _name, dict)
