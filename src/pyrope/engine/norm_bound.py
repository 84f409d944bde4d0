"""A bound on the norms of the vectors that an index holds, kept while they come and go.

Largest norms are kept by blocks of slots. A vector that comes raises that of its block; one that
goes leaves it as it is, which is a bound still, until somebody asks: then blocks that have lost
vectors are looked through, a few at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyrope.engine.slot_table import SlotTable, grown
from pyrope.types import Slots

_BLOCK_BITS = 12
# Looked through when somebody asks, at 5 us each.
_TIGHTENED = 16


class NormBound:
    """Changes are one at a time; `value` may be read beside them.

    Args:
        table: norms of the vectors, and which of them there are.
    """

    def __init__(self, table: SlotTable) -> None:
        self._table = table
        self._largest: NDArray[np.float64] = np.zeros(0)
        self._loose: set[int] = set()

    @property
    def nbytes(self) -> int:
        return self._largest.nbytes

    def put(self, slots: Slots, norms: NDArray[np.float64]) -> None:
        """Vectors of these norms have come to these slots."""
        if not len(slots):
            return
        blocks = slots >> _BLOCK_BITS
        size = grown(len(self._largest), int(blocks.max()) + 1)
        if size > len(self._largest):
            more = np.zeros(size - len(self._largest))
            self._largest = np.concatenate([self._largest, more])
        np.maximum.at(self._largest, blocks, norms)

    def remove(self, slots: Slots) -> None:
        """These slots hold no vector any more."""
        self._loose.update(np.unique(slots >> _BLOCK_BITS).tolist())

    def value(self) -> float:
        """No vector is longer than this, but for a rounding to float32; 0 where there is none."""
        for _ in range(min(len(self._loose), _TIGHTENED)):
            block = self._loose.pop()
            some = slice(block << _BLOCK_BITS, (block + 1) << _BLOCK_BITS)
            norms = self._table.norms[some]
            live = self._table.live[some]
            self._largest[block] = norms.max(initial=0.0, where=live)
        return float(self._largest.max(initial=0.0))
