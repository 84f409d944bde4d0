"""Who has series of their own, where there are more than should have.

Places are given to whoever comes first, and only once: who has one keeps it, also when it is gone.
If somebody who was counted among the others were given one later, the others' sum would fall, which
Prometheus would take for a restart.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

OTHER = "other"
"""Who stands for all that have no place."""

K = TypeVar("K", bound=Hashable)


class Places(Generic[K]):
    """Args: most: places there are.

    Attributes:
        most: places there are.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken: dict[K, None] = {}

    def take(self, key: K) -> bool:
        """Whether it has a place, after it was given one if there was one left."""
        if key in self._taken:
            return True
        if len(self._taken) >= self.most:
            return False
        self._taken[key] = None
        return True

    def __contains__(self, key: K) -> bool:
        return key in self._taken

    def __iter__(self) -> Iterator[K]:
        return iter(self._taken)
