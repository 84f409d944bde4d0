"""The nouns that every room shares: metrics, index types, the definition of an index."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Float32Matrix = NDArray[np.float32]
"""Shape (n, dim) unless the docstring says otherwise, C-contiguous."""

Slots = NDArray[np.int64]
"""Shape (n,). A slot is the number of a vector's row: in the vector file, in the engine (its
label) and in every bitmap and attribute column. Slots of deleted vectors are used again."""

Mask = NDArray[np.bool_]
"""Shape (slots,). True where a slot takes part."""


class Metric(StrEnum):
    """How two vectors are scored. COSINE: cosine; IP: inner product; L2: Euclidean distance."""

    COSINE = "COSINE"
    IP = "IP"
    L2 = "L2"

    @property
    def higher_is_nearer(self) -> bool:
        return self is not Metric.L2


class IndexType(StrEnum):
    FLAT = "FLAT"
    HNSW = "HNSW"


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """What `VECTOR.CREATE` fixes, and what `VECTOR.ALTER` may change by replacing the record.

    Attributes:
        uid: number that names this index's files and records; never used twice.
        tenant: the tenant that owns it.
        name: unique within the tenant, ``[A-Za-z0-9_.-]{1,128}``.
        dim: dimension of its vectors.
        m: links a node keeps on the upper levels of a graph (twice that on level 0).
        ef_construction: candidates considered while a node is linked.
        ef: candidates considered by a search that does not say.
        created_at: Unix time in seconds.
    """

    uid: int
    tenant: str
    name: str
    dim: int
    metric: Metric
    type: IndexType
    m: int
    ef_construction: int
    ef: int
    created_at: float
