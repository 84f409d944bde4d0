"""The head of hnswlib's native file, read without loading it.

`saveIndex` of hnswlib 0.8.0 writes its fields as they lie in memory (little-endian, 64-bit), then
the elements of level 0: link count, links, vector, label; then the links of the upper levels.
`loadIndex` believes it all, so whatever does not fit the index's definition is found here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyrope.engine.base import DamagedIndexError
from pyrope.types import Float32Matrix, Slots

_HEAD = struct.Struct("<6Q i I 3Q d Q")


@dataclass(frozen=True, slots=True)
class GraphHead:
    """What a file holds.

    Attributes:
        labels: int64, shape (n,): slot of each element.
        vectors: float32, shape (n, dim), a view of the file: as the graph keeps them.
    """

    labels: Slots
    vectors: Float32Matrix


def read_head(path: str, dim: int, m: int, ef_construction: int) -> GraphHead:
    """Labels and vectors of a saved graph.

    Raises:
        OSError: the file cannot be read.
        DamagedIndexError: it is cut short, or of another dimension, `m` or `ef_construction`.
    """
    with Path(path).open("rb") as file:
        head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise DamagedIndexError(f"'{path}' ends within its head")
    (links_at, _, count, stride, label_at, vector_at, _, entry, *rest) = _HEAD.unpack(head)
    upper_links, links, own_m, _, own_ef_construction = rest
    expected_vector_at = 4 + 8 * m
    expected_stride = expected_vector_at + 4 * dim + 8
    if (links_at, vector_at, label_at, stride, upper_links, links, own_m) != (
        0,
        expected_vector_at,
        expected_stride - 8,
        expected_stride,
        m,
        2 * m,
        m,
    ) or own_ef_construction != max(ef_construction, m):
        raise DamagedIndexError(f"'{path}' is not a graph of dimension {dim} with M {m}")
    # Each element has four bytes behind the last one, at least.
    if Path(path).stat().st_size < _HEAD.size + count * (stride + 4):
        raise DamagedIndexError(f"'{path}' is shorter than its {count} elements")
    element = np.dtype(
        {
            "names": ["vector", "label"],
            "formats": [(np.float32, (dim,)), np.int64],
            "offsets": [vector_at, label_at],
            "itemsize": stride,
        }
    )
    if count == 0:
        return GraphHead(np.empty(0, np.int64), np.empty((0, dim), np.float32))
    elements = np.memmap(path, element, "r", _HEAD.size, (count,))
    labels: Slots = np.array(elements["label"])
    if entry >= count or labels.min() < 0 or len(np.unique(labels)) != count:
        raise DamagedIndexError(f"'{path}' has a label twice, or one that is no slot, or no entry")
    return GraphHead(labels, elements["vector"])
