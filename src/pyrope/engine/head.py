"""The head of an index: its newest vectors, scanned in full until they are merged into the tail.

It holds numbers only: the rows are those of the `VectorSource`, and a run of consecutive slots,
which is what new vectors usually get, is scored where it lies. What a head of h rows adds to a
search is one matrix product for the whole batch, and then only those rows are looked at that may
beat the worst of what the tail has found (the *floor*).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pyrope.engine.base import VectorSource
from pyrope.engine.head_rows import HeadRows
from pyrope.engine.kernels import kernel_for
from pyrope.engine.slot_table import grown
from pyrope.types import Float32Matrix, Mask, Metric, Slots

# Rows scored at a time: their scores for 64 queries are 1 MB and stay in the second-level cache.
_BLOCK_ROWS = 4096
# A head that is no longer than this is copied; so is one that has come down to half of it again.
_COPIED_ROWS, _COPIED_BYTES = 2048, 2**22
_GONE = -1


class Head:
    """Slots in the order in which they came.

    `append` may run while searches do: what it adds becomes visible last. `remove` may not. Of
    `append`, `remove` and `oldest`, one runs at a time.

    Args:
        metric: as of the index.
        dim: as of the index.
        source: the raw rows.
        copied: whether `nearer` is to be of use, as it is before a tail.
    """

    def __init__(self, metric: Metric, dim: int, source: VectorSource, *, copied: bool) -> None:
        self._metric = metric
        self._dim = dim
        self._source = source
        self._most_copied = min(_COPIED_ROWS, _COPIED_BYTES // (4 * dim)) if copied else 0
        self._copies = HeadRows(metric, dim) if copied else None
        self._slots: Slots = np.empty(0, dtype=np.int64)
        self._norms: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        # By slot: its place in the two arrays; -1 where it is not here.
        self._place_of = np.empty(0, dtype=np.int32)
        self._first = self._stop = 0
        self._gone = 0

    def __len__(self) -> int:
        return self._stop - self._first - self._gone

    @property
    def nbytes(self) -> int:
        own = self._slots.nbytes + self._norms.nbytes + self._place_of.nbytes
        return own + (0 if self._copies is None else self._copies.nbytes)

    # -- changing ---------------------------------------------------------------------------------

    def append(self, slots: Slots, norms: NDArray[np.float32]) -> None:
        """Add distinct slots that are not here; their rows have been written.

        Args:
            norms: Euclidean norms of their rows, shape (n,).
        """
        if not len(slots):
            return
        start, stop = self._stop, self._stop + len(slots)
        if (more := grown(len(self._slots), stop) - len(self._slots)) > 0:
            self._slots = np.concatenate([self._slots, np.full(more, _GONE, np.int64)])
            self._norms = np.concatenate([self._norms, np.zeros(more, np.float32)])
        if (size := grown(len(self._place_of), int(slots.max()) + 1)) > len(self._place_of):
            unused = np.full(size - len(self._place_of), _GONE, np.int32)
            self._place_of = np.concatenate([self._place_of, unused])
        self._slots[start:stop] = slots
        self._norms[start:stop] = norms
        if stop - self._first > self._most_copied:
            self._copies = None
        elif self._copies is not None:
            self._copies.put(start, self._source.view()[slots], norms)
        self._place_of[slots] = np.arange(start, stop, dtype=np.int32)
        self._stop = stop

    def remove(self, slots: Slots) -> None:
        """Take out slots; those that are not here are passed over."""
        known = slots[slots < len(self._place_of)]
        known = known[self._place_of[known] != _GONE]
        places = self._place_of[known]
        self._slots[places] = _GONE
        self._place_of[known] = _GONE
        if self._copies is not None:
            self._copies.blank(places)
        self._gone += len(known)
        # What goes is mostly the oldest, merged into the tail. No gap is longer than all together.
        span = self._slots[self._first : min(self._first + self._gone + 1, self._stop)]
        skipped = int((span != _GONE).argmax()) if len(self) else len(span)
        # In this order, a length that is asked for meanwhile is never below what it was or will be.
        self._gone -= skipped
        self._first += skipped
        if self._gone + self._first > max(self._most_copied or _BLOCK_ROWS, len(self)):
            self._close_gaps()
        if self._copies is None and 2 * (self._stop - self._first) <= self._most_copied:
            self._close_gaps()

    def _close_gaps(self) -> None:
        """Move what is here to the front, and give back what a large head has taken."""
        here = np.flatnonzero(self._slots[self._first : self._stop] != _GONE) + self._first
        self._slots, self._norms = self._slots[here], self._norms[here]
        self._place_of[self._slots] = np.arange(len(here), dtype=np.int32)
        self._gone, self._first, self._stop = 0, 0, len(here)
        self._copies = None
        if len(here) <= self._most_copied and self._most_copied:
            self._copies = HeadRows(self._metric, self._dim)
            self._copies.put(0, self._source.view()[self._slots], self._norms)

    def oldest(self, count: int) -> Slots:
        """The first slots that are here, at most `count`."""
        span = self._slots[self._first : min(self._first + count + self._gone, self._stop)]
        return (span[span != _GONE] if self._gone else span)[:count].copy()

    # -- searching --------------------------------------------------------------------------------

    def listed(self, allowed: Mask | None) -> Slots:
        """The slots that are here and allowed, in their order."""
        # The end first, then the array: they only ever grow beside this.
        stop = self._stop
        slots = self._slots[self._first : stop]
        if self._gone:
            slots = slots[slots != _GONE]
        if allowed is not None:
            slots = slots[slots < len(allowed)]
            slots = slots[allowed[slots]]
        return slots

    def mask(self, size: int) -> Mask:
        """The slots below `size` that are here, shape (<= size,)."""
        here: Mask = self._place_of[:size] != _GONE
        return here

    def nearer(
        self, queries: Float32Matrix, floor: NDArray[np.float32]
    ) -> tuple[NDArray[np.intp], Slots] | None:
        """What is at least as near as the floor, and perhaps a little that is not, in one call.

        Args:
            queries, floor: as in `better`.

        Returns:
            Numbers of queries, and slots, in no order; None where only `better` can tell.
        """
        # The end first, then the arrays: they only ever grow beside this.
        stop = self._stop
        if self._copies is None:
            return None
        near = self._copies.nearer(queries, floor, self._first, stop)
        return None if near is None else (near.queries, self._slots[near.places])

    def better(
        self,
        queries: Float32Matrix,
        floor: NDArray[np.float32],
        allowed: Mask | None,
        limit: int | None,
    ) -> tuple[NDArray[np.intp], Slots]:
        """What is at least as near as the floor, and perhaps a little that is not.

        Args:
            queries: shape (n, dim), raw.
            floor: a score for each query, in the metric's own unit, shape (n,).
            allowed: where given, only slots that are True there take part.
            limit: most rows to score, the newest.

        Returns:
            Numbers of queries, and slots, in no order.
        """
        kernel = kernel_for(self._metric, queries)
        at_least = kernel.from_metric(floor)
        rows_found: list[NDArray[np.intp]] = []
        slots_found: list[Slots] = []
        for rows, slots, norms in self._blocks(limit, allowed):
            with np.errstate(invalid="ignore", over="ignore"):
                scores = kernel.scores(rows, norms)
            # A bound of float64, compared in float32, must not be rounded up.
            cut = kernel.reach(at_least, float(norms.max())).astype(np.float32)
            taken = np.flatnonzero(scores >= np.nextafter(cut, np.float32(-np.inf)))
            if len(taken):
                position, row = np.divmod(taken, len(queries))
                rows_found.append(row)
                slots_found.append(slots[position])
        if not rows_found:
            return np.empty(0, np.intp), np.empty(0, np.int64)
        return np.concatenate(rows_found), np.concatenate(slots_found)

    def _blocks(
        self, limit: int | None, allowed: Mask | None
    ) -> Iterator[tuple[Float32Matrix, Slots, NDArray[np.float64]]]:
        """Rows to score, their slots and norms."""
        # The end first, then the arrays: they only ever grow while this runs.
        stop = self._stop
        first = self._first if limit is None else max(self._first, stop - limit)
        slots, norms = self._slots, self._norms
        view = self._source.view()
        for start in range(first, stop, _BLOCK_ROWS):
            some = slice(start, min(start + _BLOCK_ROWS, stop))
            block, block_norms = slots[some], norms[some]
            if self._gone or allowed is not None:
                taking_part = block != _GONE
                if allowed is not None:
                    taking_part &= block < len(allowed)
                    taking_part[taking_part] = allowed[block[taking_part]]
                block, block_norms = block[taking_part], block_norms[taking_part]
            if not len(block):
                continue
            low = int(block[0])
            if int(block[-1]) - low == len(block) - 1 and (np.diff(block) == 1).all():
                rows = view[low : low + len(block)]
            else:
                rows = view[block]
            yield rows, block, block_norms.astype(np.float64)
