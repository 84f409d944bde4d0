"""What is on its way into tenants' indexes, and counts against their quotas already."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, NamedTuple


class Reserved(NamedTuple):
    """Of one tenant: vectors that may be new, and their bytes."""

    vectors: int
    nbytes: int


_NOTHING = Reserved(0, 0)


class Reservations:
    """For the event loop. Tenants with nothing on its way take no room."""

    def __init__(self) -> None:
        self._by_tenant: dict[str, Reserved] = {}

    def of(self, tenant: str) -> Reserved:
        return self._by_tenant.get(tenant, _NOTHING)

    def add(self, tenant: str, vectors: int, nbytes: int, until: asyncio.Future[Any]) -> None:
        """Reserve room for a write until its future is done."""
        self._change(tenant, vectors, nbytes)
        until.add_done_callback(partial(self._over, tenant, vectors, nbytes))

    def _over(self, tenant: str, vectors: int, nbytes: int, _done: object) -> None:
        self._change(tenant, -vectors, -nbytes)

    def _change(self, tenant: str, vectors: int, nbytes: int) -> None:
        there = self.of(tenant)
        now = Reserved(there.vectors + vectors, there.nbytes + nbytes)
        if now == _NOTHING:
            self._by_tenant.pop(tenant, None)
        else:
            self._by_tenant[tenant] = now
