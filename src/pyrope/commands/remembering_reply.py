"""How VECTOR.RECALL answers, and what is told of remembered responses."""

from __future__ import annotations

from typing import Any

from pyrope.commands.context import Context
from pyrope.semantic.guards import GUARDS
from pyrope.service.remembered.asking import Asked, Match, Nearest, Recalled
from pyrope.service.remembered.memory import IndexMemory
from pyrope.service.remembered.statistics import REASONS


class Rendering:
    """Makes the reply of one RECALL.

    Args:
        received_at: monotonic time in seconds at which it came.
        with_info: whether it is to tell how it was found.
    """

    def __init__(
        self, context: Context, asked: Asked, received_at: float, *, with_info: bool
    ) -> None:
        self._context = context
        self._asked = asked
        self.received_at = received_at
        self._with_info = with_info

    def render(self, recalled: Recalled, _protocol: int) -> Any:
        if not self._with_info:
            return recalled.response
        return [recalled.response, self._info(recalled)]

    def _info(self, recalled: Recalled) -> dict[str, Any]:
        server = self._context.server
        entry, nearest, rule = recalled.entry, recalled.nearest, recalled.rule
        age_s = None
        if entry is not None:
            age_s = max(0.0, server.clock.wall() - entry.created_ms / 1000)
        return {
            "id": None if entry is None else entry.name,
            "match": None if recalled.match is None else recalled.match.value,
            "prompt": None if entry is None else entry.prompt,
            "score": None if entry is None else recalled.score,
            "estimated_error": None if entry is None else recalled.error,
            "threshold": rule.threshold,
            "max_error": None if rule.threshold is not None else rule.max_error,
            "guard": None if nearest is None else nearest.refused_by,
            "nearest": None if nearest is None else _nearest(nearest),
            "age": age_s,
            "shadow": recalled.shadow,
            "tokens_saved": recalled.saved_tokens,
            "cost_saved": recalled.saved_cost,
            "lease": recalled.lease,
            "waited_ms": round(1000 * recalled.waited_s),
            "request_id": server.request_id(self._context.client),
            "latency_us": round(1e6 * (server.clock.monotonic() - self.received_at)),
        }


def _nearest(nearest: Nearest) -> dict[str, Any]:
    return {
        "id": nearest.entry.name,
        "prompt": nearest.entry.prompt,
        "score": nearest.score,
        "estimated_error": nearest.error,
        "refused_by": nearest.refused_by,
    }


def described(memory: IndexMemory) -> dict[str, Any]:
    """What VECTOR.CACHE STATS says of remembered responses."""
    counted, leases = memory.statistics, memory.leases.statistics
    learnt = memory.judge.statistics()
    looked_up = counted.recalls
    return {
        "entries": len(memory),
        "bytes": memory.nbytes,
        "scopes": memory.keeping.table.partition_count,
        "remembered": counted.remembered,
        "recalls": looked_up,
        "hits": counted.hits_total,
        "hit_ratio": counted.hits_total / looked_up if looked_up else 0.0,
        **{f"hits_{match.value}": counted.hits.get(match, 0) for match in Match},
        **{f"shadow_{match.value}": counted.shadow_hits.get(match, 0) for match in Match},
        "uncertain": counted.uncertain,
        "contradicted": counted.contradicted,
        **{f"guard_{name}": counted.guards.get(name, 0) for name in GUARDS},
        **{f"gone_{reason}": counted.gone.get(reason, 0) for reason in REASONS},
        "feedback_good": counted.good,
        "feedback_bad": counted.bad,
        "quarantined": counted.quarantined,
        "verifications": counted.verifications,
        "verified_same": counted.verified_same,
        "verified_different": counted.verified_different,
        "audits": counted.audits,
        "audited_same": counted.audited_same,
        "audited_different": counted.audited_different,
        "pairs": len(memory.feedback.pairs),
        "prior": None if learnt is None else learnt.prior,
        "labels": 0 if learnt is None else learnt.labels_total,
        "verifier_accuracy": None if learnt is None else learnt.verifier_accuracy,
        "leases": len(memory.leases),
        "lease_callers": memory.leases.waiting,
        "leases_granted": leases.granted,
        "leases_expired": leases.expired,
        "leases_abandoned": leases.abandoned,
        "lease_waited": leases.waited,
        "lease_answered": leases.answered,
        "lease_late": leases.late,
        "lease_shed": leases.shed,
        "tokens_saved": counted.tokens_saved,
        "cost_saved": counted.cost_saved,
    }
