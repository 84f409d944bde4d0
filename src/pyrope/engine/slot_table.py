"""What is known of every slot, whatever the engine: does it hold a vector, and of what norm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyrope.types import Mask, Slots


def grown(length: int, needed: int) -> int:
    """The length to give an array that must hold `needed`: half as much again, at least 1024."""
    return length if needed <= length else max(needed, length + length // 2, 1024)


class SlotTable:
    """Arrays by slot, which grow geometrically.

    Attributes:
        live: bool, shape (capacity,). True where the slot holds a vector.
        norms: float32, shape (capacity,). Euclidean norm of the raw vector; inf beyond float32.
    """

    __slots__ = ("_count", "live", "norms")

    def __init__(self, capacity: int = 0) -> None:
        self.live: Mask = np.zeros(capacity, dtype=np.bool_)
        self.norms: NDArray[np.float32] = np.zeros(capacity, dtype=np.float32)
        self._count = 0

    def __len__(self) -> int:
        """Slots that hold a vector."""
        return self._count

    @property
    def nbytes(self) -> int:
        return self.live.nbytes + self.norms.nbytes

    def put(self, slots: Slots, norms: NDArray[np.float64]) -> None:
        """Mark distinct slots as holding vectors of these norms."""
        if not len(slots):
            return
        # A search that runs meanwhile must find the norm of whatever it finds alive.
        if (size := grown(len(self.live), int(slots.max()) + 1)) > len(self.live):
            self.norms = np.concatenate([self.norms, np.zeros(size - len(self.norms), np.float32)])
            self.live = np.concatenate([self.live, np.zeros(size - len(self.live), np.bool_)])
        with np.errstate(over="ignore"):
            self.norms[slots] = norms
        self._count += len(slots) - int(np.count_nonzero(self.live[slots]))
        self.live[slots] = True

    def remove(self, slots: Slots) -> Slots:
        """Unmark slots; those that did hold a vector are returned, each once."""
        known = np.unique(slots[(slots >= 0) & (slots < len(self.live))])
        held: Slots = known[self.live[known]]
        self.live[held] = False
        self._count -= len(held)
        return held

    def taking_part(self, allowed: Mask | None) -> Mask:
        """Live slots that are allowed too, shape (<= capacity,)."""
        if allowed is None:
            return self.live
        size = min(len(allowed), len(self.live))
        part: Mask = self.live[:size] & allowed[:size]
        return part
