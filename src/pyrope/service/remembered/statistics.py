"""What remembered responses have done, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

REASONS = ("replaced", "forgotten", "expired", "evicted", "changed")
"""Why responses end. CHANGED: a document that they depend on has."""


@dataclass(slots=True)
class RememberStatistics:
    """Of one index, or of many, since the start.

    Attributes:
        remembered: responses that came.
        recalls: prompts that were looked up.
        hits: of these, those that were answered, by how: exact, alias, near.
        shadow_hits: of these, those that would have been in shadow mode.
        uncertain: of these, those whose nearest prompt may be wrong by more than is put up with.
        guards: near hits that were refused, by the guard that did.
        contradicted: near hits that were refused because somebody has said that they are wrong.
        gone: responses that have ended, by which of `REASONS`.
        good, bad: feedback.
        quarantined: responses that feedback has taken out of service.
        verifications: pairs of prompts that a language model was asked about; `verified_same` and
            `verified_different` are what it said.
        audits: near hits that it was asked about; `audited_same` and `audited_different` are what
            it said.
        tokens_saved: of hits, about.
        cost_saved: of hits, in cost units.
    """

    remembered: int = 0
    recalls: int = 0
    hits: dict[str, int] = field(default_factory=dict)
    shadow_hits: dict[str, int] = field(default_factory=dict)
    uncertain: int = 0
    guards: dict[str, int] = field(default_factory=dict)
    contradicted: int = 0
    gone: dict[str, int] = field(default_factory=dict)
    good: int = 0
    bad: int = 0
    quarantined: int = 0
    verifications: int = 0
    verified_same: int = 0
    verified_different: int = 0
    audits: int = 0
    audited_same: int = 0
    audited_different: int = 0
    tokens_saved: int = 0
    cost_saved: float = 0.0

    @property
    def hits_total(self) -> int:
        return sum(self.hits.values())

    def add(self, other: RememberStatistics) -> None:
        """Add what others have done."""
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if isinstance(mine, dict):
                for name, count in theirs.items():
                    mine[name] = mine.get(name, 0) + count
            else:
                setattr(self, one.name, mine + theirs)


def count(counts: dict[str, int], name: str) -> None:
    """One more of that name."""
    counts[name] = counts.get(name, 0) + 1
