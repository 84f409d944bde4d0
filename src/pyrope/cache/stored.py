"""The records of the store: an entry, the pools that it lies in, and the account it belongs to."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Hashable
from enum import StrEnum
from typing import Final, Generic, TypeVar

V = TypeVar("V")


class Gone(StrEnum):
    """Why an entry left."""

    SIZE = "size"
    """The whole store was full."""
    TENANT = "tenant"
    """Its tenant was over its bytes."""
    INDEX = "index"
    """Its index was over its bytes."""
    TTL = "ttl"
    INVALIDATED = "invalidated"
    """Somebody asked for it to be forgotten, or what it speaks of has gone."""
    STALE = "stale"
    """Too much has changed since, to bring it up to date."""
    REPLACED = "replaced"
    """Another value was put under its key."""
    CLEARED = "cleared"
    """Everything of its index was dropped."""


class Refused(StrEnum):
    """Why a value was not kept."""

    CHEAP = "cheap"
    """A hit would save less than it is worth to keep anything for."""
    VALUE = "value"
    """It is worth less, by the byte, than what would have to go for it."""
    ROOM = "room"
    """It is larger than a budget, or too many entries would have to go for it."""


INDEX_LEVEL: Final = 0
TENANT_LEVEL: Final = 1
WHOLE_LEVEL: Final = 2
LEVELS: Final = 3
REASON_AT: Final = (Gone.INDEX, Gone.TENANT, Gone.SIZE)
"""Why an entry leaves when the pool of this level is over its budget."""


class Stored(Generic[V]):
    """One entry.

    Attributes:
        home: the dictionary that it lies in. Not its account's, if that was cleared since.
        nbytes: with the store's own overhead.
        saved: cost units that a hit saves.
        count: uses, halved at every epoch of the sketch before `epoch`.
        expires_at: on the monotonic clock, in seconds; infinite for never.
        places: where it lies in the pool of each level. An array, because a list would be one more
            object for the garbage collector to visit for every entry.
    """

    __slots__ = (
        "account",
        "count",
        "epoch",
        "expires_at",
        "home",
        "key",
        "nbytes",
        "places",
        "saved",
        "value",
    )

    def __init__(
        self,
        account: Account[V],
        key: Hashable,
        value: V,
        nbytes: int,
        saved: float,
        expires_at: float,
    ) -> None:
        self.account = account
        self.home = account.entries
        self.key = key
        self.value = value
        self.nbytes = nbytes
        self.saved = saved
        self.expires_at = expires_at
        self.count = 0.0
        self.epoch = 0
        self.places = array("q", (0,) * LEVELS)

    @property
    def is_live(self) -> bool:
        """Whether it can still be asked for, aside from its expiry."""
        return self.home is self.account.entries

    def age_to(self, epoch: int) -> None:
        """Halve the count for every epoch that passed."""
        self.count = math.ldexp(self.count, self.epoch - epoch)
        self.epoch = epoch


class Pool(Generic[V]):
    """The entries under one budget; any of them can be drawn at random.

    Attributes:
        level: which of an entry's places is the one in this pool.
        nbytes: sum over the entries.
        max_bytes: the budget; infinite for none.
    """

    __slots__ = ("entries", "level", "max_bytes", "nbytes")

    def __init__(self, level: int, max_bytes: float) -> None:
        self.level = level
        self.max_bytes = max_bytes
        self.entries: list[Stored[V]] = []
        self.nbytes = 0

    def add(self, stored: Stored[V]) -> None:
        stored.places[self.level] = len(self.entries)
        self.entries.append(stored)
        self.nbytes += stored.nbytes

    def remove(self, stored: Stored[V]) -> None:
        last = self.entries.pop()
        if last is not stored:
            place = stored.places[self.level]
            self.entries[place] = last
            last.places[self.level] = place
        self.nbytes -= stored.nbytes


class Tenant(Pool[V]):
    """The entries of one tenant.

    Attributes:
        name: of the tenant.
        accounts: how many of its indexes are open.
    """

    __slots__ = ("accounts", "name")

    def __init__(self, name: str) -> None:
        super().__init__(TENANT_LEVEL, math.inf)
        self.name = name
        self.accounts = 0


class Whole(Pool[V]):
    """All entries.

    Attributes:
        tenants: by name; those that hold nothing as well, while they are open or have a budget.
        holding: how many of them have entries.
    """

    __slots__ = ("holding", "tenants")

    def __init__(self, max_bytes: int) -> None:
        super().__init__(WHOLE_LEVEL, max_bytes)
        self.tenants: dict[str, Tenant[V]] = {}
        self.holding = 0

    def tenant(self, name: str) -> Tenant[V]:
        """The tenant's pool; made where there is none."""
        tenant = self.tenants.get(name)
        if tenant is None:
            tenant = self.tenants[name] = Tenant(name)
        return tenant

    def forget_if_idle(self, tenant: Tenant[V]) -> None:
        """Let go of a tenant that has no entries, no open index and no budget."""
        if not tenant.entries and not tenant.accounts and tenant.max_bytes == math.inf:
            self.tenants.pop(tenant.name, None)

    def enter(self, stored: Stored[V]) -> None:
        """Add an entry to the pools of all levels."""
        account = stored.account
        if not account.tenant.entries:
            self.holding += 1
        account.pool.add(stored)
        account.tenant.add(stored)
        self.add(stored)

    def leave(self, stored: Stored[V]) -> None:
        """Remove an entry from the pools of all levels."""
        account = stored.account
        account.pool.remove(stored)
        account.tenant.remove(stored)
        self.remove(stored)
        if not account.tenant.entries:
            self.holding -= 1
            self.forget_if_idle(account.tenant)


class Account(Generic[V]):
    """One index of one tenant: its entries by key, and what happened to them.

    Attributes:
        identity: tells its keys from those of other accounts in the sketch.
        entries: what can be asked for.
        pool, tenant: its entries, and all those of its tenant.
        on_gone: called with each value that leaves, and why.
        hits, misses: lookups.
        admitted, refused, gone: values that were put, and entries that left.
    """

    __slots__ = (
        "admitted",
        "entries",
        "gone",
        "hits",
        "identity",
        "misses",
        "on_gone",
        "pool",
        "refused",
        "tenant",
    )

    def __init__(
        self, identity: int, tenant: Tenant[V], on_gone: Callable[[V, Gone], None] | None
    ) -> None:
        self.identity = identity
        self.tenant = tenant
        self.on_gone = on_gone
        self.pool: Pool[V] = Pool(INDEX_LEVEL, math.inf)
        self.entries: dict[Hashable, Stored[V]] = {}
        self.hits = 0
        self.misses = 0
        self.admitted = 0
        self.refused = dict.fromkeys(Refused, 0)
        self.gone = dict.fromkeys(Gone, 0)
