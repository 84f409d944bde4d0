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
    """How an index is searched; see `pyrope.engine.factory` for what stands behind each name.

    FLAT: full scans. HNSW: a graph over float32 vectors. HNSW_SQ8: a graph over 8-bit codes,
    re-ranked in float32. IVF_FLAT: inverted lists of float32 vectors. IVF_PQ: inverted lists of
    product-quantised codes, re-ranked in float32. AUTO: FLAT while that is cheaper, then a graph.
    """

    FLAT = "FLAT"
    HNSW = "HNSW"
    HNSW_SQ8 = "HNSW_SQ8"
    IVF_FLAT = "IVF_FLAT"
    IVF_PQ = "IVF_PQ"
    AUTO = "AUTO"

    @property
    def has_lists(self) -> bool:
        return self in (IndexType.IVF_FLAT, IndexType.IVF_PQ)


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
        nlist: inverted lists; 0: chosen by the number of vectors when they are trained.
        nprobe: lists visited by a search that does not say; 0: a share of the lists.
        pqm: segments that a vector is cut into for product quantisation; divides `dim`; 0: chosen
            by `dim`.
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
    nlist: int = 0
    nprobe: int = 0
    pqm: int = 0
