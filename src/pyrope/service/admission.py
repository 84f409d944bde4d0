"""Whether there is room for what is about to be written: in memory, and in a tenant's quotas."""

from __future__ import annotations

from pyrope.clock import Clock
from pyrope.config import Settings
from pyrope.errors import OutOfMemoryError
from pyrope.service.catalogue import Catalogue
from pyrope.service.index import OpenIndex
from pyrope.service.reservations import Reservations
from pyrope.service.writes import Condition, PutVectors
from pyrope.tenants.enforcer import Account

# Estimating the memory of every index takes a few microseconds each, so it is not done per write.
_ESTIMATE_AGE_S = 0.1


class WriteAdmission:
    """For the event loop.

    Args:
        settings: maxmemory is read with every write.
        catalogue: of all that takes memory.
    """

    def __init__(self, settings: Settings, clock: Clock, catalogue: Catalogue) -> None:
        self._settings = settings
        self._monotonic = clock.monotonic
        self._catalogue = catalogue
        self._reserved = Reservations()
        self._memory_bytes = 0
        self._estimated_at = float("-inf")

    @property
    def memory_bytes(self) -> int:
        """Memory of all indexes, in bytes; an estimate at most a tenth of a second old."""
        now = self._monotonic()
        if now - self._estimated_at >= _ESTIMATE_AGE_S:
            self._memory_bytes = sum(one.memory_bytes for one in self._catalogue.indexes())
            self._estimated_at = now
        return self._memory_bytes

    @property
    def memory_left(self) -> int | None:
        """Bytes that indexes may still take; None: there is no limit."""
        limit = self._settings.maxmemory
        return max(0, limit - self.memory_bytes) if limit else None

    def forget_estimate(self) -> None:
        """Memory has been given back: the next one who asks is to see that."""
        self._estimated_at = float("-inf")

    def admit_write(self, added_bytes: int) -> None:
        """Raises OutOfMemoryError when `added_bytes` more would exceed maxmemory."""
        limit = self._settings.maxmemory
        if limit and self.memory_bytes + added_bytes > limit:
            raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")

    def admit_vectors(
        self, account: Account | None, index: OpenIndex, write: PutVectors, nbytes: int
    ) -> None:
        """Let vectors in, as far as memory and the tenant's quotas allow; before they are written.

        Those that are on their way count as if they were all new.

        Args:
            account: that pays; None: nobody's.
            nbytes: of the vectors.

        Raises:
            OutOfMemoryError, QuotaError: they are not to be written.
        """
        self.admit_bytes(account, index, nbytes)
        if account is None:
            return
        limits = account.limits
        if limits.max_vectors is None and limits.max_bytes is None:
            return
        tenant = index.spec.tenant
        new = 0
        if write.condition is not Condition.IF_THERE:
            slot_of = index.state.ids.slot
            new = sum(1 for id_ in write.ids if slot_of(id_) is None)
        if limits.max_vectors is not None:
            there = sum(len(one) for one in self._catalogue.of_tenant(tenant))
            account.check_vectors(there + self._reserved.of(tenant).vectors, new)
        self._reserved.add(tenant, new, nbytes, write.future)

    def admit_bytes(self, account: Account | None, index: OpenIndex, nbytes: int) -> None:
        """Let so many bytes more into an index. Raises OutOfMemoryError, QuotaError."""
        self.admit_write(nbytes)
        if account is None or account.limits.max_bytes is None:
            return
        tenant = index.spec.tenant
        there = sum(one.memory_bytes for one in self._catalogue.of_tenant(tenant))
        account.check_bytes(there + self._reserved.of(tenant).nbytes, nbytes)
