"""How many bytes remembered responses may take: of an index, of a tenant, of the server.

Where one of these is exceeded, responses go: of the index, of the tenant's index that has most, of
the tenant that has most. So whoever takes more than others loses first, and within an index what is
worth least.
"""

from __future__ import annotations

from typing import Protocol

from pyrope.config import RememberSettings
from pyrope.semantic.remembered.entry import Entry
from pyrope.types import IndexSpec

# Responses that go for one that came, at some 20 us each: after a budget was lowered it takes many
# of them until it is kept again. The sweep goes on.
_MOST_GONE = 256


class Holding(Protocol):
    """The responses of one index."""

    @property
    def spec(self) -> IndexSpec: ...

    @property
    def entry_bytes(self) -> int:
        """Of its responses, as of `Entry.nbytes`."""
        ...

    @property
    def own_budget(self) -> int:
        """Bytes that they may take; 0: no limit of its own."""
        ...

    def evict(self, spared: Entry | None) -> bool:
        """Let the least valuable go; False where none can."""
        ...


class RememberBudget:
    """All of a server. For the event loop.

    Args:
        settings: read at every use.
    """

    def __init__(self, settings: RememberSettings) -> None:
        self._settings = settings
        self._by_tenant: dict[str, dict[Holding, None]] = {}
        self._bytes: dict[str, int] = {}
        self._total = 0

    @property
    def nbytes(self) -> int:
        """Of all responses there are."""
        return self._total

    def of_tenant(self, tenant: str) -> int:
        return self._bytes.get(tenant, 0)

    def most(self, holding: Holding) -> int:
        """Bytes that a single response of an index can have."""
        settings = self._settings
        budgets = (settings.max_bytes, settings.tenant_bytes, holding.own_budget)
        return min(budget for budget in budgets if budget)

    def changed(self, holding: Holding, nbytes: int) -> None:
        """An index has so many bytes more, or less."""
        tenant = holding.spec.tenant
        holdings = self._by_tenant.setdefault(tenant, {})
        holdings[holding] = None
        self._bytes[tenant] = self._bytes.get(tenant, 0) + nbytes
        self._total += nbytes
        if not holding.entry_bytes:
            del holdings[holding]
            if not holdings:
                del self._by_tenant[tenant], self._bytes[tenant]

    def make_room(self, holding: Holding, spared: Entry | None = None) -> None:
        """Let responses go until the budgets that an index is under are kept.

        Args:
            spared: the one that has come.
        """
        tenant, left = holding.spec.tenant, _MOST_GONE
        own, settings = holding.own_budget, self._settings
        while own and holding.entry_bytes > own and left and holding.evict(spared):
            left -= 1
        of_tenant = settings.tenant_bytes
        while of_tenant and self.of_tenant(tenant) > of_tenant and left:
            if not self._fullest(tenant).evict(spared):
                break
            left -= 1
        while self._total > settings.max_bytes and left:
            richest = max(self._bytes, key=self._bytes.__getitem__)
            if not self._fullest(richest).evict(spared):
                break
            left -= 1

    def _fullest(self, tenant: str) -> Holding:
        return max(self._by_tenant[tenant], key=lambda one: one.entry_bytes)
