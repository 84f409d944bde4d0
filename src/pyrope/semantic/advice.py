"""What a language model has advised about clusters: how long answers there may live, and matter.

Advice moves a time to live or a value by a factor within guardrails, expires, and can be taken
back. It holds for the centroids that were in force when it was asked for, and goes with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from pyrope.clock import Clock


class Nature(StrEnum):
    """Of a subject: whether what is true about it changes often, or lasts."""

    VOLATILE = "volatile"
    LASTING = "lasting"


@dataclass(frozen=True, slots=True)
class Advice:
    """About one cluster.

    Attributes:
        ttl_factor: what times to live are multiplied by.
        value_factor: what an answer's value is multiplied by where room is needed.
        confidence: of the model, 0 to 1.
        until: monotonic time in seconds at which it is over.
    """

    nature: Nature
    ttl_factor: float
    value_factor: float
    confidence: float
    until: float


class ClusterAdvice:
    """Advice by cluster. For the event loop."""

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._advice: dict[int, Advice] = {}

    def __len__(self) -> int:
        """How much advice there is, with what is over and that nobody has asked for since."""
        return len(self._advice)

    def get(self, cluster: int) -> Advice | None:
        """What is in force for a cluster."""
        advice = self._advice.get(cluster)
        if advice is not None and advice.until <= self._monotonic():
            del self._advice[cluster]
            return None
        return advice

    def set(self, cluster: int, advice: Advice) -> None:
        self._advice[cluster] = advice

    def remove(self, cluster: int | None = None) -> int:
        """Take back what was advised about a cluster; None: about all. Returns how much it was."""
        if cluster is None:
            gone = len(list(self))
            self._advice.clear()
            return gone
        there = self.get(cluster) is not None
        self._advice.pop(cluster, None)
        return int(there)

    def __iter__(self) -> Iterator[tuple[int, Advice]]:
        """Clusters with what is in force for them; bounded by the number of clusters."""
        for cluster in list(self._advice):
            advice = self.get(cluster)
            if advice is not None:
                yield cluster, advice
