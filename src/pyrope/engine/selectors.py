"""Which of its vectors a FAISS search may return, as a bit each."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from pyrope.types import Mask

_faiss: Any = faiss


def selector_of(mask: Mask) -> Any:
    """An `IDSelectorBitmap` that lets ids through for which the mask is True.

    Ids beyond the mask do not pass. It holds bits of its own, so that the mask may change
    afterwards, and lives as long as search parameters that it was put into (as `sel`).

    Args:
        mask: by id, shape (n,).
    """
    # The constructor for arrays keeps a reference to the bits.
    return _faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
