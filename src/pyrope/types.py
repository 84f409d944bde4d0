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


class CacheLevel(StrEnum):
    """Ways in which a search may be answered without one; see docs/caching.md.

    EXACT: the same search again. ALIAS: another name of one. QUANTIZED, CLUSTER: one near by, found
    by the signs of projections or by the nearest centroid. PREFETCH: one that was foreseen.
    """

    EXACT = "EXACT"
    ALIAS = "ALIAS"
    QUANTIZED = "QUANTIZED"
    CLUSTER = "CLUSTER"
    PREFETCH = "PREFETCH"


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """What the caches of an index may do.

    Attributes:
        levels: those that are on.
        ttl_s: seconds that an answer is kept before heat or cold change it; 0: for ever.
        max_bytes: bytes that its answers may take; 0: no limit but the tenant's and the server's.
        candidates: neighbours kept with an answer that serves near queries; 0: the setting.
        min_recall: least recall of a near hit for a search that does not say; 0: no near hits.
        certified: whether that counts only what is proven.
        hot_writes: writes to a cluster in the window from which its answers live shorter; 0:
            derived from the index's write rate.
        max_error: share of wrong answers that a recall puts up with which does not say; None: the
            setting.
        guards_off: guards that refuse nothing.
        shadow: recalls are counted as if they were answered, and are not.
        remember_ttl_s: seconds that a remembered response lives which does not say; 0: for ever;
            None: the setting.
        sliding: whether a hit renews the life of a remembered response.
        remember_bytes: bytes that remembered responses may take; 0: no limit but the settings'.
        scope_fields: fields that a scope may have; empty: any.
    """

    levels: frozenset[CacheLevel] = frozenset(CacheLevel)
    ttl_s: float = 3600.0
    max_bytes: int = 0
    candidates: int = 0
    min_recall: float = 0.0
    certified: bool = False
    hot_writes: float = 0.0
    max_error: float | None = None
    guards_off: frozenset[str] = frozenset()
    shadow: bool = False
    remember_ttl_s: float | None = None
    sliding: bool = False
    remember_bytes: int = 0
    scope_fields: frozenset[str] = frozenset()


DEFAULT_POLICY = CachePolicy()


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
        cache: what its caches may do.
        embedder: name, model and version of what makes its vectors of texts, as in
            ``wordllama:256:0123456789ab``; empty: texts are not embedded.
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
    cache: CachePolicy = DEFAULT_POLICY
    embedder: str = ""
