"""What a tenant may use, and what becomes of its searches when its money runs short."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Priority(Enum):
    """Whose searches are cut short first when the server misses its latency target: LOW ones."""

    HIGH = "HIGH"
    NORMAL = "NORMAL"
    LOW = "LOW"


class OnBudget(Enum):
    """What becomes of requests when the month's budget is spent."""

    DEGRADE = "DEGRADE"
    REJECT = "REJECT"


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """Of one tenant. None: there is no such limit.

    Attributes:
        qps: requests per second, in the long run.
        burst: requests that may come at once; None: as many as in one second, 1 at least.
        concurrency: requests under way at the same time.
        budget: cost units per month, UTC.
        max_vectors: in all its indexes together.
        max_bytes: of memory, of all its indexes together.
        cache_bytes: of cached answers, of all its indexes together.
        priority: towards other tenants.
        on_budget: what becomes of requests when the budget is spent.
        soft_limit: pressure (share of the budget used, over share of the month gone) above which
            effort is lowered.
        ef_floor, nprobe_floor, max_scans_floor: effort is not lowered below them.
        ef_ceiling, nprobe_ceiling, max_scans_ceiling: no search takes more, whatever it asks for.
        degraded_recall: MINRECALL that will do once the budget is spent; None: as asked for.
    """

    qps: float | None = None
    burst: int | None = None
    concurrency: int | None = None
    budget: float | None = None
    max_vectors: int | None = None
    max_bytes: int | None = None
    cache_bytes: int | None = None
    priority: Priority = Priority.NORMAL
    on_budget: OnBudget = OnBudget.REJECT
    soft_limit: float = 1.0
    ef_floor: int = 16
    nprobe_floor: int = 1
    max_scans_floor: int = 1000
    ef_ceiling: int | None = None
    nprobe_ceiling: int | None = None
    max_scans_ceiling: int | None = None
    degraded_recall: float | None = None
