"""Masks of recent filters, while the attributes stay as they are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final, Protocol

from pyrope.engine.columns import AttributeColumns
from pyrope.types import Mask

MAX_BYTES: Final = 16 * 1024 * 1024
"""160 masks of an index of 100,000 vectors."""
_ENTRY_BYTES: Final = 400
"""Beside the mask: key, dictionary entry, array object (CPython 3.11, NumPy 2)."""


class _Masker(Protocol):
    @property
    def text(self) -> str: ...

    def mask(self, columns: AttributeColumns, slots: int) -> Mask: ...


class MaskCache:
    """The least recently used masks over one `AttributeColumns`, bounded in bytes.

    A change of the columns makes every mask worthless, so the cache drops them all as soon as it
    sees a new version. Safe for any number of threads; masks are computed outside the lock, so two
    threads that miss at the same time both compute.
    """

    def __init__(self, columns: AttributeColumns, max_bytes: int = MAX_BYTES) -> None:
        self._columns = columns
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._version = columns.version
        self._masks: OrderedDict[str, Mask] = OrderedDict()
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        """Estimate of the memory held, in bytes."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._masks)

    def mask(self, compiled: _Masker, slots: int) -> Mask:
        """What ``compiled.mask(columns, slots)`` returns, but read-only and perhaps not new."""
        text = compiled.text
        with self._lock:
            version = self._columns.version
            if version != self._version:
                self._masks.clear()
                self._bytes = 0
                self._version = version
            mask = self._masks.get(text)
            if mask is not None and len(mask) == slots:
                self._masks.move_to_end(text)
                return mask
        mask = compiled.mask(self._columns, slots)
        mask.flags.writeable = False
        with self._lock:
            if self._version == version == self._columns.version:
                self._keep(text, mask)
        return mask

    def _keep(self, text: str, mask: Mask) -> None:
        cost = _cost(text, mask)
        if cost > self._max_bytes:
            return
        former = self._masks.pop(text, None)
        if former is not None:
            self._bytes -= _cost(text, former)
        self._masks[text] = mask
        self._bytes += cost
        while self._bytes > self._max_bytes:
            oldest, dropped = self._masks.popitem(last=False)
            self._bytes -= _cost(oldest, dropped)


def _cost(text: str, mask: Mask) -> int:
    return mask.nbytes + 4 * len(text) + _ENTRY_BYTES
