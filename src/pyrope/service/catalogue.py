"""The indexes that are open, by the names that commands give; what was done by all there were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyrope.errors import NoIndexError
from pyrope.service.index import OpenIndex
from pyrope.service.totals import IndexTotals


class Catalogue:
    """For the event loop."""

    def __init__(self) -> None:
        self._indexes: dict[tuple[str, str], OpenIndex] = {}
        self._by_tenant: dict[str, dict[str, OpenIndex]] = {}
        # Those that are being dropped; and what was done by those that have been.
        self._leaving: list[OpenIndex] = []
        self._left = IndexTotals()

    def __len__(self) -> int:
        """Indexes that commands can name."""
        return len(self._indexes)

    def indexes(self) -> list[OpenIndex]:
        return list(self._indexes.values())

    def of_tenant(self, tenant: str) -> list[OpenIndex]:
        return list(self._by_tenant.get(tenant, {}).values())

    def names(self, tenant: str) -> list[str]:
        """In order."""
        return sorted(self._by_tenant.get(tenant, {}))

    def find(self, tenant: str, name: bytes) -> OpenIndex | None:
        return self._indexes.get((tenant, _text(name)))

    def get(self, tenant: str, name: bytes) -> OpenIndex:
        """Raises NoIndexError."""
        found = self._indexes.get((tenant, _text(name)))
        if found is None:
            raise NoIndexError(f"no such index '{_text(name)}'")
        return found

    def is_open(self, index: OpenIndex) -> bool:
        """Whether commands can name an index (still)."""
        spec = index.spec
        return self._indexes.get((spec.tenant, spec.name)) is index

    def open(self, index: OpenIndex) -> None:
        """Let commands name an index."""
        spec = index.spec
        self._indexes[spec.tenant, spec.name] = index
        self._by_tenant.setdefault(spec.tenant, {})[spec.name] = index

    def shut(self, index: OpenIndex) -> None:
        """Let no command name an index any more."""
        spec = index.spec
        del self._indexes[spec.tenant, spec.name]
        of_tenant = self._by_tenant[spec.tenant]
        del of_tenant[spec.name]
        if not of_tenant:
            del self._by_tenant[spec.tenant]

    def clear(self) -> None:
        """Let no command name any index."""
        self._indexes.clear()
        self._by_tenant.clear()

    # -- what was done ----------------------------------------------------------------------------

    @contextmanager
    def leaving(self, index: OpenIndex) -> Iterator[None]:
        """While an index that was shut is being dropped, it counts.

        So does what it has done, once it is gone.
        """
        self._leaving.append(index)
        try:
            yield
            self._left.add(index.settle())
        finally:
            self._leaving.remove(index)

    def counted(self) -> tuple[IndexTotals, list[OpenIndex]]:
        """What was done by indexes that are gone, in a record of its own; and all the others.

        The sum of all their `count_into` never falls, however long it takes to make it.
        """
        left = IndexTotals()
        left.add(self._left)
        return left, [*self._indexes.values(), *self._leaving]

    def totals(self) -> IndexTotals:
        """What all indexes have done since the server started, in one go: 10 us for each."""
        totals, indexes = self.counted()
        for index in indexes:
            index.count_into(totals)
        return totals


def _text(name: bytes) -> str:
    """A name to look up. One that is too long to be an index's is cut, and still too long."""
    return name[:256].decode(errors="replace")
