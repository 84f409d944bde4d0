"""Lists by pages: ``?limit=`` and ``?cursor=``, and the cursor of the next page in the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request, Response

from pyrope.http.plain import encode_json, plain

LIMIT_MAX = 1000

# Of one answer: what there is beyond them comes with the next page.
_PAGE_BYTES = 512 * 1024
# Items that are made in one turn of the loop, at some 20 us each.
_AT_ONCE = 64

T = TypeVar("T")


class Page:
    """Which part of a list is asked for.

    Attributes:
        limit: items at the most.
        cursor: behind what they begin; empty: at the beginning.
    """

    def __init__(self, limit: int, cursor: str) -> None:
        self.limit = limit
        self.cursor = cursor


async def _page(
    request: Request,
    limit: Annotated[int | None, Query(ge=1, le=LIMIT_MAX, description="Items of a page.")] = None,
    cursor: Annotated[
        str, Query(max_length=512, description="Of the page before: its cursor.")
    ] = "",
) -> Page:
    size: int = request.app.state.gate.server.settings.http.page_size
    return Page(limit or size, cursor)


AskedPage = Annotated[Page, Depends(_page)]
"""A parameter of a route's function."""


async def answer_page(
    page: Page, found: Sequence[T], cursor_of: Callable[[T], str], show: Callable[[T], Any]
) -> Response:
    """A page as JSON; others get their turn while it is made.

    Args:
        found: the items from the cursor on: one more than the limit, where there are more.
        cursor_of: what a page begins behind that begins behind an item.
        show: makes a reply value of an item.
    """
    parts: list[bytes] = []
    nbytes = 0
    for one in found[: page.limit]:
        if len(parts) % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
        part = encode_json(plain(show(one)))
        nbytes += len(part)
        if parts and nbytes > _PAGE_BYTES:
            break
        parts.append(part)
    cursor = cursor_of(found[len(parts) - 1]) if 0 < len(parts) < len(found) else None
    body = b'{"items":[%b],"cursor":%b}' % (b",".join(parts), encode_json(cursor))
    return Response(body, media_type="application/json")
