"""What calls return: frozen records. Those of maps keep what they do not name in `more`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from pyrope.types import CacheLevel, IndexType, Metric

IdT = TypeVar("IdT", str, bytes)


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """An index, as VECTOR.INFO has it.

    Attributes:
        active_type: what an index of the type AUTO is at the moment; else as `type`.
        head_count: vectors that wait to be merged into the graph or the lists.
        ef, nprobe, m, ef_construction, nlist, pqm: in force; 0: not chosen yet, or none.
        epoch: writes so far.
        embedder: None: texts are not embedded.
        created_at: Unix time in seconds.
    """

    name: str
    tenant: str
    dim: int
    metric: Metric
    type: IndexType
    active_type: IndexType
    count: int
    deleted: int
    head_count: int
    memory_bytes: int
    ef: int
    nprobe: int
    m: int
    ef_construction: int
    nlist: int
    pqm: int
    epoch: int
    cache_levels: frozenset[CacheLevel]
    cache_entries: int
    cache_bytes: int
    embedder: str | None
    created_at: int
    more: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Element(Generic[IdT]):
    """What is stored under an id.

    Attributes:
        attributes: None: it has none.
        vector: shape (dim,), float32, the caller's own; None: it was not asked for.
        ttl_s: seconds until it expires; None: it does not.
    """

    id: IdT
    attributes: dict[str, Any] | None
    vector: NDArray[np.float32] | None
    ttl_s: int | None


@dataclass(frozen=True, slots=True)
class Page(Generic[IdT]):
    """Some of the ids of an index.

    Attributes:
        cursor: of the next page; 0: there is none.
    """

    cursor: int
    ids: list[IdT]


@dataclass(frozen=True, slots=True)
class Hit(Generic[IdT]):
    """A vector found.

    Attributes:
        score: cosine, inner product or Euclidean distance, as the index's metric says.
        attributes: None: it has none, or they were not asked for.
    """

    id: IdT
    score: float
    attributes: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What was changed of the effort that was asked for.

    Attributes:
        reason: ``ceiling``, ``pressure``, ``spent`` or ``latency``.
        before, after: by name of the option.
    """

    reason: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SearchInfo:
    """How an answer came about; see docs/wire.md, *Search*.

    Attributes:
        cache: ``miss``, ``exact``, ``alias``, ``quantized``, ``cluster``, ``prefetch`` or ``off``.
        repaired: whether a kept answer had to catch up with writes.
        certified_recall: what is proven; 1: as a full scan.
        estimated_recall: a lower bound from audits; None: nothing has measured it.
        cost, cost_saved: in cost units.
        direction: ``higher`` or ``lower`` scores are nearer.
        ef, nprobe, max_scans: in force; None: the type has no such thing, or there is no bound.
        adjustment: None: the effort is what was asked for.
        latency_us: microseconds by stage; ``total`` is all of it.
    """

    cache: str
    repaired: bool
    certified_recall: float
    estimated_recall: float | None
    cost: float | None
    cost_saved: float | None
    metric: Metric
    direction: str
    ef: int | None
    nprobe: int | None
    max_scans: int | None
    adjustment: Adjustment | None
    request_id: str
    latency_us: Mapping[str, int]
    more: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SearchResult(Generic[IdT]):
    """Hits, the nearest first. As long, and with the same items, as `hits`.

    Attributes:
        info: None: it was not asked for.
    """

    hits: tuple[Hit[IdT], ...]
    info: SearchInfo | None = None

    @property
    def ids(self) -> list[IdT]:
        return [hit.id for hit in self.hits]

    @property
    def scores(self) -> NDArray[np.float32]:
        """Shape (hits,)."""
        return np.array([hit.score for hit in self.hits], dtype=np.float32)

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit[IdT]]:
        return iter(self.hits)

    @overload
    def __getitem__(self, position: int) -> Hit[IdT]: ...

    @overload
    def __getitem__(self, position: slice) -> tuple[Hit[IdT], ...]: ...

    def __getitem__(self, position: int | slice) -> Hit[IdT] | tuple[Hit[IdT], ...]:
        return self.hits[position]


SearchResults: TypeAlias = list[SearchResult[IdT]]


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What the caches of an index did and hold.

    Attributes:
        hits_by_level: by the names that `SearchInfo.cache` has.
        repairs: answers that had to catch up with writes.
        evicted: answers that went, by reason.
        remembered: the same of remembered responses; see docs/remembered.md.
    """

    levels: frozenset[CacheLevel]
    entries: int
    nbytes: int
    hits: int
    misses: int
    hit_ratio: float
    hits_by_level: Mapping[str, int]
    repairs: int
    evicted: Mapping[str, int]
    remembered: Mapping[str, Any]
    more: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Alias:
    """A query that stands for another one. Each is a text, or a vector of shape (dim,), float32.

    Attributes:
        source: ``manual``, ``rule`` or ``llm``.
        suspended: whether audits found nothing alike, so that it is not followed.
        ttl_s: seconds until it expires; None: it does not.
    """

    alias: str | NDArray[np.float32]
    canonical: str | NDArray[np.float32]
    confidence: float
    source: str
    hits: int
    suspended: bool
    ttl_s: int | None


@dataclass(frozen=True, slots=True, eq=False)
class AliasPage:
    """Some of the aliases of an index.

    Attributes:
        cursor: of the next page; 0: there is none.
    """

    cursor: int
    aliases: list[Alias]


@dataclass(frozen=True, slots=True)
class ClusterAdvice:
    """What a language model has said about a cluster.

    Attributes:
        nature: of what is asked there, such as ``volatile``.
        ttl_factor, value_factor: by which the TTL and the worth of answers are multiplied.
        confidence: from 0 to 1.
        expires_s: seconds until it is no longer in force.
    """

    nature: str
    ttl_factor: float
    value_factor: float
    confidence: float
    expires_s: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """Vectors that lie together.

    Attributes:
        size: vectors, by a sample; None: not known.
        writes: in the window.
        ttl_s: in force, of answers there.
        threshold: writes from which it is hot.
        advice: None: nothing is in force.
    """

    id: int
    size: int | None
    writes: int
    ttl_s: float
    threshold: float
    advice: ClusterAdvice | None


@dataclass(frozen=True, slots=True)
class NearestCluster:
    """The cluster of a vector.

    Attributes:
        score: cosine (COSINE) or Euclidean distance to its centroid; None: there are none.
    """

    id: int
    score: float | None


@dataclass(frozen=True, slots=True)
class ClusterTtl:
    """How long answers about a vector are kept, and why. A time of 0 has no end."""

    id: int
    base_ttl_s: float
    ttl_s: float
    writes: int
    threshold: float


@dataclass(frozen=True, slots=True)
class TenantUser:
    """Somebody of a tenant. Times are Unix time in seconds; None: no end, or no such key."""

    name: str
    role: str
    key_expires_at: float | None
    former_key_expires_at: float | None


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant. Times as in `TenantUser`.

    Attributes:
        limits: by the wire's words in lower case, such as ``maxvectors``; None: no limit.
    """

    name: str
    created_at: float
    key_expires_at: float | None
    former_key_expires_at: float | None
    users: tuple[TenantUser, ...]
    limits: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tenant has used in a month of UTC; money in cost units.

    Attributes:
        period: ``yyyy-mm``.
        budget, remaining: None: there is no limit.
        answers: by where they came from, in the names of `SearchInfo.cache`.
        used: of the budget: `compute_units` and `llm_cost`.
    """

    tenant: str
    period: str
    budget: float | None
    remaining: float | None
    requests: int
    hits: int
    misses: int
    answers: Mapping[str, int]
    used: float
    compute_units: float
    llm_tokens_in: int
    llm_tokens_out: int
    llm_cost: float
    embeddings: int
    refused_quota: int
    refused_budget: int
    vectors: int
    nbytes: int
    cache_bytes: int
    more: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class LlmStatus:
    """What the worker that asks a language model does and has done, for all tenants together.

    Attributes:
        state: ``off``, ``idle``, ``running``, ``paused``, ``throttled``, ``open`` or ``stopped``.
        cost: in cost units.
    """

    enabled: bool
    provider: str
    model: str
    state: str
    queued: int
    running: int
    succeeded: int
    failed: int
    retried: int
    dropped: int
    rate_limited: int
    budget_dropped: int
    tokens_in: int
    tokens_out: int
    cost: float
    last_error: str
    more: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made.

    Attributes:
        path: where it is, on the server's host.
        indexes, files, nbytes: in it.
        seconds: that it took.
        stall_us: microseconds for which it held up commits.
    """

    path: str
    indexes: int
    files: int
    nbytes: int
    seconds: float
    stall_us: int


@dataclass(frozen=True, slots=True)
class BackupStatus:
    """How far a backup is.

    Attributes:
        path: where it, or else the last one, goes; empty: there was none.
        done_bytes, total_bytes: of it.
        last_at: Unix time in seconds that the last one is of; 0: there was none.
        last_error: why the last one failed; empty: it did not.
    """

    running: bool
    path: str
    done_bytes: int
    total_bytes: int
    last_at: float
    last_error: str


@dataclass(frozen=True, slots=True)
class Lease:
    """One caller's turn to ask the language model, while others wait for what it remembers.

    It ends with its time, with a response to its prompt, and with the connection it came by.
    """

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NearestMiss:
    """The nearest prompt that was not near enough.

    Attributes:
        score: cosine.
        estimated_error: share of wrong answers at such hits, from above.
        refused_by: a guard, ``feedback``, or None: the score or the error was not good enough.
    """

    id: str
    prompt: str
    score: float
    estimated_error: float
    refused_by: str | None


@dataclass(frozen=True, slots=True)
class RecallInfo:
    """How a response was found, or why not; see docs/wire.md, *Remembered responses*.

    Attributes:
        id: of what was found, for feedback; None: nothing was.
        match: ``exact``, ``alias`` or ``near``; None: nothing was found.
        prompt: that was found.
        score: cosine of the two prompts.
        estimated_error: share of wrong answers at such hits, from above.
        threshold, max_error: which of them was in force.
        guard: that refused the nearest prompt.
        nearest: None: something was found, or nothing is near.
        age_s: of the response.
        shadow: whether it was found, and not told, because the index is only to count.
        tokens_saved, cost_saved: about, and in cost units.
        lease: None: none was wanted, or somebody else has it.
        waited_s: for what another caller remembers.
    """

    id: str | None
    match: str | None
    prompt: str | None
    score: float | None
    estimated_error: float | None
    threshold: float | None
    max_error: float | None
    guard: str | None
    nearest: NearestMiss | None
    age_s: float | None
    shadow: bool
    tokens_saved: int
    cost_saved: float
    lease: Lease | None
    waited_s: float
    request_id: str
    latency_us: int
    more: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Recalled:
    """What is remembered of a prompt.

    Attributes:
        response: None: nothing that may be served.
        info: None: it was not asked for.
    """

    response: bytes | None
    info: RecallInfo | None = None

    @property
    def text(self) -> str | None:
        """The response as text; bytes that are no UTF-8 as PEP 383 has it."""
        return None if self.response is None else self.response.decode("utf-8", "surrogateescape")

    @property
    def lease(self) -> Lease | None:
        """The caller's turn to ask the language model."""
        return None if self.info is None else self.info.lease
