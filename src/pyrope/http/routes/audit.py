"""/v1/audit: who has changed what."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import JsonValue

from pyrope.commands.ranks import ADMINISTRATOR
from pyrope.errors import CommandError
from pyrope.http.calls import CommandRoute, CurrentCall, takes
from pyrope.http.fields import Cursor, Told
from pyrope.http.pages import AskedPage, answer_page
from pyrope.storage.chained_entry import LogEntry

router = APIRouter(prefix="/v1/audit", tags=["audit"], route_class=CommandRoute)


class AuditEntry(Told):
    """An entry of the audit trail, with the hash that covers all before it.

    One of an act that failed has `of`, the number of the entry of the act, and `error`.
    """

    seq: int
    at: str
    prev: str
    hash: str
    act: str | None = None
    actor: str | None = None
    address: str | None = None
    tenant: str | None = None
    target: str | None = None
    before: dict[str, JsonValue] | None = None
    after: dict[str, JsonValue] | None = None


class AuditPage(Told):
    items: list[AuditEntry]
    cursor: Cursor


@router.get(
    "",
    response_model=AuditPage,
    openapi_extra=takes(ADMINISTRATOR),
    summary="Read the audit trail, newest first",
)
async def list_(
    call: CurrentCall,
    page: AskedPage,
    cursor: Annotated[str, Query(max_length=20, description="Of the page before.")] = "",
) -> Response:
    before = _number(cursor)
    async with call.admitted():
        # One more, to see whether there are more.
        found = await call.service.tenancy.audit.newest(before, page.limit + 1)
        return await answer_page(page, found, lambda entry: str(entry.seq), _shown)


def _shown(entry: LogEntry) -> dict[str, Any]:
    told: dict[str, Any] = {"seq": entry.seq, "at": entry.at, **entry.payload}
    return told | {"prev": entry.prev, "hash": entry.hash}


def _number(cursor: str) -> int | None:
    if not cursor:
        return None
    if not (cursor.isascii() and cursor.isdigit() and int(cursor)):
        raise CommandError("invalid cursor")
    return int(cursor)
