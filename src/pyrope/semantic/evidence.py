"""What labels have taught of one entry, or of one cluster of entries.

An offset to the log-odds of all its near hits, with a normal prior around nought: where there are
no labels, an entry is as all are; with each it becomes more its own (partial pooling: Gelman and
Hill, Data analysis using regression and multilevel/hierarchical models, chapter 12). Two numbers,
which are stored with the entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ENTRY_VARIANCE: Final = 0.5
CLUSTER_VARIANCE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of an entry or a cluster.

    Attributes:
        offset: to the log-odds.
        information: what labels have told, as a precision (1 / variance).
    """

    offset: float = 0.0
    information: float = 0.0

    def variance(self, prior: float) -> float:
        """What is left of a `prior` variance."""
        return prior / (1.0 + prior * self.information)


NOTHING: Final = Evidence()
"""Of what nobody has said anything."""
